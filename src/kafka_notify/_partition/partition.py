"""One source partition and its retry partition during one assignment: the ordered-retry protocol.

Pure: records read, answers of the provider and acknowledgements of the broker go in, calls of `Effects` come out. One
object is one epoch: code that still holds a `Partition` which is no longer `alive` changes nothing with it.

The invariants (docs/design.md gives the reasons):

- A user's queue is ordered by origin, whichever topic a record lives in. At most one thing is under way per entry,
  at most one send per queue.
- A source offset is complete when its notification is terminal or a copy of it was acknowledged. A retry
  offset is complete when its notification is terminal, a newer copy was acknowledged, or its copy counts for nothing.
- A retry entry is sent, expired or skipped only when it is due (or superseded), the confirmed source commit
  covers its origin, and the source was read past it. Without coverage a crash would read the source record as
  new after its retry ran; without reach an earlier record of the user may still be unread.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from kafka_notify._partition.answers import Answers
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.strangers import place
from kafka_notify._partition.writers import Whose

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from kafka_notify._partition.commit_metadata import Committed
    from kafka_notify._partition.record import Record
    from kafka_notify.wire import Headers, RetryState

_SENDING: Final = Busy.SENDING  # looked up 70 ns faster than the member, for each record


class Partition(Answers):
    """State of partition `number` of a source topic and its retry topic, for one assignment: see `Parts`."""

    __slots__ = ()

    # -- what was read of the source ------------------------------------------------------------------

    def on_source(
        self,
        offset: int,
        key: Hashable,
        record: Record,
        headers: Headers | None,
        size: int,
        identity: Callable[[], tuple[str, int]],
        now: int,
    ) -> None:
        """Take a source record that was read.

        Args:
            offset: The record's offset.
            key: The key by which order is kept, which names the user.
            record: The record as it came from the broker.
            headers: The record's headers if they were read before; they are read once.
            size: Bytes that the record takes in memory.
            identity: Returns the notification's id and creation time. Called only in the rare case of a crash
                between copy and commit.
            now: Epoch ms.

        Raises:
            OffsetRewound: The partition went back.
            TopicRecreated: A copy with this origin waits, but it is not of this record.
        """
        if not self.source.observe(offset):
            return
        if self.pending and (copied := self.pending.get(offset)) is not None:
            if self.reader.is_of(copied, offset, identity()):
                self.source.complete(offset)  # its forwarder died before the commit
                return
            self.step(copied.queue, now)
        table = self.table
        table.open += 1  # counted here and not by the table, which saves a call for each record
        table.open_bytes += size
        table.budget.open += 1
        queue = self.queues.get(key)
        if queue is None:
            self.queues[key] = queue = UserQueue(self, key)
            queue.head = entry = Entry(queue, offset, record, headers, size)
            if self.active and not self.closing:
                entry.busy = _SENDING
                self.effects.send(entry)
            return
        entry = Entry(queue, offset, record, headers, size)
        table.append(queue, entry)
        head = queue.head
        assert head is not None
        if head is entry or (not head.busy and head.retry is None):
            self.scheduler.step(queue, now)
        elif not head.busy:  # the head waits; `step` would look at it again for each record behind it
            self.parking.park_followers(queue)

    def pass_over(self, offset: int) -> None:
        """Complete a source record that another consumer sends.

        Raises:
            OffsetRewound: The partition went back.
        """
        if self.source.observe(offset):
            self.source.complete(offset)

    def on_source_end(self, offset: int) -> None:
        """Note that the source was read up to `offset`: a record below it that was not delivered does not exist."""
        self.source.skip_to(offset)
        self.source.end_seen = offset

    # -- what was read of the retry partition ---------------------------------------------------------

    @property
    def restored(self) -> bool:
        """True once every unfinished copy of earlier assignments is known."""
        return self.retry.position >= self.restore_end

    def on_retry(
        self,
        offset: int,
        key: Hashable,
        state: RetryState | None,
        record: Record,
        headers: Headers | None,
        facts: Callable[[], tuple[str, int, int | None, str]],
        now: int,
    ) -> None:
        """Take a record of the retry partition that was read.

        Args:
            offset: The record's offset.
            key: The key by which order is kept, which names the user.
            state: The record's retry headers; None when they cannot be read.
            record: The record as it came from the broker.
            headers: The record's headers if they were read before.
            facts: Returns the notification's id, creation and expiry (epoch ms) and collapse key. Called when the
                notification must be held.
            now: Epoch ms.

        Raises:
            OffsetRewound: The partition went back.
        """
        if not self.retry.observe(offset):
            return
        if state is None:
            entry = Entry(UserQueue(self, ("unreadable", offset)), -1 - offset, record, headers, 0)
            entry.retry = RetryRecord(offset, now, None, "", 0)
            entry.busy = Busy.DEAD_LETTERING  # set before `hold`, so that the payload is not evicted
            self.table.hold(entry)
            self.effects.dead_letter(entry)
            return
        whose = self.writers.whose(offset, state.writer)
        if whose is Whose.ZOMBIE:
            self.retry.complete(offset)
        elif whose is Whose.OWN:
            self.reader.own(offset, self._place_of_own(state, facts))
        else:
            entry = Entry(UserQueue(self, key), state.origin.offset, record, headers, 0)
            entry.retry = RetryRecord.read(offset, state, facts(), min(record.timestamp()[1], now))
            queues = self.reader.read(entry, redriven=whose is Whose.REDRIVE)
            for queue in queues:
                self.step(queue, now)

    def _place_of_own(self, state: RetryState, facts: Callable[[], tuple[str, int, int | None, str]]) -> int:
        """Find the place in the table of the entry of an own copy. A stranger is not at its origin."""
        if state.history.redrives or state.origin.topic_id not in (None, self.topic_id):
            id, created, _, _ = facts()
            apart = place(state.origin.offset, id, created)
            if apart in self.pending:
                return apart
        return state.origin.offset

    def on_spill(self, offset: int) -> None:
        """Complete a spill that was read, whoever wrote it: the spill that the commit names was read before all else.
        It counts as an end, as an older version must not restore a partition that still holds it.

        Raises:
            OffsetRewound: The partition went back.
        """
        if self.retry.observe(offset):
            self.half.end(offset)

    def reads_own(self, offset: int) -> bool:
        """Take a retry record that was read if it is an own copy that was acknowledged before: everything in it is
        known then, and nothing more is needed. Return False for any other record.

        Raises:
            OffsetRewound: The partition went back.
        """
        acknowledged = self.own.acknowledged
        if offset not in acknowledged:
            return False
        acknowledged.remove(offset)
        self.retry.observe(offset)
        return True

    def on_retry_end(self, offset: int) -> None:
        """Note that the retry partition was read up to `offset`; its last offsets may be control records."""
        self.retry.skip_to(offset)

    # -- how far the source may be read ---------------------------------------------------------------

    @property
    def source_end(self) -> int:
        """End of the source partition when this assignment began."""
        return self.source.end

    @property
    def at_end(self) -> bool:
        """As `SourceOffsets.at_end`."""
        return self.source.at_end

    @property
    def must_read(self) -> bool:
        """As `SourceOffsets.must_read`."""
        return self.source.must_read

    @property
    def has_window(self) -> bool:
        """As `SourceOffsets.has_window`."""
        return self.source.has_window

    def wants_source(self, *, room: bool) -> bool:
        """Tell whether the next source record may be let in. Records that came before wait beside the partition.

        Args:
            room: True when there is room for more records at all. A restored origin must be reached even without room.
        """
        return (room and self.source.has_window) or self.source.must_read

    @property
    def open(self) -> int:
        """Source records in memory that are not finished and have no copy yet."""
        return self.table.open

    @property
    def open_bytes(self) -> int:
        """Bytes of the records that `open` counts."""
        return self.table.open_bytes

    @property
    def has_backlog(self) -> bool:
        """True while a user has so many notifications in memory that parking them may make room for others."""
        return bool(self.table.backlogs)

    # -- what is to be written ------------------------------------------------------------------------

    def snapshot(self) -> tuple[Committed, Committed]:
        """Return what may be committed of source and retry partition, in one request."""
        fence = self.writers.fence(self.retry.advance())
        fenced, started = self.half.snapshot(fence, active=self.active)
        if started is not None:
            self.effects.spill(self, started)
        # until the fence holds, the source half must not cover a copy that only this restore has admitted
        return self.source.snapshot() if self.active else self.source.confirmed, fenced

    @property
    def window(self) -> int:
        """Offsets of the retry partition from its frontier to the last finished one that a commit has to name, when
        the bitmap cannot hold so many; else 0."""
        return self.half.length

    @property
    def spilling(self) -> bool:
        """True while a spill is on its way: meanwhile commits repeat an older half."""
        return self.half.spilling

    def carry(self, now: int) -> Iterator[Entry]:
        """Yield entries to copy forward unchanged at epoch ms `now`: see `Carrying.carry`."""
        if self.active and not self.closing:
            yield from self.carrying.carry(now, partial(self.effects.recall, self))

    # -- users ----------------------------------------------------------------------------------------

    def stick(self, key: Hashable) -> UserQueue:
        """Let nothing of a user start: a send of an earlier assignment still runs here."""
        queue = self.queues.setdefault(key, UserQueue(self, key))
        queue.stuck = True
        return queue

    def superseder(self, entry: Entry, now: int) -> Entry | None:
        """As `UserQueue.superseder`."""
        return entry.queue.superseder(entry, now)

    def superseded(self, entry: Entry, now: int) -> bool:
        """Tell whether `superseder` finds an entry."""
        return entry.queue.superseder(entry, now) is not None

    def will_not_be_sent(self, entry: Entry) -> None:
        """As `UserQueue.will_not_be_sent`."""
        entry.queue.will_not_be_sent(entry)
