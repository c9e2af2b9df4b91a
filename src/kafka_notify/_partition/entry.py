"""A notification that an assignment holds, the queue of its user, and what an assignment is to both."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol

from kafka_notify._partition.budget import record_size
from kafka_notify._partition.followers import Followers
from kafka_notify._partition.record import Packed, Record
from kafka_notify._wire.headers import headers_of
from kafka_notify._wire.history import NEW
from kafka_notify._wire.undecoded import collapse_of

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Hashable

    from kafka_notify._partition.retry_record import RetryRecord
    from kafka_notify._partition.source_offsets import SourceOffsets
    from kafka_notify._partition.wide import Spill
    from kafka_notify.wire import Headers, History


class Assignment(Protocol):
    """The assignment that holds an entry, as the code sees it that sends, copies, loads and times entries. `Partition`
    is the only one, and documents each method."""

    number: int
    topic_id: str
    writer: str
    alive: bool
    active: bool
    closing: bool
    outstanding: int
    source: SourceOffsets
    new: deque[Entry]
    due: deque[Entry]
    failed: deque[Entry]

    @property
    def open(self) -> int: ...

    def step(self, queue: UserQueue, now: int) -> None: ...
    def loaded(self, entry: Entry, record: Record, now: int) -> None: ...
    def rest(self, entry: Entry) -> None: ...
    def copying(self, entry: Entry) -> None: ...
    def dead_lettering(self, entry: Entry) -> None: ...
    def copied(self, entry: Entry, retry: RetryRecord, now: int) -> None: ...
    def finish(self, entry: Entry, *, accepted: bool, now: int) -> None: ...
    def release(self, entry: Entry, now: int) -> None: ...
    def pause(self, entry: Entry, now: int) -> None: ...
    def unpause(self, queue: UserQueue, now: int) -> None: ...
    def spilled(self, written: Spill, offset: int) -> bool: ...
    def superseder(self, entry: Entry, now: int) -> Entry | None: ...
    def will_not_be_sent(self, entry: Entry) -> None: ...
    def stick(self, key: Hashable) -> UserQueue: ...
    def unstick(self, queue: UserQueue, now: int) -> None: ...


class Busy(IntEnum):
    """The one thing that is under way for an entry; nothing else may start meanwhile."""

    NO = 0
    SENDING = 1
    """Queued for a send, or being sent."""
    COPYING = 2
    """A copy of it is on its way to the retry topic."""
    DEAD_LETTERING = 3
    """A dead letter of it is on its way."""
    LOADING = 4
    """Its evicted payload is to be read again, or is being read."""


_NO: Final = Busy.NO  # found 70 ns faster than the member, at each record


class Entry:
    """One notification. `retry` is None while it lives in the source topic alone."""

    __slots__ = ("_headers", "busy", "origin", "queue", "record", "retry", "size")

    def __init__(
        self, queue: UserQueue, origin: int, record: Record, headers: Headers | None, size: int
    ) -> None:
        self.queue = queue
        self.origin = origin
        """Offset in the source partition: the one order that counts."""
        self.busy = _NO
        self.retry: RetryRecord | None = None
        self.record: Record | None = record
        """As it came from the broker: one object, where its parts are a dozen for the garbage collector to walk.
        None once the payload was evicted."""
        self._headers = headers
        self.size = size
        """Bytes counted while it lives in the source topic alone."""

    @property
    def partition(self) -> Assignment:
        """The assignment that holds it."""
        return self.queue.partition

    @property
    def created(self) -> int:
        """Creation time, epoch ms; the record's time while the entry lives in the source alone. From any thread."""
        retry, record = self.retry, self.record
        if retry is not None:
            return retry.created
        return 0 if record is None else int(record.timestamp()[1])

    @property
    def key(self) -> bytes | None:
        """The record's key; None once the payload was evicted."""
        return None if self.record is None else self.record.key()

    @property
    def value(self) -> bytes | None:
        """The record's value; None once the payload was evicted."""
        return None if self.record is None else self.record.value()

    @property
    def headers(self) -> Headers | None:
        """The record's headers; None once the payload was evicted."""
        if self._headers is None and self.record is not None:
            self._headers = headers_of(self.record)
        return self._headers

    @property
    def timestamp(self) -> int:
        """The record's time, epoch ms. Its payload must not be evicted."""
        assert self.record is not None
        return int(self.record.timestamp()[1])

    @property
    def collapse(self) -> str:
        """The key that a newer entry of the queue must share to supersede this one; empty when none can."""
        if self.retry is not None:
            return self.retry.collapse
        headers = self._headers
        if headers is None and self.record is not None:
            headers = headers_of(self.record)  # not kept: a dozen objects for as long as the entry waits
        return collapse_of(headers)

    @property
    def history(self) -> History:
        """What happened to it so far."""
        return NEW if self.retry is None else self.retry.history

    def record_size(self) -> int:
        """Count the bytes of key, value and headers, roughly, for the budgets."""
        return record_size(self.key, self.value, self.headers)

    def pack(self) -> int:
        """Make the payload small, as it may wait for a long time; return the bytes that it takes then."""
        record = self.record
        assert record is not None
        if not isinstance(record, Packed):
            record = Packed(record, self.headers)
            self.load(record)
        return record.size

    def evict(self) -> None:
        """Forget key, value and headers, which can be read again by offset."""
        self.record = self._headers = None

    def load(self, record: Record) -> None:
        """Take the payload that was read again."""
        self.record, self._headers = record, None


class UserQueue:
    """One user's entries, strictly by origin, wherever each of them lives: the head, and what waits behind it."""

    __slots__ = ("blocked", "head", "key", "later", "partition", "paused", "stuck", "timer")

    def __init__(self, partition: Assignment, key: Hashable) -> None:
        self.partition = partition
        self.key = key
        self.head: Entry | None = None
        self.later: Followers[Entry] | None = None
        """None for nearly every user: few have more than one notification open."""
        self.timer = 0
        """Epoch ms of the wake-up that was asked for; 0 when there is none."""
        self.blocked: Entry | None = None
        """The head that waits for a commit, a read, or room in the window."""
        self.stuck = False
        """A send that outlived its deadline still runs: nothing of this user may start."""
        self.paused: Entry | None = None
        """Its category or channel is paused; while it is the head, nothing of this user may start."""

    @property
    def entries(self) -> list[Entry]:
        """All entries, in a new list."""
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
                self.later = Followers(entry)
            else:
                later.add(entry)
            return
        self.head = entry
        if later is None:
            later = self.later = Followers(head)
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
                raise ValueError("not in its queue")
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

    def superseder(self, entry: Entry, now: int) -> Entry | None:
        """Find the newest entry with the collapse key and channel of `entry`. It supersedes `entry`, which is skipped
        in its place, without waiting for its due time.

        Of one that lives in the source nobody has looked at expiry or payload yet: the caller does so before it skips
        `entry`, and says `will_not_be_sent` if need be.
        """
        key = entry.collapse
        if not key:
            return None
        later = self.later
        while later is not None:
            other = later.newest(key)
            if other is None or other.origin <= entry.origin:
                return None
            retry = other.retry
            if other.busy is not Busy.DEAD_LETTERING and (
                retry is None or (retry.collapse and (retry.expires is None or retry.expires > now))
            ):
                return other
            later.pass_over_newest(key)  # permanently
        return None

    def will_not_be_sent(self, entry: Entry) -> None:
        """Pass over an entry that `superseder` named: it has expired or cannot be decoded, and supersedes nothing."""
        if (later := self.later) is not None and later.newest(entry.collapse) is entry:
            later.pass_over_newest(entry.collapse)
