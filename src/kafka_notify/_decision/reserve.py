"""The notifications of held destinations that stay in memory without a copy, to be their next probes. Pure.

A notification whose copy is on its way cannot be sent, and an evicted payload has to be read again first. So the last
few notifications for each held destination that never failed are not copied yet. Each new one pushes out the oldest.
Those that were pushed out are copied a few at a time: while the retry topic takes nothing, the others can still be
sent.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

import attrs
from typing_extensions import NamedTuple  # a generic one, on Python 3.10 too

EACH: Final = 4
"""Notifications kept for one destination."""
MOST: Final = 400
"""Notifications kept for all destinations."""
BYTES: Final = 16 * 2**20
"""Bytes of all notifications that are kept."""
LONGEST: Final = 60.0
"""Seconds for which a notification is kept: meanwhile it pins its partition's frontier."""
LOOK_AGAIN: Final = 1.0
"""Seconds after which the notifications that are kept are looked at again."""
SOON: Final = 0.05
"""Seconds instead of `LOOK_AGAIN` while some that were pushed out are not copied yet: earlier copies may be
acknowledged by then."""
ON_THE_WAY: Final = 64
"""Unacknowledged copies of a partition at which no more of those that were pushed out are copied."""

D = TypeVar("D", bound=Hashable)
T = TypeVar("T", bound=Hashable)


class _Kept(NamedTuple, Generic[D]):
    of: D
    partition: int
    size: int
    since: float


@attrs.define
class _Own(Generic[T]):
    """The items that wait in memory for one destination, the oldest first."""

    kept: dict[T, None] = attrs.field(factory=dict[T, None])
    out: dict[T, None] = attrs.field(factory=dict[T, None])


class Reserve(Generic[D, T]):
    """The reserve of one worker. Each call does the same work, however many items there are."""

    def __init__(self) -> None:
        self._all: dict[T, _Kept[D]] = {}
        """All items in memory."""
        self._kept: dict[T, None] = {}
        """The items that are to stay, the oldest first."""
        self._own: dict[D, _Own[T]] = {}
        self._out: dict[int, dict[T, None]] = {}
        """The items that were pushed out and not yet copied, by partition."""
        self._copying: dict[int, list[T]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._all)

    def ask_again(self, now: float) -> float:
        """When `push_out` and `to_copy` may find something by themselves; infinity when nothing is in memory."""
        if not self._all:
            return float("inf")
        return now + (SOON if self._out else LOOK_AGAIN)

    def keep(self, of: D, partition: int, item: T, size: int, now: float) -> None:
        """Keep an item that never failed. An item that is known already changes nothing.

        Args:
            of: The destination that the item waits for.
            partition: Number of the item's partition.
            item: The item.
            size: Bytes that the item takes in memory.
            now: Monotonic seconds.
        """
        if item in self._all:
            return
        self._all[item] = _Kept(of, partition, size, now)
        self._kept[item] = None
        self._bytes += size
        own = self._own.setdefault(of, _Own()).kept
        own[item] = None
        if len(own) > EACH:
            self._push_out(next(iter(own)))
        while len(self._kept) > MOST or self._bytes > BYTES:
            self._push_out(next(iter(self._kept)))

    def newest(self, of: D) -> T | None:
        """The newest item of a destination; None when it has none here."""
        own = self._own.get(of)
        return None if own is None else next(reversed(own.kept or own.out))

    def drop(self, item: T) -> None:
        """Forget an item that does not wait in memory any more, if it is here."""
        kept = self._all.pop(item, None)
        if kept is None:
            return
        own = self._own[kept.of]
        if item in self._kept:
            del self._kept[item], own.kept[item]
            self._bytes -= kept.size
        else:
            out = self._out[kept.partition]
            del out[item], own.out[item]
            if not out:
                del self._out[kept.partition]
        if not own.kept and not own.out:
            del self._own[kept.of]

    def push_out(self, now: float, too_far: Callable[[T], bool]) -> None:
        """Push out the items that were kept too long, and those after which too much of their partition was read."""
        for item in [i for i in self._kept if now - self._all[i].since >= LONGEST or too_far(i)]:
            self._push_out(item)

    def _push_out(self, item: T) -> None:
        kept = self._all[item]
        own = self._own[kept.of]
        del self._kept[item], own.kept[item]
        self._bytes -= kept.size
        own.out[item] = None
        self._out.setdefault(kept.partition, {})[item] = None

    def to_copy(self, copying: Callable[[T], bool], partition: int | None = None) -> list[tuple[D, T]]:
        """Drop the items of which copies may be written now. Return each with its destination.

        Args:
            copying: Returns True while the copy of an item is on its way.
            partition: Number of the only partition to look at; None for all.
        """
        found: list[tuple[D, T]] = []
        for each in tuple(self._out) if partition is None else (partition,):
            if (out := self._out.get(each)) is None:
                continue
            copies = self._copying[each] = [item for item in self._copying.get(each, ()) if copying(item)]
            while out and len(copies) < ON_THE_WAY:
                item = next(iter(out))
                found.append((self._all[item].of, item))
                self.drop(item)
                copies.append(item)
        return found

    def sweep(self, waits: Callable[[T], bool]) -> None:
        """Forget copies under way of items that do not wait any more, as their partitions have ended."""
        for each, copies in tuple(self._copying.items()):
            self._copying[each] = [item for item in copies if waits(item)]
            if not self._copying[each]:
                del self._copying[each]
