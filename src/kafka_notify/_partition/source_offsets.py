"""The offsets of a source partition during one assignment: read, confirmed, and how far it may be read."""

from __future__ import annotations

from typing import Final

from kafka_notify._partition.commit_metadata import WINDOW, Committed
from kafka_notify._partition.offsets import OffsetTracker

READ_WINDOW: Final = 18_000
"""Source records read beyond the frontier, at most; below WINDOW, so that one more batch still fits the bitmap."""


class SourceOffsets(OffsetTracker):
    """The tracker of a source partition, with the two conditions that its users' queues wait for.

    An origin is *reached* when the source was read past it, and *covered* when a confirmed commit includes it.

    Args:
        committed: The last commit, as it was fetched.
        log_start: Start of the log.
        end: End of the log when this assignment began.
    """

    __slots__ = ("confirmed", "end", "end_seen", "farthest")

    def __init__(self, committed: Committed, log_start: int, end: int) -> None:
        super().__init__(committed, log_start)
        self.confirmed = committed
        """The newest commit that the broker has stored."""
        self.end = end
        self.farthest = -1
        """Highest origin that the restore brought; the source must be read past it."""
        self.end_seen = -1
        """End of the partition when it was last reached."""

    def close(self) -> None:
        """Forget all but the frontier."""
        super().close()
        self.confirmed = Committed(0)

    @property
    def at_end(self) -> bool:
        """True when nothing was left to read at the last look."""
        return self.position == self.end_seen

    @property
    def must_read(self) -> bool:
        """True while a restored origin has to be reached, as its user's queue could not move otherwise. Even for that
        the source is not read beyond the bitmap: the frontier moves anyway, as copies are always written."""
        return self.position <= self.farthest and self.position - self.frontier < WINDOW

    @property
    def has_window(self) -> bool:
        """True while the next record still fits the bitmap."""
        return self.position - self.frontier < READ_WINDOW
