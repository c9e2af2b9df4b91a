"""A notification that an assignment holds, and the queue of its user."""

from __future__ import annotations

from bisect import bisect_left, insort
from enum import IntEnum
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from kafka_notify._headers import HasHeaders, headers_of
from kafka_notify.wire import collapse_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from kafka_notify._lanes.partition import Partition
    from kafka_notify.wire import Headers


class Busy(IntEnum):
    """What is under way for an entry; nothing else may start meanwhile."""

    NO = 0
    SENDING = 1
    """Queued for a send, or being sent."""
    COPYING = 2
    """A copy of it is on its way to the retry topic."""
    DYING = 3
    """A dead letter of it is on its way."""
    LOADING = 4
    """Its evicted payload is being read again."""


_NO: Final = Busy.NO  # found 70 ns faster than the member, at each record


class Held:
    """Where and since when an entry lives in the retry topic."""

    __slots__ = (
        "at", "collapse", "created", "due", "error_class", "error_code", "expires", "first_failed",
        "foreign", "id", "provider", "redrives", "size", "superseded", "tainted", "unknown",
    )  # fmt: skip

    def __init__(self, at: int, due: int, expires: int | None, id: str, created: int) -> None:
        self.at = at
        """Offset of its newest copy; -1 while the first one is on its way."""
        self.due = due
        """Epoch ms before which no attempt starts."""
        self.expires = expires
        self.id = id
        self.created = created
        self.superseded = -1
        """Highest offset of the copies it supersedes: a redriven copy may lie before an older generation's."""
        self.redrives = 0
        self.tainted = False
        """A produce failed that may have been written: its orphan must be read before a send."""
        self.foreign = False
        """Its origin does not exist in the source topic (any more)."""
        self.size = 0
        """Bytes counted against the payload budget."""
        self.first_failed: int | None = None
        self.error_class: str | None = None
        self.error_code: str | None = None
        self.provider: str | None = None
        self.unknown = False
        self.collapse = ""
        """See `Entry.collapse`."""

    @property
    def last(self) -> int:
        """Offset of the last record of the retry topic that is about it, as far as is known."""
        return max(self.at, self.superseded)


class Record(HasHeaders, Protocol):
    """What an entry needs of a `confluent_kafka.Message`."""

    def key(self, /) -> Any: ...
    def value(self, /) -> Any: ...
    def timestamp(self, /) -> Any: ...


class Entry:
    """One notification. `held` is None while it lives in the source topic alone."""

    __slots__ = ("_collapse", "_headers", "attempt", "busy", "held", "lane", "origin", "record", "size")

    def __init__(self, lane: Lane, origin: int, record: Record, headers: Headers | None, size: int) -> None:
        self.lane = lane
        self.origin = origin
        """Offset in the source partition: the one order that counts."""
        self.attempt = 0
        """Counted attempts made."""
        self._collapse: str | None = None
        self.busy = _NO
        self.held: Held | None = None
        self.record: Record | None = record
        """As it came from the broker: one object, where its parts are a dozen for the garbage collector to walk.
        None once the payload was evicted."""
        self._headers = headers
        self.size = size
        """Bytes counted while it lives in the source topic alone."""

    @property
    def partition(self) -> Partition:
        """The assignment that holds it."""
        return self.lane.partition

    @property
    def created(self) -> int:
        """When it was made, epoch ms; of one read from the source, when its record was. From any thread."""
        held, record = self.held, self.record
        if held is not None:
            return held.created
        return 0 if record is None else int(record.timestamp()[1])

    @property
    def key(self) -> bytes | None:
        """Of the record."""
        return None if self.record is None else self.record.key()

    @property
    def value(self) -> bytes | None:
        """Of the record."""
        return None if self.record is None else self.record.value()

    @property
    def headers(self) -> Headers | None:
        """Of the record; None once the payload was evicted."""
        if self._headers is None and self.record is not None:
            self._headers = headers_of(self.record)
        return self._headers

    @property
    def timestamp(self) -> int:
        """Epoch ms of the record, whose payload must not be evicted."""
        assert self.record is not None
        return int(self.record.timestamp()[1])

    @property
    def collapse(self) -> str:
        """What a newer entry of the lane must share to supersede this one; empty when none can."""
        if self.held is not None:
            return self.held.collapse
        key = self._collapse
        if key is None:
            # not kept in `_headers`: a dozen objects for as long as it waits
            headers = self._headers
            if headers is None and self.record is not None:
                headers = headers_of(self.record)
            key = self._collapse = collapse_of(headers)
        return key

    def record_size(self) -> int:
        """Bytes of key, value and headers, roughly: what the budgets count."""
        return record_size(self.key, self.value, self.headers)

    def evict(self) -> None:
        """Forget key, value and headers: they can be read again by offset."""
        self.record = self._headers = None

    def load(self, record: Record) -> None:
        """The payload is here again."""
        self.record, self._headers = record, None


def record_size(key: bytes | None, value: bytes | None, headers: Headers | None) -> int:
    """Bytes that a record takes in memory, roughly: each of its parts alone can be as large as a record may be."""
    if not headers:
        return 200 + len(key or b"") + len(value or b"")
    try:
        size = sum(map(len, map(_RAW, headers)))  # all in C
    except TypeError:  # a header without a value
        size = sum(len(raw) for _, raw in headers if raw is not None)
    return size + 200 + 120 * len(headers) + len(key or b"") + len(value or b"")


_ORIGIN: Final = attrgetter("origin")
_RAW: Final = itemgetter(1)


class Lane:
    """One user's entries, strictly by origin, wherever each of them lives: the head, and what waits behind it."""

    __slots__ = ("blocked", "head", "key", "later", "partition", "paused", "stuck", "timer")

    def __init__(self, partition: Partition, key: Hashable, head: Entry | None = None) -> None:
        self.partition = partition
        self.key = key
        self.head = head
        self.later: Later | None = None
        """Nearly no user has more than one notification open: no list for those."""
        self.timer = 0
        """Epoch ms of the wake-up that is already asked for; 0 is none."""
        self.blocked = False
        self.stuck = False
        """A send that outlived its deadline still runs: nothing of this user may start."""
        self.paused: Entry | None = None
        """Its category or channel is paused; while it is the head, nothing of this user may start."""

    @property
    def entries(self) -> list[Entry]:
        """A copy, for those who look from outside."""
        if self.head is None:
            return []
        return [self.head] if self.later is None else [self.head, *self.later.items[self.later.first :]]

    def add(self, entry: Entry) -> None:
        """Insert by origin; nearly always at the end."""
        head = self.head
        if head is None:
            self.head = entry
            return
        later = self.later
        if later is None:
            later = self.later = Later()
        if entry.origin > head.origin:
            later.add(entry)
            return
        self.head = entry
        later.add(head)
        if head.busy is Busy.SENDING:
            later.overtaken = head

    def remove(self, entry: Entry) -> None:
        """It has left: nearly always the head."""
        later = self.later
        if self.head is not entry:
            assert later is not None
            later.remove(entry)
        elif later is None:
            self.head = None
            return
        else:
            self.head = later.pop()
        if len(later.items) == later.first:
            self.later = None

    def find(self, origin: int) -> Entry | None:
        """The entry with this origin."""
        if self.head is not None and self.head.origin == origin:
            return self.head
        return None if self.later is None else self.later.find(origin)


class Later:
    """What waits behind a lane's head. What an entry costs that comes or goes does not depend on how many there are.

    What has left at the front stays in the list as None until it is half of it.
    """

    __slots__ = ("first", "fresh", "items", "overtaken", "same", "seen")

    def __init__(self) -> None:
        self.items: list[Entry] = []
        self.first = 0
        self.fresh = 0
        """No entry before this place lives in the source alone and is idle."""
        self.overtaken: Entry | None = None
        """It was the head, and being sent, when an earlier one (redriven) came in front of it."""
        self.same: dict[str, list[Entry]] | None = None
        """Entries by collapse key, each list by origin; None until somebody asked."""
        self.seen = 0
        """Entries before this place are in `same`."""

    def __len__(self) -> int:
        return len(self.items) - self.first

    def add(self, entry: Entry) -> None:
        """Insert by origin."""
        items = self.items
        if len(items) == self.first or items[-1].origin < entry.origin:
            items.append(entry)
            return
        place = bisect_left(items, entry.origin, self.first, key=_ORIGIN)
        if place == self.first and place:
            self.first = place = place - 1
            items[place] = entry
            self.fresh = min(self.fresh, place)
            known = place + 1 <= self.seen
            self.seen = max(self.seen, place) if not known else self.seen
        else:
            items.insert(place, entry)
            known = place < self.seen
            self.seen += known
            self.fresh = min(self.fresh, place)
        if self.same is not None and known:
            self._index(entry)

    def pop(self) -> Entry:
        """Take out the first."""
        items, first = self.items, self.first
        entry = items[first]
        if self.overtaken is entry:
            self.overtaken = None
        items[first] = None  # type: ignore[call-overload]
        self.first = first = first + 1
        if first >= 32 and first * 2 >= len(items):
            del items[:first]
            self.first = 0
            self.fresh = max(self.fresh - first, 0)
            self.seen = max(self.seen - first, 0)
        if self.same is not None:
            self._unindex(entry)
        return entry

    def remove(self, entry: Entry) -> None:
        """Take out one."""
        items = self.items
        place = bisect_left(items, entry.origin, self.first, key=_ORIGIN)
        if place == len(items) or items[place] is not entry:
            raise ValueError("not in its lane")
        if place == self.first:
            self.pop()
        else:
            del items[place]
            self.fresh -= place < self.fresh
            self.seen -= place < self.seen
            if self.same is not None:
                self._unindex(entry)
        if self.overtaken is entry:
            self.overtaken = None

    def find(self, origin: int) -> Entry | None:
        """The entry with this origin."""
        items = self.items
        place = bisect_left(items, origin, self.first, key=_ORIGIN)
        return items[place] if place < len(items) and items[place].origin == origin else None

    def _index(self, entry: Entry) -> None:
        if key := entry.collapse:
            assert self.same is not None
            same = self.same.setdefault(key, [])
            if not same or same[-1].origin < entry.origin:
                same.append(entry)
            else:
                insort(same, entry, key=_ORIGIN)

    def _unindex(self, entry: Entry) -> None:
        assert self.same is not None
        key = entry._collapse or (entry.held.collapse if entry.held is not None else "")
        if not key or (same := self.same.get(key)) is None:
            return
        if same[-1] is entry:
            same.pop()
        elif same[0] is entry:
            del same[0]
        elif entry in same:
            same.remove(entry)
        if not same:
            del self.same[key]

    def with_key(self, key: str) -> list[Entry]:
        """All with this collapse key, by origin. Each entry's headers are looked at once."""
        items = self.items
        if self.same is None:
            self.same, self.seen = {}, self.first
        for place in range(max(self.seen, self.first), len(items)):
            self._index(items[place])
        self.seen = len(items)
        return self.same.get(key, [])
