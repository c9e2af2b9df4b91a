"""Writes copies again unchanged, before retention removes them or while they keep the frontier back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING, Final

from kafka_notify._base.retention import rewritten_after
from kafka_notify._partition import spill
from kafka_notify._partition.commit_metadata import WINDOW
from kafka_notify._partition.entry import Busy, Entry, UserQueue

if TYPE_CHECKING:
    from kafka_notify._partition.effects import Effects
    from kafka_notify._partition.parking import Parking
    from kafka_notify._partition.retry_record import RetryRecord
    from kafka_notify._partition.table import EntryTable
    from kafka_notify._partition.waiting import Waiting
    from kafka_notify._partition.wide import LongWaits, RetryHalf

CARRY_BATCH: Final = 200
"""Entries that one look carries forward so that the window moves on, at most."""
CARRYING: Final = 600
"""Entries of a partition that are carried at once, at most, those whose payloads are read again for it included."""
PASSED_OVER: Final = 1_000
"""Entries that one look passes over before those to be carried, at most: busy ones, and a few young ones."""
RECALL_EVERY: Final = 1_000
"""Milliseconds between two recalls of queued attempts that keep a partition wide which must become narrow."""
DENSITY: Final = 4
SLACK: Final = 40_000
"""A window longer than `DENSITY` times what waits in it, and this, is sparse: a restore reads all of it."""
SPARSE_AFTER: Final = 60_000
"""Milliseconds for which a window must be sparse before the entries at its beginning are carried."""
SPARSE_BATCH: Final = 100

Recall = Callable[[Container[Entry]], list[Entry]]


class Carrying:
    """The entries that are being carried. `RetryRecord.carried` marks each of them; `count` is their number.

    Args:
        half: The retry half.
        table: The entries of the assignment.
        waiting: The queues that wait for room in the window.
        parking: Parks the followers of a recalled attempt.
        long_waits: Settings and counts that all partitions of a worker share.
        effects: Reads payloads again.
    """

    __slots__ = (
        "_effects", "_half", "_loaded", "_long_waits", "_ordered_at", "_parking", "_recall_at", "_recalled",
        "_sparse_since", "_table", "_waiting", "count",
    )  # fmt: skip

    def __init__(
        self,
        half: RetryHalf,
        table: EntryTable,
        waiting: Waiting,
        parking: Parking,
        long_waits: LongWaits,
        effects: Effects,
    ) -> None:
        self._half = half
        self._table = table
        self._waiting = waiting
        self._parking = parking
        self._long_waits = long_waits
        self._effects = effects
        self.count = 0
        self._sparse_since: int | None = None
        self._ordered_at = 0
        """Epoch ms at which the table was last put in order, so that copies near the end of retention are found."""
        self._loaded: deque[Entry] = deque()
        """Entries whose payload was read again to be carried."""
        self._recalled: dict[UserQueue, None] = {}
        """Queues whose head's attempt was recalled to be carried. They are looked at again once nothing is carried."""
        self._recall_at = 0
        """Epoch ms before which nothing is recalled to make the partition narrow."""

    def carry(self, now: int, recall: Recall) -> Iterator[Entry]:
        """Yield entries to copy forward unchanged at epoch ms `now`. Each is marked busy; the caller writes the copy.

        - Entries whose copy is near the end of the retry topic's retention.
        - Entries at the beginning of a window so sparse that a restore would mostly read finished records.
        - Entries that keep the frontier back, while a head that is due may not be sent beyond the window.
        """
        half = self._half
        while self._loaded:
            entry = self._loaded.popleft()
            self._long_waits.carried[entry.retry.carried] += 1  # type: ignore[union-attr]
            yield entry
        half.tracker.advance()
        retention = self._long_waits.retention_ms
        if retention is not None:
            written = now - rewritten_after(retention)
            if now - self._ordered_at >= retention // 16:
                self._ordered_at = now
                self._table.order()
                self._recall(recall, lambda retry: retry.written < written)
            yield from self._oldest("retention", CARRY_BATCH, written=written)
        reach = WINDOW
        if half.goes_far:
            if self._is_sparse(now):
                yield from self._oldest("sparse", SPARSE_BATCH)
            reach = spill.MAX_WINDOW
        frontier = half.tracker.frontier
        beyond = self._waiting.beyond
        narrows = half.is_wide and not half.goes_far
        blocked = beyond and beyond[0][0] >= frontier + reach
        if narrows and now >= self._recall_at:
            self._recall_at = now + RECALL_EVERY
            self._recall(recall, lambda retry: retry.at < frontier + WINDOW)
        if blocked or narrows:
            yield from self._oldest("window", CARRY_BATCH, below=frontier + WINDOW)
        if self._recalled and not self.count:
            self._waiting.look_at(self._recalled)  # mostly they are queued again already
            self._recalled.clear()

    def loaded(self, entry: Entry) -> None:
        """Carry an entry whose payload was read again at the next look."""
        entry.busy = Busy.COPYING
        self._loaded.append(entry)

    def leave(self, retry: RetryRecord) -> None:
        """Note that an entry is not carried any more."""
        retry.carried = ""
        self.count -= 1

    def clear(self) -> None:
        """Forget everything."""
        self._loaded.clear()
        self._recalled.clear()

    def _recall(self, recall: Recall, which: Callable[[RetryRecord], bool]) -> None:
        """Take queued attempts out of their queues: there they could not be carried while the lane is held or paused.
        They are carried, oldest first, and queued again when their copy is acknowledged."""
        queued = {
            entry
            for entry in self._table.pending.values()
            if (entry.busy is Busy.SENDING or entry.busy is Busy.LOADING) and which(entry.retry)  # type: ignore[arg-type]
        }
        for entry in recall(queued) if queued else ():
            entry.busy = Busy.NO
            self._half.leave(entry.retry)  # type: ignore[arg-type]
            self._recalled[entry.queue] = None
            self._parking.park_followers(entry.queue)

    def _is_sparse(self, now: int) -> bool:
        tracker = self._half.tracker
        if tracker.position - tracker.frontier <= DENSITY * len(self._table.pending) + SLACK:
            self._sparse_since = None
        elif self._sparse_since is None:
            self._sparse_since = now
        return self._sparse_since is not None and now - self._sparse_since >= SPARSE_AFTER

    def _oldest(
        self, reason: str, most: int, *, below: int | None = None, written: int | None = None
    ) -> Iterator[Entry]:
        """Mark idle entries as carried, in the order of the table, which is nearly the order of their copies.

        Args:
            reason: Reason for the statistics.
            most: Number of entries, at most.
            below: Only entries whose copy is below this offset.
            written: Only entries whose copy is older than this, in epoch ms. The search stops after a few younger ones.
        """
        found: list[Entry] = []
        most = min(most, CARRYING - self.count)
        young, passed = CARRY_BATCH, PASSED_OVER
        for entry in self._table.pending.values() if most > 0 else ():
            retry = entry.retry
            assert retry is not None
            if written is not None and retry.written >= written:
                young -= 1
                if young < 0:
                    break
            elif not entry.busy and (below is None or retry.at < below):
                found.append(entry)
                if len(found) == most:
                    break
            else:
                passed -= 1
                if passed < 0:
                    break
        for entry in found:
            assert entry.retry is not None
            entry.retry.carried = reason
            self.count += 1
            if entry.record is None:
                entry.busy = Busy.LOADING
                self._effects.load(entry, to_copy=True)
            else:
                entry.busy = Busy.COPYING
                self._long_waits.carried[reason] += 1
                yield entry
