"""Answers to a partition: of the provider, of the broker, and of people who pause and resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafka_notify._partition.entry import Busy
from kafka_notify._partition.parts import Parts

if TYPE_CHECKING:
    from kafka_notify._partition.commit_metadata import Committed
    from kafka_notify._partition.entry import Entry, UserQueue
    from kafka_notify._partition.record import Record
    from kafka_notify._partition.retry_record import RetryRecord
    from kafka_notify._partition.wide import Spill


class Answers(Parts):
    """The methods that answer the effects of a partition.

    Each changes all state first and steps queues last, so that the effects of a step find the state complete.
    """

    __slots__ = ()

    # -- payloads -------------------------------------------------------------------------------------

    def loaded(self, entry: Entry, record: Record, now: int) -> None:
        """Take an evicted payload that was read again for a send or for the next `carry`."""
        entry.load(record)
        retry = entry.retry
        assert retry is not None
        self.table.budget.load(retry, entry.record_size())
        if retry.carried:
            self.carrying.loaded(entry)
            return
        entry.busy = Busy.NO
        self.step(entry.queue, now)

    def rest(self, entry: Entry) -> None:
        """Keep a payload that was read again and is not needed now if there is room; else evict it."""
        self.table.rest(entry)

    # -- copies and dead letters ----------------------------------------------------------------------

    def copying(self, entry: Entry) -> None:
        """Note that a failed attempt's copy is on its way."""
        entry.busy = Busy.COPYING
        self.own.begin(entry)

    def dead_lettering(self, entry: Entry) -> None:
        """Note that a dead letter is on its way."""
        entry.busy = Busy.DEAD_LETTERING
        self.own.begin(entry)

    def copied(self, entry: Entry, retry: RetryRecord, now: int) -> None:
        """Note that a copy was acknowledged: from now on the entry lives at `retry.at`."""
        origin, table, own = entry.origin, self.table, self.own
        own.moving.pop(origin, None)
        if own.seen:
            self._settle(origin, retry.at)
        old = entry.retry
        if old is None:
            table.leave_source(entry)
            self.source.complete(origin)
        else:
            self.retry.complete(old.at)
            table.budget.give(old)
            if old.counted:
                self.half.leave(old)
            if old.carried:
                self.carrying.leave(old)
            self.pending.pop(origin, None)  # as in `EntryTable.replace`
            # the entry may have been set apart while its copy was on its way
            retry.foreign, retry.stranger, retry.topic = old.foreign, old.stranger, old.topic
        if retry.at >= self.retry.position:
            own.acknowledged.add(retry.at)
        retry.written = now
        entry.retry = retry
        entry.busy = Busy.NO
        self.pending[origin] = entry
        redriven = self.redrives.waiting.get(origin)
        if redriven is not None and redriven.history.redrives > retry.history.redrives:
            assert redriven.retry is not None
            self.reader.supersede(retry, redriven.retry)  # by a redriven copy that was read meanwhile
            table.forget(entry)
            table.hold(self.redrives.waiting.pop(origin))
        else:
            table.keep_payload(entry)
        self.scheduler.step(self.queues.get(entry.queue.key, entry.queue), now)
        if self.parking.unparked or self.makes_room:
            self.scheduler.park_more(now, makes_room=self.makes_room)

    # -- sends ----------------------------------------------------------------------------------------

    def finish(self, entry: Entry, *, accepted: bool, now: int) -> None:
        """End an entry that was accepted, skipped or expired, or whose dead letter was acknowledged."""
        origin = entry.origin
        retry = entry.retry
        queue = entry.queue
        table = self.table
        table.forget(entry)
        if retry is None:
            table.open -= 1  # as in `EntryTable.leave_source`, without a call for each send
            table.open_bytes -= entry.size
            table.budget.open -= 1
            self.source.complete(origin)
            own = self.own
            if own.moving and (origin in own.moving or own.seen):  # else no copy was written, and none read
                self._settle(origin, -1)
        else:
            if self.own.seen:
                self._settle(origin, -1)
            self.half.finish(retry)
            if retry.carried:
                self.carrying.leave(retry)
            if retry.history.redrives:
                self.redrives.end(entry)
        if self.redrives.waiting and origin in self.redrives.waiting:
            redriven = self.redrives.waiting.pop(origin)
            if accepted:
                assert redriven.retry is not None
                self.half.end(redriven.retry.at)
                self.redrives.end(redriven)
            else:
                table.hold(redriven)
                queue = self.queues[queue.key]  # a new queue if `entry` was alone in the old one
        if self.parking.unparked:
            self.scheduler.park_more(now, makes_room=self.makes_room)
        if queue.head is not None:
            self.scheduler.step(queue, now)

    def _settle(self, origin: int, keep: int) -> None:
        self.own.moving.pop(origin, None)
        for offset in self.own.settle(origin, keep):
            self.half.end(offset)

    def release(self, entry: Entry, now: int) -> None:
        """Take back an attempt that did not start or was cancelled, as if it had never been queued."""
        entry.busy = Busy.NO
        queue = entry.queue
        if entry.retry is not None:
            self.half.leave(entry.retry)
        else:
            self.table.released(queue, entry)
        self.step(queue, now)

    def pause(self, entry: Entry, now: int) -> None:
        """Let an entry whose attempt did not start wait until `resume`, `unpause` or its expiry: its category or
        channel is paused, or its destination is held.

        The caller writes a copy of an entry that lives in the source alone; that copy waits then.
        """
        self.table.pause(entry)
        if entry.retry is None:
            self.copying(entry)
            return
        entry.busy = Busy.NO
        self.half.leave(entry.retry)
        self.table.rest(entry)
        self.step(entry.queue, now)

    def unpause(self, queue: UserQueue, now: int) -> None:
        """Let a queue go on whose head's wait has ended."""
        self.table.unpause(queue)
        self.step(queue, now)

    def resume(self) -> None:
        """Have `step_blocked` look at the paused queues, as less is paused than before."""
        self.waiting.look_at(self.table.resume())

    def unstick(self, queue: UserQueue, now: int) -> None:
        """Let a user's next send start, as the one that outlived its deadline has ended."""
        queue.stuck = False
        if queue.head is not None:
            self.step(queue, now)
        else:
            self.queues.pop(queue.key, None)

    # -- commits --------------------------------------------------------------------------------------

    def spilled(self, written: Spill, offset: int) -> bool:
        """Name an acknowledged spill in the next snapshot. Return False when it is not needed any more."""
        self.long_waits.spills += 1
        return self.half.acknowledged(written, offset, self.writer)

    def confirmed(self, source: Committed, now: int) -> None:
        """Note that the broker stored a snapshot. The first one is the fence and starts the work."""
        self.source.confirmed = source
        if self.active:
            self.waiting.confirmed()
        else:
            self.active = True
            self.waiting.look_at(self.queues.values())
        self.step_blocked(now)

    # -- stepping queues ------------------------------------------------------------------------------

    def step(self, queue: UserQueue, now: int) -> None:
        """Start what the queue's head may do at epoch ms `now`; park what waits behind it in the source."""
        self.scheduler.step(queue, now)

    def step_blocked(self, now: int) -> bool:
        """Look again at a few queues that waited for a commit, a read, room in the window or beyond it, the end of a
        pause or the start. Return True when there are more."""
        return self.scheduler.step_blocked(now)

    def park_more(self, now: int) -> None:
        """Go on with parking while few copies are on their way: first entries that must be parked, then backlogs while
        they keep others out."""
        self.scheduler.park_more(now, makes_room=self.makes_room)
