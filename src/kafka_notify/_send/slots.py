"""The sends under way: which of them run, which hang, and which users those block. Runs on the event loop.

Nothing can stop a send that ignores its cancellation. So on this worker its user waits until it ends, in every later
assignment too, and another sender takes its place. At most `concurrency` sends are replaced so.
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
"""Seconds that an async send may run on after its cancellation before it counts as stuck."""
FOREVER: Final = float("inf")

_Place = tuple[int, Hashable]


class Slot(Place):
    """A sender: a task, and its current send."""

    __slots__ = ("deadline", "ends", "place", "reason", "start", "stuck", "task")

    def __init__(self) -> None:
        super().__init__()
        self.task: asyncio.Task[None] | None = None
        self.deadline = FOREVER
        """Monotonic seconds at which the send is cancelled."""
        self.reason = ""
        """Why this worker cancelled the send: `deadline`, `handover` or `close`; empty when it did not."""
        self.place: _Place | None = None
        """Partition and user that wait until the send has ended."""
        self.stuck = False
        """True when the send ignored its cancellation, so that the sender was left behind and replaced."""
        self.ends = False
        """True when the task takes no more entries."""
        self.start = 0.0
        """When the rate limit let the send start, in monotonic seconds."""


class Slots:
    """All senders of a worker.

    Args:
        context: The worker's context.
        threads: Threads of plain senders, of which some may be stuck.
        hooks: The consumer's hooks, of which some may be stuck.
        kick: Called when a user who was blocked may go on.
    """

    def __init__(
        self, context: Context, threads: SendThreads, hooks: Hooks, kick: Callable[[], object]
    ) -> None:
        self.running: set[Slot] = set()
        """The senders that take entries; the pool adds them."""
        self.lost: set[Slot] = set()
        """Async sends that ignored their cancellation and still run."""
        self.grace = CANCEL_GRACE
        self._clock = context.clock
        self.concurrency = context.concurrency
        """Sends under way, at most."""
        self._threads = threads
        self._hooks = hooks
        self._kick = kick
        self._blocked: dict[_Place, UserQueue] = {}
        """Queues of users who wait for a send to end, by partition and user, in the newest assignment."""

    # -- how many -------------------------------------------------------------------------------------

    def in_flight(self) -> int:
        """The number of sends under way."""
        return sum(slot.entry is not None for slot in tuple(self.running))

    def stuck(self) -> int:
        """The number of sends and hooks that outlived their deadline and still run."""
        return self._threads.stuck + len(self.lost) + self._hooks.stuck

    def strays(self) -> int:
        """The number of `stuck` sends that ignored a hand-over: the next owner may be sending the same notification."""
        return sum(slot.reason == "handover" for slot in tuple(self.lost))

    def allowed(self) -> int:
        """The number of sends that may be under way: `concurrency`, less the stuck ones beyond as many."""
        return max(0, self.concurrency - max(0, self.stuck() - self.concurrency))

    # -- cancellation ---------------------------------------------------------------------------------

    def overdue(self) -> list[Slot]:
        """Cancel sends that outlived their deadline. Return those that ignored it, to be left behind."""
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
        """Cancel the sends of partitions that are handed over: these are no attempts."""
        until = self._clock.monotonic() + self.grace
        for slot in tuple(self.running):
            if slot.entry is None or slot.task is None or not which(slot.entry.partition):
                continue
            if not slot.reason:
                slot.task.cancel()  # once: a second cancellation would interrupt its handling of the first
            slot.reason = "handover"
            slot.deadline = min(slot.deadline, until)
            self._block(slot, slot.entry)

    def cancelled(self, slot: Slot, entry: Entry) -> None:
        """Free the user of a cancelled send that has ended, however user code reacted; block them while its thread
        still runs."""
        slot.reason = ""
        queue = entry.queue
        place = queue.partition.number, queue.key
        if self._threads.take_over(slot.task, lambda: self._unstick(place)):
            queue.stuck = True
            self._blocked.setdefault(place, queue)  # a newer assignment may have put its own there
            slot.place = None
            slot.ends = len(self.running) > self.allowed()
        else:
            self._release(slot)

    def leave_behind(self, slot: Slot) -> Entry:
        """Give up an async send that ignored its cancellation: another sender takes its place, its user waits until it
        ends.

        Returns:
            The entry. If its partition still belongs to this worker, settle the entry now: it would hold back the
            partition's offset for as long as the send runs.
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
        """Forget a sender whose task has ended, and free the user whom it blocked."""
        self.running.discard(slot)
        if slot.stuck:
            self.lost.discard(slot)
            self._release(slot)
            self._kick()

    async def close(self) -> None:
        """Cancel all tasks and wait a second for their end."""
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
        """Block users of a new assignment whose send of an earlier one still runs here."""
        for place in self._blocked:
            if place[0] == partition.number:
                self._blocked[place] = partition.stick(place[1])

    def _block(self, slot: Slot, entry: Entry) -> None:
        """Let nothing of this user start here until the send has ended, even if the partition comes back before."""
        queue = entry.queue
        slot.place = place = queue.partition.number, queue.key
        self._blocked[place] = queue

    def _release(self, slot: Slot) -> None:
        place, slot.place = slot.place, None
        if place is not None:
            self._unstick(place)

    def _unstick(self, place: _Place) -> None:
        queue = self._blocked.pop(place, None)
        if queue is not None and queue.partition.alive:
            queue.partition.unstick(queue, self._clock.now())
            self._kick()
