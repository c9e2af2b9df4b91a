"""A notification that an assignment holds, and the queue of its user."""

from __future__ import annotations

from collections.abc import Hashable
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol

from kafka_notify import _codes as codes
from kafka_notify._headers import headers_of
from kafka_notify._partition.followers import Later
from kafka_notify._partition.record import Packed, Record, record_size
from kafka_notify.wire import collapse_of

if TYPE_CHECKING:
    from collections import deque

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
    """Its evicted payload is to be read again, or is being read."""


_NO: Final = Busy.NO  # found 70 ns faster than the member, at each record


class Held:
    """Where and since when an entry lives in the retry topic."""

    __slots__ = (
        "at", "bytes", "carried", "collapse", "counted", "created", "due", "error_class", "error_code", "expires",
        "first_failed", "foreign", "id", "loaded", "provider", "redrives", "size", "stranger", "superseded", "tainted",
        "topic", "unknown", "unknown_before", "waiting_since", "written",
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
        self.counted = False
        """It is being sent, and counts in `RetryHalf.under_way`."""
        self.carried = ""
        """Why it is being carried, or its payload read again for that: then it counts in `Partition._carrying`."""
        self.written = 0
        """Epoch ms of its newest copy: the retry topic's retention counts from there."""
        self.tainted = False
        """A produce failed that may have been written: its orphan must be read before a send."""
        self.foreign = False
        """Its origin is surely not in the present source topic: nothing of that must be read or committed before."""
        self.stranger = -1
        """Its origin when that is, or may be, another topic's: then `Entry.origin` is only its place in the user's
        queue."""
        self.topic = ""
        """Id of the topic that its origin is in, or `OTHER_TOPIC`; empty when that is not known."""
        self.size = 0
        """Bytes counted against the payload budget."""
        self.bytes = 0
        """Size of its payload, also while that is evicted."""
        self.loaded = False
        """Its payload was read again for a send or a copy, or is being read: see `PayloadBudget`."""
        self.first_failed: int | None = None
        self.error_class: str | None = None
        self.error_code: str | None = None
        self.provider: str | None = None
        self.unknown = False
        self.unknown_before = False
        self.waiting_since: int | None = None
        """As in `RetryState`."""
        self.collapse = ""
        """See `Entry.collapse`."""

    def origin_of(self, entry: Entry) -> int:
        """The origin that its headers name; `entry` is whose this is."""
        return entry.origin if self.stranger < 0 else self.stranger

    @property
    def identity(self) -> tuple[str, int]:
        """Id and creation time: what tells notifications of one origin apart."""
        return self.id, self.created

    @property
    def last(self) -> int:
        """Offset of the last record of the retry topic that is about it, as far as is known."""
        return max(self.at, self.superseded)


class Assignment(Protocol):
    """One partition during one assignment, as those see it who send, copy, load and time its entries. `Partition` is
    the one there is; it says what each of these is."""

    number: int
    topic_id: str
    writer: str
    alive: bool
    closing: bool
    open: int
    outstanding: int
    new: deque[Entry]
    due: deque[Entry]
    failed: deque[Entry]

    def step(self, lane: Lane, now: int, /) -> None: ...
    def release(self, entry: Entry, now: int, /) -> None: ...
    def copying(self, entry: Entry, /) -> None: ...
    def copied(self, entry: Entry, held: Held, attempt: int, now: int, /) -> None: ...
    def dying(self, entry: Entry, /) -> None: ...
    def finish(self, entry: Entry, *, accepted: bool, now: int) -> None: ...
    def superseder(self, entry: Entry, now: int, /) -> Entry | None: ...
    def will_not_be_sent(self, entry: Entry, /) -> None: ...
    def loaded(self, entry: Entry, record: Record, now: int, /) -> None: ...
    def rest(self, entry: Entry, /) -> None: ...
    def pause(self, entry: Entry, now: int, /) -> None: ...
    def unpause(self, lane: Lane, now: int, /) -> None: ...
    def stick(self, key: Hashable, /) -> Lane: ...
    def unstick(self, lane: Lane, now: int, /) -> None: ...


class Entry:
    """One notification. `held` is None while it lives in the source topic alone."""

    __slots__ = ("_headers", "attempt", "busy", "held", "lane", "origin", "record", "size")

    def __init__(self, lane: Lane, origin: int, record: Record, headers: Headers | None, size: int) -> None:
        self.lane = lane
        self.origin = origin
        """Offset in the source partition: the one order that counts."""
        self.attempt = 0
        """Counted attempts made."""
        self.busy = _NO
        self.held: Held | None = None
        self.record: Record | None = record
        """As it came from the broker: one object, where its parts are a dozen for the garbage collector to walk.
        None once the payload was evicted."""
        self._headers = headers
        self.size = size
        """Bytes counted while it lives in the source topic alone."""

    @property
    def partition(self) -> Assignment:
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
        headers = self._headers
        if headers is None and self.record is not None:
            headers = headers_of(self.record)  # not kept: a dozen objects for as long as the entry waits
        return collapse_of(headers)

    @property
    def failed(self) -> bool:
        """Whether a send of it failed before, counted or not; `should_send` putting it off is no failure."""
        held = self.held
        if held is None or held.first_failed is None:
            return False
        return (
            self.attempt > 0
            or held.error_code is None
            or not held.error_code.startswith((codes.DEFERRED, codes.CODEC_UNAVAILABLE))
        )

    def record_size(self) -> int:
        """Bytes of key, value and headers, roughly: what the budgets count."""
        return record_size(self.key, self.value, self.headers)

    def pack(self) -> int:
        """Make its payload small, as it may wait for long; the bytes that it takes then."""
        record = self.record
        assert record is not None
        if not isinstance(record, Packed):
            record = Packed(record, self.headers)
            self.load(record)
        return record.size

    def evict(self) -> None:
        """Forget key, value and headers: they can be read again by offset."""
        self.record = self._headers = None

    def load(self, record: Record) -> None:
        """The payload is here again."""
        self.record, self._headers = record, None


class Lane:
    """One user's entries, strictly by origin, wherever each of them lives: the head, and what waits behind it."""

    __slots__ = ("blocked", "head", "key", "later", "partition", "paused", "stuck", "timer")

    def __init__(self, partition: Assignment, key: Hashable) -> None:
        self.partition = partition
        self.key = key
        self.head: Entry | None = None
        self.later: Later[Entry] | None = None
        """Nearly no user has more than one notification open: the others have no list."""
        self.timer = 0
        """Epoch ms of the wake-up that is already asked for; 0 is none."""
        self.blocked: Entry | None = None
        """The head that waits for a commit, a read, or room in the window."""
        self.stuck = False
        """A send that outlived its deadline still runs: nothing of this user may start."""
        self.paused: Entry | None = None
        """Its category or channel is paused; while it is the head, nothing of this user may start."""

    @property
    def entries(self) -> list[Entry]:
        """All of them, in a new list: for those who look from outside."""
        if self.head is None:
            return []
        return [self.head] if self.later is None else [self.head, *self.later]

    def add(self, entry: Entry) -> None:
        """Insert by origin; nearly always at the end."""
        head = self.head
        if head is None:
            self.head = entry
            return
        later = self.later
        if entry.origin > head.origin:
            if later is None:
                self.later = Later(entry)
            else:
                later.add(entry)
            return
        self.head = entry
        if later is None:
            later = self.later = Later(head)
        else:
            later.add(head)
        if head.busy is Busy.SENDING:
            later.overtaken = head

    def remove(self, entry: Entry) -> None:
        """Take out an entry; nearly always the head.

        Raises:
            ValueError: It is not in here.
        """
        later = self.later
        if self.head is not entry:
            if later is None:
                raise ValueError("not in its lane")
            later.remove(entry)
            if not later.count:
                self.later = None
        elif later is None:
            self.head = None
        elif later.count > 1:
            self.head = later.pop()
        else:
            self.head, self.later = later.first, None

    def replace(self, old: Entry, new: Entry) -> None:
        """Put `new`, which has the same origin, in the place of `old`: it moves nothing."""
        if self.head is old:
            self.head = new
        else:
            assert self.later is not None
            self.later.replace(old, new)

    def find(self, origin: int) -> Entry | None:
        """The entry with this origin."""
        if self.head is not None and self.head.origin == origin:
            return self.head
        return None if self.later is None else self.later.find(origin)
