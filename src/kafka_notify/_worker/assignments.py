"""The partitions of a worker: how each starts, is halted, and ends with its assignment. Runs on the event loop."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from kafka_notify import events
from kafka_notify._decision.context import Context
from kafka_notify._fetch.commits import Commits
from kafka_notify._fetch.exchange import Start
from kafka_notify._fetch.intake import Intake
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
    "{} was deleted and created again: the group's committed offsets belong to the old topic, and the records of the "
    "old topic are gone; reset the group's offsets of this partition in both topics to go on"
)
FEWER_CHANNELS: Final = (
    "its group also sends {}, which this worker would pass over: add these channels to its consumer or, if nobody is "
    "to send them any more, name them in Consumer.dropped_channels"
)


@attrs.frozen(eq=False)
class Keepers:
    """The parts of a worker that keep state of each of its partitions."""

    commits: Commits
    intake: Intake
    sends: Sends
    wakeups: WakeUps
    losses: Losses
    rate: RateShare
    writer: CopyWriter

    def free(self, partitions: Iterable[Partition]) -> None:
        """Close these partitions and drop all that is kept of them, but for sends that still run."""
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
        context: The worker's surroundings.
        settings: The worker's settings.
        owned: Its partitions, by number; filled here.
        budget: Bytes that all of them hold in memory.
        parts: The parts that keep state of each partition.
        effects: Carries out the partitions' decisions.
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
        """Reasons of the halted partitions, by number."""
        self._source, self._retry_topic = context.source, context.retry_topic
        self._on_event = context.on_event
        self._new_id = context.runtime.new_id
        self._settings = settings
        self._owned = owned
        self._budget = budget
        self._parts = parts
        self._effects = effects
        self._group_channels: Sequence[tuple[str, ...]] = ()
        """Channels that the workers of the group send, by their last commits."""

    # -- start ----------------------------------------------------------------------------------------

    def start(self, start: Start) -> None:
        """Restore a partition pair, whose records follow, or halt it if work on it would lose or repeat records."""
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
                "%s[%d]: a worker of an older version has committed after one of this version: notifications that "
                "ended far from the oldest waiting retry may be sent again; see operations.md, wide retries",
                self._retry_topic,
                number,
            )
        partition = self._owned[number] = Partition(
            Epoch(
                number,
                self._new_id(),
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
        """The reason not to work on a partition, as that would lose or repeat records; None if there is none."""
        topics = self._source, self._retry_topic
        for committed in (start.source, start.retry):
            for topic in changed(topics, committed.topic_ids, start.topic_ids):
                return RECREATED.format(topic)
        if missing := self._passed_over(start.source.channels):
            return FEWER_CHANNELS.format(missing)
        if added := self._settings.channels.added(start.source.channels, self._settings.known_channels):
            log.warning(
                "%s[%d]: this worker sends %s from offset %d on; the previous worker passed over earlier records of it",
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
        """Halt all partitions if the neighbours send a channel that this worker would pass over."""
        self._group_channels = found
        if missing := self._passed_over(()):
            self.halt_all(FEWER_CHANNELS.format(missing))

    def _passed_over(self, committed: tuple[str, ...]) -> str:
        """Channels that this worker would pass over and the group sends, by a commit and the neighbours' commits."""
        channels, known = self._settings.channels, self._settings.known_channels
        every = (committed, *self._group_channels)
        missing = {name for each in every for name in channels.missing(each, known)}
        return ", ".join(sorted(missing))

    # -- end ------------------------------------------------------------------------------------------

    def halt(self, partition: Partition, reason: str) -> None:
        """Stop one partition, and say so: going on would skip or repeat records without a trace."""
        self._owned.pop(partition.number, None)
        self._parts.free((partition,))
        self.halted[partition.number] = reason
        self._changed()
        log.error("%s[%d] is halted: %s", self._source, partition.number, reason)
        if self._on_event:
            self._on_event(events.PartitionHalted(partition.number, reason))

    def halt_all(self, reason: str) -> None:
        """Stop all partitions."""
        for partition in tuple(self._owned.values()):
            self.halt(partition, reason)

    def recreated(self, topic: str) -> None:
        """Halt all partitions: a topic was deleted and created again under them."""
        self.halt_all(RECREATED.format(topic))

    def forget(self, numbers: frozenset[int], lost: bool) -> None:
        """Drop these partitions: they do not belong to this worker any more."""
        for n in numbers:
            self.halted.pop(n, None)
        self._parts.free([self._owned.pop(n) for n in numbers if n in self._owned])
        if numbers and self._on_event:
            self._on_event(events.PartitionsRevoked(self._source, tuple(sorted(numbers)), lost))
        self._parts.sends.slots.cancel(lambda p: not p.alive)
        self._changed()

    def forget_all(self) -> None:
        """Drop all partitions: the epoch has ended."""
        self.forget(frozenset(self._owned), True)

    def abandon(self) -> None:
        """End all partitions as lost: the worker has failed, and the state of other parts is unknown."""
        for partition in tuple(self._owned.values()):
            partition.closing = True
        self.forget_all()

    def _changed(self) -> None:
        self._parts.rate.update()
        self._parts.intake.publish_wanted()
