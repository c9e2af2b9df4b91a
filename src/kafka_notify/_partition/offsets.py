"""The offsets of a partition that were read and finished during one assignment."""

from __future__ import annotations

from typing import Final

from kafka_notify._partition import spill
from kafka_notify._partition.commit_metadata import WINDOW, Committed

_SHED: Final = 4_096  # finished bytes kept before they are dropped at once
_OPEN: Final = ord("0")
_DONE: Final = ord("1")


class OffsetTracker:
    """The finished offsets of one partition during one assignment.

    `position` is the next offset to be read. `frontier` is updated by `advance` and not by every completion, which
    makes one search per commit instead of one per record.
    """

    __slots__ = ("_base", "_bits", "frontier", "jump", "position")

    def __init__(self, committed: Committed, log_start: int = 0) -> None:
        # below log_start retention has removed the records, so they cannot be read any more
        start = max(committed.frontier, log_start)
        self._base = self.frontier = self.position = start
        self._bits = bytearray(committed.gaps[start - committed.frontier :])
        self.jump = (0, 0, 0)
        """The largest stretch that was skipped without a record since this was last reset: the number of its offsets
        that were not finished, its start and its end."""
        self.advance()

    def observe(self, offset: int) -> bool:
        """Note that `offset` was read. Return True when it is not finished yet.

        Offsets between the last one that was read and this one do not exist (compaction, transaction markers).

        Raises:
            OffsetRewound: The offset is below the position.
        """
        if offset != self.position:
            if offset < self.position:
                raise OffsetRewound(self.position, offset)
            self.skip_to(offset)
        self.position = offset + 1
        at = offset - self._base
        if at >= len(self._bits):
            self._bits.append(_OPEN)  # one byte is enough: `skip_to` and reading in order leave no hole
            return True
        return at >= 0 and self._bits[at] == _OPEN

    def skip_to(self, offset: int) -> None:
        """Note that nothing more is to be read below `offset` (a gap, or the end of the partition)."""
        if offset <= self.position:
            return
        if offset - self.position > self.jump[0]:
            self.jump = (self.open_below(offset), self.position, offset)
        if offset - self.position > WINDOW and self.advance() == self.position:
            del self._bits[: offset - self._base]  # nothing is open, so no byte is needed per missing offset
            self._base = self.frontier = offset
        else:
            start, end = max(self.position - self._base, 0), offset - self._base
            if start < end:
                self._bits[start:end] = b"1" * (end - start)  # extends the bytes if needed
        self.position = offset

    def open_below(self, offset: int) -> int:
        """Count the unfinished offsets from the position up to `offset`."""
        at = max(self.position - self._base, 0)
        return max(offset - self.position, 0) - self._bits.count(b"1", at, max(offset - self._base, at))

    def complete(self, offset: int) -> None:
        """Note that `offset` is finished. It may be unread still, as the offset of an acknowledged copy is."""
        at = offset - self._base
        if at < 0:
            return
        if at >= len(self._bits):
            self._bits.extend(b"0" * (at + 1 - len(self._bits)))
        self._bits[at] = _DONE

    def is_done(self, offset: int) -> bool:
        """Tell whether `offset` is finished."""
        at = offset - self._base
        return at < 0 or (at < len(self._bits) and self._bits[at] == _DONE)

    def advance(self) -> int:
        """Move the frontier over all finished offsets, and return it."""
        at = self._bits.find(b"0", self.frontier - self._base)
        self.frontier = self._base + (len(self._bits) if at < 0 else at)
        if self.frontier - self._base > _SHED:
            del self._bits[: self.frontier - self._base]
            self._base = self.frontier
        return self.frontier

    def close(self) -> None:
        """Forget all but the frontier, as the assignment is over."""
        self._base = self.position = self.frontier
        self._bits = bytearray()
        self.jump = (0, 0, 0)

    def snapshot(self) -> Committed:
        """Return what may be committed now: the frontier, and the bits of the window beyond it.

        Bits beyond the window were never committed, so leaving them out forgets nothing.
        """
        frontier = self.advance()
        return Committed(frontier, self.gaps(WINDOW))

    def gaps(self, length: int = spill.MAX_WINDOW) -> bytes:
        """Return the bits of the first `length` offsets from the frontier on, as `Committed.gaps`."""
        start = self.frontier - self._base
        return bytes(self._bits[start : start + length].rstrip(b"0"))


class OffsetRewound(Exception):
    """A partition went back, because its topic was created again or truncated."""

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(f"expected offset {expected} or later, got {got}")


class TopicRecreated(Exception):
    """A source record is not the one that the waiting copy of its origin came from."""
