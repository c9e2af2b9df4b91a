"""The partitions of a worker: how each starts, is halted, and is given away. Runs on the event loop."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from kafka_notify import events
from kafka_notify._decision.context import Context
from kafka_notify._fetch.commits import Commits
from kafka_notify._fetch.intake import Intake
from kafka_notify._fetch.loop import Start
from kafka_notify._fetch.topic_ids import changed
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.effects import Effects
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.partition import Partition
from kafka_notify._send.sends import Sends
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._worker.losses import Losses
from kafka_notify._worker.rate_share import RateShare
from kafka_notify._worker.settings import Settings
from kafka_notify._worker.wakeups import WakeUps

log = logging.getLogger("kafka_notify.worker")

RECREATED: Final = (
    "{} was deleted and created anew: the offsets that the group has committed are the old topic's, and what lay in "
    "the old topic is gone; reset the group's offsets of this partition in both topics to go on"
)
FEWER_CHANNELS: Final = (
    "its group sends {} too, which this worker would pass over: give it these channels, or, if they are not to be sent "
    "any more, name them in Consumer.dropped_channels"
)


@attrs.frozen(eq=False)
class Keepers:
    """The parts of a worker that keep something of each of its partitions."""

    commits: Commits
    intake: Intake
    sends: Sends
    wakeups: WakeUps
    losses: Losses
    rate: RateShare
    writer: CopyWriter

    def free(self, partitions: Iterable[Partition]) -> None:
        """End these assignments, and keep nothing of them but sends that still run."""
        for partition in partitions:
            self.sends.ready.drop(partition)
            partition.close()
            self.wakeups.drop(partition)
            self.losses.drop(partition)
            self.commits.forget(partition.number)
            self.intake.forget(partition.number)
            self.sends.loader.drop(partition)
        self.sends.guard.drop_closed()
        self.wakeups.timers.clean()
        self.writer.give_up()


class Assignments:
    """Starts and ends the partitions of one worker.

    Args:
        context: Of the worker.
        settings: What it was told.
        owned: Its partitions, by number; filled here.
        budget: What all of them hold in memory.
        parts: Those that keep something of each.
        effects: Carries out what partitions decide.
    """

    def __init__(
        self,
        context: Context,
        settings: Settings,
        owned: dict[int, Partition],
        budget: PayloadBudget,
        parts: Keepers,
        effects: Effects,
    ) -> None:
        self.halted: dict[int, str] = {}
        """Why each of these partitions is halted, by number."""
        self._source, self._retry_topic = context.source, context.retry_topic
        self._on_event = context.on_event
        self._settings = settings
        self._owned = owned
        self._budget = budget
        self._parts = parts
        self._effects = effects
        self._group_channels: Sequence[tuple[str, ...]] = ()
        """What the workers of the group send, by their last commits."""

    # -- start ----------------------------------------------------------------------------------------

    def start(self, start: Start) -> None:
        """A partition pair may be restored; its records follow."""
        partition = self._made(start)
        reason = self._unusable(start)
        if reason is not None:
            self.halt(partition, reason)
            return
        self._parts.losses.look_at_start(start, partition)
        if partition.restored:
            self._parts.commits.soon()

    def _made(self, start: Start) -> Partition:
        number, parts = start.number, self._parts
        self.halted.pop(number, None)
        if (earlier := self._owned.get(number)) is not None:
            parts.free((earlier,))
        parts.commits.forget(number)
        parts.intake.forget(number)
        ids = start.topic_ids or start.source.topic_ids or start.retry.topic_ids
        if start.retry.marked and start.retry.wide is None:
            log.warning(
                "%s[%d]: a worker of an older version has committed after one of this version: what had ended far from "
                "the oldest waiting retry may be sent again; see operations.md, wide retries",
                self._retry_topic,
                number,
            )
        partition = self._owned[number] = Partition(
            Epoch(
                number,
                uuid.uuid4().hex,
                start.epoch,
                start.topic_ids[0] if start.topic_ids else "",
                bool(ids) and all(ids),
            ),
            Half(start.source, *start.source_range),
            Half(start.retry, *start.retry_range),
            effects=self._effects,
            budget=self._budget,
            long_waits=self._settings.long_waits,
        )
        parts.rate.update()
        parts.sends.slots.keep_blocked(partition)
        return partition

    def _unusable(self, start: Start) -> str | None:
        """Why a partition must not be worked on: going on would lose or repeat something."""
        topics = self._source, self._retry_topic
        for committed in (start.source, start.retry):
            for topic in changed(topics, committed.topic_ids, start.topic_ids):
                return RECREATED.format(topic)
        if missing := self._passed_over(start.source.channels):
            return FEWER_CHANNELS.format(missing)
        if added := self._settings.channels.added(start.source.channels, self._settings.known_channels):
            log.warning(
                "%s[%d]: %s is sent from offset %d on; what lies before was passed over by the worker before this one",
                self._source,
                start.number,
                ", ".join(added),
                start.source.frontier,
            )
        for topic, state, (_, end) in zip(
            topics, (start.source, start.retry), (start.source_range, start.retry_range), strict=True
        ):
            if state.frontier > end:
                return (
                    f"offset {state.frontier} is committed, but {topic} ends at {end}: it was re-created or "
                    "truncated; reset the group's offsets of this partition to go on"
                )
        return None

    def compare_channels(self, found: Sequence[tuple[str, ...]]) -> None:
        """A worker that sends fewer channels than its neighbours passes over what they send: it must stop that."""
        self._group_channels = found
        if missing := self._passed_over(()):
            self.halt_all(FEWER_CHANNELS.format(missing))

    def _passed_over(self, committed: tuple[str, ...]) -> str:
        """What this worker would pass over although the group sends it, by a commit and those of the neighbours."""
        channels, known = self._settings.channels, self._settings.known_channels
        every = (committed, *self._group_channels)
        missing = {name for each in every for name in channels.missing(each, known)}
        return ", ".join(sorted(missing))

    # -- end ------------------------------------------------------------------------------------------

    def halt(self, partition: Partition, reason: str) -> None:
        """Stop one partition, loudly: going on would skip or repeat what nobody could find again."""
        self._owned.pop(partition.number, None)
        self._parts.free((partition,))
        self.halted[partition.number] = reason
        self._changed()
        log.error("%s[%d] is halted: %s", self._source, partition.number, reason)
        if self._on_event:
            self._on_event(events.PartitionHalted(partition.number, reason))

    def halt_all(self, reason: str) -> None:
        """Stop all of them."""
        for partition in tuple(self._owned.values()):
            self.halt(partition, reason)

    def recreated(self, topic: str) -> None:
        """A topic is not the one any more that was there when its partitions started."""
        self.halt_all(RECREATED.format(topic))

    def forget(self, numbers: frozenset[int], lost: bool) -> None:
        """These partitions are not this worker's any more."""
        for n in numbers:
            self.halted.pop(n, None)
        self._parts.free([self._owned.pop(n) for n in numbers if n in self._owned])
        if numbers and self._on_event:
            self._on_event(events.PartitionsRevoked(self._source, tuple(sorted(numbers)), lost))
        self._parts.sends.slots.cancel(lambda p: not p.alive)
        self._changed()

    def forget_all(self) -> None:
        """The epoch has ended."""
        self.forget(frozenset(self._owned), True)

    def abandon(self) -> None:
        """The worker has failed: they end as if they were lost, whatever state the rest is in."""
        for partition in tuple(self._owned.values()):
            partition.closing = True
        self.forget_all()

    def _changed(self) -> None:
        self._parts.rate.update()
        self._parts.intake.publish_wanted()
