"""The event loop that holds all state of a worker: partitions, lanes, timers, sends, commits. No locks.

Everything here runs on one thread, but the methods under "called by the fetch thread".
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError as ConfluentError
from confluent_kafka import Message

from kafka_notify import _alarms, _codes, events
from kafka_notify._alarms import Alarms
from kafka_notify._clock import Clock, boottime
from kafka_notify._fetch.channels import Channels
from kafka_notify._fetch.commits import Commits
from kafka_notify._fetch.fatal import ended, is_fatal, missing_right
from kafka_notify._fetch.intake import Intake
from kafka_notify._fetch.loop import CommitRequest, CommitResult, FetchLoop, Start
from kafka_notify._fetch.refusals import Refusals
from kafka_notify._fetch.removed import Removed
from kafka_notify._fetch.topic_ids import changed
from kafka_notify._limited_log import LimitedLog
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.timers import Timers
from kafka_notify._partition.wide import LongWaits, Spill
from kafka_notify._pause import Paused
from kafka_notify._retention import DAY_MS, keepable, keeps_any_wait
from kafka_notify._rights import is_refusal, told
from kafka_notify._send.attempt import AttemptRunner
from kafka_notify._send.hooks import Hooks
from kafka_notify._send.loader import Load, Loader
from kafka_notify._send.pace import Pace
from kafka_notify._send.sends import Sends
from kafka_notify._send.threads import SendThreads
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._settle.settle import Settler
from kafka_notify._where import detail, origin
from kafka_notify._worker.destinations import Circuits, Destinations
from kafka_notify._worker.life import Life
from kafka_notify._worker.turn import InTurns, Turn
from kafka_notify.codec import Codec
from kafka_notify.consumer import Consumer
from kafka_notify.errors import NotifyError
from kafka_notify.events import OnEvent
from kafka_notify.notification import Category
from kafka_notify.outcome import Middleware
from kafka_notify.policy import RetryPolicy
from kafka_notify.wire import identity

log = logging.getLogger("kafka_notify.worker")

TICK: Final = 0.05
SPILL_GRACE: Final = 2.0
"""Seconds at most that a hand-over waits for a spill when the sends have used up its time."""
SAVE_BATCH: Final = 5_000
"""Copies that one look at the log start writes at most, when retention passes what waits."""
PAYLOAD_BUDGET: Final = 96 * 2**20
"""Bytes of waiting retries' payloads kept in memory; the others are read again just before their send."""
LOAD_BUDGET: Final = 32 * 2**20
"""Bytes, beside those, of payloads that were read again: until their send has ended."""

RECREATED: Final = (
    "{} was deleted and created anew: the offsets that the group has committed are the old topic's, and what lay in "
    "the old topic is gone; reset the group's offsets of this partition in both topics to go on"
)


FEWER_CHANNELS: Final = (
    "its group sends {} too, which this worker would pass over: give it these channels, or, if they are not to be sent "
    "any more, name them in Consumer.dropped_channels"
)


class Engine:
    """Everything between records read and offsets committed, for one worker.

    Args:
        consumer: The team's.
        retry: Its backoff.
        send_timeout: Seconds for one send.
        topics: Names of source, retry and dead-letter topic.
        group: The consumer group.
        categories: Of the topology.
        channel_count: How many channels the consumer sends.
        codec: Value bytes to data.
        middleware: The team's, outermost first.
        on_event: Guarded; None costs nothing.
        session_timeout: Seconds without a confirmed commit after which no send starts.
        drain_timeout: Seconds for running sends at a hand-over.
        paused: What must not be sent now.
        long_waits: Whether retry partitions may become wide, and how long their topic keeps a record.
        loop: Runs all of this.
        writer: Writes copies.
        fetch: Reads and commits.
        load: Requests that an evicted payload is read again; answered by `loaded`.
        pace: Makes the rate limit, if there is one, from what wakes the sends.
        count_partitions: Asks how many the source topic has; blocks.
        channels: What the consumer sends.
        known_channels: Those of the topology.
        life: The worker's state: `fail` changes it.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        retry: RetryPolicy,
        send_timeout: float,
        topics: tuple[str, str, str],
        group: str,
        categories: Mapping[str, Category[Any]],
        channel_count: int,
        codec: Codec,
        middleware: tuple[Middleware, ...],
        on_event: OnEvent | None,
        session_timeout: float,
        drain_timeout: float,
        paused: Paused,
        long_waits: LongWaits,
        loop: asyncio.AbstractEventLoop,
        writer: CopyWriter,
        fetch: FetchLoop,
        load: Callable[[Load], object],
        pace: Callable[[Clock, Callable[[], object]], Pace | None],
        count_partitions: Callable[[], int],
        channels: Channels,
        known_channels: frozenset[str],
        life: Life,
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self.halted: dict[int, str] = {}
        self.alarms = Alarms()
        self._removed: dict[int, tuple[Removed, Removed]] = {}
        """Of source and retry partition."""
        self.budget = PayloadBudget(PAYLOAD_BUDGET, LOAD_BUDGET)
        self.life = life
        self.refusals = Refusals(group)
        self.abort = False
        """A second signal: drain nothing."""
        self.drain_timeout = drain_timeout
        self.ticked_at = boottime()
        """`boottime` of the last tick: an old one means that something blocks the loop."""
        self.all_stuck_since: float | None = None
        """`boottime` since when so many sends hang that none may start."""
        self.paused = paused
        self.long_waits = long_waits
        self._longest_backoff_ms = retry.longest_ms
        self._channels = channels
        self._known_channels = known_channels
        self._group_channels: Sequence[tuple[str, ...]] = ()
        """What the workers of the group send, by their last commits."""
        self._loop = loop
        self._clock = Clock()
        self._source, self._retry_topic, _ = topics
        self._group = group
        self._on_event = on_event
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._fetch = fetch
        threads = SendThreads(consumer.concurrency, loop, self.fail)
        runner = AttemptRunner(consumer, retry, middleware, threads, topic=self._source, group=group)
        self._threads = threads
        self._kafka = LimitedLog(log)
        self._hooks = Hooks(consumer, runner, send_timeout, on_event)
        self._settler = Settler(
            writer,
            self._clock,
            topics=topics,
            group=group,
            categories=categories,
            codec=codec,
            on_event=on_event,
            on_dead_letter=self._hooks.dead_letter if self._hooks.on_dead_letter is not None else None,
            spawn=self._spawn,
            max_wait_ms=None if retry.max_wait is None else round(retry.max_wait * 1000),
        )
        self.commits = Commits(
            self.partitions,
            self._clock,
            fetch.commit,
            session_timeout=session_timeout,
            on_event=on_event,
        )
        self.intake = Intake(
            self.partitions,
            self.budget,
            fetch,
            concurrency=consumer.concurrency,
            source=self._source,
            channels=frozenset(consumer.channels),
            ordering=consumer.ordering,
            paused=paused,
            clock=self._clock,
            facts=self._settler.facts,
            passed_over=self._pass_over,
            halt=self._halt,
            kafka_error=self.kafka_error,
            fed=self._look_on,
            soon=self._soon,
        )
        self._lanes = InTurns(self._soon, self._step_lanes)
        self._unfinished: OrderedDict[Partition, None] = OrderedDict()
        """Partitions that have lanes to be looked at in the next turns of the loop."""
        self.sends = Sends(
            loop,
            self._clock,
            concurrency=consumer.concurrency,
            send_timeout=send_timeout,
            max_attempts=retry.max_attempts,
            max_wait=retry.max_wait,
            source=self._source,
            categories=categories,
            codec=codec,
            runner=runner,
            circuits=Circuits(
                consumer.breaker,
                self._clock.monotonic(),
                consumer.concurrency,
                _destinations(consumer, channel_count),
            ),
            destination=consumer.destination if "destination" in consumer._overridden else None,
            unknown=consumer.unknown_outcome,
            hooks=self._hooks,
            threads=threads,
            settler=self._settler,
            lease=self.commits,
            paused=paused,
            on_event=on_event,
            on_room=self.intake.on_room,
            fail=self.fail,
        )
        self.loader = Loader(self.budget, load, self.sends.loads_wanted)
        self.sends.loader = self.loader
        self._writer = writer
        self.send: Callable[[Entry], None] = self.sends.add
        """Queue an attempt: one of the effects below, without a call in between."""
        self.sends.pace = pace(self._clock, self.sends.kick)
        self._count_partitions = count_partitions
        self.source_partitions = 0
        """How many the source topic has, whoever owns them."""
        self._timers = Timers(loop, self._clock, self.sends.kick, self._guarded)
        writer.guarded = self._guarded

    # -- life -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Run the consumer's `setup` and start the clockwork."""
        await self._hooks.setup()
        self.ticked_at = boottime()
        self._ticker = self._spawn(self._tick_forever())

    async def close(self) -> None:
        """Stop all tasks, after the partitions were drained, and run the consumer's `teardown`."""
        if self._ticker is not None:
            self._ticker.cancel()
        await self.sends.close()
        if self.sends.pace is not None:
            await self.sends.pace.close()
        await self._hooks.teardown()
        self._threads.close()

    @property
    def error(self) -> BaseException | None:
        """Why the worker cannot go on."""
        return self.life.error

    def fail(self, error: BaseException) -> None:
        """The worker cannot go on, from any thread: no send starts, nothing is committed, it leaves the group.

        Its partitions end as if they were lost: what runs is cancelled, and whoever has them next sends it again.
        """
        if not self.life.fail(error):
            return
        self.commits.end()
        self._fetch.abandon()
        log.error("%s: the worker cannot go on: %s", self._source, _why(error))
        detail(log, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._abandon)

    def _abandon(self) -> None:
        for partition in tuple(self.partitions.values()):
            partition.closing = True  # whatever state the rest is in
        try:
            self._forget(frozenset(self.partitions), True)
        except BaseException as e:
            log.error("%s: freeing its partitions: %s", self._source, origin(e))

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
        return task

    # -- called by the fetch thread -------------------------------------------------------------------

    def feed(self, batch: list[Message], size: int) -> None:
        """Records and end-of-partition marks, in order, and the bytes of their values."""
        if self.refusals:
            for topic in {message.topic() or "" for message in batch if message.error() is None}:
                self.refusals.works(topic)
        self.post(self.intake.feed, batch, size)

    def started(self, start: Start) -> None:
        """A partition pair may be restored; its records follow."""
        self.post(self._start, start)

    def committed(self, result: CommitResult) -> None:
        """The answer to a commit."""
        self.post(self._committed, result)

    def forget(self, numbers: frozenset[int], *, lost: bool) -> None:
        """These partitions are not ours any more."""
        self.post(self._forget, numbers, lost)

    def assigned(self, topic: str, numbers: frozenset[int]) -> None:
        """A rebalance gave partitions to this worker."""
        self.refusals.assigned()
        if self.sends.pace is not None and topic == self._source:
            self.post(lambda: self._spawn(self._count_again()))
        if self._on_event and numbers:
            self._on_event(events.PartitionsAssigned(topic, tuple(sorted(numbers))))

    def kafka_error(self, error: ConfluentError, topic: str = "") -> None:
        """librdkafka reported something, of one topic or in general; it goes on by itself unless it is fatal."""
        if (right := missing_right(error)) is not None:
            if is_fatal(error):  # to a client, not to the worker
                self._fetch.locked_out(error)
            error = right
        self.refusals.note(error, topic)
        about = f"topic {topic}" if topic else f"group {self._group}"
        said = told(error, "Read", about) if is_refusal(error) else error.name()
        self._kafka.warning(f"Kafka: {said}", error.str())
        if self._on_event:
            self._on_event(events.KafkaError(error.name(), error.fatal()))
        if is_fatal(error):
            self.fail(ended(error, self._group))

    def recreated(self, topic: str) -> None:
        """A topic is not the one any more that was there when its partitions started."""
        self.post(self._halt_all, RECREATED.format(topic))

    def retention(self, settings: Mapping[str, int]) -> None:
        """How long the topics keep records, ms."""
        self.post(self._learn_retention, settings[self._retry_topic])

    def log_starts(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Where partitions begin now."""
        self.post(self._look_for_removed, starts)

    def neighbours(self, channels: Sequence[tuple[str, ...]]) -> None:
        """What the workers of the group send, by their commits."""
        self.post(self._compare_channels, channels)

    def drain(self, numbers: frozenset[int]) -> CommitRequest:
        """Let these partitions finish what runs; what is to be committed of them. Blocks the fetch thread."""
        if self.error is not None:
            return CommitRequest({}, {})
        answer: concurrent.futures.Future[CommitRequest] = concurrent.futures.Future()

        async def drain() -> None:
            try:
                answer.set_result(await self._drain(numbers))
            except BaseException as e:
                answer.set_result(CommitRequest({}, {}))
                self.fail(e)

        self.post(lambda: self._spawn(drain()))
        try:
            return answer.result(self.drain_timeout + 5)
        except concurrent.futures.TimeoutError:
            log.error(
                "the event loop did not answer a hand-over in time: a send blocks it; nothing is committed"
            )
            return CommitRequest({}, {})

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Run `call` on the loop, from any thread, in the order of the posts."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended
            self._loop.call_soon_threadsafe(self._guarded, call, *args)

    def _guarded(self, call: Callable[..., object], *args: Any) -> None:
        """asyncio would log what a callback raises and go on; half-changed state must not go on."""
        if self.error is not None:
            return
        try:
            call(*args)
        except BaseException as e:
            self.fail(e)  # which logs it: asyncio would log its text

    # -- pauses ---------------------------------------------------------------------------------------

    def learn_pauses(self, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Records of the control topic."""
        for key, value in records:
            if not self.paused.learn(key, value):
                log.error(
                    "a record of the control topic is not understood, it pauses nothing: a newer version's?"
                )
        self._apply_pauses()

    def _apply_pauses(self) -> None:
        if not self.paused.apply(self._clock.now()):
            return
        active = tuple(pause.what for pause in self.paused.active())
        log.warning("%s: paused: %s", self._source, ", ".join(active) or "nothing any more")
        if self._on_event:
            self._on_event(events.PausesChanged(active))
        partitions = tuple(self.partitions.values())
        for partition in partitions:
            partition.resume()
        self.intake.publish_wanted()
        self._look_on(partitions)

    # -- records in -----------------------------------------------------------------------------------

    def _look_on(self, partitions: Iterable[Partition]) -> None:
        """Something was read or committed of these: what waited for that may go on."""
        now = self._clock.now()
        for partition in partitions:
            if partition.alive:
                if not partition.active and partition.restored:
                    self.commits.soon()
                if partition.step_blocked(now):
                    self._unfinished[partition] = None
        if self._unfinished:
            self._lanes()
        self.sends.kick()

    def _step_lanes(self, turn: Turn) -> bool:
        now, unfinished = self._clock.now(), self._unfinished
        while unfinished:
            partition = unfinished.popitem(last=False)[0]
            if partition.alive and partition.step_blocked(now):
                unfinished[partition] = None  # after the others
            if turn.late:
                break
        self.sends.kick()
        return bool(unfinished)

    def _soon(self, call: Callable[[], object]) -> None:
        self._loop.call_soon(self._guarded, call)

    def _pass_over(self) -> None:
        self.sends.counts.passed_over += 1

    def loaded(self, answers: Sequence[tuple[Load, Message | None]]) -> None:
        """Evicted payloads are here again."""
        now = self._clock.now()
        removed: list[Entry] = []
        for load, message in answers:
            entry = load.entry
            if entry is None:
                continue  # its partition was given away
            if message is None:
                self.loader.gone(load)
                removed.append(entry)
                continue
            self.loader.loaded(load, message, now)
        self._bury_removed(removed)
        self.sends.kick()

    # -- assignments ----------------------------------------------------------------------------------

    def _start(self, start: Start) -> None:
        number = start.number
        self.halted.pop(number, None)
        if (earlier := self.partitions.get(number)) is not None:
            self._let_go(earlier)
        self.commits.forget(number)
        self.intake.forget(number)
        ids = start.topic_ids or start.source.topic_ids or start.retry.topic_ids
        if start.retry.marked and start.retry.wide is None:
            log.warning(
                "%s[%d]: a worker of an older version has committed after one of this version: what had ended far from "
                "the oldest waiting retry may be sent again; see operations.md, wide retries",
                self._retry_topic,
                number,
            )
        partition = self.partitions[number] = Partition(
            Epoch(
                number,
                uuid.uuid4().hex,
                start.epoch,
                start.topic_ids[0] if start.topic_ids else "",
                bool(ids) and all(ids),
            ),
            Half(start.source, *start.source_range),
            Half(start.retry, *start.retry_range),
            effects=self,
            budget=self.budget,
            long_waits=self.long_waits,
        )
        self._share_rate()
        self.sends.keep_blocked(partition)
        topics = self._source, self._retry_topic
        for committed in (start.source, start.retry):
            for topic in changed(topics, committed.topic_ids, start.topic_ids):
                self._halt(partition, RECREATED.format(topic))
                return
        if missing := self._passed_over(start.source.channels):
            self._halt(partition, FEWER_CHANNELS.format(missing))
            return
        if added := self._channels.added(start.source.channels, self._known_channels):
            log.warning(
                "%s[%d]: %s is sent from offset %d on; what lies before was passed over by the worker before this one",
                self._source,
                number,
                ", ".join(added),
                start.source.frontier,
            )
        for topic, state, (_, end) in zip(
            topics, (start.source, start.retry), (start.source_range, start.retry_range), strict=True
        ):
            if state.frontier > end:
                self._halt(
                    partition,
                    f"offset {state.frontier} is committed, but {topic} ends at {end}: it was re-created or "
                    "truncated; reset the group's offsets of this partition to go on",
                )
                return
        self._look_at_start(start, partition)
        if partition.restored:
            self.commits.soon()

    # -- what is gone ---------------------------------------------------------------------------------

    def _look_at_start(self, start: Start, partition: Partition) -> None:
        """Say what is missing of a partition that starts: unfinished records below the log start, and the offsets."""
        number = start.number
        trackers, ranges = (partition.source, partition.retry), (start.source_range, start.retry_range)
        self._removed[number] = (
            Removed(trackers[0], ranges[0][0]),
            Removed(trackers[1], ranges[1][0]),
        )
        in_use = start.retry_range[1] > 0 or not all(start.uncommitted)
        for topic, kind, committed, uncommitted, (low, high) in zip(
            (self._source, self._retry_topic),
            (_alarms.UNREAD, _alarms.WAITING),
            (start.source, start.retry),
            start.uncommitted,
            ranges,
            strict=True,
        ):
            if gone := committed.open_below(low):
                self._tell_removed(kind, topic, number, gone)
            if uncommitted and in_use and high > 0:
                log.error("%s", self.alarms.ring(_alarms.NO_OFFSETS, topic, number, high - low))
                if self._on_event:
                    self._on_event(events.OffsetsMissing(topic, number, high - low))

    def _tell_removed(self, kind: str, topic: str, number: int, count: int) -> None:
        log.error("%s", self.alarms.ring(kind, topic, number, count))
        if self._on_event:
            self._on_event(events.RecordsRemoved(topic, number, count))

    def _look_for_removed(self, starts: Mapping[tuple[str, int], int]) -> None:
        for number, partition in tuple(self.partitions.items()):
            for topic, kind, removed in zip(
                (self._source, self._retry_topic),
                (_alarms.UNREAD, _alarms.WAITING),
                self._removed.get(number, ()),
                strict=False,
            ):
                if gone := removed.look(starts.get((topic, number), 0)):
                    self._tell_removed(kind, topic, number, gone)
            start = starts.get((self._retry_topic, number), 0)
            if partition.active and start > partition.retry.frontier:
                self._save_waiting(partition, start)

    def _save_waiting(self, partition: Partition, start: int) -> None:
        """Retention passes what waits: copy forward what is in memory; of the rest there is only a dead letter."""
        removed: list[Entry] = []
        saved = 0
        for entry in tuple(partition.pending.values()):
            held = entry.held
            if held is None or held.at >= start or entry.busy or partition.closing:
                continue
            if entry.record is None:
                removed.append(entry)
            elif saved < SAVE_BATCH:
                saved += 1
                entry.busy = Busy.COPYING
                self._settler.carry(entry)
        if saved:
            log.error(
                "%s[%d]: retention removed %d records that wait for a retry; they are in memory, and are written again",
                self._retry_topic,
                partition.number,
                saved,
            )
        self._bury_removed(removed)

    def _bury_removed(self, entries: Sequence[Entry]) -> None:
        """Records of waiting retries are gone, with their payloads."""
        for number, count in Counter(entry.partition.number for entry in entries).items():
            self._tell_removed(_alarms.WAITING, self._retry_topic, number, count)
        for entry in entries:
            self.sends.counts.dead += 1
            self._settler.bury(entry, "removed", None, None)

    def _learn_retention(self, milliseconds: int) -> None:
        self.long_waits.retention_ms = None if milliseconds < 0 else milliseconds
        longest, self._settler.keeps_any_wait = keepable(milliseconds), keeps_any_wait(milliseconds)
        if longest == self._settler.longest_wait_ms:
            return
        self._settler.longest_wait_ms = longest
        if longest is not None and self._longest_backoff_ms > longest and not keeps_any_wait(milliseconds):
            log.error(
                "%s keeps records for %.3g days, so a retry may wait for %.3g days at most: the longest wait of the "
                "RetryPolicy is %.3g days, and what waits longer is dead-lettered; lengthen retention.ms",
                self._retry_topic,
                milliseconds / DAY_MS,
                longest / DAY_MS,
                self._longest_backoff_ms / DAY_MS,
            )

    def _compare_channels(self, found: Sequence[tuple[str, ...]]) -> None:
        """A worker that sends fewer channels than its neighbours passes over what they send: it must stop that."""
        self._group_channels = found
        if missing := self._passed_over(()):
            self._halt_all(FEWER_CHANNELS.format(missing))

    def _passed_over(self, committed: tuple[str, ...]) -> str:
        """What this worker would pass over although the group sends it, by a commit and those of the neighbours."""
        every = (committed, *self._group_channels)
        missing = {name for each in every for name in self._channels.missing(each, self._known_channels)}
        return ", ".join(sorted(missing))

    def _halt(self, partition: Partition, reason: str) -> None:
        """Stop one partition, loudly: going on would skip or repeat what nobody could find again."""
        self.partitions.pop(partition.number, None)
        self._let_go(partition)
        self.halted[partition.number] = reason
        self._share_rate()
        self.intake.publish_wanted()
        log.error("%s[%d] is halted: %s", self._source, partition.number, reason)
        if self._on_event:
            self._on_event(events.PartitionHalted(partition.number, reason))

    def _let_go(self, *partitions: Partition) -> None:
        """End these assignments and free all that is kept of them, but sends that still run."""
        for partition in partitions:
            self.sends.drop(partition)
            partition.close()
            self._unfinished.pop(partition, None)
            self._removed.pop(partition.number, None)
            self.commits.forget(partition.number)
            self.intake.forget(partition.number)
            self.loader.drop(partition)
        self.sends.guard.drop_closed()
        self._timers.clean()
        self._writer.give_up()

    def _halt_all(self, reason: str) -> None:
        for partition in tuple(self.partitions.values()):
            self._halt(partition, reason)

    def _forget(self, numbers: frozenset[int], lost: bool) -> None:
        for n in numbers:
            self.halted.pop(n, None)
        self._let_go(*(self.partitions.pop(n) for n in numbers if n in self.partitions))
        if numbers and self._on_event:
            self._on_event(events.PartitionsRevoked(self._source, tuple(sorted(numbers)), lost))
        self.sends.cancel(lambda p: not p.alive)
        self._share_rate()
        self.intake.publish_wanted()

    async def _count_again(self) -> None:
        """The topic may have more partitions since the last rebalance."""
        try:
            self.source_partitions = await asyncio.to_thread(self._count_partitions)
        except NotifyError as e:
            log.warning("the share of the rate limit rests on %d partitions: %s", self.source_partitions, e)
        self._share_rate()

    def _share_rate(self) -> None:
        """Take the share of the rate limit that belongs to what this worker owns."""
        if self.sends.pace is not None:
            self.sends.pace.set_share(len(self.partitions), self.source_partitions)

    async def _drain(self, numbers: frozenset[int]) -> CommitRequest:
        """Start nothing new, wait for what runs within the budget, and say what may be committed."""
        partitions = [self.partitions[n] for n in numbers if n in self.partitions]
        for partition in partitions:
            partition.closing = True
        self.intake.publish_wanted()
        began = self._clock.monotonic()
        while (  # a stop that runs already may be told to hurry  # noqa: ASYNC110 - see below
            any(p.outstanding for p in partitions)
            and not self.abort
            and self.error is None
            and self._clock.monotonic() < began + self.drain_timeout
        ):
            await asyncio.sleep(0.005)  # a few looks per hand-over cost less than a signal per send
        if any(p.outstanding for p in partitions):
            self.sends.cancel(lambda p: p in partitions)
            await asyncio.sleep(0)
        if self.error is not None:
            return CommitRequest({}, {})
        await self._spill_last(partitions, began)
        partitions = [p for p in partitions if p.alive and (p.active or p.restored)]
        return CommitRequest(
            {p.number: p.snapshot() for p in partitions}, {p.number: p.epoch for p in partitions}
        )

    async def _spill_last(self, partitions: Sequence[Partition], began: float) -> None:
        """What has ended and does not fit into the commit's metadata: the next owner must know it."""
        partitions = [p for p in partitions if p.alive and p.active]
        for partition in partitions:
            partition.snapshot()
        until = max(
            began + self.drain_timeout, self._clock.monotonic() + min(SPILL_GRACE, self.drain_timeout)
        )
        while (
            any(p.spilling for p in partitions)
            and not self.abort
            and self.error is None
            and self._clock.monotonic() < until
        ):
            await asyncio.sleep(0.005)
            for partition in partitions:
                if partition.alive and not partition.spilling:
                    partition.snapshot()  # one that was on its way before may not hold all

    def _committed(self, result: CommitResult) -> None:
        self.commits.answered(result)
        if result.confirmed:
            self.refusals.committed()
        if result.epoch_ended:
            self._forget(frozenset(self.partitions), True)
        self.intake.publish_wanted()
        self._look_on([p for n in result.confirmed if (p := self.partitions.get(n)) is not None])

    # -- Effects of a partition -----------------------------------------------------------------------

    def park(self, entry: Entry) -> None:
        """Copy a source entry behind an earlier one of its user."""
        self.sends.counts.parked += 1
        self._settler.park(entry, will_be_sent=self.sends.will_be_sent)

    def load(self, entry: Entry, *, to_copy: bool = False) -> None:
        """Read an evicted payload again: for its send once there is room, or to copy it."""
        self.loader.add(entry, to_copy=to_copy)

    def recall(self, partition: Partition, entries: Container[Entry]) -> list[Entry]:
        """Take attempts out of their queues that have not begun."""
        return [*self.sends.recall(partition, entries), *self.loader.recall(partition, entries)]

    def bury(self, entry: Entry) -> None:
        """Dead-letter a retry record that cannot be read."""
        self.sends.counts.dead += 1
        self._settler.bury(entry, "undecodable", None, _codes.BAD_RETRY_HEADERS)

    def wake(self, lane: UserQueue, at: int) -> None:
        """Look at a lane again at epoch ms `at`."""
        self._timers.add(lane, at)

    def spill(self, partition: Partition, written: Spill) -> None:
        """Write a record that says what is finished of a retry partition."""
        self._settler.spill(partition, written, self.long_waits)

    def identity(self, entry: Entry) -> tuple[str, int]:
        """Id and creation time of an entry that lives in the source alone."""
        return identity(entry.headers, self._source, entry.partition.number, entry.origin, entry.timestamp)

    # -- clockwork ------------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        try:
            while self.error is None:
                await asyncio.sleep(TICK)
                self._tick()
        except asyncio.CancelledError:
            raise
        except BaseException as e:
            self.fail(e)

    def _tick(self) -> None:
        self.ticked_at = boottime()
        if self._clock.look():
            log.warning("the wall clock jumped: nothing expires for a minute")
            self._timers.arm()
        self.sends.check_deadlines()
        if self.sends.allowed():
            self.all_stuck_since = None
        elif self.all_stuck_since is None:
            self.all_stuck_since = self.ticked_at
        self._apply_pauses()
        self.intake.look(idle=self.sends.idle)
        partitions, now = tuple(self.partitions.values()), self._clock.now()
        for partition in partitions:
            for entry in partition.carry(now):
                self._settler.carry(entry)
        self._look_on(partitions)
        self.loader.tidy()
        self.commits.tick()


def _why(error: BaseException) -> str:
    """A sentence of ours as it is; of anything else its class and frames."""
    return str(error) if isinstance(error, NotifyError) else origin(error)


def _destinations(consumer: Consumer, channels: int) -> Destinations[Entry] | None:
    """What the answers of a provider hold alone: what the consumer names, or its channels when it has several."""
    named = "destination" in consumer._overridden
    if not named and channels < 2:
        return None
    return Destinations(consumer.breaker, consumer.concurrency, consumer.destination_share, named=named)
