"""What was read of a source partition, what the broker has confirmed of it, and how far it may be read on."""

from __future__ import annotations

from typing import Final

from kafka_notify._partition.commit_metadata import WINDOW, Committed
from kafka_notify._partition.offsets import OffsetTracker

READ_WINDOW: Final = 18_000
"""Source records read beyond the frontier; below WINDOW, so that one more batch still fits the bitmap."""


class SourceOffsets(OffsetTracker):
    """The tracker of a source partition, with what the queues of its users wait for.

    An origin is *reached* when the source was read past it, and *covered* when a confirmed commit includes it.

    Args:
        committed: As it was fetched.
        log_start: Where the log starts.
        end: Where it ended when this assignment began.
    """

    __slots__ = ("confirmed", "end", "end_seen", "farthest")

    def __init__(self, committed: Committed, log_start: int, end: int) -> None:
        super().__init__(committed, log_start)
        self.confirmed = committed
        """The newest commit that the broker has stored."""
        self.end = end
        self.farthest = -1
        """Highest origin that the restore brought: the source must be read past it."""
        self.end_seen = -1
        """Where the partition ended when its end was last reached."""

    def close(self) -> None:
        """Forget all but the frontier."""
        super().close()
        self.confirmed = Committed(0)

    @property
    def at_end(self) -> bool:
        """Whether there was nothing more to read when last something was read."""
        return self.position == self.end_seen

    @property
    def must_read(self) -> bool:
        """Whether a restored origin is still to be reached: its user's queue could not move otherwise. What the bitmap
        could not say is not read for that either: the frontier moves on without, as copies are always written."""
        return self.position <= self.farthest and self.position - self.frontier < WINDOW

    @property
    def has_window(self) -> bool:
        """Whether what is read now still fits the bitmap."""
        return self.position - self.frontier < READ_WINDOW
