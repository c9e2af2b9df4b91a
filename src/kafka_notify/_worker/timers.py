"""One heap for all due times of a worker: asyncio compares thousands of `call_later` handles in Python code."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Final

from kafka_notify._base.clock import Clock
from kafka_notify._base.turn import Turn
from kafka_notify._partition.entry import UserQueue

LONGEST_SLEEP: Final = 1.0
"""Seconds: due times are wall-clock times, and the wall clock may be set."""
SPARE: Final = 1_000
"""Wake-ups beyond twice the queues that wait for one; with more, those that no queue waits for are removed."""


class Timers:
    """Looks at a user's queue again when its head is due.

    A wake-up counts as long as its queue still waits for it: `UserQueue.timer` is its time. A replaced wake-up stays in
    the heap until the heap has doubled: the number of queues bounds it, at constant work per wake-up.

    Args:
        loop: Runs the single timer.
        clock: Epoch milliseconds.
        after: Called after queues were looked at.
        guarded: Calls its argument, and ends the worker if the argument raises.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        after: Callable[[], object],
        guarded: Callable[[Callable[[], object]], object],
    ) -> None:
        self._guarded = guarded
        self._loop = loop
        self._clock = clock
        self._after = after
        self._heap: list[tuple[int, int, UserQueue]] = []
        self._sequence = itertools.count()
        self._limit = SPARE
        """Wake-ups in the heap at which it is cleaned."""
        self._timer: asyncio.TimerHandle | None = None
        self._next = float("inf")

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, queue: UserQueue, at: int) -> None:
        """Step `queue` at epoch ms `at`, which is its `timer`. The step does nothing if nothing is due then."""
        heapq.heappush(self._heap, (at, next(self._sequence), queue))
        if len(self._heap) > self._limit:
            self.clean()
        if at < self._next:
            self.arm()

    def clean(self) -> None:
        """Remove the wake-ups that no queue waits for: replaced ones, and those of empty queues or ended partitions."""
        wanted = {
            queue: (at, number, queue)
            for at, number, queue in self._heap
            if queue.timer == at and queue.head is not None and queue.partition.alive
        }
        self._heap = list(wanted.values())
        heapq.heapify(self._heap)
        self._limit = 2 * len(self._heap) + SPARE

    def arm(self) -> None:
        """Set the timer again: an earlier due time came in, or the wall clock jumped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._next = float("inf")
        if self._heap:
            self._next = self._heap[0][0]
            delay = max((self._next - self._clock.now()) / 1000, 0.0)
            self._timer = self._loop.call_later(min(delay, LONGEST_SLEEP), self._guarded, self._due)

    def _due(self) -> None:
        now = self._clock.now()
        heap = self._heap
        turn = Turn(self._clock.monotonic)
        while heap and heap[0][0] <= now and not turn.over():
            at, _, queue = heapq.heappop(heap)
            if queue.timer != at:
                continue  # replaced by another wake-up
            queue.timer = 0
            if queue.partition.alive:
                queue.partition.step(queue, now)
            heap = self._heap  # a step may have added one, and that may have cleaned it
        self.arm()
        self._after()
