"""The threads, handles and event loop of a started worker, and how they start and end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
from collections.abc import Callable
from typing import Any, Final

import attrs

from kafka_notify._admin.wanted import retry_retention
from kafka_notify._base.arguments import to_seconds
from kafka_notify._base.supervised import supervised
from kafka_notify._base.where import origin
from kafka_notify._decision.context import Context
from kafka_notify._fetch import backpressure, lease
from kafka_notify._fetch.channels import Channels
from kafka_notify._fetch.control import ControlReader
from kafka_notify._fetch.flow import TRANSIT_BYTES
from kafka_notify._fetch.loop import FetchLoop
from kafka_notify._fetch.payload_reloader import PayloadReloader
from kafka_notify._fetch.periodic_query import let_answered_go
from kafka_notify._kafka.clients import LIBRDKAFKA, Clients
from kafka_notify._kafka.config import Config, client_bytes
from kafka_notify._kafka.handle import ProducerHandle
from kafka_notify._partition.wide import LongWaits
from kafka_notify._send.pace import Pace, SharedPace
from kafka_notify._send.sends import MakePace, Sender
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._wire.pause import Paused
from kafka_notify._worker import engine
from kafka_notify._worker.calls import Calls
from kafka_notify._worker.engine import Engine
from kafka_notify._worker.life import Life
from kafka_notify._worker.report import Report, failure
from kafka_notify._worker.settings import Settings
from kafka_notify._worker.stats import TABLE_ENTRY_BYTES
from kafka_notify.codec import Codec
from kafka_notify.consumer import Consumer
from kafka_notify.errors import ConfigError, NotifyError
from kafka_notify.events import OnEvent
from kafka_notify.outcome import Middleware
from kafka_notify.topology import Lane, Topology

log = logging.getLogger("kafka_notify.worker")

WARM_UP: Final = 30.0
SLICE: Final = 0.1
"""Seconds of one wait of the main thread: signal handlers run between two of them."""


class StoppedEarly(NotifyError):
    """A worker was asked to stop before it had started."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: stopped before it had started")


@attrs.frozen(eq=False)
class WorkerPlan:
    """All that a worker is made from.

    Args:
        lane: The lane that it runs.
        topology: Lanes, categories and channels.
        config: librdkafka properties of the consumer's cluster, for questions to the brokers.
        reading: Complete configuration of the consumer handle; likewise `writing` of the one that writes copies.
        codec: Value bytes to data.
        middleware: The middleware, outermost first.
        drain_timeout: Seconds that running sends get.
        wide_retries: True if retry partitions may become wide.
        on_event: Told of each event, never raises.
        loop_factory: Makes the event loop.
        clients: Opens clients of Kafka, and has the worker's runtime.
    """

    lane: Lane
    topology: Topology
    config: Config
    reading: dict[str, Any]
    writing: dict[str, Any]
    codec: Codec
    middleware: tuple[Middleware, ...]
    drain_timeout: float
    wide_retries: bool
    on_event: OnEvent | None
    loop_factory: Callable[[], asyncio.AbstractEventLoop]
    clients: Clients = LIBRDKAFKA


class Running:
    """One worker from its start to its end.

    Args:
        plan: All that the worker is made from.
        consumer: The team's consumer.
        life: The worker's state.
    """

    def __init__(self, plan: WorkerPlan, consumer: Consumer, life: Life) -> None:
        lane, topology = plan.lane, plan.topology
        self.topics = (
            topology.source_topic(lane.name),
            topology.retry_topic(lane.name, consumer.name),
            topology.dlq_topic(lane.name),
        )
        self.concurrency = consumer.concurrency
        self.loop = plan.loop_factory()
        self._runtime = runtime = plan.clients.runtime
        self.thread = supervised(self._run_loop, f"kafka-notify loop {lane.name}", self._fail, runtime)
        self._life = life
        self._plan = plan
        self._group = topology.group(lane.name, consumer.name)
        self._asks_lease = plan.reading.get("group.protocol") == "consumer"
        self._lease: float | None = None
        self._source_partitions = 0
        self._open_handle = functools.partial(
            ProducerHandle,
            plan.writing,
            name=f"copies of {self._group}",
            topics=self.topics[1:],
            on_event=plan.on_event,
            clients=plan.clients,
        )
        self.handle = self._open_handle()
        calls = Calls(self.loop, life, self._fail)
        self.writer = CopyWriter(
            self.handle,
            self.loop,
            plan.on_event,
            reopen=self._reopen,
            guarded=calls.run,
            monotonic=runtime.monotonic,
        )
        settings = self._settings(consumer)
        self.fetch = FetchLoop(plan.reading, self.topics[0], self.topics[1], settings.channels, plan.clients)
        self.payload_reloader = PayloadReloader(
            plan.reading,
            self.topics[1],
            lambda a: calls.post(self.engine.loaded, a),
            self._fail,
            plan.clients,
        )
        channels = len(consumer.channels or topology.channels)
        sender = Sender(consumer, plan.middleware, channels, self._pace(consumer))
        self.engine = Engine(self._context(consumer), settings, sender, self.writer, self.fetch, life, calls)
        self.report = Report(
            self.engine, self.fetch, self.writer, self.thread, self._memory_limit(), self.topics
        )
        self.control = ControlReader(
            plan.reading,
            topology.control_topic,
            lambda records: calls.post(self.engine.learn_pauses, records),
            self._fail,
            plan.clients,
        )

    # -- values for the parts -------------------------------------------------------------------------

    def _context(self, consumer: Consumer) -> Context:
        plan = self._plan
        source, retry_topic, dead_letter_topic = self.topics
        return Context(
            loop=self.loop,
            clock=self._runtime.clock(),
            source=source,
            retry_topic=retry_topic,
            dead_letter_topic=dead_letter_topic,
            group=self._group,
            categories=plan.topology.categories,
            codec=plan.codec,
            retry=consumer.retry or plan.lane.retry,
            send_timeout=to_seconds(consumer.send_timeout, "send_timeout"),
            concurrency=consumer.concurrency,
            unknown=consumer.unknown_outcome,
            on_event=plan.on_event,
            runtime=self._runtime,
        )

    def _settings(self, consumer: Consumer) -> Settings:
        plan, reading = self._plan, self._plan.reading
        return Settings(
            paused=Paused(plan.lane.name, consumer.name, consumer.channels),
            long_waits=LongWaits(plan.wide_retries, retry_retention(plan.lane)),
            channels=Channels(frozenset(consumer.channels), frozenset(consumer.dropped_channels)),
            known_channels=plan.topology.channels,
            session_timeout=lease.DEFAULT
            if self._asks_lease
            else float(reading["session.timeout.ms"]) / 1000,
            drain_timeout=plan.drain_timeout,
            load=lambda load: self.payload_reloader.request(load),
            count_partitions=lambda: self.handle.warm_up(self.topics[:1], WARM_UP)[self.topics[0]],
        )

    def _pace(self, consumer: Consumer) -> MakePace:
        lane, limit = self._plan.lane.name, consumer.rate_limit
        if limit is None:
            return lambda clock, kick: None
        share = limit.lane_share(lane, self._plan.topology.lanes)
        if (limiter := limit.shared) is None:
            return lambda clock, kick: Pace(limit, share, self.loop, clock, kick)
        quota = limit.quota(lane, consumer.name)
        return lambda clock, kick: SharedPace(limiter, quota, limit, share, self.loop, clock, kick)

    def _memory_limit(self) -> int:
        return (
            backpressure.BUFFER_BYTES + TRANSIT_BYTES + engine.PAYLOAD_BUDGET + engine.LOAD_BUDGET
            + TABLE_ENTRY_BYTES * backpressure.MAX_WAITING_RETRIES
            + client_bytes(self._plan.reading, self._plan.writing)
        )  # fmt: skip

    def _reopen(self) -> ProducerHandle:
        self.handle.release()
        self.handle = self._open_handle()
        return self.handle

    def _fail(self, error: BaseException) -> None:
        self.engine.fail(error)

    # -- start ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Check the topics, run the consumer's `setup`, and join the group."""
        self._within(self._check_topics)
        if self._asks_lease:
            self._within(self._ask_lease)
        self.thread.start()
        opening = asyncio.run_coroutine_threadsafe(
            self.engine.open(lease=self._lease, source_partitions=self._source_partitions), self.loop
        )
        try:
            self._await(opening)
        finally:
            opening.cancel()  # a `setup` that still runs
        self._within(self.control.start)  # before the first record: it may be paused
        self.fetch.start(self.engine)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
                return
            except (SystemExit, KeyboardInterrupt) as e:
                # asyncio lets these two through from any task. Signals reach the main thread alone, so a task that
                # user code began has raised it. Its awaiter gets it too; everything else in the loop goes on.
                if self._life.error is e:
                    return
                log.error("%s: a task of user code raised %s", self.topics[0], origin(e))

    def _ask_lease(self) -> None:
        self._lease = lease.consumer_protocol_lease(self._plan.config, self._group, self._plan.clients)

    def _check_topics(self) -> None:
        source, retry, dlq = self.topics
        rights = {source: "Read", retry: "Read and Write", dlq: "Write"}
        counts = self.handle.warm_up(self.topics, WARM_UP, rights)
        if counts[source] != counts[retry]:
            raise ConfigError(
                f"{source} has {counts[source]} partitions and {retry} has {counts[retry]}: a user's retries must "
                "be in the partition of the same number; raise the smaller one (the retry topic first)"
            )
        self._source_partitions = counts[source]

    def _within(self, call: Callable[[], object]) -> None:
        """Run a call that may wait for brokers on its own thread, so that a stop ends the wait, if not the call."""
        done: concurrent.futures.Future[object] = concurrent.futures.Future()

        def answer() -> None:
            try:
                done.set_result(call())
            except BaseException as e:
                done.set_exception(e)

        name = f"kafka-notify start {self.topics[0]}"
        supervised(answer, name, done.set_exception, self._runtime).start()
        self._await(done)

    def _await(self, done: concurrent.futures.Future[Any]) -> None:
        # in slices: a signal handler runs between two of them
        while not self._runtime.wait(done, SLICE):
            if self._life.stop_asked:
                raise StoppedEarly(self.topics[0])
            if self._life.error is not None:
                raise NotifyError(failure(self._life.error))
        done.result()
        if self._life.stop_asked:
            raise StoppedEarly(self.topics[0])

    # -- end ------------------------------------------------------------------------------------------

    def going(self) -> bool:
        """Return True while the worker still reads."""
        return self.fetch.alive()

    def begin_stop(self) -> None:
        """Begin to hand over and leave the group; `stop` waits for it."""
        self.fetch.stop()

    def hurry(self, seconds: float) -> None:
        """Set the seconds that running sends get from the start of the stop on, before it or while it is under way."""
        self.engine.handover.hurry(seconds)

    def stop(self) -> None:
        """Stop reading, let running sends end, commit, leave the group, close everything."""
        self.fetch.stop()
        monotonic = self._runtime.monotonic
        began = monotonic()
        while not self.fetch.join(SLICE) and monotonic() < began + self.engine.handover.timeout + 60:
            pass
        if self.fetch.alive():
            log.error(
                "the consumer of %s did not close in time; its group notices at its session timeout",
                self.topics[0],
            )
        self.close()

    def close(self) -> None:
        """Close everything, drained or not."""
        self.fetch.stop()
        self.fetch.join(10)
        let_answered_go()
        self.payload_reloader.close()
        self.control.close()
        if self.thread.is_alive():
            closing = asyncio.run_coroutine_threadsafe(self.engine.close(), self.loop)
            monotonic = self._runtime.monotonic
            began = monotonic()
            while not self._runtime.wait(closing, SLICE):
                if monotonic() > began + self.engine.handover.timeout + 10:
                    closing.cancel()
                    break
            try:
                closing.result(0)
            except BaseException as e:
                log.error("closing the worker of %s failed: %s", self.topics[0], origin(e))
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(5)
        self.handle.close(5)
        if not self.thread.is_alive():
            self.loop.close()
