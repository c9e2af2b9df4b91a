"""Which notifications of held destinations stay in memory without a copy, to be their next probes. Pure.

A notification whose copy is on its way cannot be sent, and one whose payload was evicted has to be read again first. So
the last ones that came for each held destination, of those that never failed, are not copied yet: each that comes
pushes out the oldest. What was pushed out is copied, a few at a time: while the retry topic takes nothing the others
stay fit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, NamedTuple, TypeVar

import attrs

EACH: Final = 4
"""Kept for one destination."""
MOST: Final = 400
"""Kept in all."""
BYTES: Final = 16 * 2**20
"""Of all that are kept."""
LONGEST: Final = 60.0
"""Seconds for which one is kept: what was read after it cannot move the frontier meanwhile."""
LOOK_AGAIN: Final = 1.0
"""Seconds after which what is kept is looked at again."""
SOON: Final = 0.05
"""The same when some were pushed out and are not copied yet: earlier copies may be acknowledged."""
ON_THE_WAY: Final = 64
"""Copies of a partition that are not acknowledged at most, when more were pushed out."""

D = TypeVar("D", bound=Hashable)
T = TypeVar("T", bound=Hashable)


class _Kept(NamedTuple, Generic[D]):
    of: D
    partition: int
    size: int
    since: float


@attrs.define
class _Own(Generic[T]):
    """What waits in memory for one destination, the oldest first."""

    kept: dict[T, None] = attrs.field(factory=dict[T, None])
    out: dict[T, None] = attrs.field(factory=dict[T, None])


class Reserve(Generic[D, T]):
    """Those of one worker; the same work for each, however many there are."""

    def __init__(self) -> None:
        self._all: dict[T, _Kept[D]] = {}
        """All in memory."""
        self._kept: dict[T, None] = {}
        """Of these, those that are to stay, the oldest first."""
        self._own: dict[D, _Own[T]] = {}
        self._out: dict[int, dict[T, None]] = {}
        """Those that were pushed out, by their partitions."""
        self._copying: dict[int, list[T]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._all)

    def ask_again(self, now: float) -> float:
        """When `push_out` and `to_copy` may find something, if nothing else happens; infinity when there is nothing."""
        if not self._all:
            return float("inf")
        return now + (SOON if self._out else LOOK_AGAIN)

    def keep(self, of: D, partition: int, item: T, size: int, now: float) -> None:
        """Keep one that never failed.

        Args:
            of: The destination that it waits for.
            partition: Its number.
            item: Which; twice is once.
            size: Its bytes in memory.
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
        """The one of a destination that came last."""
        own = self._own.get(of)
        return None if own is None else next(reversed(own.kept or own.out))

    def drop(self, item: T) -> None:
        """It does not wait in memory any more, if it did."""
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
        """Push out those that were kept for too long, or of which the caller says that too much was read since."""
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
        """Drop those of which copies may be written now; which, and for what they wait.

        Args:
            copying: Whether a copy that was to be written is still on its way.
            partition: Only of this partition.
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
        """Partitions have ended: keep nothing of the copies of what does not wait any more."""
        for each, copies in tuple(self._copying.items()):
            self._copying[each] = [item for item in copies if waits(item)]
            if not self._copying[each]:
                del self._copying[each]
