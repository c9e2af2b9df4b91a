"""The copies that an assignment writes itself, from their produce to the record that is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kafka_notify._partition.entry import Entry


class OwnCopies:
    """Copies that are on their way, and copies that were read before or after their acknowledgement.

    A copy is read either after its acknowledgement (*acknowledged* until then: nothing more is to be done with it), or
    before, while a produce of its origin is outstanding (*seen* until the answer tells whether it is the one that
    counts). Anything else that is read is the orphan of a failed produce.
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
        """Return the offsets that were read while a produce for `origin` was outstanding, and do not count.

        Args:
            origin: Of the entry.
            keep: Offset of the copy that does count; -1 when none does, as the entry has ended.
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
