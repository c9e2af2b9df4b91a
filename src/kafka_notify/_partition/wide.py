"""The retry half of a commit, however far its finished offsets are from its frontier.

*Far* means beyond the window of the bitmap. An *end* is a finished offset that neither a newer copy nor a fence
explains to the next owner: a notification's last copy, an orphan of a failed produce, a spill. While no end is far, the
half is *narrow*, in the format that every version reads. Otherwise it is *wide* and names every finished offset: a
delta in the metadata, and the rest in a spill.
"""

from __future__ import annotations

import zlib
from collections import Counter
from typing import TYPE_CHECKING, Final

import attrs

from kafka_notify._partition import spill
from kafka_notify._partition.commit_metadata import WINDOW, Committed, Fence, Wide
from kafka_notify._partition.offsets import OffsetTracker
from kafka_notify._partition.spill import SpillName

if TYPE_CHECKING:
    from kafka_notify._partition.retry_record import RetryRecord

ROOM: Final = 5_000
"""Notifications of a wide partition that are under way, or have ended without a half or a spill that can say so, at
most. A crash may repeat all of them."""

DELTA_OFFSETS: Final = 4_000
"""Finished offsets since the last spill after which another one is due, however few runs they are, as each commit sorts
them."""


@attrs.define
class LongWaits:
    """Settings and counts of long waits that all partitions of a worker share."""

    wide: bool = False
    """True when a retry partition may become wide. Otherwise entries in front of a far notification are carried."""
    retention_ms: int | None = None
    """Milliseconds for which the retry topic keeps a record; None when it keeps all."""
    carried: Counter[str] = attrs.field(factory=lambda: Counter[str]())
    """Copies written again unchanged, by reason: `window`, `retention`, `sparse`."""
    spills: int = 0
    """Spills that were acknowledged."""
    spill_failures: int = 0
    """Spills that were not acknowledged and are written again."""


@attrs.frozen(eq=False)
class Spill:
    """A spill to be written into the retry partition, with what will name it."""

    value: bytes
    base: int
    checksum: int
    fence: Fence
    said: int
    """Number of the offsets in the tracker's `since` that it holds."""


class RetryTracker(OffsetTracker):
    """A tracker that also notes the offsets finished since the named spill."""

    __slots__ = ("since",)

    def __init__(self, committed: Committed, log_start: int = 0) -> None:
        super().__init__(committed, log_start)
        self.since: list[int] | None = None
        """Offsets finished since the named spill, or all beyond the frontier when there is no spill; None while no
        delta is counted."""

    def complete(self, offset: int) -> None:
        """Note that `offset` is finished."""
        if self.since is not None:
            self.since.append(offset)
        OffsetTracker.complete(self, offset)

    def close(self) -> None:
        """Forget all but the frontier, as the assignment is over."""
        super().close()
        self.since = None


class RetryHalf:
    """Decides between narrow and wide, and when a spill is due. At most one spill is on its way.

    Args:
        committed: The last commit, as it was fetched, with the bits of its spill.
        tracker: Tracker of the same partition.
        long_waits: Settings and counts that all partitions of a worker share.
        knows_topics: True when the ids of both topics are known. Without them a worker of an older version could not be
            told that the retry half is wide, so the half does not become wide.
    """

    __slots__ = (
        "_fetched", "_knows_topics", "_long_waits", "_looked", "_ready", "_spilling", "_unsaid_before", "last_end",
        "spill", "tracker", "under_way", "unsaid",
    )  # fmt: skip

    def __init__(
        self,
        committed: Committed,
        tracker: RetryTracker,
        long_waits: LongWaits | None = None,
        *,
        knows_topics: bool = True,
    ) -> None:
        self._fetched = committed
        self.tracker = tracker
        self._long_waits = long_waits or LongWaits()
        self._knows_topics = knows_topics
        self.last_end = -1
        """The highest end: all ends are within the window when this one is."""
        self._ready: Committed | None = None
        """The newest half that could be said, narrow ones included, as an older one would forget bits."""
        self._spilling: Spill | None = None
        """The spill on its way."""
        self._looked: tuple[int, int, Fence] | None = None
        """The state from which `_ready` was made, when it names every finished offset."""
        self._unsaid_before = 0
        """`unsaid` when the spill on its way was made."""
        self.spill: SpillName | None = None
        """The acknowledged spill from which the delta is counted."""
        self.unsaid = 0
        """Notifications that have ended since the newest half or spill that can say so, while the half is wide."""
        self.under_way = 0
        """Notifications that are being sent or dead-lettered; while the half is narrow, only far ones."""
        wide = committed.wide
        if wide is not None:
            self.last_end = committed.frontier + len(committed.gaps) - 1
            if wide.spill is not None:
                self.spill = wide.spill
                tracker.since = spill.offsets_of(spill.decode_runs(wide.delta), committed.frontier)

    @property
    def is_wide(self) -> bool:
        """True while an end lies beyond the window."""
        return self.last_end >= self.tracker.frontier + WINDOW

    @property
    def length(self) -> int:
        """Offsets from the frontier to the highest end when that end is far; else 0."""
        return self.last_end + 1 - self.tracker.frontier if self.is_wide else 0

    @property
    def spilling(self) -> bool:
        """True while a spill is on its way."""
        return self._spilling is not None

    @property
    def has_room(self) -> bool:
        """True while one more far notification may be sent."""
        return self.unsaid + self.under_way < ROOM

    @property
    def goes_far(self) -> bool:
        """True when notifications beyond the window are sent. Otherwise the entries in front of them are carried."""
        return self._long_waits.wide and self._knows_topics

    @property
    def sayable(self) -> int:
        """The retry offset below which a notification's last copy must be for its send: either a commit will be able to
        say that it has ended, or its end is one of the bounded number that a crash may repeat."""
        if self.has_room:
            return self.tracker.frontier + (spill.MAX_WINDOW if self.goes_far else WINDOW)
        return -1 if self.is_wide else self.tracker.frontier + WINDOW

    def can_say(self, last: int) -> bool:
        """Tell whether a notification whose last copy is at `last` may be sent."""
        edge = self.tracker.frontier + WINDOW
        return (last < edge and self.last_end < edge) or last < self.sayable

    def begin(self, retry: RetryRecord) -> None:
        """Count a notification that is sent from the retry topic, if its end may be far."""
        edge = self.tracker.frontier + WINDOW
        if self.last_end >= edge or retry.last >= edge:
            retry.counted = True
            self.under_way += 1

    def leave(self, retry: RetryRecord) -> None:
        """Stop counting a notification that is not under way any more, if `begin` counted it."""
        if retry.counted:
            retry.counted = False
            self.under_way -= 1

    def finish(self, retry: RetryRecord) -> None:
        """Complete the retry offsets of a notification that has ended."""
        last = retry.last
        if last != retry.at:
            self.tracker.complete(retry.at)
        self.end(last)
        if retry.counted:
            self.leave(retry)
        if self.last_end >= self.tracker.frontier + WINDOW:
            self.unsaid += 1

    def close(self) -> None:
        """Forget all but the frontier, as the assignment is over. Call it after `tracker.close`."""
        self._fetched = Committed(self.tracker.frontier)
        self.last_end, self.unsaid, self.under_way = -1, 0, 0
        self._ready = self._spilling = self._looked = self.spill = None

    def end(self, offset: int) -> None:
        """Complete an offset that nothing else explains to the next owner."""
        self.tracker.complete(offset)
        if offset > self.last_end:
            self.last_end = offset

    def snapshot(self, fence: Fence, *, active: bool) -> tuple[Committed, Spill | None]:
        """Return the newest half that a commit can say now, and a spill to be written for the next one.

        While a spill is on its way this is an older half. Within one owner any mix of an older retry half and a newer
        source half is safe, but a half must never be older than the one committed before it.

        Args:
            fence: The fence of this assignment.
            active: True once that fence holds. Before that no spill is written.
        """
        tracker = self.tracker
        frontier = tracker.advance()
        if not self.is_wide:
            self._spilling = self.spill = tracker.since = self._looked = None
            self.unsaid = 0
            self._ready = Committed(frontier, tracker.gaps(WINDOW), fence)
            return self._ready, None
        if self._ready is None:  # this assignment could not say more yet than the one before
            was = self._fetched
            self._ready = Committed(was.frontier, b"" if was.wide else was.gaps, fence, wide=was.wide)
        if self._spilling is not None:
            return self._ready, None
        if tracker.since is None:
            self.spill = None
            gaps = tracker.gaps()
            if gaps.count(b"1") <= DELTA_OFFSETS:
                tracker.since = spill.offsets_of(gaps, frontier)
        if tracker.since is not None:
            if self._looked == (frontier, len(tracker.since), fence):
                return self._ready, None
            tracker.since = since = sorted({offset for offset in tracker.since if offset >= frontier})
            delta = spill.encode_runs(since, frontier) if len(since) <= DELTA_OFFSETS else None
            if delta is not None:
                self.unsaid = 0
                self._looked = (frontier, len(since), fence)
                self._ready = Committed(frontier, b"", fence, wide=Wide(delta, self.spill))
                return self._ready, None
        if not active:
            return self._ready, None
        value = spill.pack(frontier, tracker.gaps())
        tracker.since = tracker.since or []
        self._spilling = Spill(value, frontier, zlib.crc32(value), fence, len(tracker.since))
        self._unsaid_before = self.unsaid
        return self._ready, self._spilling

    def acknowledged(self, written: Spill, offset: int, writer: str) -> bool:
        """Name an acknowledged spill from now on. Return False when it is not needed any more."""
        if written is not self._spilling:
            return False
        self._spilling = self._looked = None
        self.spill = SpillName(offset, writer, written.base, written.checksum)
        tracker = self.tracker
        assert tracker.since is not None
        del tracker.since[: written.said]
        self.unsaid -= self._unsaid_before
        # no newer half was said while it was on its way, and the offsets finished since then may not fit again
        self._ready = Committed(written.base, b"", written.fence, wide=Wide("", self.spill))
        self.end(offset)  # the spill's own offset, which has not been read yet
        return True
