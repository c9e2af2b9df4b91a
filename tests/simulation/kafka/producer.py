"""A double of `confluent_kafka.Producer`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, Message, murmur2

from tests.simulation.kafka.answers import list_topics
from tests.simulation.kafka.cluster import Cluster
from tests.simulation.kafka.faults import as_error
from tests.simulation.kafka.virtual_time import INF

TRY_AGAIN: Final = 0.1
"""Seconds until a record that no broker took is tried again."""

OnDelivery = Callable[[KafkaError | None, Message], object]
Headers = Sequence[tuple[str, bytes | None]]


@attrs.define(eq=False)
class Queued:
    """A record that has no report yet."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int
    on_delivery: OnDelivery | None
    until: float
    """When it fails unless it was written."""


class SimulatedProducer:
    """A producer to a `Cluster`. Records are written in the order of `produce`; reports come in `poll` and `flush`.

    Args:
        cluster: The brokers.
        config: As for `confluent_kafka.Producer`. What counts is `queue.buffering.max.messages`, `message.max.bytes`
            and `error_cb`. The partitioner is Java's.
        host: Whose client it is: what is cut off or stopped together.
    """

    def __init__(self, cluster: Cluster, config: Mapping[str, Any], host: str = "") -> None:
        self.config = dict(config)
        self.host = host
        self.fatal: KafkaError | None = None
        self._cluster = cluster
        self._time = cluster.time
        self._most = int(config.get("queue.buffering.max.messages", 100_000))
        self._largest = int(config.get("message.max.bytes", 1_000_000))
        self._timeout = int(config.get("delivery.timeout.ms", 300_000)) / 1000
        self._tries_again = False
        self._queue: deque[Queued] = deque()
        self._reports: deque[tuple[Queued, KafkaError | None, int, int]] = deque()
        self._said: deque[KafkaError] = deque()
        cluster.producers.append(self)

    # -- for tests ------------------------------------------------------------------------------------

    def say(self, error: int | KafkaError) -> None:
        """Have `error_cb` called with an error in the next poll; a fatal one is raised, and ends this producer."""
        self._said.append(as_error(error))

    # -- as the binding -------------------------------------------------------------------------------

    def produce(
        self,
        topic: str,
        value: bytes | str | None = None,
        key: bytes | str | None = None,
        partition: int = -1,
        callback: OnDelivery | None = None,
        on_delivery: OnDelivery | None = None,
        timestamp: int = 0,
        headers: Headers | Mapping[str, bytes] | None = None,
    ) -> None:
        """Queue a record."""
        self._time.enter(self.host)
        if self.fatal is not None:
            raise KafkaException(KafkaError(KafkaError._FATAL, self.fatal.str(), True))
        raw_key, raw = (text.encode() if isinstance(text, str) else text for text in (key, value))
        if len(self) >= self._most:
            raise BufferError("Local: Queue full")
        if len(raw or b"") + len(raw_key or b"") > self._largest:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        known = self._cluster.topics.get(topic)
        if partition < 0 and known is not None:
            partition = murmur2(raw_key or b"", len(known.partitions))
        error = self._cluster.faults.take("produce", self.host, (topic, partition))
        if error is not None:
            if error.code() == KafkaError._QUEUE_FULL:
                raise BufferError(error.str())
            raise KafkaException(error)
        given = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
        at = timestamp or int(self._time.wall() * 1000)
        until = self._time.now + self._timeout
        self._queue.append(Queued(topic, partition, raw_key, raw, given, at, callback or on_delivery, until))
        if self._cluster.latency:
            self._time.at(self._cluster.latency, self._write)
        else:
            self._write()

    def _write(self) -> None:
        """Write what is queued. A record that is older than its latency waits for none that is younger."""
        while self._queue and self._cluster.reachable(self.host):
            record = self._queue[0]
            place = (record.topic, record.partition)
            if place in self._cluster.leaderless:
                break
            self._queue.popleft()
            log = self._cluster.find(place)
            error = self._cluster.faults.take("write", self.host, place)
            if log is None and error is None:
                error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
            if log is None or error is not None:
                self._report(record, error)
                continue
            at = log.append(record.key, record.value, record.headers, record.timestamp).offset
            self._cluster.note(self.host, "written", *place, at)
            lost = self._cluster.faults.take("acknowledge", self.host, place)
            self._report(record, lost, OFFSET_INVALID if lost is not None else at)
        while self._queue and self._time.now >= self._queue[0].until:
            self._report(self._queue.popleft(), KafkaError(KafkaError._MSG_TIMED_OUT))
        if self._queue and self._cluster.latency and not self._tries_again:
            self._tries_again = True
            self._time.at(TRY_AGAIN, self._again)

    def _again(self) -> None:
        self._tries_again = False
        if self.host not in self._cluster.gone:
            self._write()

    def _report(self, record: Queued, error: KafkaError | None, offset: int = OFFSET_INVALID) -> None:
        if error is not None:
            self._cluster.note(self.host, "not acknowledged", record.topic, record.partition, error.name())
        self._reports.append((record, error, offset, record.timestamp))

    def poll(self, timeout: float | None = None) -> int:
        """Call what there is to be called; how many reports that were."""
        self._time.enter(self.host)
        seconds = INF if timeout is None or timeout < 0 else timeout
        self._time.wait(self._has_some, seconds, self.host, client=True)
        return self._serve()

    def flush(self, timeout: float | None = None) -> int:
        """Wait for all reports; how many are left."""
        self._time.enter(self.host)
        until = self._time.now + (INF if timeout is None or timeout < 0 else timeout)
        while True:
            self._serve()
            if not len(self) or self._time.now >= until:
                return len(self)
            self._time.wait(self._has_some, until - self._time.now, self.host, client=True)

    def _has_some(self) -> bool:
        if self._queue and not self._cluster.latency:
            self._write()
        return bool(self._reports or self._said)

    def _serve(self) -> int:
        if self._queue and not self._cluster.latency:
            self._write()
        while self._said:
            error = self._said.popleft()
            if error.fatal():
                self.fatal = error
                self.purge()
                raise KafkaException(error)
            error_cb = self.config.get("error_cb")
            if error_cb is not None:
                error_cb(error)
        served = 0
        while self._reports:
            record, failure, offset, timestamp = self._reports.popleft()
            served += 1
            if record.on_delivery is not None:
                record.on_delivery(
                    failure,
                    Message(
                        topic=record.topic,
                        partition=record.partition,
                        offset=offset,
                        key=record.key,
                        value=record.value,
                        timestamp=(1, timestamp),
                        error=failure,
                    ),
                )
        return served

    def purge(self, in_queue: bool = True, in_flight: bool = True, blocking: bool = True) -> None:
        """Give up what is queued: the reports say so."""
        self._time.enter(self.host)
        while in_queue and self._queue:
            self._report(self._queue.popleft(), KafkaError(KafkaError._PURGE_QUEUE))

    def list_topics(self, topic: str | None = None, timeout: float = 60.0) -> Any:
        """The topics, and their partitions."""
        return list_topics(self._cluster, self.host, topic, timeout)

    def __len__(self) -> int:
        return len(self._queue) + len(self._reports)
