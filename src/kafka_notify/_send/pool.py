"""The pool of senders: how many there are, which entry each takes next, and when it may start.

A sender is a task that makes one send after another, so no send creates a task of its own. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from kafka_notify._base.turn import LENGTH
from kafka_notify._decision.context import Context
from kafka_notify._fetch.loader import AHEAD, AT_MOST, Loader
from kafka_notify._partition.entry import Entry
from kafka_notify._send.delivery import Delivery
from kafka_notify._send.hooks import absorb
from kafka_notify._send.permits import Permits
from kafka_notify._send.ready import Ready
from kafka_notify._send.slots import Slot, Slots

LONGEST: Final = 0.1
"""Seconds after which a turn of the event loop starts no send, not even of a sender that has made none in it."""


class SenderPool:
    """Up to `concurrency` senders, started as they are needed.

    Sends that do not suspend take the event loop from everything else. All senders together have 5 ms of each turn of
    the loop for a second send in it, and `LONGEST` for a first one. The others become idle until the next turn.

    Args:
        context: The worker's context.
        ready: The queued attempts.
        loader: Reads evicted payloads again before their attempts are queued.
        slots: The senders, each with its current send.
        permits: What may keep a send from starting.
        delivery: Makes one send.
        fail: Called with an exception, such as SystemExit, that ended a sender's task.
    """

    def __init__(
        self,
        context: Context,
        ready: Ready,
        loader: Loader,
        slots: Slots,
        permits: Permits,
        delivery: Delivery,
        fail: Callable[[BaseException], object],
    ) -> None:
        self._loop = context.loop
        self._boottime = context.clock.boottime
        self._concurrency = context.concurrency
        self._ready = ready
        self._loader = loader
        self._slots = slots
        self._permits = permits
        self._guard = permits.guard
        self._lane = permits.guard.lane
        self._pace = permits.pace
        self._delivery = delivery
        self._fail = fail
        self._idle: list[asyncio.Future[None]] = []
        self._wave = 1
        self._kicking = False
        self._until = 0.0
        """When this turn of the loop is over; 0 before its first send."""
        self._cut = False
        """True when a sender is idle because this turn is over."""
        self._late: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def idle(self) -> bool:
        """True when more could be sent than is queued."""
        return not self._ready and not self._lane.held and not self._permits.paused.whole

    # -- waking senders -------------------------------------------------------------------------------

    def kick(self) -> None:
        """Wake senders for what is queued: one at first, then twice as many with each turn of the loop.

        A sender whose sends do not suspend empties the queue by itself; waking others for it would be wasted work.
        """
        if self._loader.waiting:
            self._loader.fill()
        if self._ready and not self._kicking:
            self._kicking = True
            self._wave = 1
            self._surge()

    def _surge(self) -> None:
        count = self._ready.up_to(self._wave)
        if not count or self._closed or self._permits.closed:
            self._kicking = False  # a confirmed commit or a resume kicks again
            return
        running = self._slots.running
        if self._lane.gated:
            count = min(count, self._guard.room(len(running) - len(self._idle)))  # an outcome kicks again
        if self._pace is not None and (free := self._ready.up_to(self._free())):
            count = min(count, self._pace.room(free))  # the timer of `_pace` kicks again
        if count <= 0:
            self._kicking = False
            return
        while count and self._idle:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                count -= 1
        allowed = self._slots.allowed()
        while count and len(running) < allowed:
            slot = Slot()
            running.add(slot)
            slot.task = self._loop.create_task(self._work(slot))
            count -= 1
        if count or self._lane.held:
            self._kicking = False  # all senders are busy; each takes the next entry when it is done
            return
        self._wave = min(self._wave * 2, 1_024)
        self._loop.call_soon(self._surge)

    async def _work(self, slot: Slot) -> None:
        # Every send goes through here, so fields of other parts are looked up once per task.
        ready, lane, pace = self._ready, self._lane, self._pace
        new, due, failed = ready.new, ready.due, ready.failed
        paused, lease = self._permits.paused, self._permits.lease
        deliver, boottime = self._delivery.run, self._boottime
        cancelling: Callable[[], int] = getattr(slot.task, "cancelling", int)  # new in 3.11
        sends, until = 0, -1.0
        entry: Entry | None
        try:
            while not slot.ends:
                if (
                    not (new or due or failed)
                    or ((now := boottime()) > self._until and self._is_over(now, until))
                    or (
                        (lane.gated or pace is not None or paused.whole or now > lease.lease_until)
                        and not self._may_start(slot)
                    )
                ):
                    entry = None  # a task that waits must not keep the last payload in memory
                    future = self._loop.create_future()
                    self._idle.append(future)
                    await future
                    sends = 0
                    continue
                until = self._until
                if due or failed:
                    entry = ready.pop(probe=lane.held)
                    if entry.retry is not None and entry.retry.loaded:
                        self._loader.started(entry)
                else:
                    queue = new[0]
                    entry = queue.popleft()
                    if not queue:
                        new.popleft()
                    elif not sends & 3:  # sends that do not suspend: four of a partition in a row
                        new.rotate(-1)
                try:
                    await deliver(slot, entry)
                except GeneratorExit:
                    if asyncio.current_task(self._loop) is not slot.task:
                        raise  # this coroutine is being closed, together with its loop
                    # a future of user code failed with GeneratorExit, and asyncio throws it into this task
                if cancelling():  # asked for by this worker or by user code; it must not hit the next send
                    await absorb(slot.task)
                sends += 1
        except asyncio.CancelledError:
            raise
        except BaseException as e:
            self._fail(e)
            raise
        finally:
            self._slots.ended(slot)

    # -- when a send may start ------------------------------------------------------------------------

    def _is_over(self, now: float, until: float) -> bool:
        """Return whether the turn is over for a sender whose last send began in the turn that ends at `until`."""
        if not self._until:
            self._until = now + LENGTH
            self._loop.call_soon(self._next_turn)
            return False
        if until != self._until and now <= self._until + LONGEST:
            return False
        self._cut = True
        return True

    def _next_turn(self) -> None:
        self._until = 0.0
        if self._cut:
            self._cut = False
            self._wave = 1
            self.kick()

    def _may_start(self, slot: Slot) -> bool:
        permits = self._permits
        if permits.paused.whole:
            return False
        if self._boottime() > permits.lease.lease_until:
            permits.lease.tell_lease()
            return False
        busy = len(self._slots.running) - len(self._idle) - 1
        if self._lane.gated and not self._guard.start(slot, busy):
            return False
        if self._pace is not None:
            slot.start = self._pace.take(self._ready.up_to(self._free() + 1))
            if not slot.start:
                self._guard.give_up(slot)
                return False
        return True

    def loads_wanted(self) -> int:
        """The number of evicted payloads that may be in memory for future sends: 0 while no send could start."""
        if self._permits.closed:
            return 0
        most = min(AHEAD * self._concurrency, AT_MOST)
        if self._lane.gated:
            return min(max(self._guard.room(len(self._slots.running) - len(self._idle)), 0), most)
        return most

    def _free(self) -> int:
        """The number of senders that are idle or could be started."""
        return len(self._idle) + max(0, self._slots.allowed() - len(self._slots.running))

    # -- deadlines and shutdown -----------------------------------------------------------------------

    def check_deadlines(self) -> None:
        """Cancel sends that outlived their deadline; leave behind and replace those that ignore the cancellation."""
        for slot in self._slots.overdue():
            rest = self._delivery.left_behind(slot)
            if rest is not None:
                task = self._loop.create_task(rest)
                self._late.add(task)
                task.add_done_callback(self._late_ended)

    def _late_ended(self, task: asyncio.Task[None]) -> None:
        self._late.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def close(self) -> None:
        """End all tasks, and start none again."""
        self._closed = True
        self._guard.close()
        await self._slots.close()
