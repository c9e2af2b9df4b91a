"""A wall clock that detects its own jumps, and a monotonic clock that keeps running while the machine sleeps."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Final

JUMP: Final = 2.0
"""Seconds by which wall and monotonic time may drift apart between two checks; NTP slews 0.5 ms per second."""
SETTLE: Final = 60.0
"""Seconds after a jump during which nothing expires: long enough for NTP to correct a wrong step."""

boottime: Callable[[], float] = functools.partial(
    time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
)
"""Monotonic seconds, which include the time in suspension. Implemented in C alone, because every send calls it."""


class Clock:
    """Epoch milliseconds, with a flag for whether they may expire something.

    Without the flag, a forward jump of an hour would dead-letter everything that has a ttl.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        boottime: Callable[[], float] = boottime,
    ) -> None:
        self._wall = wall
        self.monotonic = monotonic
        self.boottime = boottime
        """Monotonic seconds, which include the time in suspension."""
        self._offset = wall() - monotonic()
        self._unsettled_until = 0.0

    def now(self) -> int:
        """Epoch milliseconds."""
        return int(self._wall() * 1000)

    def look(self) -> bool:
        """Compare both clocks, and return whether the wall clock has jumped since the last call. Call it often."""
        monotonic = self.monotonic()
        offset = self._wall() - monotonic
        jumped = abs(offset - self._offset) > JUMP
        if jumped:
            self._unsettled_until = monotonic + SETTLE
        self._offset = offset
        return jumped

    @property
    def settled(self) -> bool:
        """False for a minute after a jump: expire nothing, and send nothing that seems expired."""
        return self.monotonic() >= self._unsettled_until
