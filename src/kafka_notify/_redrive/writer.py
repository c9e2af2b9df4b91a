"""Writes the copies of a redrive, and reports its progress."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal

import attrs
from confluent_kafka import KafkaError, Message

from kafka_notify import wire
from kafka_notify._kafka.client_errors import why_not_written
from kafka_notify._kafka.config import Config, producer_config
from kafka_notify._kafka.handle import ProducerHandle
from kafka_notify._kafka.rights import told
from kafka_notify.errors import ProduceError

log = logging.getLogger("kafka_notify.dead_letters")

IN_FLIGHT: Final = 500
TELL_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 30.0

Phase = Literal["reading", "comparing", "writing"]


@attrs.frozen
class RedriveProgress:
    """The progress of `DeadLetters.redrive`."""

    phase: Phase
    """Reading dead letters, looking for those that were redriven before, or writing copies."""
    done: int
    """Dead letters read, records of retry topics compared, or copies acknowledged."""
    total: int | None
    """The number at the end of the phase; None while reading, as it is not known."""


OnProgress = Callable[[RedriveProgress], object]


@attrs.frozen
class Copy:
    """A record for a retry topic."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: wire.Headers


class Watch:
    """Reports the progress of a redrive, and knows whether it is cancelled.

    Args:
        on_progress: The caller's callback.
        cancel: The caller sets it to cancel, from any thread.
    """

    def __init__(self, on_progress: OnProgress | None = None, cancel: threading.Event | None = None) -> None:
        self._on_progress = on_progress
        self._cancel = cancel or threading.Event()
        self._told = 0.0

    @property
    def cancelled(self) -> bool:
        """True if the redrive is cancelled."""
        return self._cancel.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep, until the redrive is cancelled at the latest."""
        self._cancel.wait(seconds)

    def tell(self, phase: Phase, done: int, total: int | None = None) -> None:
        """Report progress to the caller, at most every `TELL_SECONDS`, but always the end of a phase."""
        now = time.monotonic()
        if self._on_progress is not None and (done == total or now - self._told >= TELL_SECONDS):
            self._told = now
            self._on_progress(RedriveProgress(phase, done, total))


def write(copies: Iterable[Copy], size: int, config: Config, rate: float | None, watch: Watch) -> int:
    """Write copies; return how many were acknowledged: all of them, unless the redrive is cancelled.

    Args:
        copies: The copies, in the order of writing.
        size: The number of copies.
        config: librdkafka properties.
        rate: Copies per second; None for as fast as the brokers accept them.
        watch: Is told the progress, and knows whether the redrive is cancelled.

    Raises:
        ProduceError: A copy was not acknowledged; nothing is written after it.
    """
    handle = ProducerHandle(producer_config(config, "throughput", copies=True), name="redrive")
    reports = _Reports()
    begun = time.monotonic()
    try:
        for number, copy in enumerate(copies):
            if rate is not None:
                watch.wait(max(0.0, begun + number / rate - time.monotonic()))
            reports.slots.acquire()
            if reports.failure or watch.cancelled:
                reports.slots.release()
                break
            watch.tell("writing", reports.written, size)
            _produce(handle, copy, reports)
        if not reports.failure:
            for _ in range(IN_FLIGHT):
                reports.slots.acquire()  # once all slots are free, every report has arrived
            watch.tell("writing", reports.written, size)
    finally:
        handle.close(_CLOSE_SECONDS)
    if reports.failure:
        why = why_not_written(reports.topic, reports.failure, begun)
        raise ProduceError(
            f"{reports.place}: not written ({why}); {reports.written} copies were acknowledged; run the redrive again: "
            "it leaves out those that were"
        )
    log.info("redriven: %d", reports.written)
    return reports.written


class _Reports:
    """Counts delivery reports, on the handle's thread."""

    def __init__(self) -> None:
        self.slots = threading.Semaphore(IN_FLIGHT)
        self.written = 0
        self.failure = self.topic = self.place = ""
        """Reason, topic and place of the first copy that was not written."""

    def take(self, error: KafkaError | None, message: Message) -> None:
        topic, partition = message.topic() or "", message.partition()
        if error is None:
            self.written += 1
        else:
            self.failed(topic, -1 if partition is None else partition, told(error, "Write", f"topic {topic}"))
        self.slots.release()

    def failed(self, topic: str, partition: int, why: str) -> None:
        if not self.failure:
            self.topic, self.place, self.failure = topic, f"{topic}[{partition}]", why


def _produce(handle: ProducerHandle, copy: Copy, reports: _Reports) -> None:
    while True:
        try:
            handle.produce(
                copy.topic,
                copy.value,
                copy.key,
                copy.headers,
                partition=copy.partition,
                on_delivery=reports.take,
            )
        except BufferError:
            time.sleep(0.05)
        except ProduceError as e:  # refused before it was queued: no report follows
            reports.failed(copy.topic, copy.partition, str(e))
            reports.slots.release()
            return
        else:
            return
