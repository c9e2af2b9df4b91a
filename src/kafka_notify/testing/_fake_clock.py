"""The time of a test double: real, or as fast as the test can go."""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from typing import Protocol


class ProviderClock(Protocol):
    """The clock by which a `FakeProvider` tells the time and waits."""

    def now(self) -> float:
        """Seconds since some moment; they never decrease."""
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
    """A clock whose time passes only when somebody waits, and then at once.

    Tasks of one event loop that sleep at the same time wake in the order of their times, as in real time. Threads that
    sleep advance the time one after the other.

    Args:
        now: Seconds at the start.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._sleepers: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds at the start, and those slept and advanced since."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.advance(max(seconds, 0.0))

    async def asleep(self, seconds: float) -> None:
        """Let all tasks run that wake earlier, then let time pass until this one wakes."""
        due = self._now + max(seconds, 0.0)
        heapq.heappush(self._sleepers, due)
        try:
            await asyncio.sleep(0)
            while self._sleepers[0] < due and self._now < due:  # noqa: ASYNC110 - lets the earlier ones run
                await asyncio.sleep(0)
            self._now = max(self._now, due)
        finally:
            self._sleepers.remove(due)
            heapq.heapify(self._sleepers)
