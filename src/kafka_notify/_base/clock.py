"""Wall-clock time that notices its own jumps, and time that goes on while the machine sleeps."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Final

JUMP: Final = 2.0
"""Seconds by which wall and monotonic time may drift apart between two looks; NTP slews 0.5 ms per second."""
SETTLE: Final = 60.0
"""Seconds after a jump during which nothing expires: long enough for NTP to step back a wrong step."""

boottime: Callable[[], float] = functools.partial(
    time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
)
"""Monotonic seconds that go on while the machine or the process is suspended. All in C: asked for at every send."""


class Clock:
    """Epoch milliseconds, and whether they can be trusted to expire something.

    A forward jump of an hour would otherwise dead-letter everything that has a ttl.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self.monotonic = monotonic
        self._offset = wall() - monotonic()
        self._unsettled_until = 0.0

    def now(self) -> int:
        """Epoch milliseconds."""
        return int(self._wall() * 1000)

    def look(self) -> bool:
        """Compare both clocks; call it often. Whether the wall clock jumped since the last look."""
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
