"""Watches a consumer group from outside: its commits, its copies, and its topics at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from typing_extensions import Self

from kafka_notify._kafka.config import Config
from kafka_notify._kafka.log_extent import log_ends
from kafka_notify._kafka.log_reader import LogReader
from kafka_notify._partition.commit_metadata import decode_metadata
from kafka_notify._wire.headers import headers_of
from kafka_notify.testing.attempt_log import AttemptLog, Committed, Copied
from kafka_notify.testing.guarantees import Letter, LogEnds, Observation, SourceRecord
from kafka_notify.topology import Topology
from kafka_notify.wire import identity, read_dead_letter, read_retry

_REQUEST: Final = 10.0
_INTERVAL: Final = 0.1
_PATIENCE: Final = 60.0
"""Seconds that the last look may wait for the brokers."""


class KafkaWatch:
    """Writes `Copied` and `Committed` lines about ten times a second while its block runs, without joining a group.

    A `Committed` line comes after every copy that was acknowledged before the commit: the commits are fetched first,
    then the ends of the retry topic, and then the retry topic is read up to there.

    Args:
        config: librdkafka properties of the cluster.
        topology: The topology, which names topics and groups.
        lane: Name of the lane.
        log: The log to write to.
        consumer: Name of the consumer.
    """

    def __init__(
        self, config: Config, topology: Topology, lane: str, log: AttemptLog, *, consumer: str = ""
    ) -> None:
        self.source: str = topology.source_topic(lane)
        self.retry: str = topology.retry_topic(lane, consumer)
        self.dlq: str = topology.dlq_topic(lane)
        self.group: str = topology.group(lane, consumer)
        self._config: dict[str, Any] = dict(config)
        self._partitions = range(topology.lane(lane).partitions)
        self._log = log
        self._read = dict.fromkeys(self._partitions, 0)
        self._spills: dict[tuple[int, int], tuple[str, bytes | None]] = {}
        """Writer and value of each spill, by partition and offset."""
        self.named: set[tuple[int, int]] = set()
        """Partition and offset of each spill that a commit has named."""
        self._known: dict[int, tuple[object, ...]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {self.group}", daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Look once more, then stop.

        Raises:
            BaseException: The error that ended the watch early.
        """
        self._stopping.set()
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def final(self) -> Iterator[Observation]:
        """Yield all records of source and dead-letter topic, and the ends of the partitions."""
        with LogReader(self._config, self.group) as reader:
            ends = {
                (topic, n): reader.extent(topic, n)
                for topic in (self.source, self.retry, self.dlq)
                for n in range(reader.partitions(topic))
            }
            for message in reader.read({at: span for at, span in ends.items() if at[0] != self.retry}):
                if message.topic() == self.source:
                    yield self._source_record(message)
                elif letter := self._letter(message):
                    yield letter
            for n in self._partitions:
                yield LogEnds(n, ends[self.source, n][1], ends[self.retry, n][1])

    def _source_record(self, message: Message) -> SourceRecord:
        partition, offset, headers = message.partition(), message.offset(), headers_of(message)
        assert partition is not None
        assert offset is not None
        id, _ = identity(headers, self.source, partition, offset, message.timestamp()[1])
        return SourceRecord(
            partition, offset, _bytes(message.key()), _bytes(message.value()), _headers(headers), id
        )

    def _letter(self, message: Message) -> Letter | None:
        headers = _headers(headers_of(message))
        state = read_dead_letter([(name, value or b"") for name, value in headers])
        if state is None or state.group != self.group:
            return None
        return Letter(
            state.origin.partition,
            state.origin.offset,
            state.reason,
            state.payload == "redacted",
            state.history.redrives,
            _bytes(message.key()),
            _bytes(message.value()),
            headers,
        )

    # -- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        config = {
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "log_level": 2,
            **self._config,
            "group.id": self.group,
        }
        consumer = Consumer(config)
        try:
            consumer.assign([TopicPartition(self.retry, n, 0) for n in self._partitions])
            patience = _PATIENCE
            while True:
                last = self._stopping.wait(_INTERVAL)
                began = time.monotonic()
                try:
                    self._look(consumer)
                    if last:
                        return
                except KafkaException as e:
                    # brokers come and go during the watch, and the last look waits for them, too
                    patience -= time.monotonic() - began + _INTERVAL if last else 0.0
                    if patience > 0:
                        continue
                    if e.args[0].retriable():
                        return
                    raise
        except BaseException as e:
            self._error = e
        finally:
            consumer.close()

    def _look(self, consumer: Consumer) -> None:
        pairs = [TopicPartition(topic, n) for n in self._partitions for topic in (self.source, self.retry)]
        answers = consumer.committed(pairs, timeout=_REQUEST)
        for answer in answers:
            if answer.error is not None:
                raise KafkaException(answer.error)
        found = log_ends(consumer, [(self.retry, n) for n in self._partitions], _REQUEST)
        ends = {n: found[self.retry, n] for n in self._partitions}
        while any(self._read[n] < end for n, end in ends.items()):
            message = consumer.poll(0.5)
            if message is not None:
                self._take(message)
        for source, retry in zip(answers[::2], answers[1::2], strict=True):
            self._note(source, retry)

    def _take(self, message: Message) -> None:
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
                self._read[partition] = max(offset, self._read[partition])
            return
        assert partition is not None
        assert offset is not None
        self._read[partition] = offset + 1
        headers = headers_of(message)
        state = read_retry(headers, self.source, partition)
        if state is not None and state.is_spill:
            value = message.value()
            self._spills[partition, offset] = (state.writer, value if isinstance(value, bytes) else None)
        elif state is not None:
            id, _ = identity(headers, self.source, partition, state.origin.offset, message.timestamp()[1])
            self._log.write(
                Copied(
                    partition,
                    offset,
                    state.origin.offset,
                    id,
                    state.history.attempts,
                    state.due_ms,
                    state.writer,
                )
            )

    def _note(self, source: TopicPartition, retry: TopicPartition) -> None:
        if source.offset < 0 and retry.offset < 0:
            return
        done, kept = (
            decode_metadata(max(tp.offset, 0), tp.metadata, self.group, tp.topic, tp.partition)
            for tp in (source, retry)
        )
        if kept.wide is not None and kept.wide.spill is not None:
            self.named.add((retry.partition, kept.wide.spill.offset))
            kept = kept.with_spill(*self._spills.get((retry.partition, kept.wide.spill.offset), ("", None)))
        fence = kept.fence
        fields = (
            done.frontier, done.gaps.decode(), kept.frontier, kept.gaps.decode(),
            fence.end if fence else 0, fence.writer if fence else "",
        )  # fmt: skip
        if self._known.get(source.partition) != fields:
            self._known[source.partition] = fields
            self._log.write(Committed(source.partition, *fields))


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _headers(headers: Any) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((name, _bytes(value)) for name, value in headers or ())
