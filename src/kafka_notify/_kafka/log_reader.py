"""Reads ranges of topics without joining a group, for the tools for dead letters."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from kafka_notify._kafka.client_errors import metadata, unanswered
from kafka_notify._kafka.clients import LIBRDKAFKA, Clients
from kafka_notify._kafka.config import Config, consumer_config
from kafka_notify._kafka.log_extent import log_ends, log_starts
from kafka_notify._kafka.polling import poll_batch
from kafka_notify._kafka.rights import is_refusal, told
from kafka_notify.errors import NotifyError

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

log = logging.getLogger("kafka_notify.dead_letters")

_OVERLAY: Final[Config] = {
    "fetch.wait.max.ms": 100
}  # the end of a partition is reported when a fetch returns
_BATCH: Final = 500
_REQUEST_SECONDS: Final = 30.0
_SILENCE_SECONDS: Final = 60.0
_ELECTION_SECONDS: Final = 15.0
_PASSING: Final = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._DESTROY_BROKER,
        KafkaError._TRANSPORT,
    }
)


class LogReader:
    """A consumer that assigns its own partitions: it joins no group and commits nothing.

    Args:
        config: librdkafka properties; producer properties are ignored.
        group: The group ID for broker logs and access rules; no such group is created.
        fetches: Properties that decide how much is fetched at once.
        clients: Opens the consumer.

    Raises:
        ConfigError: librdkafka refuses the configuration.
    """

    def __init__(
        self, config: Config, group: str, fetches: Config = _OVERLAY, clients: Clients = LIBRDKAFKA
    ) -> None:
        self._consumer = clients.consumer(consumer_config(config, "throughput", group, fetches))

    def partitions(self, topic: str) -> int:
        """The number of partitions of a topic; 0 if it does not exist."""
        found = metadata(self._consumer, _REQUEST_SECONDS, topic).topics[topic]
        error = found.error
        if error is not None and error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise NotifyError(told(error, "Describe", f"topic {topic}"))
        return len(found.partitions)

    def extent(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset and the offset after the last record, as of now, open transactions included."""
        place = (topic, partition)
        right = "Describe", f"topic {topic}"
        starts = asked(lambda: log_starts(self._consumer, [place], _REQUEST_SECONDS), *right)
        ends = asked(lambda: log_ends(self._consumer, [place], _REQUEST_SECONDS), *right)
        return starts[place], ends[place]

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int | None:
        """The first offset whose record is not older than `time_ms` (epoch milliseconds); None if all are older."""
        place = TopicPartition(topic, partition, max(0, time_ms))
        found = asked(lambda: self._consumer.offsets_for_times([place], _REQUEST_SECONDS))[0]
        if found.error is not None:
            raise NotifyError(f"{topic}[{partition}]: {found.error.name()}: {found.error.str()}")
        return found.offset if found.offset >= 0 else None

    def read(self, stretches: Mapping[tuple[str, int], tuple[int, int]]) -> Iterator[Message]:
        """Yield the records of each (topic, partition) from the first offset up to, but without, the second.

        Partitions come in any order, the records of a partition in offset order. Memory is limited to a few megabytes,
        whatever the length.

        Raises:
            NotifyError: A partition cannot be read, or no broker answers for a minute.
        """
        waiting = {place: end for place, (start, end) in stretches.items() if start < end}
        self._consumer.assign([TopicPartition(*place, stretches[place][0]) for place in waiting])
        heard = time.monotonic()
        while waiting:
            for message in asked(lambda: poll_batch(self._consumer, 1.0, _BATCH)):
                place = (message.topic() or "", message.partition() or 0)
                if place not in waiting:
                    continue  # fetched ahead, beyond the end
                at, error = message.offset(), message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        self._failed(place, error)
                        continue
                elif at is not None and at < waiting[place]:
                    yield message
                # The last offset may be a control record, which is never delivered; the end is reported instead.
                if error is not None or (at is not None and at + 1 >= waiting[place]):
                    del waiting[place]
                    self._consumer.incremental_unassign([TopicPartition(*place)])
                heard = time.monotonic()
            if waiting and time.monotonic() - heard > _SILENCE_SECONDS:
                topic, partition = next(iter(waiting))
                raise NotifyError(
                    f"{topic}[{partition}]: no record arrived for {_SILENCE_SECONDS:g} s before the end, offset "
                    f"{waiting[topic, partition]}; check the brokers' health and the network"
                )
        self._consumer.unassign()

    def close(self) -> None:
        """Free the consumer."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self.close()

    def _failed(self, place: tuple[str, int], error: KafkaError) -> None:
        if not error.retriable():
            raise NotifyError(f"{place[0]}[{place[1]}]: {told(error, 'Read', f'topic {place[0]}')}")
        log.warning("%s[%d]: %s; trying again", *place, error.name())


def asked(request: Callable[[], T], operation: str = "Read", resource: str = "the topics") -> T:
    """Return the answer to a request, which is repeated while a broker shuts down or a topic is new.

    Args:
        request: Sends the request.
        operation: The right that the request needs, for the text of a refusal.
        resource: The resource of that right.

    Raises:
        NotifyError: The brokers do not answer, or refuse.
    """
    begin = time.monotonic()
    deadline = begin + _ELECTION_SECONDS
    while True:
        try:
            return request()
        except KafkaException as e:
            error = e.args[0]
            if is_refusal(error):
                raise NotifyError(told(error, operation, resource)) from None
            if error.code() not in _PASSING or time.monotonic() > deadline:
                raise NotifyError(f"the brokers did not answer: {unanswered(error, begin)}") from None
        time.sleep(0.2)
