"""The time of a test double: real, or as fast as the test can go."""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from typing import Protocol


class ProviderClock(Protocol):
    """What a `FakeProvider` tells the time by, and waits with."""

    def now(self) -> float:
        """Seconds since some moment; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait on this thread."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Wait in this task."""
        ...


class RealClock:
    """The monotonic clock of the machine."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait on this thread."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Wait in this task."""
        await asyncio.sleep(seconds)


class FakeClock:
    """Time that passes only when somebody waits for it, and then at once.

    Tasks that sleep at the same time wake in the order of their times, as they would in real time, on one event loop.
    Threads that sleep move the time on, one after the other.

    Args:
        now: Where it starts, in seconds.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._sleepers: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds; the start, and what was slept and advanced since."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.advance(max(seconds, 0.0))

    async def asleep(self, seconds: float) -> None:
        """Give way to all tasks that wake earlier, then let time pass until this one does."""
        due = self._now + max(seconds, 0.0)
        heapq.heappush(self._sleepers, due)
        try:
            await asyncio.sleep(0)
            while self._sleepers[0] < due and self._now < due:  # noqa: ASYNC110 - gives the earlier ones their turn
                await asyncio.sleep(0)
            self._now = max(self._now, due)
        finally:
            self._sleepers.remove(due)
            heapq.heapify(self._sleepers)
