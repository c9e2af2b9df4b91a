"""One record, or end-of-partition mark, into its partition."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any

from confluent_kafka import KafkaError, Message

from kafka_notify._fetch.settings import IntakeCallbacks, IntakeSettings
from kafka_notify._partition.offsets import OffsetRewound, TopicRecreated
from kafka_notify._partition.partition import Partition
from kafka_notify._wire.headers import headers_of
from kafka_notify.policy import Ordering
from kafka_notify.wire import Headers, channel_of, identity, read_retry


def _unasked() -> tuple[str, int]:
    raise AssertionError("an identity is asked for only where copies wait")


class PartitionFeed:
    """Hands records to their partitions: those of the source, of the retry topic, and marks and errors among them.

    Args:
        settings: The settings of intake.
        callbacks: Told of records that are passed over, of errors, and of partitions that cannot go on.
    """

    def __init__(self, settings: IntakeSettings, callbacks: IntakeCallbacks) -> None:
        self._source = settings.source
        self._channels = settings.channels
        self._ordering = settings.ordering
        self._facts = settings.facts
        self._callbacks = callbacks
        self.reads_headers = bool(settings.channels) or settings.ordering is not Ordering.USER
        """True if the headers of each source record are needed."""

    def source_record(
        self, partition: Partition, message: Message, headers: Headers | None, size: int, now: int
    ) -> None:
        """Take in a source record, or the end of the source."""
        if (error := message.error()) is not None:
            self.error(partition, message, error)
            return
        offset: Any = message.offset()
        order_key: Any = message.key()
        try:
            if self.reads_headers:
                channel = channel_of(headers)
                if self._channels and channel is not None and channel not in self._channels:
                    partition.pass_over(offset)
                    self._callbacks.passed_over()
                    return
                order_key = self._order_key(order_key, headers, offset)
            partition.on_source(
                offset,
                order_key,
                message,
                headers,
                size,
                functools.partial(self._identity, message, headers) if partition.pending else _unasked,
                now,
            )
        except (OffsetRewound, TopicRecreated) as e:
            self._halt(partition, message, e)

    def retry_record(self, partition: Partition, message: Message, headers: Headers | None, now: int) -> None:
        """Take in a record of the retry topic, or its end."""
        if (error := message.error()) is not None:
            self.error(partition, message, error)
            return
        offset: Any = message.offset()
        try:
            if not partition.reads_own(offset):
                self._copy_or_spill(
                    partition, offset, message, headers_of(message) if headers is None else headers, now
                )
        except (OffsetRewound, TopicRecreated) as e:
            self._halt(partition, message, e)

    def error(self, partition: Partition | None, message: Message, error: KafkaError) -> None:
        """Take in the end of a partition, or report an error that librdkafka put among the records."""
        offset = message.offset()
        if error.code() != KafkaError._PARTITION_EOF:
            self._callbacks.kafka_error(error, message.topic() or "")
        elif partition is None or offset is None:
            return
        elif message.topic() == self._source:
            partition.on_source_end(offset)
        else:
            partition.on_retry_end(offset)

    def _copy_or_spill(
        self, partition: Partition, offset: int, message: Message, headers: Headers, now: int
    ) -> None:
        state = read_retry(headers, self._source, partition.number)
        if state is not None and state.is_spill:
            partition.on_spill(offset)
            return
        origin = -1 if state is None else state.origin.offset
        partition.on_retry(
            offset,
            self._order_key(message.key(), headers, origin),
            state,
            message,
            headers,
            lambda: self._facts(headers, partition.number, origin, message.timestamp()[1]),
            now,
        )

    def _identity(self, message: Message, headers: Headers | None) -> tuple[str, int]:
        number: Any = message.partition()
        offset: Any = message.offset()
        if headers is None:
            headers = headers_of(message)
        return identity(headers, self._source, number, offset, message.timestamp()[1])

    def _order_key(self, key: bytes | None, headers: Headers | None, origin: int) -> Hashable:
        if self._ordering is Ordering.USER:
            return key
        return (key, channel_of(headers)) if self._ordering is Ordering.USER_CHANNEL else origin

    def _halt(self, partition: Partition, message: Message, why: Exception) -> None:
        self._callbacks.halt(partition, f"{message.topic()} was re-created or truncated: {why}")
