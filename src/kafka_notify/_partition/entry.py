"""A notification that an assignment holds, the queue of its user, and the interface of the assignment to both."""

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
    """The assignment that holds an entry, as seen by the code that sends, copies, loads and times entries.

    `Partition` is the only implementation and documents each method.
    """

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
    """The one operation that is under way for an entry. No other may start meanwhile."""

    NO = 0
    SENDING = 1
    """Queued for a send, or being sent."""
    COPYING = 2
    """A copy of it is on its way to the retry topic."""
    DEAD_LETTERING = 3
    """A dead letter of it is on its way."""
    LOADING = 4
    """Its evicted payload is to be read again, or is being read."""


_NO: Final = Busy.NO  # looked up 70 ns faster than the member, for each record


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
        """The record as it came from the broker; None once the payload was evicted. It is kept whole because its parts
        would be a dozen objects more for the garbage collector to walk."""
        self._headers = headers
        self.size = size
        """Bytes that it counts for while it lives in the source topic alone."""

    @property
    def partition(self) -> Assignment:
        """The assignment that holds it."""
        return self.queue.partition

    @property
    def created(self) -> int:
        """Creation time in epoch ms; the record's time while the entry lives in the source alone. For any thread."""
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
        """The record's time in epoch ms, of an entry whose payload is in memory."""
        assert self.record is not None
        return int(self.record.timestamp()[1])

    @property
    def collapse(self) -> str:
        """The collapse key by which a newer entry of the queue supersedes this one; empty when none can."""
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
        """Estimate the bytes of key, value and headers, for the budgets."""
        return record_size(self.key, self.value, self.headers)

    def pack(self) -> int:
        """Pack the payload, as it may wait for a long time. Return the bytes that it takes then."""
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
        """Take a payload that was read again."""
        self.record, self._headers = record, None


class UserQueue:
    """The entries of one user in the order of their origins, wherever each lives: the head, and those behind it."""

    __slots__ = ("blocked", "head", "key", "later", "partition", "paused", "stuck", "timer")

    def __init__(self, partition: Assignment, key: Hashable) -> None:
        self.partition = partition
        self.key = key
        self.head: Entry | None = None
        self.later: Followers[Entry] | None = None
        """The entries behind the head; None for nearly every user, as few have more than one notification open."""
        self.timer = 0
        """Epoch ms of the wake-up that was asked for; 0 when there is none."""
        self.blocked: Entry | None = None
        """The head that waits for a commit, a read, or room in the window."""
        self.stuck = False
        """True while a send that outlived its deadline still runs, so that nothing of this user may start."""
        self.paused: Entry | None = None
        """The entry whose category or channel is paused. While it is the head, nothing of this user may start."""

    @property
    def entries(self) -> list[Entry]:
        """All entries, in a new list."""
        if self.head is None:
            return []
        return [self.head] if self.later is None else [self.head, *self.later]

    def add(self, entry: Entry) -> None:
        """Insert an entry by its origin, nearly always at the end."""
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
        """Take out an entry, nearly always the head.

        Raises:
            ValueError: The entry is not in this queue.
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
        """Put `new`, which has the same origin, in the place of `old`. No other entry moves."""
        if self.head is old:
            self.head = new
        else:
            assert self.later is not None
            self.later.replace(old, new)

    def find(self, origin: int) -> Entry | None:
        """Return the entry with this origin; None when there is none."""
        if self.head is not None and self.head.origin == origin:
            return self.head
        return None if self.later is None else self.later.find(origin)

    def superseder(self, entry: Entry, now: int) -> Entry | None:
        """Return the newest entry with the collapse key and channel of `entry`. It supersedes `entry`, which is skipped
        when it is the head, before its due time.

        Expiry and payload of an entry that lives in the source have not been checked yet. The caller checks them before
        it skips `entry`, and calls `will_not_be_sent` if they are not good.
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
        """Pass over an entry that `superseder` returned: it has expired or cannot be decoded, so it supersedes
        nothing."""
        if (later := self.later) is not None and later.newest(entry.collapse) is entry:
            later.pass_over_newest(entry.collapse)
