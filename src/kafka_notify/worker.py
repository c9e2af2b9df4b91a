"""`Worker`: runs one consumer on one lane, and everything around it that has a life: threads, handles, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

from typing_extensions import Self

from kafka_notify._base.arguments import check_flag, to_seconds
from kafka_notify._base.units import Seconds
from kafka_notify._base.where import origin
from kafka_notify._kafka.config import Config, consumer_config, producer_config, with_drain
from kafka_notify._worker.collector import collector
from kafka_notify._worker.life import Life, State
from kafka_notify._worker.report import Sample, failure
from kafka_notify._worker.running import SLICE, Running, StoppedEarly, WorkerPlan
from kafka_notify._worker.signals import signals
from kafka_notify._worker.stats import Health as Health
from kafka_notify._worker.stats import WorkerStats as WorkerStats
from kafka_notify.codec import DEFAULT_CODEC, Codec
from kafka_notify.consumer import Consumer, check_consumer
from kafka_notify.errors import NotifyError
from kafka_notify.events import OnEvent, emitter
from kafka_notify.outcome import Middleware
from kafka_notify.topology import Topology

log: Final = logging.getLogger("kafka_notify.worker")

GC_THRESHOLD: Final = (100_000, 20, 100)
"""Objects by which the number of those alive must grow before the young ones are walked: above what full and empty
buffers differ by, as the library itself leaves no cycles. At half of it a collection of 70 ms came every 1.5 s, and
retries late by as much (measured)."""


class Worker:
    """Runs one `Consumer` on one lane; many workers, in many processes, share the lane's partitions.

    It reads, sends up to `consumer.concurrency` notifications at once (never two of one user), retries, and commits.
    When senders are busy or the lane is held, it reads no further than its memory budgets: the rest waits in Kafka.

    At a rebalance it starts nothing new on the partitions that it gives up, lets running sends end within
    `drain_timeout`, commits, and hands over. After a crash nothing is lost: what was in flight, or finished within the
    last 100 ms, may be sent again with the same idempotency key.

    Args:
        consumer: The team's consumer, or a factory (its class, a lambda) that gives each process its own.
        config: librdkafka properties, as for confluent_kafka.
        lane: Name of the lane in the topology.
        topology: Lanes, categories and channels, shared with the producers; `Topology.default()` when None.
        codec: Turns value bytes into data; JSON when None.
        consumer_config: Properties of the consumer handle alone; they take precedence over `config`.
        producer_config: The same for the handle that writes retry copies and dead letters.
        middleware: Wraps each send, outermost first.
        on_event: Called with each `Event`, mostly on the worker's event loop: it must not block.
        drain_timeout: Seconds (or a timedelta) that running sends get when partitions are handed over or the worker
            stops.
        wide_retries: Allow more waiting retries in one partition than a commit of an older version can tell apart
            (20,000): a worker of such a version stops on that partition. False while older ones run, and before a
            roll-back; then each retry beyond 20,000 has everything in front of it written again.
        loop_factory: Makes the event loop, for example `uvloop.new_event_loop`.

    Raises:
        ConfigError: A setting is wrong, or would break a promise; the text says what to write instead.
    """

    def __init__(
        self,
        consumer: Consumer | Callable[[], Consumer],
        config: Config,
        *,
        lane: str,
        topology: Topology | None = None,
        codec: Codec | None = None,
        consumer_config: Config | None = None,
        producer_config: Config | None = None,
        middleware: Sequence[Middleware] = (),
        on_event: OnEvent | None = None,
        drain_timeout: Seconds = 20.0,
        wide_retries: bool = True,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        self._given = consumer
        self._config = dict(config)
        self._topology = topology or Topology.default()
        self._lane = self._topology.lane(lane)
        self._codec: Codec = codec or DEFAULT_CODEC
        self._consumer_config = dict(consumer_config or {})
        self._producer_config = dict(producer_config or {})
        self._middleware = tuple(middleware)
        self._listeners: tuple[OnEvent, ...] = () if on_event is None else (on_event,)
        self._drain_timeout = to_seconds(drain_timeout, "drain_timeout")
        check_flag(wide_retries, "wide_retries")
        self._wide_retries = wide_retries
        self._loop_factory = loop_factory
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._group: str | None = None
        self._life = Life()
        if isinstance(consumer, Consumer):
            check_consumer(consumer, self._topology)
        self._settings("check")  # contradictions are found here, not in production's start

    def _settings(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        profile = self._lane.profile
        group = self._topology.group(self._lane.name, name)
        return (
            with_drain(
                consumer_config(self._config, profile, group, self._consumer_config), self._drain_timeout
            ),
            producer_config(self._config, profile, self._producer_config, copies=True),
        )

    def _plan(self, consumer: Consumer) -> WorkerPlan:
        reading, writing = self._settings(consumer.name)
        return WorkerPlan(
            lane=self._lane,
            topology=self._topology,
            config={**self._config, **self._consumer_config},
            reading=reading,
            writing=writing,
            codec=self._codec,
            middleware=self._middleware,
            drain_timeout=self._drain_timeout,
            wide_retries=self._wide_retries,
            on_event=emitter(*self._listeners),
            loop_factory=self._loop_factory,
        )

    def listen(self, on_event: OnEvent, /) -> None:
        """Call `on_event` with each event, after the listeners given before. Call it before `start`.

        Args:
            on_event: As for `Worker`.

        Raises:
            NotifyError: The worker was started.
        """
        with self._lock:
            if self._running is not None:
                raise NotifyError("listen to a Worker before it is started")
            self._listeners += (on_event,)

    # -- life -----------------------------------------------------------------------------------------

    def run(self, *, gc_threshold: tuple[int, int, int] | None = GC_THRESHOLD) -> None:
        """Start, and block until SIGTERM or SIGINT, then `stop`; a second signal skips the drain.

        Signals are taken in the main thread alone; in another thread this blocks until `stop` is called.

        Args:
            gc_threshold: See `kafka_notify.run`.

        Raises:
            NotifyError: The worker could not start, or could not go on.
        """
        run(self, gc_threshold=gc_threshold)

    def start(self) -> None:
        """Check the topics, run the consumer's `setup`, join the group and return, before partitions are assigned.

        Raises:
            ConfigError: A topic is missing, or source and retry topic are not co-partitioned.
            NotifyError: No broker answers, or the worker was started before. Also when `stop` is called meanwhile,
                which ends a `setup` that hangs, too.
            Exception: Whatever `setup` raised.
        """
        life = self._life
        with self._lock:
            if not life.to(State.STARTING):
                raise NotifyError("a Worker is started once; make another one")
        try:
            consumer = self._given if isinstance(self._given, Consumer) else self._given()
            check_consumer(consumer, self._topology)
            self._group = self._topology.group(self._lane.name, consumer.name)  # before its parts have events
            self._running = Running(self._plan(consumer), consumer, life)
            self._running.start()
            if not life.to(State.RUNNING) and life.error is None:
                raise StoppedEarly(self._lane.name)
        except BaseException:
            life.to(State.STOPPING)
            try:
                if self._running is not None:
                    self._running.close()
            finally:
                life.to(State.STOPPED)
            raise

    def stop(self, timeout: Seconds | None = None) -> None:
        """Stop reading, let running sends end within the drain budget, commit, leave the group and close everything.

        Blocks until that is done. What was not sent is redelivered to another worker; a send that is cancelled does not
        count as an attempt. Idempotent. A `start` that is under way on another thread gives up, another `stop` hurries,
        and this call waits for its end. After a failure nothing is drained or committed.

        Args:
            timeout: Seconds (or a timedelta) for running sends instead of `drain_timeout`; 0 skips the drain, also of a
                `stop` that is under way.

        Raises:
            ConfigError: `timeout` is not a finite duration >= 0.
        """
        life = self._life
        life.stop_asked = True
        if timeout is not None and self._running is not None:
            self._running.hurry(to_seconds(timeout, "timeout"))
        if life.to(State.STOPPED):
            return  # it was never started
        if life.state is not State.STARTING and life.to(State.STOPPING):
            running = self._running
            assert running is not None
            try:
                running.stop()
            finally:
                life.to(State.STOPPED)
        elif life.keeper != threading.get_ident():  # else this is a signal handler within that very call
            life.stopped.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self.stop()

    # -- what it does now -----------------------------------------------------------------------------

    @property
    def lane(self) -> str:
        """Name of the lane."""
        return self._lane.name

    @property
    def topology(self) -> Topology:
        """Lanes, categories and channels that the worker knows."""
        return self._topology

    @property
    def group(self) -> str | None:
        """The consumer group, such as `notif.high_priority.sms`; None before `start`."""
        return self._group

    @property
    def concurrency(self) -> int | None:
        """Sends that the consumer allows at once; None before `start`."""
        return None if self._running is None else self._running.concurrency

    def stats(self) -> WorkerStats:
        """Return counters and what is held now. Call it from any thread, at any time."""
        return WorkerStats() if self._running is None else self._running.report.stats()

    def oldest_age(self) -> float | None:
        """Return the age in seconds of the oldest notification that this worker holds and has not finished.

        Notifications that wait for their retry count; those of other workers, and those that nobody has read yet, do
        not. Call it from any thread, every few seconds at most: it looks at each user who has something open.

        Returns:
            Seconds since its creation; None when nothing is open here.
        """
        return None if self._running is None else self._running.report.oldest_age()

    def health(self) -> Health:
        """Return what is wrong, for liveness and readiness probes. Call it from any thread, at any time.

        Returns:
            `ok` while the worker does its work, `problems` as sentences with the remedy, and `live`, which is False
            when only a restart helps. During a start and a stop it is not `ok`, and live.
        """
        life = self._life
        if life.state is State.STOPPED and life.error is not None:
            return Health(False, (failure(life.error),), False)
        if self._running is None or life.state in (State.NEW, State.STOPPED, State.STARTING):
            return Health(False, (life.state.value,))
        report = self._running.report
        problems = report.problems()
        return Health(not problems, problems, report.lives(), report.notes())

    def _sample(self) -> Sample | None:
        """Values for the test kit alone; None before `start`."""
        return None if self._running is None else self._running.report.sample()

    def acknowledge(self) -> None:
        """Remove from `health` what cannot be undone, once a person has seen it. Call it from any thread.

        These are records that retention removed, and committed offsets that were gone.
        """
        if self._running is not None:
            self._running.report.acknowledge()

    def __repr__(self) -> str:
        return f"<Worker {self._lane.name} {self._life.state.name.lower()}>"


def run(*workers: Worker, gc_threshold: tuple[int, int, int] | None = GC_THRESHOLD) -> None:
    """Run several workers in one process until SIGTERM or SIGINT: for development.

    In production give each lane its own process: lanes in one process share the interpreter. At a signal all workers
    begin to stop, then each is waited for; a second signal skips the drain. When one worker fails, the others stop.

    Args:
        workers: Workers to start, and to stop at the end.
        gc_threshold: Thresholds of the cyclic garbage collector while they run, as this call has the process to itself;
            restored at the end. With 5,000 sends in flight Python's default costs a third of all CPU time (measured),
            because each collection walks them all. None leaves the collector alone.

    Raises:
        NotifyError: A worker could not start, or could not go on.
    """

    def on_signal(count: int) -> None:
        for worker in workers:
            worker._life.stop_asked = True
            if count > 1 and worker._running is not None:
                worker._running.hurry(0.0)

    with signals(on_signal) as asked, collector(gc_threshold):
        started: list[Worker] = []
        try:
            with contextlib.suppress(StoppedEarly):
                for worker in workers:
                    worker.start()
                    started.append(worker)
                # not an Event: a handler that sets one while this thread is about to wait for it hangs
                while not asked() and all(_going(w) for w in workers):
                    time.sleep(SLICE)
        finally:
            for worker in started:  # all begin to stop, then each is waited for
                if worker._running is not None:
                    worker._running.begin_stop()
            for worker in started:
                worker.stop()
    for worker in workers:
        error = worker._life.error
        if error is not None:
            why = str(error) if isinstance(error, NotifyError) else origin(error)
            raise NotifyError(f"{worker!r} could not go on: {type(error).__name__}: {why}") from error


def _going(worker: Worker) -> bool:
    running = worker._running
    return worker._life.state is State.RUNNING and running is not None and running.going()
