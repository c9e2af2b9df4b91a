"""The event loop that holds all state of a worker: partitions, lanes, timers, sends, commits. No locks.

Everything here runs on one thread, but the methods under "called by the fetch thread".
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import heapq
import itertools
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError as ConfluentError
from confluent_kafka import Message

from kafka_notify import events
from kafka_notify._clock import Clock
from kafka_notify._fetch.loop import CommitRequest, CommitResult, FetchLoop, Start, boottime
from kafka_notify._fetch.offsets import Committed, OffsetRewound
from kafka_notify._lanes.entry import Busy, Entry, Held, Lane
from kafka_notify._lanes.partition import Partition, PayloadBudget, TopicRecreated
from kafka_notify._send.attempt import AttemptRunner, describe
from kafka_notify._send.gate import Gate
from kafka_notify._send.threads import SendThreads
from kafka_notify._settle.settle import Settler
from kafka_notify.codec import Codec
from kafka_notify.consumer import Consumer
from kafka_notify.deadletters import DeadLetter
from kafka_notify.errors import CodecUnavailable, ProviderUnavailableError, ThrottledError, UnknownOutcomeError
from kafka_notify.events import OnEvent
from kafka_notify.notification import Attempt, Notification
from kafka_notify.outcome import Dead, Middleware, Outcome, Retry, Sent, Skipped
from kafka_notify.policy import Ordering, RetryPolicy
from kafka_notify.wire import (
    REDRIVE_WRITER,
    Headers,
    Undecodable,
    channel_of,
    decode,
    identity,
    read_retry,
)

log = logging.getLogger("kafka_notify.engine")

TICK: Final = 0.05
COMMIT_INTERVAL: Final = 0.1
"""Seconds between commits: bounds what is sent again after a crash."""
MAX_HELD: Final = 200_000
"""Waiting retries per worker; beyond that the source is not read."""
PAYLOAD_BUDGET: Final = 128 * 2**20
"""Bytes of waiting retries' payloads kept in memory; the others are read again when they are due."""
BUFFER_BYTES: Final = 256 * 2**20
"""Bytes of source records in memory beyond which reading stops."""
TURN: Final = 100
"""Sends that a task makes without suspending before it lets the loop breathe."""
CANCEL_GRACE: Final = 5.0
"""Seconds that an async send may go on after it was cancelled before it counts as stuck."""
FOREVER: Final = float("inf")


class Slot:
    """A task that makes one send after the other, and what it is at."""

    __slots__ = ("deadline", "entry", "reason", "stuck", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.entry: Entry | None = None
        self.deadline = FOREVER
        """Monotonic seconds at which the send is cancelled."""
        self.reason = ""
        """Why it was cancelled: `deadline`, `handover`; empty when it was not by us."""
        self.stuck = False


class Counts:
    """What happened since the start."""

    __slots__ = ("copied", "dead", "expired", "parked", "passed_over", "retried", "sent", "skipped", "unknown")

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)
        self.sent: int
        self.retried: int
        self.dead: int
        self.expired: int
        self.skipped: int
        self.parked: int
        self.passed_over: int
        self.unknown: int
        self.copied: int


class Engine:
    """Everything between records read and offsets committed, for one worker.

    Args:
        consumer: The team's.
        retry: Its backoff.
        topics: Names of source, retry and dead-letter topic.
        group: The consumer group.
        categories: Of the topology.
        codec: Value bytes to data.
        middleware: The team's, outermost first.
        on_event: Guarded; None costs nothing.
        session_timeout: Seconds without a confirmed commit after which no send starts.
        drain_timeout: Seconds for running sends at a hand-over.
        loop: Runs all of this.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        retry: RetryPolicy,
        send_timeout: float,
        topics: tuple[str, str, str],
        group: str,
        categories: Mapping[str, Any],
        codec: Codec,
        middleware: tuple[Middleware, ...],
        on_event: OnEvent | None,
        session_timeout: float,
        drain_timeout: float,
        loop: asyncio.AbstractEventLoop,
        clock: Clock | None = None,
    ) -> None:
        self.loop = loop
        self.counts = Counts()
        self.clock = clock or Clock()
        self.gate = Gate()
        self.partitions: dict[int, Partition] = {}
        self.halted: dict[int, str] = {}
        self.budget = PayloadBudget(PAYLOAD_BUDGET)
        self.threads = SendThreads(consumer.concurrency, loop)
        self.error: BaseException | None = None
        self.failed = threading.Event()
        self.commit_error: str | None = None
        self.abort = False
        """A second signal: drain nothing."""
        self._consumer = consumer
        self._source, self._retry_topic, self._dlq = topics
        self._group = group
        self._categories = categories
        self._codec = codec
        self._channels = frozenset(consumer.channels)
        self._ordering = consumer.ordering
        self._concurrency = consumer.concurrency
        self._send_timeout = send_timeout
        self._max_attempts = retry.max_attempts
        self._session_timeout = session_timeout
        self._drain_timeout = drain_timeout
        self._on_event = on_event
        self._runner = AttemptRunner(consumer, retry, middleware, self.threads)
        self._on_sent = consumer.on_sent if "on_sent" in consumer._overridden else None
        # 8 x: with only 2 x polled ahead, records of the same users fill the buffer and the number in flight
        # never reaches the limit (measured)
        self._high = min(max(8 * consumer.concurrency, 4_000), 40_000)
        self._low = self._high // 2
        self._ready: deque[Entry] = deque()
        self._slots: set[Slot] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._wave = 1
        self._kicking = False
        self._timers: list[tuple[int, int, Lane]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = FOREVER
        self._sequence = itertools.count()
        self._committing: CommitRequest | None = None
        self._last: dict[int, tuple[Committed, Committed]] = {}
        self._committed_at = boottime()
        self._requested_at = 0.0
        self._lease_until = 0.0
        self._lease_told = False
        self._full_since: float | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._settler: Settler
        self._fetch: FetchLoop
        self._load: Callable[[Entry], object]

        self.dead_letter_hook = self._told_dead_letter if "on_dead_letter" in consumer._overridden else None
        self.ticked_at = boottime()
        """`boottime` of the last tick: an old one means that something blocks the loop."""
        self._lost_slots = 0

    def in_flight(self) -> int:
        """Sends under way."""
        return sum(slot.entry is not None for slot in tuple(self._slots))

    def stuck(self) -> int:
        """Sends that outlived their deadline and still run."""
        return self.threads.stuck + self._lost_slots

    def lease_late(self) -> float:
        """Seconds since the last confirmed commit when that is longer than the lease, else 0."""
        over = boottime() - self._lease_until
        return over + self._session_timeout if self.partitions and self._lease_until and over > 0 else 0.0

    def set_drain_timeout(self, seconds: float) -> None:
        """Seconds for running sends at the next hand-over."""
        self._drain_timeout = seconds

    def attach(self, fetch: FetchLoop, settler: Settler, load: Callable[[Entry], object]) -> None:
        """Connect the parts that need the engine to exist."""
        self._fetch, self._settler, self._load = fetch, settler, load

    # -- life -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Run the consumer's `setup` and start the clockwork."""
        await self._runner.call(self._consumer.setup)
        self._ticker = self.loop.create_task(self._tick_forever())

    async def close(self) -> None:
        """Stop all tasks; partitions were drained before. Runs the consumer's `teardown`."""
        if self._ticker is not None:
            self._ticker.cancel()
        tasks = [slot.task for slot in self._slots if slot.task is not None]
        for slot in self._slots:
            slot.reason = "close"
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        try:
            await asyncio.wait_for(self._runner.call(self._consumer.teardown), max(self._drain_timeout, 1.0))
        except Exception as e:
            self._hook_failed("teardown", None, e)
        self.threads.close()

    def fail(self, error: BaseException) -> None:
        """The worker cannot go on: it stops without committing what is open."""
        if self.error is None:
            self.error = error
            self.failed.set()

    # -- called by the fetch thread -------------------------------------------------------------------

    def feed(self, batch: list[Message]) -> None:
        """Records and end-of-partition marks, in order."""
        self._post(self._feed, batch)

    def started(self, start: Start) -> None:
        """A partition pair may be restored; its records follow."""
        self._post(self._start, start)

    def committed(self, result: CommitResult) -> None:
        """The answer to a commit."""
        self._post(self._committed, result)

    def forget(self, numbers: frozenset[int], *, lost: bool) -> None:
        """These partitions are not ours any more."""
        self._post(self._forget, numbers, lost)

    def assigned(self, topic: str, numbers: frozenset[int]) -> None:
        """A rebalance gave partitions to this worker."""
        if self._on_event and numbers:
            self._on_event(events.PartitionsAssigned(topic, tuple(sorted(numbers))))

    def kafka_error(self, error: ConfluentError) -> None:
        """librdkafka reported something; it goes on by itself unless it is fatal."""
        log.warning("Kafka: %s (%s)", error.name(), error.str())
        if self._on_event:
            self._on_event(events.KafkaError(error.name(), error.fatal()))

    def drain(self, numbers: frozenset[int]) -> CommitRequest:
        """Let these partitions finish what runs; what is to be committed of them. Blocks the fetch thread."""
        answer: concurrent.futures.Future[CommitRequest] = concurrent.futures.Future()
        self._post(lambda: self.loop.create_task(self._drain(numbers, answer)))
        try:
            return answer.result(self._drain_timeout + 5)
        except concurrent.futures.TimeoutError:
            log.error("the event loop did not answer a hand-over in time: a send blocks it; nothing is committed")
            return CommitRequest({})

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Run `call` on the loop, from any thread."""
        self._post(call, *args)

    def _post(self, call: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has failed, the thread ends too
            self.loop.call_soon_threadsafe(call, *args)

    # -- records in -----------------------------------------------------------------------------------

    def _feed(self, batch: list[Message]) -> None:
        self._fetch.taken += len(batch)
        now = self.clock.now()
        partitions, source, channels = self.partitions, self._source, self._channels
        user = self._ordering is Ordering.USER
        for message in batch:
            error = message.error()
            if error is not None:
                self._feed_error(message, error)
                continue
            number = message.partition()
            partition = partitions.get(number)  # type: ignore[arg-type]
            if partition is None:
                continue
            headers: Any = message.headers()
            key: Any = message.key()
            offset: Any = message.offset()
            try:
                if message.topic() == source:
                    if channels and (channel := channel_of(headers)) is not None and channel not in channels:
                        partition.pass_over(offset)
                        self.counts.passed_over += 1
                        continue
                    timestamp = message.timestamp()[1]
                    partition.on_source(
                        offset,
                        key if user else self._lane_key(key, headers, offset),
                        key,
                        message.value(),  # type: ignore[arg-type]
                        headers or [],
                        timestamp,
                        lambda h=headers, n=number, o=offset, t=timestamp: identity(h, source, n, o, t),
                        now,
                    )
                else:
                    self._feed_retry(partition, message, offset, key, headers or [], now)
            except (OffsetRewound, TopicRecreated) as e:
                self._halt(partition, str(e))
        for partition in tuple(partitions.values()):
            if not partition.active and partition.restored:
                self._commit_soon()
            partition.step_blocked(now)
        self._check_room()
        self._fetch.open_gate()
        self._kick()

    def _feed_retry(
        self, partition: Partition, message: Message, offset: int, key: bytes | None, headers: Headers, now: int
    ) -> None:
        state = read_retry(headers, self._source, partition.number)
        origin = -1 if state is None else state.origin
        timestamp = message.timestamp()[1]
        partition.on_retry(
            offset,
            self._lane_key(key, headers, origin),
            state,
            key,
            message.value(),  # type: ignore[arg-type]
            headers,
            timestamp,
            lambda: self._settler.facts(headers, partition.number, origin, timestamp),
            now,
        )

    def _lane_key(self, key: bytes | None, headers: Headers, origin: int) -> Hashable:
        if self._ordering is Ordering.USER:
            return key
        return (key, channel_of(headers)) if self._ordering is Ordering.USER_CHANNEL else origin

    def _feed_error(self, message: Message, error: ConfluentError) -> None:
        partition = self.partitions.get(message.partition() if message.partition() is not None else -1)  # type: ignore[arg-type]
        if error.code() != ConfluentError._PARTITION_EOF:
            self.kafka_error(error)
            if error.fatal():
                self.fail(RuntimeError(f"fatal error of the Kafka client: {error.name()}"))
        elif partition is not None:
            end: Any = message.offset()
            if message.topic() == self._source:
                partition.on_source_end(end)
            else:
                partition.on_retry_end(end)

    def _start(self, start: Start) -> None:
        self.halted.pop(start.number, None)
        self._last.pop(start.number, None)
        self.partitions[start.number] = Partition(
            start.number,
            start.source,
            start.retry,
            source_range=start.source_range,
            retry_range=start.retry_range,
            writer=uuid.uuid4().hex,
            redrive_writer=REDRIVE_WRITER,
            effects=self,
            budget=self.budget,
        )
        if start.source.frontier > start.source_range[1]:
            self._halt(
                self.partitions[start.number],
                f"offset {start.source.frontier} is committed, but the topic ends at {start.source_range[1]}: "
                "it was re-created or truncated; reset the group's offsets of this partition to go on",
            )
        elif self.partitions[start.number].restored:
            self._commit_soon()

    def _halt(self, partition: Partition, reason: str) -> None:
        """Stop one partition, loudly: going on would skip or repeat what nobody could find again."""
        partition.close()
        self.partitions.pop(partition.number, None)
        self.halted[partition.number] = reason
        self._publish_wanted()
        log.error("%s[%d] is halted: %s", self._source, partition.number, reason)
        if self._on_event:
            self._on_event(events.PartitionHalted(partition.number, reason))

    def _forget(self, numbers: frozenset[int], lost: bool) -> None:
        for n in numbers:
            self._last.pop(n, None)
            self.halted.pop(n, None)
            if partition := self.partitions.pop(n, None):
                partition.close()
        if numbers and self._on_event:
            self._on_event(events.PartitionsRevoked(self._source, tuple(sorted(numbers)), lost))
        if lost:
            self._cancel(lambda p: not p.alive)
        self._publish_wanted()

    def loaded(self, answers: Sequence[tuple[Entry, Message | None]]) -> None:
        """Evicted payloads are here again."""
        now = self.clock.now()
        for entry, message in answers:
            partition = entry.partition
            if not partition.alive:
                continue
            if message is None:
                self._halt(
                    partition,
                    f"the waiting retry of offset {entry.origin} is gone from {self._retry_topic}: its retention is "
                    "shorter than its delay; restore the record, or reset the group's offset of the retry partition",
                )
                continue
            headers: Any = message.headers()
            partition.loaded(entry, message.key(), message.value(), headers or [], now)  # type: ignore[arg-type]
        self._kick()

    # -- Effects of a partition -----------------------------------------------------------------------

    def send(self, entry: Entry) -> None:
        """Queue an attempt."""
        self._ready.append(entry)

    def park(self, entry: Entry) -> None:
        """Copy a source entry behind an earlier one of its user."""
        self.counts.parked += 1
        self._settler.park(entry)

    def load(self, entry: Entry) -> None:
        """Read an evicted payload again."""
        self._load(entry)

    def bury(self, entry: Entry) -> None:
        """Dead-letter a retry record that cannot be read."""
        self.counts.dead += 1
        self._settler.bury(entry, "undecodable", None, "bad_retry_headers")

    def wake(self, lane: Lane, at: int) -> None:
        """Look at a lane again at epoch ms `at`."""
        heapq.heappush(self._timers, (at, next(self._sequence), lane))
        if at < self._timer_at:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = FOREVER
        if self._timers:
            self._timer_at = self._timers[0][0]
            # at most a second: due times are wall-clock times, and the wall clock may be set
            delay = min(max((self._timer_at - self.clock.now()) / 1000, 0.0), 1.0)
            self._timer = self.loop.call_later(delay, self._timers_due)

    def _timers_due(self) -> None:
        now = self.clock.now()
        timers = self._timers
        while timers and timers[0][0] <= now:
            lane = heapq.heappop(timers)[2]
            lane.timer = 0
            if lane.partition.alive:
                lane.partition.step(lane, now)
        self._arm()
        self._kick()

    # -- sends ----------------------------------------------------------------------------------------

    def _kick(self) -> None:
        """See that somebody works: first one task, then twice as many with each turn of the loop.

        A task whose sends do not suspend empties the queue alone; waking the others would be waste.
        """
        if self._ready and not self._kicking:
            self._kicking = True
            self._wave = 1
            self._surge()

    def _surge(self) -> None:
        count = min(len(self._ready), self._wave)
        if not count or boottime() > self._lease_until:
            self._kicking = False  # a commit kicks again
            return
        if self.gate.shut:
            count = 1  # the probe; it kicks again
        while count and self._idle:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                count -= 1
        while count and len(self._slots) < self._concurrency:
            slot = Slot()
            self._slots.add(slot)
            slot.task = self.loop.create_task(self._work(slot))
            count -= 1
        if count or self.gate.shut:
            self._kicking = False  # all are at it; each takes the next entry when it is done
            return
        self._wave = min(self._wave * 2, 1_024)
        self.loop.call_soon(self._surge)

    def _may_start(self) -> bool:
        """Whether a send may start at all: the lease holds, and the gate lets it pass."""
        if boottime() > self._lease_until:
            self._tell_lease()
            return False
        return self.gate.try_pass(self.clock.monotonic())

    async def _work(self, slot: Slot) -> None:
        ready = self._ready
        turn = 0
        try:
            while True:
                if not ready or not self._may_start():
                    future = self.loop.create_future()
                    self._idle.append(future)
                    await future
                    turn = 0
                    continue
                entry = ready.popleft()
                await self._process(slot, entry)
                if slot.stuck:
                    self._lost_slots -= 1
                    return  # it was replaced while its send ignored its cancellation
                turn += 1
                if turn >= TURN:
                    turn = 0
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise
        except BaseException as e:
            self.fail(e)
            raise
        finally:
            self._slots.discard(slot)

    async def _process(self, slot: Slot, entry: Entry) -> None:
        partition = entry.lane.partition
        if not partition.alive or partition.closing:
            entry.busy = Busy.NO
            self.gate.give_up_probe()
            return
        now = self.clock.now()
        try:
            notification = decode(
                entry.key,
                entry.value,
                entry.headers,
                self._source,
                partition.number,
                entry.origin,
                entry.timestamp,
                self._codec,
                self._categories,
            )
        except Undecodable as e:
            self.gate.give_up_probe()
            self.counts.dead += 1
            self._settler.bury(entry, e.reason, None, e.code)
            return
        except CodecUnavailable:
            self._shut("codec_unavailable", None)
            self._ready.appendleft(entry)
            return
        remaining: float | None = None
        timeout = self._send_timeout
        expires = notification._expires_ms
        if expires is not None:
            remaining = (expires - now) / 1000
            if remaining <= 0:
                self.gate.give_up_probe()
                if not self.clock.settled:
                    self.loop.call_later(1.0, self._requeue, entry)
                    return
                self.counts.expired += 1
                self._settler.bury(entry, "expired", notification, None)
                return
            timeout = min(timeout, remaining)
        held = entry.held
        if held is None:
            attempt = Attempt(1, self._max_attempts, notification.id, timeout, remaining)
        else:
            attempt = Attempt(
                entry.attempt + 1,
                self._max_attempts,
                notification.id,
                timeout,
                remaining,
                held.unknown,
                held.provider,
                held.error_code,
            )
        partition.outstanding += 1
        started = self.clock.monotonic()
        slot.entry = entry
        slot.deadline = started + timeout
        try:
            outcome = await self._runner.run(notification, attempt)
        except asyncio.CancelledError:
            if slot.reason == "close":
                raise
            if slot.reason == "handover" or not partition.alive:
                outcome = None
            else:  # without a reason of ours the sender's own code was cancelled
                error = UnknownOutcomeError("timeout" if slot.reason == "deadline" else "cancelled")
                outcome = self._runner.failed(error, attempt)
            if slot.reason:
                _uncancel(slot.task)
            if self.threads.take_over(slot.task, lambda: self._unstick(entry.lane)):
                entry.lane.stuck = True
        except Exception as e:
            outcome = self._runner.failed(e, attempt)
        finally:
            slot.deadline = FOREVER
            slot.entry = None
            slot.reason = ""
            partition.outstanding -= 1
        if outcome is None or not partition.alive:
            entry.busy = Busy.NO  # handed over: not an attempt; whoever has it now sends it
            return
        if self._on_event is not None:
            kind, provider, code = describe(outcome)
            self._on_event(
                events.AttemptEnded(
                    notification.id,
                    notification.category,
                    notification.channel,
                    attempt.number,
                    kind,
                    provider,
                    code,
                    self.clock.monotonic() - started,
                    (self.clock.now() - notification._created_ms) / 1000,
                )
            )
        if outcome.__class__ is Sent:
            self.counts.sent += 1
            if self.gate.shut:
                self._open_gate()
            if self._on_sent is not None:
                await self._hook(self._on_sent, "on_sent", notification.id, partition, notification, outcome.receipt)
                if not partition.alive:
                    return
            partition.finish(entry, accepted=True, now=now)
            if self._fetch.hold:
                self._check_room()
        else:
            self._settle(entry, notification, attempt, outcome)

    def _settle(self, entry: Entry, notification: Notification[Any], attempt: Attempt, outcome: Outcome) -> None:
        """Everything but sent."""
        if isinstance(outcome, Retry):
            error = outcome.error
            if isinstance(error, ProviderUnavailableError) or (
                isinstance(error, ThrottledError) and error.scope != "recipient"
            ):
                self._shut(error.code, error.retry_after if isinstance(error, ThrottledError) else None)
                self._ready.appendleft(entry)
                return
            if self.gate.shut:
                self._open_gate()
            if isinstance(error, UnknownOutcomeError):
                self.counts.unknown += 1
            reason = self._settler.retry(entry, notification, attempt, outcome, self._max_attempts)
            if reason is None:
                self.counts.retried += 1
            elif reason == "expired":
                self.counts.expired += 1
            else:
                self.counts.dead += 1
        elif isinstance(outcome, Dead):
            if self.gate.shut:
                self._open_gate()
            self.counts.dead += 1
            self._settler.bury(entry, outcome.reason, notification, None, outcome.error)
        elif isinstance(outcome, Skipped):
            self.gate.give_up_probe()
            self.counts.skipped += 1
            if self._on_event is not None:
                self._on_event(
                    events.NotificationSkipped(
                        notification.id, notification.category, notification.channel, outcome.reason
                    )
                )
            entry.partition.finish(entry, accepted=False, now=self.clock.now())

    def _tell_lease(self) -> None:
        """No commit was confirmed for a session timeout: others may own our partitions by now."""
        if self._lease_told or not self._lease_until:
            return
        self._lease_told = True
        late = boottime() - self._lease_until + self._session_timeout
        log.error("no commit was confirmed for %.1f s: the sends of %s wait for one", late, self._source)
        if self._on_event:
            self._on_event(events.LeaseExpired(late))

    def _shut(self, reason: str, wait: float | None) -> None:
        now = self.clock.monotonic()
        until = self.gate.close(now, wait, reason)
        self.loop.call_later(max(until - now, 0.001), self._kick)

    def _open_gate(self) -> None:
        self.gate.open()
        self._kick()

    def _unstick(self, lane: Lane) -> None:
        if lane.partition.alive:
            lane.partition.unstick(lane, self.clock.now())
            self._kick()

    def _requeue(self, entry: Entry) -> None:
        self._ready.append(entry)
        self._kick()

    async def _hook(
        self, hook: Callable[..., Any], name: str, id: str | None, partition: Partition, *args: Any
    ) -> None:
        partition.outstanding += 1
        try:
            await asyncio.wait_for(self._runner.call(hook, *args), self._send_timeout)
        except Exception as e:
            self._hook_failed(name, id, e)
        finally:
            partition.outstanding -= 1

    async def _told_dead_letter(self, letter: DeadLetter, entry: Entry) -> None:
        await self._hook(self._consumer.on_dead_letter, "on_dead_letter", letter.id, entry.partition, letter)

    def _hook_failed(self, name: str, id: str | None, error: Exception) -> None:
        log.error("%s raised %s for notification %s", name, type(error).__name__, id)
        if self._on_event:
            self._on_event(events.HookFailed(name, id, type(error).__name__))

    # -- clockwork ------------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        try:
            while True:
                await asyncio.sleep(TICK)
                self._tick()
        except asyncio.CancelledError:
            raise
        except BaseException as e:
            self.fail(e)
            raise

    def _tick(self) -> None:
        self.ticked_at = boottime()
        if self.clock.look():
            log.warning("the wall clock jumped: nothing expires for a minute")
            self._arm()
        monotonic = self.clock.monotonic()
        for slot in tuple(self._slots):
            if slot.deadline < monotonic:
                self._overdue(slot, monotonic)
        self._check_room()
        self._publish_wanted()
        now = self.clock.now()
        for partition in self.partitions.values():
            for entry in partition.carry():
                self._settler.carry(entry)
            partition.step_blocked(now)
        self._commit(monotonic)
        self._kick()

    def _overdue(self, slot: Slot, monotonic: float) -> None:
        """A send outlived its deadline: cancel it; one that ignores its cancellation is left behind."""
        if slot.task is None:
            return
        if not slot.reason:
            slot.reason = "deadline"
            slot.deadline = monotonic + CANCEL_GRACE
            slot.task.cancel()
        elif not slot.stuck:
            slot.stuck = True
            self._lost_slots += 1
            slot.deadline = FOREVER
            self._slots.discard(slot)  # another may take its place

    def _check_room(self) -> None:
        """Hold the polls when too much is in memory; after a second pause the sources instead, so that
        retries and rebalances are served."""
        budget, fetch = self.budget, self._fetch
        if self._full_since is None:
            if budget.open >= self._high or budget.open_bytes >= BUFFER_BYTES:
                self._full_since = self.clock.monotonic()
                fetch.hold = True
            return
        if budget.open <= self._low and budget.open_bytes < BUFFER_BYTES // 2:
            self._full_since = None
        elif not fetch.hold or self.clock.monotonic() - self._full_since < 1.0:
            return
        fetch.hold = False
        self._publish_wanted()
        fetch.open_gate()

    def _publish_wanted(self) -> None:
        paused = self._full_since is not None and not self._fetch.hold
        room = not paused and sum(len(p.pending) for p in self.partitions.values()) < MAX_HELD
        self._fetch.wanted = frozenset(
            n for n, p in self.partitions.items() if p.active and not p.closing and p.wants_source(room=room)
        )

    # -- commits --------------------------------------------------------------------------------------

    def _commit_soon(self) -> None:
        if self._committing is None:
            self._requested_at = 0.0
            self._commit(self.clock.monotonic())

    def _commit(self, monotonic: float) -> None:
        """Request a commit of what changed; also of nothing new when the lease wants to be renewed."""
        if self._committing is not None or monotonic - self._requested_at < COMMIT_INTERVAL:
            return
        pairs: dict[int, tuple[Committed, Committed]] = {}
        for n, partition in self.partitions.items():
            if partition.closing or not (partition.active or partition.restored):
                continue
            pair = partition.snapshot()
            if self._last.get(n) != pair:
                pairs[n] = pair
        if not pairs and boottime() - self._committed_at > self._session_timeout / 3:
            renewed = next((n for n, p in self.partitions.items() if p.active and not p.closing), None)
            if renewed is not None:
                pairs[renewed] = self.partitions[renewed].snapshot()
        if pairs:
            self._requested_at = monotonic
            self._committing = CommitRequest(pairs)
            self._fetch.commit(self._committing)

    def _committed(self, result: CommitResult) -> None:
        if result.request is self._committing:
            self._committing = None
        if result.error is not None:
            self.commit_error = result.error
            log.warning("commit of %s failed: %s", self._source, result.error)
            if self._on_event:
                self._on_event(events.CommitFailed(result.error, result.epoch_ended))
        elif result.confirmed:
            self.commit_error = None
        if result.epoch_ended:
            self._forget(frozenset(self.partitions), True)
            return
        now = self.clock.now()
        for n in result.confirmed:
            partition = self.partitions.get(n)
            pair = result.request.pairs[n]
            if partition is None or pair[1].fence is None or pair[1].fence.writer != partition.writer:
                continue
            self._last[n] = pair
            if not partition.active and self._on_event:
                self._on_event(
                    events.PartitionStarted(
                        n, len(partition.pending), partition.source_end - partition.source.frontier
                    )
                )
            partition.confirmed(pair[0], now)
        if result.confirmed:
            self._committed_at = result.sent_at
            self._lease_until = result.sent_at + self._session_timeout
            self._lease_told = False
        self._publish_wanted()
        self._kick()

    # -- hand-over ------------------------------------------------------------------------------------

    async def _drain(self, numbers: frozenset[int], answer: concurrent.futures.Future[CommitRequest]) -> None:
        """Start nothing new, wait for what runs within the budget, and say what may be committed."""
        partitions = [self.partitions[n] for n in numbers if n in self.partitions]
        for partition in partitions:
            partition.closing = True
        self._publish_wanted()
        deadline = self.clock.monotonic() + self._drain_timeout
        while any(p.outstanding for p in partitions) and not self.abort and self.clock.monotonic() < deadline:
            await asyncio.sleep(0.005)
        if any(p.outstanding for p in partitions):
            self._cancel(lambda p: p in partitions)
            await asyncio.sleep(0)
        answer.set_result(
            CommitRequest({p.number: p.snapshot() for p in partitions if p.alive and (p.active or p.restored)})
        )

    def _cancel(self, which: Callable[[Partition], bool]) -> None:
        for slot in tuple(self._slots):
            if slot.entry is not None and slot.task is not None and not slot.reason and which(slot.entry.partition):
                slot.reason = "handover"
                slot.task.cancel()


def _uncancel(task: asyncio.Task[None] | None) -> None:
    uncancel = getattr(task, "uncancel", None)
    if uncancel is not None:
        uncancel()
