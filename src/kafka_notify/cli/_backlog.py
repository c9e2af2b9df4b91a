"""The open notifications of a consumer group, seen from outside: offsets, gap bits of commits, and waiting retries.

Joins no group and commits nothing. It sees what a worker has finished, but not what a worker keeps in memory.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, cast

import attrs
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec  # type: ignore[attr-defined]

from kafka_notify._base.names import DEFAULT_CONSUMER, of_retry_topic, tool_group
from kafka_notify._kafka.client_errors import metadata
from kafka_notify._kafka.config import Config, client_config, consumer_config, opened
from kafka_notify._kafka.log_reader import LogReader, asked
from kafka_notify._partition.commit_metadata import Committed, decode_metadata
from kafka_notify._wire import headers as h
from kafka_notify._wire.headers import headers_of
from kafka_notify.topology import Topology
from kafka_notify.wire import identity, read_retry

log = logging.getLogger("kafka_notify.cli")

TIMEOUT: Final = 20.0
_SPEC: Final[Any] = OffsetSpec  # its methods are untyped
LATEST: Final[Any] = _SPEC.latest()
EARLIEST: Final[Any] = _SPEC.earliest()

Place = tuple[str, int]


@attrs.frozen
class Half:
    """One partition of a group's source or retry topic."""

    topic: str
    partition: int
    low: int
    """The first offset that the topic still has."""
    end: int
    committed: Committed | None
    """None if the group has committed nothing yet."""

    @property
    def frontier(self) -> int:
        """The offset below which every record is finished or removed."""
        return max(self.low, self.committed.frontier if self.committed else 0)

    @property
    def lag(self) -> int:
        """The lag as Kafka's own tools define it: from the oldest open record to the end."""
        return self.end - self.frontier

    @property
    def _gaps(self) -> bytes:
        return self.committed.gaps[self.frontier - self.committed.frontier :] if self.committed else b""

    @property
    def open(self) -> int:
        """Records that are not finished, as of the last commit."""
        return self.lag - self._gaps.count(b"1")

    @property
    def taken(self) -> int:
        """Open records below a finished one: a worker has read them, and sends them or keeps them waiting."""
        return self._gaps.count(b"0")

    @property
    def finished(self) -> int:
        """Records finished since the topic was created; two values give a rate."""
        return self.end - self.open

    def covers(self, offset: int) -> bool:
        """Return whether the record at an offset is finished."""
        return offset < self.frontier or (self.committed is not None and self.committed.covers(offset))


@attrs.frozen
class Member:
    """A worker in a group."""

    client_id: str
    host: str
    places: frozenset[Place]


@attrs.frozen
class Group:
    """A consumer group and the partitions of its source and retry topic."""

    lane: str
    consumer: str
    """Name of the consumer; `workers` is the unnamed one."""
    group: str
    state: str
    members: Sequence[Member]
    source: Sequence[Half]
    retry: Sequence[Half]

    @property
    def never_ran(self) -> bool:
        """True if there is no trace of any worker: the consumer may not be meant to work on this lane."""
        return not self.members and not any(half.committed for half in (*self.source, *self.retry))

    @property
    def open(self) -> int:
        """Notifications that are not finished, in the source or the retry topic."""
        return sum(half.open for half in (*self.source, *self.retry))


@attrs.frozen
class Waiting:
    """A notification in a retry topic."""

    due_ms: int
    created_ms: int
    attempts: int
    code: str | None
    written_ms: int = 0
    """The time when its record was written, in epoch ms, from which its retention counts."""


class Backlogs:
    """The backlogs of all groups, asked of the cluster.

    Args:
        config: librdkafka properties.
        topology: Names the topics.
    """

    def __init__(self, config: Config, topology: Topology) -> None:
        self._config = config
        self._topology = topology
        self._admin: Any = opened(AdminClient, client_config(config))  # its futures are untyped
        self._askers: dict[str, Consumer] = {}
        """One consumer per group, which subscribes to nothing and so does not join the group."""
        self._retention: dict[str, int | None] = {}

    def consumers(self) -> list[tuple[str, str]]:
        """Lane and name of each consumer that has a retry topic; "" is the unnamed one."""
        of = (of_retry_topic(self._topology.prefix, topic) for topic in sorted(self.topics()))
        return [each for each in of if each is not None and each[0] in self._topology.lanes]

    def topics(self) -> dict[str, int]:
        """Number of partitions of every topic of the cluster."""
        topics = metadata(self._admin, TIMEOUT).topics
        return {name: len(topic.partitions) for name, topic in topics.items()}

    def group(self, lane: str, consumer: str) -> Group:
        """A group as it is now."""
        topology = self._topology
        group = topology.group(lane, consumer)
        counts = self.topics()
        topics = (topology.source_topic(lane), topology.retry_topic(lane, consumer))
        places = [(topic, n) for topic in topics for n in range(counts.get(topic, 0))]
        right = "Describe", f"group {group}"
        # First, because a missing right is reported at once here; committed offsets are requested until a timeout.
        state, members = asked(lambda: self._members(group), *right)
        # Commits before ends, so that no committed offset is beyond the end.
        committed = asked(lambda: self._committed(group, places), *right)
        ends = self.offsets(places, LATEST)
        lows = self.offsets(places, EARLIEST)
        self._read_spills(committed, lows)
        halves = [Half(*at, lows[at], ends[at], committed[at]) for at in places]
        source, retry = ([half for half in halves if half.topic == topic] for topic in topics)
        return Group(lane, consumer or DEFAULT_CONSUMER, group, state, members, source, retry)

    def offsets(self, places: Iterable[Place], spec: Any) -> dict[Place, int]:
        """The offset that a spec selects in each partition; -1 if there is none."""
        wanted = {TopicPartition(*place): spec for place in places}
        if not wanted:
            return {}

        def ask() -> dict[Place, int]:
            answers = self._admin.list_offsets(wanted, request_timeout=TIMEOUT)
            return {(tp.topic, tp.partition): future.result().offset for tp, future in answers.items()}

        return asked(ask, "Describe", " or ".join(sorted({f"topic {tp.topic}" for tp in wanted})))

    def _committed(self, group: str, places: Sequence[Place]) -> dict[Place, Committed | None]:
        """The committed offsets of a group, asked by a consumer.

        librdkafka 2.16's AdminClient.list_consumer_group_offsets ends the process with a segmentation fault if the
        coordinator moves meanwhile (docs/upstream/list-consumer-group-offsets.md).
        """
        if not places:
            return {}
        asker = self._askers.get(group)
        if asker is None:
            asker = opened(Consumer, consumer_config(self._config, "throughput", group))
            self._askers[group] = asker
        found: dict[Place, Committed | None] = {}
        for tp in asker.committed([TopicPartition(*place) for place in places], timeout=TIMEOUT):
            if tp.error is not None:
                raise KafkaException(tp.error)
            found[tp.topic, tp.partition] = (
                decode_metadata(tp.offset, tp.metadata, group, tp.topic, tp.partition)
                if tp.offset >= 0
                else None
            )
        return found

    def _members(self, group: str) -> tuple[str, list[Member]]:
        (future,) = self._admin.describe_consumer_groups([group], request_timeout=TIMEOUT).values()
        try:
            described = future.result()
        except KafkaException as e:
            if e.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return "none", []
            raise
        members = [
            Member(
                member.client_id,
                member.host,
                frozenset((tp.topic, tp.partition) for tp in member.assignment.topic_partitions),
            )
            for member in described.members
        ]
        state = str(described.state.name).lower().replace("_", " ")
        return "none" if state == "dead" else state, members

    def _read_spills(self, committed: dict[Place, Committed | None], lows: Mapping[Place, int]) -> None:
        """Add the spills: a commit that cannot hold all finished offsets names a record that does."""
        named = {
            at: (half, half.wide.spill)
            for at, half in committed.items()
            if half is not None and half.wide is not None and half.wide.spill is not None
        }
        spans = {
            at: (name.offset, name.offset + 1) for at, (_, name) in named.items() if name.offset >= lows[at]
        }
        for message in self._records(spans):
            at = (message.topic() or "", message.partition() or 0)
            half, name = named[at]
            if message.offset() == name.offset:
                writer = dict(headers_of(message)).get(h.WRITER) or b""
                committed[at] = half.with_spill(writer.decode(errors="replace"), message.value())

    # -- records --------------------------------------------------------------------------------------

    def waiting(self, group: Group, limit: int) -> tuple[list[Waiting], bool]:
        """Waiting notifications of the retry topic, and whether they are all: at most `limit` records are read."""
        halves = {(half.topic, half.partition): half for half in group.retry if half.open}
        source = self._topology.source_topic(group.lane)
        newest: dict[tuple[object, ...], tuple[tuple[int, int, int], Waiting]] = {}
        read = 0
        for message in self._records({at: (half.frontier, half.end) for at, half in halves.items()}):
            if read >= limit:
                break
            read += 1
            number, offset = cast(int, message.partition()), cast(int, message.offset())
            if halves[message.topic() or "", number].covers(offset):
                continue
            headers = headers_of(message)
            state = read_retry(headers, source, number)
            if state is None or state.is_spill:
                continue
            id, created = identity(headers, source, number, state.origin.offset, message.timestamp()[1])
            rank, which = (
                (state.history.redrives, state.history.attempts, offset),
                (number, state.origin.offset, id, created),
            )
            known = newest.get(which)
            if known is None or known[0] < rank:
                written = message.timestamp()[1]
                found = Waiting(
                    state.due_ms, created, state.history.attempts, state.history.error_code, written
                )
                newest[which] = (rank, found)
        return [found for _, found in newest.values()], read < limit

    def oldest_source(self, group: Group) -> tuple[int, int] | None:
        """When the oldest open notification of the source was created, and when the oldest open record was written, in
        epoch ms; None if there is none."""
        spans = {(h.topic, h.partition): (h.frontier, h.frontier + 1) for h in group.source if h.open > 0}
        created: list[int] = []
        written: list[int] = []
        for m in self._records(spans):
            written.append(m.timestamp()[1])
            place = m.topic() or "", m.partition() or 0, m.offset() or 0
            created.append(identity(headers_of(m), *place, written[-1])[1])
        return (min(created), min(written)) if created else None

    def retention(self, topic: str) -> int | None:
        """How long a topic keeps records, in ms; None if its settings may not be read, which is logged once."""
        if topic not in self._retention:
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
            (asked_for,) = self._admin.describe_configs([resource], request_timeout=TIMEOUT).values()
            try:
                self._retention[topic] = int(asked_for.result()["retention.ms"].value)
            except KafkaException as e:
                log.warning(
                    "%s: its retention cannot be read (%s); allow DescribeConfigs on it",
                    topic,
                    e.args[0].name(),
                )
                self._retention[topic] = None
        return self._retention[topic]

    def _records(self, spans: Mapping[Place, tuple[int, int]]) -> Iterator[Any]:
        if not spans:
            return
        with (
            LogReader(self._config, tool_group(self._topology.prefix, "status")) as reader,
            closing(cast(Any, reader.read(spans))) as records,
        ):
            yield from records

    def dead_letters(self, topic: str, since_ms: int) -> tuple[int, int]:
        """The numbers of records in a dead-letter topic: all that it keeps, and those since a time (epoch ms)."""
        places = [(topic, n) for n in range(self.topics().get(topic, 0))]
        ends = self.offsets(places, LATEST)
        lows = self.offsets(places, EARLIEST)
        marks = self.offsets(places, _SPEC.for_timestamp(since_ms))
        recent = sum(ends[at] - marks[at] for at in places if marks[at] >= 0)
        return sum(ends[at] - lows[at] for at in places), recent


def by_code(waiting: Iterable[Waiting]) -> list[tuple[str, int]]:
    """The number of waiting notifications by error code, most frequent first; those behind an earlier one have none."""
    return Counter(each.code for each in waiting if each.code is not None).most_common()
