"""Reading of the control topic, which says what is paused: from its start, then as it grows.

It has its own thread and a consumer assigned by hand, as every worker reads the whole topic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._base.supervised import supervised
from kafka_notify._kafka.client_errors import metadata
from kafka_notify._kafka.clients import LIBRDKAFKA, Clients
from kafka_notify._kafka.config import outside_group
from kafka_notify._kafka.log_extent import log_ends
from kafka_notify._kafka.polling import poll_batch
from kafka_notify._kafka.rights import is_missing_right, told
from kafka_notify.errors import NotifyError

log = logging.getLogger("kafka_notify.worker")

PARTITION: Final = 0
PATIENCE: Final = 30.0
"""Seconds that a start may take to read all pauses."""
LOOK_AGAIN: Final = 30.0
"""Seconds between two looks for a missing topic."""
BATCH: Final = 500
_POLL: Final = 0.2

Records = Sequence[tuple[bytes, "bytes | None"]]


class ControlReader:
    """Hands over the records of the control topic.

    Args:
        config: A complete consumer configuration; membership in the group is not used.
        topic: The control topic.
        learned: Given keys and values, in order: within `start` all that the topic holds, later from the thread.
        ended: Told when the thread ends on an error: pauses would go unnoticed.
        clients: Opens the consumer, and has the runtime of its thread.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        learned: Callable[[Records], object],
        ended: Callable[[BaseException], object],
        clients: Clients = LIBRDKAFKA,
    ) -> None:
        self._clients = clients
        self._config = outside_group(config)
        self._topic = topic
        self._learned = learned
        self._consumer: Consumer | None = None
        self._reading = False
        self._told = False
        self._runtime = runtime = clients.runtime
        self._stopping = runtime.event()
        self._failures = LimitedLog(log)
        self._thread = supervised(self._run, f"kafka-notify control {topic}", ended, runtime)

    def start(self) -> None:
        """Read the whole topic, then go on reading on the thread.

        A topic that is missing, or that this worker may not read, is logged once and tried again every 30 s.

        Raises:
            NotifyError: The topic exists and cannot be read: a worker must not send what may be paused.
        """
        config = {**self._config, "enable.partition.eof": True, "fetch.wait.max.ms": 500}
        consumer = self._clients.consumer(config)
        try:
            self._begin_within(consumer, self._runtime.monotonic() + PATIENCE)
            self._consumer = consumer
        finally:
            if self._consumer is None:
                consumer.close()
        self._thread.start()

    def _begin_within(self, consumer: Consumer, deadline: float) -> None:
        while True:
            try:
                self._begin(consumer)
                break
            except KafkaException as e:  # an election, most likely: also just after the topic was created
                if self._runtime.monotonic() > deadline or self._stopping.wait(0.2):
                    raise NotifyError(
                        f"{self._topic}: the pauses cannot be read ({e.args[0].name()}); check the brokers"
                    ) from None
        if self._stopping.is_set():
            raise NotifyError(f"{self._topic}: not read to its end, as the worker stops")

    def close(self) -> None:
        """Stop, and wait for the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def _begin(self, consumer: Consumer) -> None:
        """Read up to the end of the topic, if there is one."""
        error = (
            metadata(consumer, PATIENCE, self._topic, monotonic=self._runtime.monotonic)
            .topics[self._topic]
            .error
        )
        if error is not None:
            if error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
                raise KafkaException(error)
            if not self._told:
                self._told = True
                missing = is_missing_right(error)
                log.warning(
                    "%s cannot be read: nothing can be paused at run time; %s",
                    self._topic,
                    told(error, "Read", f"topic {self._topic}") if missing else "create_topics() makes it",
                )
            return
        place = (self._topic, PARTITION)
        end = log_ends(consumer, [place], PATIENCE)[place]
        consumer.assign([TopicPartition(self._topic, PARTITION, OFFSET_BEGINNING)])
        deadline = self._runtime.monotonic() + PATIENCE
        records: list[tuple[bytes, bytes | None]] = []
        at = 0
        while at < end and not self._stopping.is_set():
            if self._runtime.monotonic() > deadline:
                raise NotifyError(
                    f"{self._topic}: not read to its end within {PATIENCE:g} s; check the brokers"
                )
            for message in poll_batch(consumer, _POLL, BATCH):
                error = message.error()
                if error is None:
                    records.append(_pair(message))
                    at = (message.offset() or 0) + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    at = end  # compaction may have removed the last records
        self._learned(records)
        self._reading = True

    def _run(self) -> None:
        consumer = self._consumer
        assert consumer is not None
        try:
            while not self._stopping.is_set():
                try:
                    self._turn(consumer)
                except KafkaException as e:
                    self._failures.warning(f"reading {self._topic} failed: {e.args[0].name()}; trying again")
                    self._stopping.wait(1.0)
                except NotifyError as e:
                    self._failures.warning(str(e))
        finally:
            consumer.close()

    def _turn(self, consumer: Consumer) -> None:
        if not self._reading:
            if not self._stopping.wait(LOOK_AGAIN):
                self._begin(consumer)
            return
        records: list[tuple[bytes, bytes | None]] = []
        for message in poll_batch(consumer, _POLL, BATCH):
            error = message.error()
            if error is None:
                records.append(_pair(message))
            elif error.code() != KafkaError._PARTITION_EOF:
                self._failures.warning(
                    f"the pauses cannot be read: {told(error, 'Read', f'topic {self._topic}')}"
                )
        if records:
            self._learned(records)


def _pair(message: Message) -> tuple[bytes, bytes | None]:
    return message.key() or b"", message.value()
