"""What clients return: the binding's own classes, filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin._metadata import BrokerMetadata, ClusterMetadata, PartitionMetadata, TopicMetadata

from tests.simulation.kafka.cluster import Cluster
from tests.simulation.kafka.log import Place, Record


class Answer(TopicPartition):
    """A `TopicPartition` with an error, which only the binding itself can set."""

    error: KafkaError | None = None


def answer(
    place: Place, offset: int = OFFSET_INVALID, metadata: str | None = None, error: KafkaError | None = None
) -> TopicPartition:
    """A partition as the binding would return it."""
    found = Answer(*place, offset) if metadata is None else Answer(*place, offset, metadata)
    found.error = error
    return found


def place_of(tp: TopicPartition) -> Place:
    """Topic and partition."""
    return tp.topic, tp.partition


def message_of(place: Place, record: Record) -> Message:
    """A consumed record."""
    return Message(
        topic=place[0],
        partition=place[1],
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=list(record.headers) or None,
        timestamp=(1, record.timestamp),
    )


def error_message(error: KafkaError, place: tuple[str | None, int | None], offset: int) -> Message:
    """An event in place of a record."""
    named = {"topic": place[0], "partition": place[1]}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    return Message(**given, offset=offset, error=error)


def list_topics(cluster: Cluster, host: str, topic: str | None, timeout: float) -> Any:
    """What every client answers to `list_topics`."""
    cluster.ask("list_topics", host, timeout)
    found: Any = ClusterMetadata()
    broker: Any = BrokerMetadata()
    broker.id, broker.host, broker.port = 1, "simulated", 9092
    found.brokers = {1: broker}
    found.topics = {}
    for name in cluster.topics if topic is None else [topic]:
        described: Any = TopicMetadata()
        found.topics[name] = described
        described.topic = name
        known = cluster.topics.get(name)
        described.error = cluster.faults.take("list_topics", host, (name, -1))
        if known is None:
            described.error = described.error or KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
            continue
        for number in range(len(known.partitions)):
            partition: Any = PartitionMetadata()
            described.partitions[number] = partition
            partition.id, partition.leader, partition.replicas, partition.isrs = number, 1, [1], [1]
    return found


def offset_for(cluster: Cluster, place: Place, which: int) -> int:
    """What `offsets_for_times` and `list_offsets` answer: an end of the log, or the first offset at a time."""
    log = cluster.log(*place)
    if which == OFFSET_BEGINNING:
        return log.start
    if which == OFFSET_END:
        return log.end
    record = log.at_time(which)
    return OFFSET_END if record is None else record.offset


def futures(wanted: Mapping[Any, Callable[[], Any]]) -> dict[Any, Future[Any]]:
    """Futures that are resolved, each by what its callable returns or raises."""
    found: dict[Any, Future[Any]] = {}
    for key, make in wanted.items():
        future = found[key] = Future[Any]()
        try:
            future.set_result(make())
        except KafkaException as e:
            future.set_exception(e)
    return found
