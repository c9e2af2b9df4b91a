"""What a partition is made of."""

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
    from kafka_notify._partition.commit_metadata import Committed
    from kafka_notify._partition.effects import Effects
    from kafka_notify._partition.entry import Entry


class Parts:
    """The parts of a partition, each with its own state, and the facts that all of them go by.

    Args:
        number: The partition's number in both topics.
        source: Committed state of the source partition.
        retry: Committed state of the retry partition, with the fence of the assignment before.
        source_range: Log start and end offset of the source partition, taken after those of the retry partition:
            a copy whose origin lies past that end passes for one of a topic that was re-created.
        retry_range: The same of the retry partition, read_uncommitted, taken after the assignment.
        writer: Fresh and unique: marks the copies of this assignment.
        redrive_writer: Marks the copies of the redrive tool, which no fence stops.
        effects: Carries out what this object decides.
        budget: Shared by all partitions of a worker.
        epoch: Which assignment this is, for those who cannot compare objects.
        long_waits: Shared as well.
        knows_topics: Whether the ids of both topics are known: see `RetryHalf`.
        topic_id: Of the source topic; empty when it is not known.
    """

    __slots__ = (
        "active", "alive", "carrying", "closing", "due", "effects", "epoch", "failed", "half", "lanes", "long_waits",
        "makes_room", "new", "number", "outstanding", "own", "parking", "pending", "reader", "redrives", "restore_end",
        "retry", "scheduler", "source", "table", "topic_id", "waiting", "writer", "writers",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        source: Committed,
        retry: Committed,
        *,
        source_range: tuple[int, int],
        retry_range: tuple[int, int],
        writer: str,
        redrive_writer: str,
        effects: Effects,
        budget: PayloadBudget,
        epoch: int = 0,
        long_waits: LongWaits | None = None,
        knows_topics: bool = True,
        topic_id: str = "",
    ) -> None:
        self.number, self.epoch, self.topic_id, self.writer = number, epoch, topic_id, writer
        self.restore_end = end = retry_range[1]
        self.alive = True
        self.active = False
        """Restored and fenced: sends may start."""
        self.closing = False
        """Being handed over: nothing new starts."""
        self.outstanding = 0
        """Sends and copies that were started and not answered; kept by the caller."""
        self.makes_room = False
        """Whether backlogs of single users are parked, so that others can be read; set by the caller."""
        self.new: deque[Entry] = deque()
        """Queued attempts of entries that live in the source alone, for the turns between partitions."""
        self.due: deque[Entry] = deque()
        """Queued attempts of entries that live in the retry topic, and never failed."""
        self.failed: deque[Entry] = deque()
        """Queued attempts of entries that failed before."""
        self.effects = effects
        self.long_waits = long_waits = long_waits or LongWaits()
        self.source = SourceOffsets(source, source_range)
        self.retry = RetryTracker(retry, retry_range[0])
        self.half = RetryHalf(retry, self.retry, long_waits, knows_topics=knows_topics)
        self.writers = Writers(writer, redrive_writer, end, retry.fence)
        self.table = table = EntryTable(budget)
        self.lanes, self.pending = table.queues, table.pending
        self.own, self.redrives, self.waiting = own, redrives, waiting = OwnCopies(), Redrives(), Waiting()
        self.parking = Parking(table, own, effects)
        self.scheduler = Scheduler(self.source, self.half, waiting, self.parking, effects)
        origins = Origins(topic_id, source_range[1], end)
        self.reader = RetryReader(self.source, self.half, table, own, redrives, origins, effects)
        self.carrying = Carrying(self.half, table, waiting, self.parking, long_waits, effects)

    def close(self) -> None:
        """End the assignment: whatever still holds this object changes nothing with it, and finds nothing in it.

        A send that still runs keeps its own entry, and a wake-up its queue; neither keeps a payload or another entry.
        """
        self.alive = self.active = False
        for part in (self.table, self.own, self.redrives, self.waiting, self.parking, self.carrying):
            part.clear()
        for offsets in (self.source, self.retry, self.half):
            offsets.close()
        self.writers.before = None
