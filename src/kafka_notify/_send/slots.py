"""The sends that are under way: which run, which hang, and whom those block. Runs on the event loop.

A send that ignored its cancellation goes on; nothing stops it. So its user waits for its end on this worker, whatever
assignment comes, and another sender takes its place, up to as many as may run at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Final

from kafka_notify._decision.context import Context
from kafka_notify._partition.entry import Assignment, Entry, UserQueue
from kafka_notify._send.hooks import Hooks
from kafka_notify._send.place import Place
from kafka_notify._send.threads import SendThreads

log = logging.getLogger("kafka_notify.send")

CANCEL_GRACE: Final = 5.0
"""Seconds that an async send may go on after it was cancelled before it counts as stuck."""
FOREVER: Final = float("inf")

_Place = tuple[int, Hashable]


class Slot(Place):
    """A sender: a task, and the send that it makes now."""

    __slots__ = ("deadline", "ends", "place", "reason", "start", "stuck", "task")

    def __init__(self) -> None:
        super().__init__()
        self.task: asyncio.Task[None] | None = None
        self.deadline = FOREVER
        """Monotonic seconds at which the send is cancelled."""
        self.reason = ""
        """Why it was cancelled: `deadline`, `handover`, `close`; empty when it was not by us."""
        self.place: _Place | None = None
        """Partition and user that wait here until its send has really ended."""
        self.stuck = False
        """Its send ignored its cancellation: it was left behind and replaced."""
        self.ends = False
        """It takes nothing more."""
        self.start = 0.0
        """When the rate limit let its send start."""


class Slots:
    """All senders of a worker.

    Args:
        context: Of the worker.
        threads: Of plain senders: some may be stuck.
        hooks: Some may be stuck, too.
        kick: Called when a user may go on.
    """

    def __init__(
        self, context: Context, threads: SendThreads, hooks: Hooks, kick: Callable[[], object]
    ) -> None:
        self.running: set[Slot] = set()
        """Those that take entries; the pool adds them."""
        self.lost: set[Slot] = set()
        """Async sends that ignored their cancellation and still run."""
        self.grace = CANCEL_GRACE
        self._clock = context.clock
        self.concurrency = context.concurrency
        """Sends under way at most."""
        self._threads = threads
        self._hooks = hooks
        self._kick = kick
        self._blocked: dict[_Place, UserQueue] = {}
        """Lanes that wait for a send to end, by partition and user: whichever assignment they belong to."""

    # -- how many -------------------------------------------------------------------------------------

    def in_flight(self) -> int:
        """Sends under way."""
        return sum(slot.entry is not None for slot in tuple(self.running))

    def stuck(self) -> int:
        """Sends that outlived their deadline and still run."""
        return self._threads.stuck + len(self.lost) + self._hooks.stuck

    def strays(self) -> int:
        """Of `stuck`, async sends that ignored a hand-over: the next owner may be sending the same."""
        return sum(slot.reason == "handover" for slot in tuple(self.lost))

    def allowed(self) -> int:
        """Sends that may be under way: as many may be stuck beside them, those beyond that take their places."""
        return max(0, self.concurrency - max(0, self.stuck() - self.concurrency))

    # -- cancellation ---------------------------------------------------------------------------------

    def overdue(self) -> list[Slot]:
        """Cancel sends that outlived their deadline; those that ignored that, which have to be left behind."""
        now = self._clock.monotonic()
        ignored: list[Slot] = []
        for slot in tuple(self.running):
            if slot.deadline >= now or slot.task is None:
                continue
            if not slot.reason:
                slot.reason = "deadline"
                slot.deadline = now + self.grace
                slot.task.cancel()
            else:
                ignored.append(slot)
        return ignored

    def cancel(self, which: Callable[[Assignment], bool]) -> None:
        """Cancel the sends of partitions that are handed over: no attempts."""
        until = self._clock.monotonic() + self.grace
        for slot in tuple(self.running):
            if slot.entry is None or slot.task is None or not which(slot.entry.partition):
                continue
            if not slot.reason:
                slot.task.cancel()  # once: a second time would end what it does about the first
            slot.reason = "handover"
            slot.deadline = min(slot.deadline, until)
            self._block(slot, slot.entry)

    def cancelled(self, slot: Slot, entry: Entry) -> None:
        """A send that was cancelled has ended, or its thread was given up; whatever user code made of that."""
        slot.reason = ""
        lane = entry.queue
        place = lane.partition.number, lane.key
        if self._threads.take_over(slot.task, lambda: self._unstick(place)):
            lane.stuck = True
            self._blocked.setdefault(place, lane)  # it may be the lane of a newer assignment already
            slot.place = None
            slot.ends = len(self.running) > self.allowed()
        else:
            self._release(slot)

    def leave_behind(self, slot: Slot) -> Entry:
        """An async send ignored its cancellation: another task takes its place, and its user waits until it ends.

        Returns:
            Its entry. When that belongs to this worker still, it has to be settled now, or it would hold back the
            offset of its partition for as long as it runs.
        """
        entry = slot.entry
        assert entry is not None
        slot.stuck = slot.ends = True
        slot.deadline = FOREVER
        slot.entry = None
        self.lost.add(slot)
        self.running.discard(slot)
        self._block(slot, entry)
        entry.queue.partition.outstanding -= 1
        return entry

    def ended(self, slot: Slot) -> None:
        """A task has ended."""
        self.running.discard(slot)
        if slot.stuck:
            self.lost.discard(slot)
            self._release(slot)
            self._kick()

    async def close(self) -> None:
        """End all tasks."""
        slots = (*self.running, *self.lost)
        tasks = {slot.task for slot in slots if slot.task is not None}
        for slot in slots:
            slot.reason = "close"
            slot.ends = True
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    # -- users who wait for the end of a send ---------------------------------------------------------

    def keep_blocked(self, partition: Assignment) -> None:
        """A partition came (back) to this worker: users of whom a send still runs here wait for its end."""
        for place in self._blocked:
            if place[0] == partition.number:
                self._blocked[place] = partition.stick(place[1])

    def _block(self, slot: Slot, entry: Entry) -> None:
        """Nothing of this user starts here until the send has ended, should the partition come back before."""
        lane = entry.queue
        slot.place = place = lane.partition.number, lane.key
        self._blocked[place] = lane

    def _release(self, slot: Slot) -> None:
        place, slot.place = slot.place, None
        if place is not None:
            self._unstick(place)

    def _unstick(self, place: _Place) -> None:
        lane = self._blocked.pop(place, None)
        if lane is not None and lane.partition.alive:
            lane.partition.unstick(lane, self._clock.now())
            self._kick()
