"""The copies that an assignment writes itself, from their produce until they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kafka_notify._partition.entry import Entry


class OwnCopies:
    """Copies that are on their way, and copies that were read before or after their acknowledgement.

    A copy that is read after its acknowledgement is *acknowledged* until then, and needs nothing more. A copy that is
    read before, while a produce of its origin is outstanding, is *seen* until the answer tells whether it counts. Any
    other own copy that is read is the orphan of a failed produce.
    """

    __slots__ = ("acknowledged", "moving", "seen")

    def __init__(self) -> None:
        self.moving: dict[int, Entry] = {}
        """Source entries whose first copy, or dead letter, is on its way, by origin."""
        self.seen: dict[int, set[int]] = {}
        """Offsets of copies that were read while a produce of their origin was outstanding, by origin."""
        self.acknowledged: set[int] = set()
        """Offsets of copies that were acknowledged and not read yet."""

    def begin(self, entry: Entry) -> None:
        """Note that a copy or dead letter of `entry` is on its way."""
        if entry.retry is None:
            self.moving[entry.origin] = entry

    def settle(self, origin: int, keep: int) -> list[int]:
        """Return the offsets of copies that were read while a produce of `origin` was outstanding, and do not count.

        Args:
            origin: The entry's origin.
            keep: Offset of the copy that counts; -1 when none does because the entry has ended.
        """
        return [offset for offset in self.seen.pop(origin, ()) if offset != keep]

    def saw(self, origin: int, offset: int) -> None:
        """Note that a copy was read while a produce of its origin is outstanding."""
        self.seen.setdefault(origin, set()).add(offset)

    def move(self, origin: int, to: int) -> None:
        """Follow an entry whose place in its queue has changed from `origin`."""
        if (seen := self.seen.pop(origin, None)) is not None:
            self.seen[to] = seen

    def clear(self) -> None:
        """Forget everything."""
        self.moving.clear()
        self.seen.clear()
        self.acknowledged.clear()
