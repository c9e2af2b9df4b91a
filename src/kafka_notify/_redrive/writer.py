"""Writes the copies of a redrive, and says how far it is."""

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
    """How far `DeadLetters.redrive` is."""

    phase: Phase
    """Reading letters; looking for what was redriven before; writing copies."""
    done: int
    """Letters read, records of retry topics compared, copies acknowledged."""
    total: int | None
    """Of the phase; None while reading, whose end is not known."""


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
    """Says how far a redrive is, and whether it is to end.

    Args:
        on_progress: Of the caller.
        cancel: Set by the caller, from any thread.
    """

    def __init__(self, on_progress: OnProgress | None = None, cancel: threading.Event | None = None) -> None:
        self._on_progress = on_progress
        self._cancel = cancel or threading.Event()
        self._told = 0.0

    @property
    def cancelled(self) -> bool:
        """Whether it is to end."""
        return self._cancel.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep, but not when it is to end."""
        self._cancel.wait(seconds)

    def tell(self, phase: Phase, done: int, total: int | None = None) -> None:
        """Tell the caller, at most every `TELL_SECONDS`, but always of an end."""
        now = time.monotonic()
        if self._on_progress is not None and (done == total or now - self._told >= TELL_SECONDS):
            self._told = now
            self._on_progress(RedriveProgress(phase, done, total))


def write(copies: Iterable[Copy], size: int, config: Config, rate: float | None, watch: Watch) -> int:
    """Write copies; return how many the broker acknowledged: all, but when it was cancelled.

    Args:
        copies: What to write, in this order.
        size: How many there are.
        config: librdkafka properties.
        rate: Copies per second; None is as fast as they are taken.
        watch: Told of each acknowledgement, and asked whether to go on.

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
                reports.slots.acquire()  # all of them: every report is in
            watch.tell("writing", reports.written, size)
    finally:
        handle.close(_CLOSE_SECONDS)
    if reports.failure:
        why = why_not_written(reports.topic, reports.failure, begun)
        raise ProduceError(
            f"{reports.place}: not written ({why}); {reports.written} copies were acknowledged; run the redrive again, "
            "it leaves those out"
        )
    log.info("redriven: %d", reports.written)
    return reports.written


class _Reports:
    """Counts delivery reports, on the handle's thread."""

    def __init__(self) -> None:
        self.slots = threading.Semaphore(IN_FLIGHT)
        self.written = 0
        self.failure = self.topic = self.place = ""
        """Of the first that was not written."""

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
        except ProduceError as e:  # refused before it was queued: there will be no report
            reports.failed(copy.topic, copy.partition, str(e))
            reports.slots.release()
            return
        else:
            return
