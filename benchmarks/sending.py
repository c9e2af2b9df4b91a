"""The process under test: one worker, or a raw loop, that drains a backlog and measures its rate."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from array import array
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import confluent_kafka
import psutil

from benchmarks.load import FAILED, LOW, Mix, Order, check_order, number_of, topology, user_of
from kafka_notify import Attempt, Consumer, Notification, Receipt, RetryPolicy, TransientError, Worker
from kafka_notify._kafka.config import consumer_config
from kafka_notify.worker import GC_THRESHOLD

PATIENCE: Final = 60.0
"""Seconds without a send after which a run has failed."""
_RECEIPT: Final = Receipt("simulated")


@attrs.frozen
class Work:
    """Backlog and settings of one run."""

    bootstrap: str
    prefix: str
    consumer: str
    records: int
    """Sends until it stops; the part from 10 % to 90 % of them is measured."""
    concurrency: int = 1000
    latency: float = 0.0
    """Latency of the simulated provider, in seconds."""
    threads: bool = False
    """Use a plain `send` that sleeps in a thread."""
    failing: float | None = None
    """Share of attempts that fail as transient; the sender records when. 0: the same sender without failures; 1: a
    provider that fails for everybody, for an hour."""
    retry_delay: float = 1.0
    mix: Mix = "even"
    nice: int = 0
    """Niceness of the process."""
    uvloop: bool = False
    gc: Literal["run", "on", "freeze", "off"] = "run"
    profile: Path | None = None
    """File for the py-spy profile of the measured part."""


@attrs.frozen
class Drained:
    """Measurements of one process."""

    rate: float
    """Sends that ended, per second."""
    cpu: float
    """Microseconds of CPU time per send, over all threads of the process."""
    rss: int
    """Resident memory in bytes, at the end of the measured part."""
    window: tuple[float, float]
    """Beginning and end of the measured part, by a clock that all processes of the machine share."""
    order: Order | None = None
    late: tuple[float, ...] = ()
    """Seconds between the due time of each retry and its start; negative is early."""
    accepted: float = 0.0
    """Accepted notifications per second."""
    parked: int = 0


class Window:
    """Counts ended sends, and records the times at 10 % and at 90 % of them.

    This excludes what was fetched before the clock starts, and the slow end of a backlog.
    """

    def __init__(self, work: Work) -> None:
        self.first, self.last = work.records // 10, work.records * 9 // 10
        self.done = threading.Event()
        self._count = itertools.count(1)
        self._profile = work.profile
        self._process = psutil.Process()
        self._marks: list[tuple[float, float]] = []
        self.rss = 0

    def tick(self) -> None:
        """Count one ended send; callable from any thread."""
        n = next(self._count)
        if n == self.first or n == self.last:
            self._mark()

    def mark_up_to(self, before: int, now: int) -> None:
        """Count from `before` to `now`, for loops that count batches."""
        if before < self.first <= now or before < self.last <= now:
            self._mark()

    def _mark(self) -> None:
        self._marks.append((time.perf_counter(), time.process_time()))
        if len(self._marks) == 2:
            self.rss = self._process.memory_info().rss
            self.done.set()
        elif self._profile is not None:
            out = ["--output", str(self._profile), "--format", "raw", "--pid", str(os.getpid())]
            spy = str(Path(sys.executable).with_name("py-spy"))
            subprocess.Popen([spy, "record", "--rate", "400", "--threads", "--gil", "-d", "600", *out])

    def drained(self, **more: Any) -> Drained:
        """Return the measurements between the two marks."""
        (t0, cpu0), (t1, cpu1) = self._marks
        sends = self.last - self.first
        return Drained(sends / (t1 - t0), (cpu1 - cpu0) / sends * 1e6, self.rss, (t0, t1), **more)


class _Sender(Consumer):
    """Logs starts and ends as numbers, so that no objects remain for the garbage collector to walk."""

    def __init__(self, work: Work, window: Window) -> None:
        self.name = work.consumer
        self.concurrency = work.concurrency
        self.latency = work.latency
        self.window = window
        self.log = array("q")


class _Noop(_Sender):
    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        number = number_of(notification.id)
        self.log.append(number)
        self.log.append(~number)
        self.window.tick()
        return _RECEIPT


class _Slow(_Sender):
    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        number = number_of(notification.id)
        self.log.append(number)
        await asyncio.sleep(self.latency)
        self.log.append(~number)
        self.window.tick()
        return _RECEIPT


class _Timed(_Sender):
    """Records when each send ended, by a clock that all processes of the machine share."""

    def __init__(self, work: Work, window: Window) -> None:
        super().__init__(work, window)
        self.ended = array("d")

    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        if self.latency:
            await asyncio.sleep(self.latency)
        self.ended.append(time.perf_counter())
        return _RECEIPT


class _Hopeless(_Timed):
    """Fails every send; each is retried after an hour."""

    retry = RetryPolicy(12, initial_delay=3600, multiplier=1, max_delay=3600)
    breaker = None

    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        raise TransientError("simulated")


class _Plain(_Sender):
    def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        number = number_of(notification.id)
        self.log.append(number)
        time.sleep(self.latency)
        self.log.append(~number)
        self.window.tick()
        return _RECEIPT


class _Failing(_Sender):
    """Fails the same attempts in every run. A retry's due time is the failure plus the exact delay."""

    def __init__(self, work: Work, window: Window) -> None:
        super().__init__(work, window)
        self.retry = RetryPolicy(12, initial_delay=work.retry_delay, multiplier=1, jitter=0)
        self.failing = work.failing or 0.0
        self.due: dict[int, float] = {}
        self.late = array("d")
        self.accepted = array("d")

    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        number = number_of(notification.id)
        if (due := self.due.pop(number, None)) is not None:
            self.late.append(time.perf_counter() - due)
        self.log.append(number)
        await asyncio.sleep(self.latency)
        self.window.tick()
        if user_of(number * 16 + attempt.number) % 1000 < self.failing * 1000:
            self.log.append(~(number + FAILED))
            self.due[number] = time.perf_counter() + self.retry.delay(1)  # type: ignore[union-attr]
            raise TransientError("simulated")
        self.log.append(~number)
        self.accepted.append(time.perf_counter())
        return _RECEIPT


def sender(work: Work, window: Window) -> _Sender:
    """Return the sender for this work."""
    kind = (
        _Failing if work.failing is not None else _Plain if work.threads else _Slow if work.latency else _Noop
    )
    return kind(work, window)


def worker_for(consumer: Consumer, work: Work, lane: str = LOW) -> Worker:
    """Start a worker of the library."""
    options: dict[str, Any] = {}
    if work.uvloop:
        import uvloop

        options["loop_factory"] = uvloop.new_event_loop
    config = {"bootstrap.servers": work.bootstrap}
    worker = Worker(consumer, config, lane=lane, topology=topology(work.prefix), drain_timeout=0, **options)
    worker.start()
    if work.gc == "run":
        gc.set_threshold(*GC_THRESHOLD)  # as Worker.run does: the work here starts the worker itself
    elif work.gc == "off":
        gc.disable()
    elif work.gc == "freeze":
        gc.collect()
        gc.freeze()
    return worker


def drain(work: Work) -> Drained:
    """Run a worker of the library until it has made `work.records` sends."""
    window = Window(work)
    consumer = sender(work, window)
    worker = worker_for(consumer, work)
    wait(window.done, worker)
    parked = worker.stats().parked
    log = consumer.log[:]
    worker.stop()
    order = check_order(log, work.mix)
    if isinstance(consumer, _Failing):
        late = tuple(consumer.late)
        t0, t1 = (at for at, _ in window._marks)
        accepted = sum(t0 < at <= t1 for at in consumer.accepted) / (t1 - t0)
        return window.drained(order=order, late=late, accepted=accepted, parked=parked)
    return window.drained(order=order)


def wait(done: threading.Event, worker: Worker) -> None:
    """Wait for the end of a run; raise if the worker does nothing for a minute."""
    before, since = -1, time.monotonic()
    while not done.wait(0.5):
        stats = worker.stats()
        now = stats.sent + stats.retried
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            raise RuntimeError(f"the worker does nothing: {worker.health()} {stats}")


def drain_until_told(connection: Connection, work: Work) -> None:
    """Run a worker in a `Child` until it is asked to stop, and answer with the times at which sends ended."""
    os.nice(work.nice)
    consumer = (_Hopeless if work.failing == 1 else _Timed)(work, Window(work))
    worker = worker_for(consumer, work)
    while (question := connection.recv()) != "stop":
        connection.send(getattr(worker.stats(), question))
    ended = consumer.ended[:]
    worker.stop()
    connection.send(ended)


def asyncio_alone(users: int, latency: float, seconds: float) -> float:
    """Measure sends per second of asyncio alone: each user is a task that sleeps `latency` over and over."""
    ended = itertools.count()

    async def user() -> None:
        while True:
            await asyncio.sleep(latency)
            next(ended)

    async def main() -> None:
        tasks = [asyncio.create_task(user()) for _ in range(users)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    return next(ended) / seconds


def drain_raw(work: Work) -> Drained:
    """Run the loop that a team would write with confluent_kafka alone.

    It reads every record and passes it to a function that does nothing. Every second it commits offsets in the
    background, whether or not anything was sent.
    """
    window = Window(work)
    config = consumer_config({"bootstrap.servers": work.bootstrap}, "throughput", f"raw.{work.consumer}")
    consumer = confluent_kafka.Consumer(
        {**config, "enable.auto.offset.store": True, "enable.partition.eof": False}
    )
    consumer.subscribe([topology(work.prefix).source_topic(LOW)])
    count, next_commit = 0, time.perf_counter() + 1
    while not window.done.is_set():
        if (first := consumer.poll(0.1)) is None:
            continue
        batch = [first, *consumer.consume(499, 0)]
        for message in batch:
            if (error := message.error()) is not None:
                raise confluent_kafka.KafkaException(error)
            _send_nothing(message.key(), message.value(), message.headers())
        window.mark_up_to(count, count + len(batch))
        count += len(batch)
        if time.perf_counter() >= next_commit:
            consumer.commit(asynchronous=True)
            next_commit += 1
    consumer.close()
    return window.drained()


def _send_nothing(key: bytes | None, value: bytes | None, headers: Any) -> None:
    pass
