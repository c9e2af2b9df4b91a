"""Reads payloads of waiting retries again, by offset, once memory had no room for them.

A thread and a consumer of its own, assigned by hand: seeking in the worker's consumer would disturb it.
Both are opened with the first request.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._base.supervised import supervised
from kafka_notify._fetch.loader import Load
from kafka_notify._kafka.clients import LIBRDKAFKA, Clients
from kafka_notify._kafka.config import outside_group
from kafka_notify._kafka.polling import poll_batch
from kafka_notify._kafka.rights import told

log = logging.getLogger("kafka_notify.fetch")

BATCH: Final = 500
"""Requests served by one assignment."""
SEEK_BEYOND: Final = 2_000
"""Offsets to the next wanted record from which a seek is cheaper than reading on."""
FETCHES: Final = {
    "queued.max.messages.kbytes": 2_048,
    "fetch.message.max.bytes": 524_288,
    "fetch.wait.max.ms": 100,
}
"""Of this consumer, whose records are wanted now: large fetches, and little prefetch beyond what is wanted."""
PATIENCE: Final = 30.0
"""Seconds without any record after which a batch is asked for again."""

Loaded = Callable[[Sequence[tuple[Load, "Message | None"]]], object]


class PayloadReloader:
    """Serves `request`; answers come in batches through `loaded`, on its thread.

    Args:
        config: A complete consumer configuration; membership in the group is not used.
        topic: The retry topic.
        ended: Told when it cannot go on: what was asked for is never answered then.
        loaded: Given requests with their record, or None when the record is gone (retention removed it).
        clients: Opens the consumer, and has the runtime of its thread.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        loaded: Loaded,
        ended: Callable[[BaseException], object],
        clients: Clients = LIBRDKAFKA,
    ) -> None:
        self._clients = clients
        self._config = outside_group(config) | FETCHES
        self._topic = topic
        self._loaded = loaded
        self._ended = ended
        self._failures = LimitedLog(log)
        self._runtime = clients.runtime
        self._requests: queue.SimpleQueue[Load | None] = self._runtime.queue()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def request(self, load: Load) -> None:
        """Ask for the payload of an entry that lives in the retry topic."""
        if self._thread is None:
            self._thread = supervised(
                self._run, f"kafka-notify reload {self._topic}", self._ended, self._runtime
            )
            self._thread.start()
        self._requests.put(load)

    def close(self) -> None:
        """Stop, and wait for the thread."""
        self._stopping = True
        self._requests.put(None)
        if self._thread is not None:
            self._thread.join(10)

    def _run(self) -> None:
        consumer = self._clients.consumer({**self._config, "enable.partition.eof": True})
        try:
            while not self._stopping:
                batch = self._take()
                while batch and not self._stopping:
                    try:
                        batch = self._serve(consumer, batch)
                    except KafkaException as e:
                        error: KafkaError = e.args[0]
                        self._failures.warning(
                            f"payloads cannot be read again: {told(error, 'Read', f'topic {self._topic}')}"
                        )
                        self._runtime.sleep(0.5)
        finally:
            consumer.close()

    def _take(self) -> dict[int, dict[int, Load]]:
        wanted: dict[int, dict[int, Load]] = {}
        for _ in range(BATCH):
            request = self._requests.get()
            if request is None:
                break
            if request.entry is not None:
                wanted.setdefault(request.number, {})[request.at] = request
            if self._requests.empty():
                break
        return wanted

    def _serve(self, consumer: Consumer, wanted: dict[int, dict[int, Load]]) -> dict[int, dict[int, Load]]:
        """Read one batch; what is left of it is to be asked for again."""
        consumer.assign([TopicPartition(self._topic, n, min(offsets)) for n, offsets in wanted.items()])
        monotonic = self._runtime.monotonic
        quiet_since = monotonic()
        while wanted and not self._stopping and monotonic() - quiet_since < PATIENCE:
            answers: list[tuple[Load, Message | None]] = []
            self._drop_cancelled(consumer, wanted)
            for message in poll_batch(consumer, 0.1, BATCH):
                quiet_since = monotonic()
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                number, offset = message.partition(), message.offset()
                assert number is not None and offset is not None
                offsets = wanted.get(number)
                if offsets is None:
                    continue
                for at in [at for at in offsets if at < offset]:
                    answers.append((offsets.pop(at), None))
                if error is None and offset in offsets:
                    answers.append((offsets.pop(offset), message))
                if not offsets:
                    del wanted[number]
                    consumer.incremental_unassign([TopicPartition(self._topic, number)])
                elif min(offsets) - offset > SEEK_BEYOND:
                    consumer.seek(TopicPartition(self._topic, number, min(offsets)))
            if answers:
                self._loaded(answers)
        consumer.unassign()
        return wanted

    def _drop_cancelled(self, consumer: Consumer, wanted: dict[int, dict[int, Load]]) -> None:
        """Stop reading for partitions that were given away."""
        for number in [
            n for n, loads in wanted.items() if all(load.entry is None for load in loads.values())
        ]:
            del wanted[number]
            consumer.incremental_unassign([TopicPartition(self._topic, number)])
