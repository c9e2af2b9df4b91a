"""The writers whose copies count in a retry partition, and the fence between one assignment and the next."""

from __future__ import annotations

from enum import Enum

from kafka_notify._partition.commit_metadata import WINDOW, Fence
from kafka_notify.wire import REDRIVE_WRITER


class Whose(Enum):
    """The kinds of writers of a copy."""

    RESTORED = "restored"
    """An earlier assignment or the redrive tool, before this assignment began: the copy counts."""
    ZOMBIE = "zombie"
    """An assignment that had ended: the notification is known from another copy or from the source."""
    REDRIVE = "redrive"
    """The redrive tool, since this assignment began."""
    OWN = "own"
    """This assignment."""


class Writers:
    """Tells copies apart by their writers. No fence stops the redrive tool.

    Args:
        me: Writer id of this assignment, fresh and unique.
        restore_end: End of the retry partition after the assignment.
        before: Fence of the assignment before; None when there is none.
    """

    __slots__ = ("before", "me", "restore_end")

    def __init__(self, me: str, restore_end: int, before: Fence | None) -> None:
        self.me = me
        self.restore_end = restore_end
        self.before = before

    def whose(self, offset: int, writer: str) -> Whose:
        """Classify a copy at `offset` by its writer."""
        if offset < self.restore_end:
            before = self.before
            if before is None or writer == REDRIVE_WRITER or before.admits(offset, writer):
                return Whose.RESTORED
            return (
                Whose.ZOMBIE
            )  # written after its assignment had lost the partition; the owner before ignored it
        if writer == REDRIVE_WRITER:
            return Whose.REDRIVE
        return Whose.OWN if writer == self.me else Whose.ZOMBIE

    def fence(self, frontier: int) -> Fence:
        """Return the fence of a commit with this retry frontier. It includes older fences until the bits can say which
        copies those kept out."""
        before = self.before if self.restore_end > frontier + WINDOW else None
        return Fence(self.restore_end, self.me, before)
