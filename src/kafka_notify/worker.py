"""`Worker`: runs one consumer on one lane, and everything around it that has a life: threads, handles, signals."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final

import attrs
from confluent_kafka import Message
from typing_extensions import Self

from kafka_notify._admin.wanted import retry_retention
from kafka_notify._arguments import to_seconds
from kafka_notify._clock import Clock, boottime
from kafka_notify._config import Config, client_bytes, consumer_config, producer_config, with_drain
from kafka_notify._fetch import intake, lease
from kafka_notify._fetch.channels import Channels
from kafka_notify._fetch.control import ControlReader
from kafka_notify._fetch.loop import TRANSIT_BYTES, FetchLoop
from kafka_notify._fetch.reread import Rereader
from kafka_notify._handle import ProducerHandle
from kafka_notify._partition.wide import LongWaits
from kafka_notify._pause import Pause, Paused
from kafka_notify._send import engine
from kafka_notify._send.engine import Engine
from kafka_notify._send.loader import Load
from kafka_notify._send.pace import Pace, SharedPace
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._supervised import supervised
from kafka_notify._units import Seconds
from kafka_notify._where import origin
from kafka_notify._worker.life import Life, State
from kafka_notify.codec import DEFAULT_CODEC, Codec
from kafka_notify.consumer import Consumer, check_consumer
from kafka_notify.errors import ConfigError, NotifyError
from kafka_notify.events import OnEvent, emitter
from kafka_notify.outcome import Middleware
from kafka_notify.topology import Topology

log = logging.getLogger("kafka_notify.worker")

WARM_UP: Final = 30.0
HALF_ASSIGNED_LIMIT: Final = 60.0
UNASSIGNED_LIMIT: Final = 60.0
"""Seconds without an answer of the group, which also comes to a member that is given no partition."""
SLICE: Final = 0.1
"""Seconds of one wait of the main thread: signal handlers run between two of them."""
STUCK_SHARE: Final = 0.1
BLOCKED_LIMIT: Final = 60.0
"""Seconds of a blocked event loop, or of nothing but hanging sends, after which the worker does not count as alive:
only a restart helps."""
TABLE_ENTRY_BYTES: Final = 900
"""What a waiting retry takes without its payload: entry, queue of its user, wake-up, places in tables (measured)."""
GC_THRESHOLD: Final = (100_000, 20, 100)
"""Objects by which the number of those alive must grow before the young ones are walked: above what full and empty
buffers differ by, as the library itself leaves no cycles. At half of it a collection of 70 ms came every 1.5 s, and
retries late by as much (measured)."""


@attrs.frozen
class WorkerStats:
    """What a worker did since its start, and what it holds now."""

    sent: int = 0
    retried: int = 0
    """Attempts that failed and are tried again."""
    dead: int = 0
    """Dead letters, those expired not counted."""
    expired: int = 0
    skipped: int = 0
    passed_over: int = 0
    """Of other consumers' channels."""
    parked: int = 0
    """Put behind an earlier notification of their user in the retry topic."""
    unknown: int = 0
    """Attempts with an unknown outcome."""
    in_flight: int = 0
    buffered: int = 0
    """Source records in memory, those in flight included."""
    waiting: int = 0
    """Notifications that live in the retry topic."""
    carried_window: int = 0
    """Waiting retries that were written again as the commit could not reach beyond them: without wide retries."""
    carried_retention: int = 0
    """The same, as they neared the end of the retry topic's retention."""
    carried_sparse: int = 0
    """The same, as a restart would have read mostly finished ones."""
    spills: int = 0
    """Records in the retry topic that say what is finished there, as the commit has no room for it."""
    spill_failures: int = 0
    """Those that were not acknowledged; they are written again."""
    wide_partitions: int = 0
    """Partitions whose retries need more than the commit of an older version can say: see operations.md."""
    longest_window: int = 0
    """Offsets of a retry partition between the oldest waiting retry and the last that ended, in the widest one."""
    stuck: int = 0
    """Sends that outlived their deadline and still run."""
    held: bool = False
    """The provider is unavailable: nothing but a probe is sent."""
    destinations_held: int = 0
    """Destinations (channels, or what `Consumer.destination` names) that are held alone."""
    circuit_score: float = 0.0
    """Of the lane, up to `CircuitBreaker.failures`, at which it is held."""
    probes: int = 0
    """Sends that were to find out whether a held provider works again, and were answered or failed."""
    probes_failed: int = 0
    retry_shares: tuple[float, ...] = ()
    """Share of retries that are accepted, by counted attempts: 0, 1, 2, and 3 or more."""
    partitions: tuple[int, ...] = ()
    paused: tuple[Pause, ...] = ()
    """What must not be sent now: see `Pauses`."""
    buffered_bytes: int = 0
    """Bytes of `buffered`, and of records that were polled and are not looked at yet."""
    waiting_bytes: int = 0
    """Bytes of payloads that waiting retries keep; those that do not fit are read again before their send."""
    loading_bytes: int = 0
    """Bytes of payloads that were read again, or are being read: until their send has ended."""
    table_bytes: int = 0
    """Bytes of the table of waiting retries without their payloads, by `TABLE_ENTRY_BYTES`."""
    memory_limit: int = 0
    """Bytes that the four above, the client's prefetch and the queue of copies can reach together at most. What sends
    that are under way decode, and what the sender keeps, comes on top."""

    @property
    def memory_bytes(self) -> int:
        """Bytes that the budgets count now: `memory_limit` bounds them."""
        return self.buffered_bytes + self.waiting_bytes + self.loading_bytes + self.table_bytes


@attrs.frozen
class Health:
    """Whether a worker does its work."""

    ok: bool
    problems: tuple[str, ...] = ()
    """What is wrong, worst first; each a sentence for a person."""
    live: bool = True
    """False when only a restart of the process helps: what a liveness probe should ask."""
    notes: tuple[str, ...] = ()
    """What others have to look after while it does its work: destinations that the consumer names are held."""


class Worker:
    """Runs one `Consumer` on one lane; many workers, in many processes, share the lane's partitions.

    It reads, sends up to `consumer.concurrency` notifications at once (never two of one user), retries, and
    commits. After a crash nothing is lost: what was in flight, or finished within the last 100 ms, may be sent
    again with the same idempotency key.

    Args:
        consumer: The team's consumer, or a factory (its class, a lambda) that gives each process its own.
        config: librdkafka properties, as for confluent_kafka.
        lane: Name of the lane in the topology.
        topology: Lanes, categories and channels, shared with the producers.
        codec: Value bytes to data; JSON by default.
        consumer_config: Goes before `config` for the consumer handle alone.
        producer_config: The same for the handle that writes retry copies and dead letters.
        middleware: Wraps each send, outermost first.
        on_event: Called with each `Event`, mostly on the worker's event loop: it must not block.
        drain_timeout: Seconds that running sends get when partitions are handed over or the worker stops.
        wide_retries: Whether more retries may wait in one partition than a commit of an older version can tell apart
            (20,000): a worker of such a version stops on that partition. False while older ones run, and before a
            roll-back; then each retry beyond 20,000 has everything in front of it written again.
        loop_factory: Makes the event loop, for example `uvloop.new_event_loop`.

    Raises:
        ConfigError: A setting is off, or would break a promise.
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
        self._wide_retries = wide_retries
        self._loop_factory = loop_factory
        self._lock = threading.Lock()
        self._running: _Running | None = None
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

    def listen(self, on_event: OnEvent, /) -> None:
        """Have `on_event` called with each event too, after those given before. Before `start`.

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

        Signals are only taken in the main thread; elsewhere it blocks until `stop` is called.

        Args:
            gc_threshold: See `kafka_notify.run`.

        Raises:
            NotifyError: The worker could not start, or could not go on.
        """
        run(self, gc_threshold=gc_threshold)

    def start(self) -> None:
        """Check the topics, run the consumer's `setup`, join the group and return.

        Raises:
            ConfigError: A topic is missing, or source and retry topic are not co-partitioned.
            NotifyError: No broker answers, the worker was started before, or `stop` was called meanwhile, which ends
                a `setup` that hangs, too.
        """
        life = self._life
        with self._lock:
            if not life.to(State.STARTING):
                raise NotifyError("a Worker is started once; make another one")
        try:
            consumer = self._given if isinstance(self._given, Consumer) else self._given()
            check_consumer(consumer, self._topology)
            self._group = self._topology.group(self._lane.name, consumer.name)  # before its parts have events
            self._running = _Running(self, consumer)
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
        """Stop reading, let running sends end within the drain budget, commit, leave the group, close everything.

        What was not sent is redelivered elsewhere; a send that is cancelled is no attempt. Idempotent. Where a `start`
        or another `stop` is under way, on whatever thread, it gives up or hurries, and this call waits for its end.
        After a failure nothing is drained or committed.

        Args:
            timeout: Seconds for running sends instead of `drain_timeout`; 0 skips the drain, also of a `stop` that is
                under way.
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

    # -- what it is at --------------------------------------------------------------------------------

    @property
    def lane(self) -> str:
        """Name of its lane."""
        return self._lane.name

    @property
    def topology(self) -> Topology:
        """Lanes, categories and channels that it knows."""
        return self._topology

    @property
    def group(self) -> str | None:
        """Its consumer group, such as `notif.high_priority.sms`; None before `start`."""
        return self._group

    @property
    def concurrency(self) -> int | None:
        """Sends that its consumer allows at once; None before `start`."""
        return None if self._running is None else self._running.concurrency

    def stats(self) -> WorkerStats:
        """What it did and holds; from any thread, at any time."""
        return WorkerStats() if self._running is None else self._running.stats()

    def oldest_age(self) -> float | None:
        """Seconds since the oldest notification was created that is here and neither sent nor given up.

        Those that wait for their retry count, from any thread. It looks at each user who has something open:
        made for a look every few seconds, not for each send. None when nothing is open here; of what other workers
        hold, or nobody has read yet, it knows nothing.
        """
        return None if self._running is None else self._running.oldest_age()

    def health(self) -> Health:
        """Whether it does its work; from any thread, at any time: for liveness and readiness probes."""
        life = self._life
        if life.state is State.STOPPED and life.error is not None:
            return Health(False, (_failure(life.error),), False)
        if self._running is None or life.state in (State.NEW, State.STOPPED, State.STARTING):
            return Health(False, (life.state.value,))
        problems = self._running.problems()
        notes = tuple(self._running.engine.sends.guard.notes())
        return Health(not problems, problems, self._running.lives(), notes)

    def acknowledge(self) -> None:
        """Take out of `health` what cannot be undone, now that a person has seen it: records that retention removed,
        committed offsets that were gone. From any thread."""
        if self._running is not None:
            self._running.engine.alarms.acknowledge()

    def __repr__(self) -> str:
        return f"<Worker {self._lane.name} {self._life.state.name.lower()}>"


class StoppedEarly(NotifyError):
    """A stop was asked for before a worker had started."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: stopped before it had started")


def _failure(error: BaseException) -> str:
    why = f": {error}" if isinstance(error, NotifyError) else ""
    return f"it stopped on {type(error).__name__}{why}"


class _Running:
    """The parts of a started worker."""

    def __init__(self, worker: Worker, consumer: Consumer) -> None:
        w, lane, topology = worker, worker._lane, worker._topology
        self.topics = (
            topology.source_topic(lane.name),
            topology.retry_topic(lane.name, consumer.name),
            topology.dlq_topic(lane.name),
        )
        reading, writing = w._settings(consumer.name)
        self._config: Config = {**w._config, **w._consumer_config}
        self._asks_lease = reading.get("group.protocol") == "consumer"
        session_timeout = lease.DEFAULT if self._asks_lease else float(reading["session.timeout.ms"]) / 1000
        self.concurrency = consumer.concurrency
        self._life = w._life
        self.loop = w._loop_factory()
        self.thread = supervised(self._run_loop, f"kafka-notify loop {lane.name}", self._fail)
        self._group = group = topology.group(lane.name, consumer.name)
        on_event = emitter(*w._listeners)
        self._open_handle = functools.partial(
            ProducerHandle, writing, name=f"copies of {group}", topics=self.topics[1:], on_event=on_event
        )
        self.handle = self._open_handle()
        self.writer = CopyWriter(self.handle, self.loop, on_event, reopen=self._reopen)
        self._memory_limit = (
            intake.BUFFER_BYTES + TRANSIT_BYTES + engine.PAYLOAD_BUDGET + engine.LOAD_BUDGET
            + TABLE_ENTRY_BYTES * intake.MAX_HELD + client_bytes(reading, writing)
        )  # fmt: skip
        channels = Channels(frozenset(consumer.channels), frozenset(consumer.dropped_channels))
        self.fetch = FetchLoop(reading, self.topics[0], self.topics[1], channels)
        self.rereader = Rereader(reading, self.topics[1], self._loaded, self._fail)
        self.engine = Engine(
            consumer,
            retry=consumer.retry or lane.retry,
            send_timeout=to_seconds(consumer.send_timeout, "send_timeout"),
            topics=self.topics,
            group=group,
            categories=topology.categories,
            channel_count=len(consumer.channels or topology.channels),
            codec=w._codec,
            middleware=w._middleware,
            on_event=on_event,
            session_timeout=session_timeout,
            drain_timeout=w._drain_timeout,
            paused=Paused(lane.name, consumer.name, consumer.channels),
            long_waits=LongWaits(w._wide_retries, retry_retention(lane)),
            loop=self.loop,
            writer=self.writer,
            fetch=self.fetch,
            load=self.rereader.request,
            pace=self._pace(consumer, lane.name, topology),
            count_partitions=lambda: self.handle.warm_up(self.topics[:1], WARM_UP)[self.topics[0]],
            channels=channels,
            known_channels=topology.channels,
            life=self._life,
        )
        self.control = ControlReader(
            reading,
            topology.control_topic,
            lambda records: self.engine.post(self.engine.learn_pauses, records),
            self._fail,
        )

    def _pace(
        self, consumer: Consumer, lane: str, topology: Topology
    ) -> Callable[[Clock, Callable[[], object]], Pace | None]:
        limit = consumer.rate_limit
        if limit is None:
            return lambda clock, kick: None
        share = limit.lane_share(lane, topology.lanes)
        if (limiter := limit.shared) is None:
            return lambda clock, kick: Pace(limit, share, self.loop, clock, kick)
        quota = limit.quota(lane, consumer.name)
        return lambda clock, kick: SharedPace(limiter, quota, limit, share, self.loop, clock, kick)

    def _reopen(self) -> ProducerHandle:
        self.handle.release()
        self.handle = self._open_handle()
        return self.handle

    def _loaded(self, answers: Sequence[tuple[Load, Message | None]]) -> None:
        self.engine.post(self.engine.loaded, answers)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
                return
            except (SystemExit, KeyboardInterrupt) as e:
                # asyncio lets these two through from any task, and signals reach the main thread alone: a task that
                # user code began. Whoever awaits it is told; everything else in the loop is as it was.
                if self.engine.error is e:
                    return
                log.error("%s: a task of user code raised %s", self.topics[0], origin(e))

    def _fail(self, error: BaseException) -> None:
        self.engine.fail(error)

    def start(self) -> None:
        self._within(self._check_topics)
        if self._asks_lease:
            self._within(self._ask_lease)
        self.thread.start()
        opening = asyncio.run_coroutine_threadsafe(self.engine.open(), self.loop)
        try:
            self._await(opening)
        finally:
            opening.cancel()  # a `setup` that still runs
        self._within(self.control.start)  # before the first record: it may be paused
        self.fetch.start(self.engine)

    def _ask_lease(self) -> None:
        self.engine.commits.session_timeout = lease.consumer_protocol_lease(self._config, self._group)

    def _within(self, call: Callable[[], object]) -> None:
        """Call what may wait for brokers on a thread of its own, so that a stop ends the wait, if not the call."""
        done: concurrent.futures.Future[object] = concurrent.futures.Future()

        def answer() -> None:
            try:
                done.set_result(call())
            except BaseException as e:
                done.set_exception(e)

        supervised(answer, f"kafka-notify start {self.topics[0]}", done.set_exception).start()
        self._await(done)

    def _await(self, done: concurrent.futures.Future[Any]) -> None:
        # in slices: a signal handler runs between two of them
        while not concurrent.futures.wait([done], SLICE).done:
            if self._life.stop_asked:
                raise StoppedEarly(self.topics[0])
            if self._life.error is not None:
                raise NotifyError(_failure(self._life.error))
        done.result()
        if self._life.stop_asked:
            raise StoppedEarly(self.topics[0])

    def hurry(self, seconds: float) -> None:
        """Give running sends so many seconds from the stop's begin on; whether it has begun or not."""
        self.engine.drain_timeout = seconds
        if not seconds:
            self.engine.abort = True

    def _check_topics(self) -> None:
        source, retry, dlq = self.topics
        rights = {source: "Read", retry: "Read and Write", dlq: "Write"}
        counts = self.handle.warm_up(self.topics, WARM_UP, rights)
        if counts[source] != counts[retry]:
            raise ConfigError(
                f"{source} has {counts[source]} partitions and {retry} has {counts[retry]}: a user's retries must "
                "lie in the partition of the same number; raise the smaller one (the retry topic first)"
            )
        self.engine.source_partitions = counts[source]

    def stop(self) -> None:
        self.fetch.stop()
        began = time.monotonic()
        while not self.fetch.join(SLICE) and time.monotonic() < began + self.engine.drain_timeout + 60:
            pass
        if self.fetch.alive():
            log.error(
                "the consumer of %s did not close in time; its group notices at its session timeout",
                self.topics[0],
            )
        self.close()

    def close(self) -> None:
        self.fetch.stop()
        self.fetch.join(10)
        self.rereader.close()
        self.control.close()
        if self.thread.is_alive():
            closing = asyncio.run_coroutine_threadsafe(self.engine.close(), self.loop)
            began = time.monotonic()
            while not concurrent.futures.wait([closing], SLICE).done:
                if time.monotonic() > began + self.engine.drain_timeout + 10:
                    closing.cancel()
                    break
            try:
                closing.result(0)
            except BaseException as e:
                log.error("closing the worker of %s: %s", self.topics[0], origin(e))
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(5)
        self.handle.close(5)
        if not self.thread.is_alive():
            self.loop.close()

    def stats(self) -> WorkerStats:
        counts, engine, guard = self.engine.sends.counts, self.engine, self.engine.sends.guard
        partitions = tuple(engine.partitions.values())
        long_waits, windows = engine.long_waits, [p.window for p in partitions]
        return WorkerStats(
            sent=counts.sent,
            retried=counts.retried,
            dead=counts.dead,
            expired=counts.expired,
            skipped=counts.skipped,
            passed_over=counts.passed_over,
            parked=counts.parked,
            unknown=counts.unknown,
            in_flight=engine.sends.in_flight(),
            buffered=engine.intake.buffered,
            waiting=sum(len(p.pending) for p in partitions),
            carried_window=long_waits.carried["window"],
            carried_retention=long_waits.carried["retention"],
            carried_sparse=long_waits.carried["sparse"],
            spills=long_waits.spills,
            spill_failures=long_waits.spill_failures,
            wide_partitions=sum(window > 0 for window in windows),
            longest_window=max(windows, default=0),
            stuck=engine.sends.stuck(),
            held=guard.lane.held,
            destinations_held=len(guard.destinations_held()),
            circuit_score=guard.lane.score,
            probes=guard.probes.made,
            probes_failed=guard.probes.failed,
            retry_shares=guard.lane.retry_shares,
            partitions=tuple(sorted(p.number for p in partitions if p.active)),
            paused=engine.paused.active(),
            buffered_bytes=engine.intake.buffered_bytes + self.fetch.transit_bytes,
            waiting_bytes=max(engine.budget.used - engine.budget.loaded, 0),
            loading_bytes=engine.budget.loaded,
            table_bytes=TABLE_ENTRY_BYTES * sum(len(p.pending) for p in partitions),
            memory_limit=self._memory_limit,
        )

    def oldest_age(self) -> float | None:
        # The loop changes these while we look: each `tuple` is one step of the interpreter, what is gone is gone.
        oldest = min(
            (
                created
                for partition in tuple(self.engine.partitions.values())
                for lane in tuple(partition.lanes.values())
                if (head := lane.head) is not None
                and (created := head.created) > 0  # a record may come without a time
            ),
            default=None,
        )
        return None if oldest is None else max(0.0, time.time() - oldest / 1000)

    def lives(self) -> bool:
        """Whether it goes on, or may go on by itself."""
        engine = self.engine
        runs = engine.error is None and self.thread.is_alive() and self.fetch.alive()
        hangs = engine.all_stuck_since is not None and boottime() - engine.all_stuck_since > BLOCKED_LIMIT
        return runs and not hangs and boottime() - engine.ticked_at < BLOCKED_LIMIT

    def problems(self) -> tuple[str, ...]:
        engine = self.engine
        found: list[str] = []
        if engine.error is not None:
            return (_failure(engine.error),)
        if self._life.state is State.STOPPING:
            found.append(State.STOPPING.value)
        elif not self.thread.is_alive() or not self.fetch.alive():
            found.append("one of its threads has ended")
        found += [
            f"{self.topics[0]}[{n}] is halted: {reason}" for n, reason in sorted(dict(engine.halted).items())
        ]
        quiet = boottime() - engine.ticked_at
        if quiet > 10:
            found.append(f"its event loop is blocked for {quiet:.0f} s: an async send must not block")
        found += engine.refusals.sentences()
        since = self.fetch.unassigned_since
        if since is not None and (outside := boottime() - since) > UNASSIGNED_LIMIT:
            found.append(
                f"it has not joined the group {self._group} for {outside:.0f} s: are the brokers reachable, and may it "
                "Read the group? Members that hand over, or hang, delay a join too"
            )
        found += engine.alarms.sentences()
        if engine.partitions and engine.commits.error is not None:
            found.append(f"commits fail: {engine.commits.error}")
        if (late := engine.commits.late()) > 0:
            found.append(f"no commit was confirmed for {late:.0f} s: sends wait")
        if self.writer.failing:
            found.append(
                f"{self.writer.failing} copies to {self.topics[1]} or {self.topics[2]} are not acknowledged"
                + (f": {self.writer.why}" if self.writer.why else "")
            )
        if not engine.sends.allowed():
            found.append(
                f"{engine.sends.stuck()} sends hang, twice as many as may run at once: nothing is sent until one of "
                "them returns, or the process is restarted"
            )
        elif (stuck := engine.sends.stuck()) >= max(1, self.concurrency * STUCK_SHARE):
            found.append(f"{stuck} sends outlived their deadline and still run")
        if strays := engine.sends.strays():
            found.append(
                f"{strays} async sends ignored their cancellation at a hand-over and still run beside the next owner's"
            )
        found += engine.sends.unread.problems()
        found += engine.sends.guard.problems()
        halves = [
            n for n, since in self.fetch.half_assigned().items() if boottime() - since > HALF_ASSIGNED_LIMIT
        ]
        if halves:
            found.append(
                f"partitions {sorted(halves)} are assigned for {self.topics[0]} or {self.topics[1]} alone: "
                "do both topics have the same number of partitions?"
            )
        return tuple(found)


def run(*workers: Worker, gc_threshold: tuple[int, int, int] | None = GC_THRESHOLD) -> None:
    """Run several workers in one process until SIGTERM or SIGINT: for development.

    In production give each lane its own process: lanes in one process share the interpreter.

    Args:
        workers: Those to run; each is started, and stopped at the end.
        gc_threshold: Of the cyclic garbage collector while they run, as this call has the process to itself; put
            back at the end. With 5,000 sends in flight Python's default threshold costs a third of all CPU time
            (measured), because each collection walks them all. None leaves the collector alone.

    Raises:
        NotifyError: A worker could not start, or could not go on.
    """
    with _signals(workers) as asked, _collector(gc_threshold):
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
                    worker._running.fetch.stop()
            for worker in started:
                worker.stop()
    for worker in workers:
        error = worker._life.error
        if error is not None:
            why = str(error) if isinstance(error, NotifyError) else origin(error)
            raise NotifyError(f"{worker!r} could not go on: {type(error).__name__}: {why}") from error


def _going(worker: Worker) -> bool:
    running = worker._running
    return worker._life.state is State.RUNNING and running is not None and running.fetch.alive()


@contextmanager
def _collector(threshold: tuple[int, int, int] | None) -> Generator[None]:
    before = gc.get_threshold()
    if threshold is not None:
        gc.set_threshold(*threshold)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _signals(workers: Sequence[Worker]) -> Generator[Callable[[], bool]]:
    """Whether a signal came. It ends starts that are under way; a second one skips the drain."""
    count = 0

    def asked() -> bool:
        return count > 0

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal count
        count += 1
        for worker in workers:
            worker._life.stop_asked = True
            if count > 1 and worker._running is not None:
                worker._running.hurry(0.0)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
