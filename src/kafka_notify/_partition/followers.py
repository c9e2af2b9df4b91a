"""The entries behind the head of a user's queue, by origin. An event costs the same whether ten wait or a million."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Final, Generic, Protocol, TypeVar

PIECE: Final = 256
"""Entries in a piece of the list; a piece of twice as many is cut. An insertion moves only the entries behind it in its
piece."""
SHORT: Final = 16
"""Followers up to which `fresh` is made only when it is asked for. Nearly every queue with followers has one or two and
is never asked: a deque for each would take a kilobyte and a quarter of the queue's time."""
_ORIGIN: Final = attrgetter("origin")


class Follower(Protocol):
    """The part of an entry that this module needs."""

    origin: int

    @property
    def retry(self) -> HasCollapse | None: ...

    @property
    def collapse(self) -> str: ...


class HasCollapse(Protocol):
    """The part of a retry record that this module needs."""

    @property
    def collapse(self) -> str: ...


E = TypeVar("E", bound=Follower)


def _last(piece: list[Any]) -> Any:
    return piece[-1].origin


class ByOrigin(Generic[E]):
    """Entries in the order of their origins, in pieces."""

    __slots__ = ("_pieces", "count")

    def __init__(self) -> None:
        self._pieces: list[list[E]] = [[]]
        """The pieces in order, at least one. A piece is empty only when it is the only one."""
        self.count = 0

    def __iter__(self) -> Iterator[E]:
        for piece in self._pieces:
            yield from piece

    @property
    def last(self) -> E | None:
        """The entry with the highest origin; None when there is none."""
        piece = self._pieces[-1]
        return piece[-1] if piece else None

    def add(self, entry: E) -> None:
        """Insert an entry by its origin, nearly always at the end."""
        self.count += 1
        pieces = self._pieces
        piece = pieces[-1]
        if not piece or piece[-1].origin < entry.origin:
            if len(piece) < PIECE:
                piece.append(entry)
            else:
                pieces.append([entry])
            return
        at = self._piece(entry.origin)
        piece = pieces[at]
        insort(piece, entry, key=_ORIGIN)
        if len(piece) > 2 * PIECE:
            pieces.insert(at + 1, piece[PIECE:])
            del piece[PIECE:]

    def pop(self) -> E:
        """Take out the first entry."""
        return self._take(0, 0)

    def pop_last(self) -> E:
        """Take out the last entry."""
        at = len(self._pieces) - 1
        return self._take(at, len(self._pieces[at]) - 1)

    def remove(self, entry: E) -> None:
        """Take out an entry.

        Raises:
            ValueError: The entry is not in here.
        """
        at, place = self._place(entry)
        self._take(at, place)

    def replace(self, old: E, new: E) -> None:
        """Put `new`, which has the same origin, in the place of `old`."""
        at, place = self._place(old)
        self._pieces[at][place] = new

    def find(self, origin: int) -> E | None:
        """Return the entry with this origin; None when there is none."""
        piece = self._pieces[self._piece(origin)]
        place = bisect_left(piece, origin, key=_ORIGIN)
        return piece[place] if place < len(piece) and piece[place].origin == origin else None

    def _take(self, at: int, place: int) -> E:
        piece = self._pieces[at]
        entry = piece.pop(place)
        self.count -= 1
        if not piece and len(self._pieces) > 1:
            del self._pieces[at]
        return entry

    def _place(self, entry: E) -> tuple[int, int]:
        at = self._piece(entry.origin)
        piece = self._pieces[at]
        place = bisect_left(piece, entry.origin, key=_ORIGIN)
        if place == len(piece) or piece[place] is not entry:
            raise ValueError("not in its queue")
        return at, place

    def _piece(self, origin: int) -> int:
        """Return the index of the piece in which `origin` belongs."""
        pieces = self._pieces
        if len(pieces) == 1:
            return 0
        return min(bisect_left(pieces, origin, key=_last), len(pieces) - 1)


class Followers(ByOrigin[E]):
    """The followers of a queue's head, with indexes so that no event has to look through all of them."""

    __slots__ = ("_fresh", "_keys", "_same", "is_backlog", "overtaken")

    def __init__(self, first: E) -> None:
        self._pieces = [[first]]
        self.count = 1
        self.is_backlog = False
        """True when the table counts this queue as a backlog."""
        self._fresh: deque[E] | None = None
        """See `fresh`; None while there are few and it was not asked for."""
        self.overtaken: E | None = None
        """The entry that was the head, and being sent, when an earlier (redriven) one came in front of it."""
        self._same: dict[str, ByOrigin[E]] | None = None
        """Entries by collapse key, without those that can supersede nothing any more. None until an entry is known to
        have a key, or `newest` was asked."""
        self._keys: dict[int, str] | None = None
        """Each origin's key in `_same`, so that headers are read once."""
        if (retry := first.retry) is not None and retry.collapse:
            self._index_all()

    @property
    def fresh(self) -> deque[E]:
        """All idle entries that live in the source alone, nearly in their order of arrival, and some that no longer are
        such. An entry that is taken out is not looked at again."""
        if self._fresh is None:
            self._fresh = deque(entry for entry in self if entry.retry is None)
        return self._fresh

    def add(self, entry: E) -> None:
        """Insert an entry by its origin, nearly always at the end."""
        piece = self._pieces[-1]
        if piece and len(piece) < PIECE and piece[-1].origin < entry.origin:  # nearly always
            piece.append(entry)
            self.count += 1
        else:
            super().add(entry)
        if self._fresh is None:
            if self.count > SHORT:
                self.fresh  # noqa: B018 - makes the deque, which is kept from here on
        elif entry.retry is None:
            self._fresh.append(entry)
        if self._same is not None:
            self._index(entry)
        elif (retry := entry.retry) is not None and retry.collapse:
            self._index_all()  # now, while there are few, and not when the head asks

    @property
    def first(self) -> E:
        """The entry with the lowest origin."""
        return self._pieces[0][0]

    def pop(self) -> E:
        """Take out the first entry."""
        piece = self._pieces[0]
        if self.overtaken is not None or self._keys or (len(piece) == 1 and len(self._pieces) > 1):
            return self._take(0, 0)
        entry = piece.pop(0)
        self.count -= 1
        fresh = self._fresh
        if fresh:
            if fresh[0] is entry:
                fresh.popleft()
            elif len(fresh) > 2 * self.count + PIECE:
                self._forget_stale()
        return entry

    def replace(self, old: E, new: E) -> None:
        """Put `new`, which has the same origin and lives in the retry topic, in the place of `old`."""
        super().replace(old, new)
        self._gone(old)
        if self._same is not None:
            self._index(new)

    def _take(self, at: int, place: int) -> E:
        entry = super()._take(at, place)
        self._gone(entry)
        return entry

    def _gone(self, entry: E) -> None:
        if self.overtaken is entry:
            self.overtaken = None
        fresh = self._fresh
        if fresh:
            if fresh[0] is entry:
                fresh.popleft()
            elif len(fresh) > 2 * self.count + PIECE:
                self._forget_stale()
        if self._keys and (key := self._keys.pop(entry.origin, None)) is not None:
            assert self._same is not None
            same = self._same.get(key)
            if same is not None and same.find(entry.origin) is entry:
                same.remove(entry)
                if not same.count:
                    del self._same[key]

    def _forget_stale(self) -> None:
        """Drop entries from `fresh` that have left the queue: many left from its middle."""
        self._fresh = deque(entry for entry in self.fresh if self.find(entry.origin) is entry)

    # -- collapse keys --------------------------------------------------------------------------------

    def newest(self, key: str) -> E | None:
        """Return the entry with the highest origin of those with this collapse key; None when there is none."""
        same = (self._same if self._same is not None else self._index_all()).get(key)
        return None if same is None else same.last

    def pass_over_newest(self, key: str) -> None:
        """Have `newest` never return its present entry again, as it can supersede nothing any more."""
        assert self._same is not None
        same = self._same[key]
        same.pop_last()
        if not same.count:
            del self._same[key]

    def _index_all(self) -> dict[str, ByOrigin[E]]:
        self._same, self._keys = {}, {}
        for entry in self:
            self._index(entry)
        return self._same

    def _index(self, entry: E) -> None:
        if key := entry.collapse:
            assert self._same is not None
            assert self._keys is not None
            self._keys[entry.origin] = key
            same = self._same.get(key)
            if same is None:
                same = self._same[key] = ByOrigin()
            same.add(entry)
