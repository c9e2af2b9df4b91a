"""The composition of a partition."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from kafka_notify._partition.carrying import Carrying
from kafka_notify._partition.own_copies import OwnCopies
from kafka_notify._partition.parking import Parking
from kafka_notify._partition.redrives import Redrives
from kafka_notify._partition.retry_reader import RetryReader
from kafka_notify._partition.scheduler import Scheduler
from kafka_notify._partition.source_offsets import SourceOffsets
from kafka_notify._partition.strangers import Origins
from kafka_notify._partition.table import EntryTable
from kafka_notify._partition.waiting import Waiting
from kafka_notify._partition.wide import LongWaits, RetryHalf, RetryTracker
from kafka_notify._partition.writers import Writers

if TYPE_CHECKING:
    from kafka_notify._partition.budget import PayloadBudget
    from kafka_notify._partition.effects import Effects
    from kafka_notify._partition.entry import Entry
    from kafka_notify._partition.epoch import Epoch, Half


class Parts:
    """The parts of a partition, each with its own state, and the flags of the assignment.

    Args:
        epoch: The assignment.
        source: The source partition as the assignment begins.
        retry: The retry partition as the assignment begins.
        effects: Carries out what this object decides.
        budget: The payload budget that all partitions of a worker share.
        long_waits: Settings and counts that all partitions of a worker share.
    """

    __slots__ = (
        "active", "alive", "carrying", "closing", "due", "effects", "epoch", "failed", "half", "long_waits",
        "makes_room", "new", "number", "outstanding", "own", "parking", "pending", "queues", "reader", "redrives",
        "restore_end", "retry", "scheduler", "source", "table", "topic_id", "waiting", "writer", "writers",
    )  # fmt: skip

    def __init__(
        self,
        epoch: Epoch,
        source: Half,
        retry: Half,
        *,
        effects: Effects,
        budget: PayloadBudget,
        long_waits: LongWaits | None = None,
    ) -> None:
        self.number, self.epoch, self.topic_id = epoch.number, epoch.serial, epoch.topic_id
        self.writer = epoch.writer
        self.restore_end = retry.end
        self.alive = True
        self.active = False
        """True once it is restored and fenced, so that sends may start."""
        self.closing = False
        """True while it is handed over, so that nothing new starts."""
        self.outstanding = 0
        """Sends and copies that were started and not answered; counted by the caller."""
        self.makes_room = False
        """True while backlogs of single users are parked, so that others can be read; set by the caller."""
        self.new: deque[Entry] = deque()
        """Queued attempts of entries that live in the source alone; `Ready` takes from it in turns with others."""
        self.due: deque[Entry] = deque()
        """Queued attempts of entries that live in the retry topic and never failed."""
        self.failed: deque[Entry] = deque()
        """Queued attempts of entries that failed before."""
        self.effects = effects
        self.long_waits = long_waits = long_waits or LongWaits()
        self.source = SourceOffsets(source.committed, source.start, source.end)
        self.retry = RetryTracker(retry.committed, retry.start)
        self.half = RetryHalf(retry.committed, self.retry, long_waits, knows_topics=epoch.knows_topics)
        self.writers = Writers(epoch.writer, retry.end, retry.committed.fence)
        self.table = table = EntryTable(budget)
        self.queues, self.pending = table.queues, table.pending
        self.own, self.redrives, self.waiting = own, redrives, waiting = OwnCopies(), Redrives(), Waiting()
        self.parking = Parking(table, own, effects)
        self.scheduler = Scheduler(self.source, self.half, waiting, self.parking, effects)
        origins = Origins(epoch.topic_id, source.end, retry.end)
        self.reader = RetryReader(self.source, self.half, table, own, redrives, origins, effects)
        self.carrying = Carrying(self.half, table, waiting, self.parking, long_waits, effects)

    def close(self) -> None:
        """End the assignment. Code that still holds this object can change nothing with it and finds it empty.

        A send that still runs keeps its own entry, and a wake-up its queue. Neither keeps a payload or another entry.
        """
        self.alive = self.active = False
        for part in (self.table, self.own, self.redrives, self.waiting, self.parking, self.carrying):
            part.clear()
        for offsets in (self.source, self.retry, self.half):
            offsets.close()
        self.writers.before = None
