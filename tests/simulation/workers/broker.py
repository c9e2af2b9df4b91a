"""The simulated cluster, with a log of what it was asked and what it stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import murmur2

from kafka_notify import Topology
from kafka_notify._partition.commit_metadata import decode_metadata
from kafka_notify.testing.attempt_log import Committed, Copied, Line
from kafka_notify.testing.guarantees import Letter, LogEnds, Observation, SourceRecord
from kafka_notify.wire import identity, read_dead_letter, read_retry
from tests.simulation.kafka import Cluster, VirtualTime
from tests.simulation.kafka.log import Record


class Broker(Cluster):
    """A cluster that tells of each copy and each commit of a partition pair, when it has stored it.

    Args:
        time: Its time.
        topology: Names its topics.
        names: Names of lane and consumer.
        told: Called with each line.
    """

    def __init__(
        self, time: VirtualTime, topology: Topology, names: tuple[str, str], told: Callable[[Line], object]
    ) -> None:
        super().__init__(time)
        lane, consumer = names
        self.source, self.retry = topology.source_topic(lane), topology.retry_topic(lane, consumer)
        self.dlq, self.group_name = topology.dlq_topic(lane), topology.group(lane, consumer)
        self._told = told
        self._spills: dict[tuple[int, int], tuple[str, bytes | None]] = {}
        self._known: dict[int, tuple[Any, ...]] = {}
        self.traced: Callable[[str], object] = lambda line: None

    def note(self, *what: Any) -> None:
        """Trace a line of the journal; tell of what is judged."""
        self.time.touch()
        self.traced(" ".join(map(str, what)))
        if what[1] == "written" and what[2] == self.retry:
            self._copied(what[3], what[4])
        elif what[1] == "committed" and what[2] == self.retry:  # the second half of a pair
            self._committed(what[3])

    def produce(self, id: str, user: str) -> tuple[int, int]:
        """Store a notification in the source topic, and return its partition and offset."""
        partition = murmur2(user.encode(), len(self.topics[self.source].partitions))
        headers: list[tuple[str, bytes | None]] = [
            ("notif-schema", b"1"), ("notif-id", id.encode()), ("notif-category", b"news"),
            ("notif-channel", b"sms"),
        ]  # fmt: skip
        return partition, self.append(self.source, b"{}", user.encode(), headers, partition).offset

    def _copied(self, partition: int, offset: int) -> None:
        record = self.log(self.retry, partition).next(offset)
        assert record is not None
        state = read_retry(_headers(record), self.source, partition)
        if state is not None and state.is_spill:
            self._spills[partition, offset] = (state.writer, record.value)
        elif state is not None:
            origin = state.origin.offset
            id, _ = identity(_headers(record), self.source, partition, origin, record.timestamp)
            self._told(
                Copied(partition, offset, origin, id, state.history.attempts, state.due_ms, state.writer)
            )

    def _committed(self, partition: int) -> None:
        kept = [self.group(self.group_name).offsets[topic, partition] for topic in (self.source, self.retry)]
        done, retry = (
            decode_metadata(half.offset, half.metadata, self.group_name, topic, partition)
            for topic, half in zip((self.source, self.retry), kept, strict=True)
        )
        if retry.wide is not None and retry.wide.spill is not None:
            retry = retry.with_spill(*self._spills.get((partition, retry.wide.spill.offset), ("", None)))
        fence = retry.fence
        fields = (
            done.frontier, done.gaps.decode(), retry.frontier, retry.gaps.decode(),
            fence.end if fence else 0, fence.writer if fence else "",
        )  # fmt: skip
        if self._known.get(partition) != fields:
            self._known[partition] = fields
            self._told(Committed(partition, *fields))

    # -- in the end -----------------------------------------------------------------------------------

    def caught_up(self) -> bool:
        """Whether all of source and retry topic is committed."""
        offsets = self.group(self.group_name).offsets
        return all(
            (kept := offsets.get((topic, n))) is not None and kept.offset == log.end
            for topic in (self.source, self.retry)
            for n, log in enumerate(self.topics[topic].partitions)
        )

    def dead(self) -> set[tuple[int, int]]:
        """Partition and offset of what has a dead letter."""
        return {(letter.partition, letter.origin) for letter in self._letters()}

    def final(self) -> Iterator[Observation]:
        """The records of source and dead-letter topic, and the ends of the partitions."""
        for n, log in enumerate(self.topics[self.source].partitions):
            for record in log:
                yield SourceRecord(n, record.offset, record.key, record.value, record.headers)
        yield from self._letters()
        for n, log in enumerate(self.topics[self.source].partitions):
            yield LogEnds(n, log.end, self.log(self.retry, n).end)

    def _letters(self) -> Iterator[Letter]:
        for record in self.records(self.dlq):
            state = read_dead_letter(_headers(record))
            assert state is not None
            yield Letter(
                state.origin.partition, state.origin.offset, state.reason, state.payload == "redacted",
                state.history.redrives, record.key, record.value, record.headers,
            )  # fmt: skip


def _headers(record: Record) -> list[tuple[str, bytes]]:
    return [(name, value or b"") for name, value in record.headers]
