"""The timer after which held lanes and destinations are looked at again. Runs on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from kafka_notify._decision.context import Context

FOREVER: Final = float("inf")


class Recheck:
    """One timer for the earliest of the times that were asked for.

    Args:
        context: The worker's context.
        look: Called at that time. It asks for the next one.
    """

    def __init__(self, context: Context, look: Callable[[], object]) -> None:
        self._loop = context.loop
        self._clock = context.clock
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self.at = FOREVER
        """Monotonic seconds of the next look; infinity when none is planned."""

    def by(self, at: float) -> None:
        """Look at monotonic `at` or earlier."""
        if at < self.at:
            if self._timer is not None:
                self._timer.cancel()
            self.at = at
            self._timer = self._loop.call_later(max(at - self._clock.monotonic(), 0.001), self._due)

    def _due(self) -> None:
        self._timer, self.at = None, FOREVER
        self._look()

    def close(self) -> None:
        """Plan nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self.at = -FOREVER
