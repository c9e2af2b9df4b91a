"""Reading of spills by their offset, before any other record of their partition is read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from kafka_notify._kafka.clients import LIBRDKAFKA, Clients
from kafka_notify._kafka.config import outside_group
from kafka_notify._kafka.polling import poll_batch
from kafka_notify._wire import headers as h

Found = dict[int, tuple[str, "bytes | None"]]
"""Writer and value of the wanted record, by partition; an empty writer when that record does not exist."""


def read_spills(
    config: Mapping[str, Any],
    topic: str,
    wanted: Mapping[int, int],
    timeout: float,
    clients: Clients = LIBRDKAFKA,
) -> Found:
    """Read the records of a topic at one offset of each partition.

    Args:
        config: A complete consumer configuration; membership in the group is not used.
        topic: The retry topic.
        wanted: Offsets by partition; each at or after the log start.
        timeout: Seconds.
        clients: Opens the consumer.

    Raises:
        KafkaException: It stays unknown within `timeout` if one of the records exists.
    """
    own = outside_group(config)
    own |= {"enable.partition.eof": True, "fetch.wait.max.ms": 50, "auto.offset.reset": "earliest"}
    found: Found = {}
    ended: set[int] = set()
    monotonic = clients.runtime.monotonic
    with closing(clients.consumer(own)) as consumer:
        consumer.assign([TopicPartition(topic, n, offset) for n, offset in wanted.items()])
        deadline = monotonic() + timeout
        while len(found) < len(wanted):
            if monotonic() > deadline:
                if found.keys() | ended < wanted.keys():
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                return found | dict.fromkeys(ended - found.keys(), ("", None))
            for message in poll_batch(consumer, 0.1, 100):
                error, number, offset = message.error(), message.partition(), message.offset()
                if number is None or number in found or number not in wanted:
                    continue
                if error is None:
                    at = -1 if offset is None else offset
                    if at < wanted[number]:
                        continue  # reading began at the log start: a new leader did not know the offset yet
                    if at == wanted[number]:
                        headers = dict(h.headers_of(message))
                        writer = (headers.get(h.WRITER) or b"").decode(errors="replace")
                        found[number] = (writer, message.value())
                    else:
                        found[number] = ("", None)
                    consumer.incremental_unassign([TopicPartition(topic, number)])
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(number)  # go on: for a moment a new leader may not show all that it has
                elif not error.retriable():
                    raise KafkaException(error)
    return found
