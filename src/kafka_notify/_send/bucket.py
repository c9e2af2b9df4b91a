"""The number of sends that may start now: a sliding window that holds the limit, and a token bucket that smooths. Pure.

The window remembers the start of each send of the last period, so that no stretch of that length ever sees more.
A token bucket alone would allow its burst on top.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from kafka_notify.limits import RateLimit

SLOWEST: Final = 1 / 64
"""The smallest part of the rate that throttles leave."""
MARGIN: Final = 1.04
"""Factor by which starts are remembered for longer than the limit's period: calls take different times to reach the
provider, and must stay within the limit there."""


class Bucket:
    """The rate limit of one worker. The caller brings the time, in monotonic seconds.

    The bucket begins empty: a process that restarts often gets no burst each time, and after a rebalance the calls of
    the former owner leave the window while this worker's share builds up.

    Args:
        limit: The limit of all workers together.
        now: Monotonic seconds.
    """

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit = limit
        self._share = 0.0
        self._tokens = 0.0
        self._at = now
        self._starts: deque[float] = deque()
        self._low = 1.0
        """The factor that the last throttle left."""
        self._throttled_at = -math.inf

    def set_share(self, share: float, now: float) -> None:
        """Let this worker use a part of the limit, 0 to 1, from now on."""
        self._refill(now)
        self._share = share

    def throttled(self, now: float) -> None:
        """Halve the rate, because the provider asked to slow down."""
        if self._limit.adaptive:
            self._refill(now)
            self._low = max(SLOWEST, self.factor(now) / 2)
            self._throttled_at = now

    def factor(self, now: float) -> float:
        """The part of the rate that may be used after throttles: it recovers to 1."""
        return min(1.0, self._low + (now - self._throttled_at) / self._limit.recovery)

    def room(self, now: float) -> int:
        """The number of sends that may start now."""
        self._refill(now)
        calls, window = self._window(now)
        starts = self._starts
        while starts and starts[0] <= now - window:
            starts.popleft()
        return max(0, min(int(self._tokens), calls - len(starts)))

    def spend(self, now: float) -> None:
        """Count a send that starts, whoever allowed it."""
        self._refill(now)
        self._tokens = max(self._tokens - 1, 0.0)
        self._starts.append(now)

    def empty(self, now: float) -> None:
        """Begin empty again: a shared limiter allowed the starts until now, and may have allowed others more."""
        self._refill(now)
        self._tokens = 0.0

    def give_back(self, start: float) -> None:
        """Give back the start at `start`, as nothing was sent."""
        for i in range(1, len(self._starts) + 1):
            if self._starts[-i] == start:
                del self._starts[-i]
                self._tokens += 1
                return

    def wait(self, now: float) -> float:
        """Seconds until there may be room; infinity without a share."""
        if self._share <= 0:
            return math.inf
        calls, window = self._window(now)
        until = now
        if self._tokens < 1:
            until += (1 - self._tokens) * window / calls
        if len(self._starts) >= calls:
            until = max(until, self._starts[len(self._starts) - calls] + window)
        return until - now

    def _window(self, now: float) -> tuple[int, float]:
        """Whole calls in a window, and its length in seconds: longer than `per` when the share is below one call."""
        limit = self._limit
        calls = limit.calls * self._share * self.factor(now)
        if calls >= 1:
            return math.floor(calls + 1e-9), limit.per * MARGIN
        return (1, limit.per * MARGIN / calls) if calls > 0 else (0, limit.per)

    def _refill(self, now: float) -> None:
        calls, window = self._window(now)
        burst = max(1.0, self._limit.burst * self._share)
        self._tokens = min(burst, self._tokens + (now - self._at) * calls / window)
        self._at = now
