"""The event loop that holds all state of a worker: partitions, users' queues, timers, sends, commits. No locks.

Everything here runs on one thread, but for the methods under "called by the fetch thread".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError as ConfluentError
from confluent_kafka import Message

from kafka_notify import events
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._base.where import detail, origin
from kafka_notify._decision.context import Context
from kafka_notify._fetch.commits import Commits
from kafka_notify._fetch.exchange import CommitRequest, CommitResult, Start
from kafka_notify._fetch.fatal import ended, is_fatal, missing_right
from kafka_notify._fetch.intake import Intake
from kafka_notify._fetch.loader import Load
from kafka_notify._fetch.loop import FetchLoop
from kafka_notify._fetch.refusals import Refusals
from kafka_notify._fetch.settings import IntakeCallbacks, IntakeSettings
from kafka_notify._kafka.rights import is_refusal, told
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.entry import Entry
from kafka_notify._partition.partition import Partition
from kafka_notify._send.sends import Host, Sender, Sends
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._worker.assignments import Assignments, Keepers
from kafka_notify._worker.calls import Calls
from kafka_notify._worker.effects import PartitionEffects
from kafka_notify._worker.handover import HandOver
from kafka_notify._worker.life import Life
from kafka_notify._worker.losses import Losses
from kafka_notify._worker.rate_share import RateShare
from kafka_notify._worker.settings import Settings
from kafka_notify._worker.wakeups import WakeUps
from kafka_notify.errors import NotifyError

log = logging.getLogger("kafka_notify.worker")

TICK: Final = 0.05
PAYLOAD_BUDGET: Final = 96 * 2**20
"""Bytes of waiting retries' payloads kept in memory; the others are read again just before their send."""
LOAD_BUDGET: Final = 32 * 2**20
"""Bytes, in addition, of payloads that were read again and whose send has not ended."""


class Engine:
    """All work of one worker between the records read and the offsets committed.

    Args:
        context: The worker's surroundings.
        settings: The worker's settings.
        sender: The team's consumer and all that a send needs of the team.
        writer: Writes copies.
        fetch: Reads and commits.
        life: The worker's state, which `fail` changes.
        calls: Runs callbacks on the loop.
    """

    def __init__(
        self,
        context: Context,
        settings: Settings,
        sender: Sender,
        writer: CopyWriter,
        fetch: FetchLoop,
        life: Life,
        calls: Calls,
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self.budget = PayloadBudget(PAYLOAD_BUDGET, LOAD_BUDGET)
        self.life = life
        self.refusals = Refusals(context.group)
        self.clock = context.clock
        self.ticked_at = self.clock.boottime()
        """`boottime` of the last tick: if it is old, something blocks the loop."""
        self.all_stuck_since: float | None = None
        """`boottime` since when so many sends hang that no other may start."""
        self.paused = settings.paused
        self.long_waits = settings.long_waits
        self.post = calls.post
        """Run a call on the loop, from any thread, in the order of the posts."""
        self._calls = calls
        self.group = context.group
        self._source, self._retry_topic = context.source, context.retry_topic
        self._on_event = context.on_event
        self._ticker: asyncio.Task[Any] | None = None
        self._fetch = fetch
        self._kafka = LimitedLog(log)
        self.commits = Commits(
            self.partitions,
            context.clock,
            fetch.commit,
            session_timeout=settings.session_timeout,
            on_event=context.on_event,
        )
        self.intake = self._reads(context, sender)
        host = Host(
            self.commits, self.paused, self.budget, settings.load, calls.spawn, self.intake.on_room, self.fail
        )
        self.sends = Sends(context, sender, writer, host)
        self.loader = self.sends.loader
        self.wakeups = WakeUps(context, calls, self.commits, self.sends.kick)
        self.losses = Losses(context, self.partitions, self.sends, self.long_waits)
        self.rate = RateShare(self.sends.pace, self.partitions, settings.count_partitions)
        """This worker's share of the rate limit."""
        self.effects = PartitionEffects(context, self.sends, self.wakeups, self.long_waits)
        parts = Keepers(self.commits, self.intake, self.sends, self.wakeups, self.losses, self.rate, writer)
        self.assignments = Assignments(context, settings, self.partitions, self.budget, parts, self.effects)
        self.handover = HandOver(
            context,
            self.partitions,
            self.intake,
            self.sends.slots,
            calls,
            life,
            settings.drain_timeout,
        )

    def _reads(self, context: Context, sender: Sender) -> Intake:
        settings = IntakeSettings(
            source=context.source,
            channels=frozenset(sender.consumer.channels),
            ordering=sender.consumer.ordering,
            concurrency=context.concurrency,
            paused=self.paused,
            clock=context.clock,
            facts=context.facts,
        )
        callbacks = IntakeCallbacks(
            passed_over=self._pass_over,
            halt=self._halt,
            kafka_error=self.kafka_error,
            fed=self._look_on,
            soon=self._calls.soon,
        )
        return Intake(self.partitions, self.budget, self._fetch.flow, settings, callbacks)

    # Intake calls these: it is made before the parts that do the work, as they depend on it.

    def _pass_over(self) -> None:
        self.sends.counts.passed_over += 1

    def _halt(self, partition: Partition, reason: str) -> None:
        self.assignments.halt(partition, reason)

    def _look_on(self, partitions: Iterable[Partition]) -> None:
        self.wakeups.look_on(partitions)

    # -- life -----------------------------------------------------------------------------------------

    async def open(self, *, lease: float | None, source_partitions: int) -> None:
        """Run the consumer's `setup` and start the ticks.

        Args:
            lease: Seconds that a confirmed commit is good for; None if the configuration says it.
            source_partitions: Number of partitions of the source topic, whoever owns them.
        """
        if lease is not None:
            self.commits.learn_lease(lease)
        self.rate.learn(source_partitions)
        await self.sends.hooks.setup()
        self.ticked_at = self.clock.boottime()
        self._ticker = self._calls.spawn(self._tick_forever())

    async def close(self) -> None:
        """Stop all tasks and run the consumer's `teardown`. Call it once the partitions are drained."""
        if self._ticker is not None:
            self._ticker.cancel()
        await self.sends.close()

    @property
    def error(self) -> BaseException | None:
        """The error that ended the worker; None while it can go on."""
        return self.life.error

    def fail(self, error: BaseException) -> None:
        """End the worker, from any thread: no send starts, nothing is committed, and it leaves the group.

        Its partitions end as if they were lost: running sends are cancelled, and the next owner sends them again.
        """
        if not self.life.fail(error):
            return
        self.commits.end()
        self._fetch.abandon()
        log.error("%s: the worker cannot go on: %s", self._source, _why(error))
        detail(log, error)
        self._calls.post_last(self._abandon)

    def _abandon(self) -> None:
        try:
            self.assignments.abandon()
        except BaseException as e:
            log.error("%s: freeing the partitions failed: %s", self._source, origin(e))

    # -- called by the fetch thread -------------------------------------------------------------------

    def feed(self, batch: list[Message], size: int) -> None:
        """Take records and end-of-partition marks, in order; `size` is the bytes of their values."""
        if self.refusals:
            for topic in {message.topic() or "" for message in batch if message.error() is None}:
                self.refusals.works(topic)
        self.post(self.intake.feed, batch, size)

    def started(self, start: Start) -> None:
        """Restore a partition pair; its records follow."""
        self.post(self.assignments.start, start)

    def committed(self, result: CommitResult) -> None:
        """Take the answer to a commit."""
        self.post(self._committed, result)

    def drain(self, numbers: frozenset[int]) -> CommitRequest:
        """Let the running sends of these partitions end, and return the commit of them. Blocks the fetch thread."""
        return self.handover.drain(numbers)

    def forget(self, numbers: frozenset[int], *, lost: bool) -> None:
        """Drop these partitions: they do not belong to this worker any more."""
        self.post(self.assignments.forget, numbers, lost)

    def assigned(self, topic: str, numbers: frozenset[int]) -> None:
        """Note that a rebalance gave partitions to this worker."""
        self.refusals.assigned()
        if self.rate.limited and topic == self._source:
            self.post(lambda: self._calls.spawn(self.rate.count_again()))
        if self._on_event and numbers:
            self._on_event(events.PartitionsAssigned(topic, tuple(sorted(numbers))))

    def kafka_error(self, error: ConfluentError, topic: str = "") -> None:
        """Report an error of librdkafka, about one topic or in general; after a fatal one the worker ends."""
        if (right := missing_right(error)) is not None:
            if is_fatal(error):  # to the client, not to the worker: a new client goes on
                self._fetch.client_ended(error)
            error = right
        self.refusals.note(error, topic)
        about = f"topic {topic}" if topic else f"group {self.group}"
        said = told(error, "Read", about) if is_refusal(error) else error.name()
        self._kafka.warning(f"Kafka: {said}", error.str())
        if self._on_event:
            self._on_event(events.KafkaError(error.name(), error.fatal()))
        if is_fatal(error):
            self.fail(ended(error, self.group))

    def recreated(self, topic: str) -> None:
        """Halt the partitions: a topic was deleted and created again under them."""
        self.post(self.assignments.recreated, topic)

    def retention(self, settings: Mapping[str, int]) -> None:
        """Take the topics' `retention.ms`."""
        self.post(self.losses.learn_retention, settings[self._retry_topic])

    def log_starts(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Take the partitions' first offsets."""
        self.post(self.losses.look, starts)

    def neighbours(self, channels: Sequence[tuple[str, ...]]) -> None:
        """Take the channels that the workers of the group send, by their commits."""
        self.post(self.assignments.compare_channels, channels)

    # -- on the loop ----------------------------------------------------------------------------------

    def learn_pauses(self, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Take records of the control topic."""
        for key, value in records:
            if not self.paused.learn(key, value):
                log.error(
                    "a record of the control topic cannot be read and pauses nothing; a newer version may have made it"
                )
        self._apply_pauses()

    def _apply_pauses(self) -> None:
        if not self.paused.apply(self.clock.now()):
            return
        active = tuple(pause.what for pause in self.paused.active())
        log.warning("%s: paused: %s", self._source, ", ".join(active) or "nothing any more")
        if self._on_event:
            self._on_event(events.PausesChanged(active))
        partitions = tuple(self.partitions.values())
        for partition in partitions:
            partition.resume()
        self.intake.publish_wanted()
        self.wakeups.look_on(partitions)

    def loaded(self, answers: Sequence[tuple[Load, Message | None]]) -> None:
        """Take evicted payloads that were read again."""
        now = self.clock.now()
        removed: list[Entry] = []
        for load, message in answers:
            if message is not None:
                self.loader.loaded(load, message, now)
            elif (entry := self.loader.gone(load)) is not None:
                removed.append(entry)
        self.losses.dead_letter(removed)
        self.sends.kick()

    def _committed(self, result: CommitResult) -> None:
        self.commits.answered(result)
        if result.confirmed:
            self.refusals.committed()
        if result.epoch_ended:
            self.assignments.forget_all()
        self.intake.publish_wanted()
        self.wakeups.look_on([p for n in result.confirmed if (p := self.partitions.get(n)) is not None])

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
        self.ticked_at = self.clock.boottime()
        if self.clock.look():
            log.warning("the wall clock jumped: nothing expires for a minute")
            self.wakeups.timers.arm()
        self.sends.pool.check_deadlines()
        if self.sends.slots.allowed():
            self.all_stuck_since = None
        elif self.all_stuck_since is None:
            self.all_stuck_since = self.ticked_at
        self._apply_pauses()
        self.intake.look(idle=self.sends.pool.idle)
        partitions, now = tuple(self.partitions.values()), self.clock.now()
        for partition in partitions:
            for entry in partition.carry(now):
                self.sends.publisher.carry(entry)
        self.wakeups.look_on(partitions)
        self.loader.tidy()
        self.commits.tick()


def _why(error: BaseException) -> str:
    """The text of an error of this library; of any other error the class and frames, as its text may be personal."""
    return str(error) if isinstance(error, NotifyError) else origin(error)
