"""Decides when the next send may start under a rate limit, and wakes the senders then. Runs on the event loop.

`Pace` uses the worker's static share. `SharedPace` asks a limiter that all workers share, and falls back to the static
share while the limiter does not answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any, Final

from kafka_notify._base.clock import Clock
from kafka_notify._base.units import clamped
from kafka_notify._send.bucket import Bucket
from kafka_notify.limits import Grant, Limiter, Quota, RateLimit

log = logging.getLogger("kafka_notify.send")

PATIENCE: Final = 0.5
"""Seconds that a shared limiter has to answer."""
AWAY: Final = 1.0
"""Seconds before a limiter that did not answer is asked again."""
GOOD_FOR: Final = 0.025
"""Seconds after the request within which granted calls must start: later they would add to the calls that other workers
are granted."""
MARGIN_USED: Final = 0.03
"""The largest part of a period that `GOOD_FOR` may be: limiters leave a slightly larger margin."""
AT_ONCE: Final = 100
"""Calls asked for in one request, at most."""


class Pace:
    """The rate limit of one worker.

    Args:
        limit: The consumer's rate limit.
        lane_share: The part of the limit that this lane may use.
        loop: Runs the timer.
        clock: Monotonic seconds.
        kick: Called when sends may start again.
    """

    def __init__(
        self,
        limit: RateLimit,
        lane_share: float,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        kick: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._kick = kick
        self._lane_share = lane_share
        self._bucket = Bucket(limit, clock.monotonic())
        self._timer: asyncio.TimerHandle | None = None

    def set_share(self, owned: int, partitions: int) -> None:
        """Set this worker's share by how many partitions of the source topic it owns."""
        share = self._lane_share * min(1.0, owned / partitions) if partitions else 0.0
        self._bucket.set_share(share, self._clock.monotonic())
        self._kick()

    def throttled(self) -> None:
        """Slow down, because the provider asked for it."""
        self._bucket.throttled(self._clock.monotonic())

    def room(self, wanted: int) -> int:
        """The number of the `wanted` sends that may start now. When it is 0, a timer kicks once one may."""
        now = self._clock.monotonic()
        room = self._bucket.room(now)
        if room <= 0:
            self._wake(self._bucket.wait(now))
        return min(room, wanted)

    def take(self, wanted: int) -> float:
        """Start a send. Return its start in monotonic seconds, for `give_back`; 0 when none may start.

        Args:
            wanted: The number of sends that could start, this one included.
        """
        if self.room(wanted) <= 0:
            return 0.0
        now = self._clock.monotonic()
        self._bucket.spend(now)
        return now

    def give_back(self, start: float) -> None:
        """Give back a start, as nothing was sent."""
        self._bucket.give_back(start)

    def _wake(self, wait: float) -> None:
        if self._timer is None and wait < math.inf:
            self._timer = self._loop.call_later(max(wait, 0.001), self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._kick()

    async def close(self) -> None:
        """Cancel the timer: the worker has ended."""
        if self._timer is not None:
            self._timer.cancel()


class SharedPace(Pace):
    """The rate limit of one worker, taken from a limit that processes share.

    Args:
        limiter: Grants calls to all processes.
        quota: The calls that this lane may take.
        limit: As for `Pace`, for the static share; likewise `lane_share`, `loop`, `clock` and `kick`.
    """

    def __init__(
        self,
        limiter: Limiter,
        quota: Quota,
        limit: RateLimit,
        lane_share: float,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        kick: Callable[[], object],
    ) -> None:
        super().__init__(limit, lane_share, loop, clock, kick)
        self._limiter = limiter
        self._quota = quota
        self._granted = 0
        self._good_until = 0.0
        self._granted_at = 0.0
        """When the limiter last answered. A call that was taken before is not of this grant."""
        self._used = 0
        """Calls taken from this grant."""
        self._asking: asyncio.Task[Any] | None = None
        self._away_until = 0.0
        self.away = False
        """True while the limiter does not answer and the static share is used."""

    def room(self, wanted: int) -> int:
        """As `Pace.room`; asks the limiter when no granted calls are left."""
        now = self._clock.monotonic()
        if self._granted and now <= self._good_until:
            return min(self._granted, wanted)
        if now < self._away_until:
            return super().room(wanted)
        if self._asking is None:
            self._asking = self._loop.create_task(self._ask(min(wanted, AT_ONCE)))
        return super().room(wanted) if self.away else 0

    def take(self, wanted: int) -> float:
        """As `Pace.take`."""
        start = super().take(wanted)
        if start and self._granted:
            self._granted -= 1
            self._used += 1
        return start

    def give_back(self, start: float) -> None:
        """As `Pace.give_back`; a granted call that is still valid may be used for another send."""
        super().give_back(start)
        if self._used and start >= self._granted_at and self._clock.monotonic() <= self._good_until:
            self._used -= 1
            self._granted += 1

    async def _ask(self, wanted: int) -> None:
        grant, asked = Grant(0, AWAY), self._clock.monotonic()
        factor = self._bucket.factor(asked)
        try:
            grant = _checked(
                await asyncio.wait_for(self._limiter.take(wanted, _slowed(self._quota, factor)), PATIENCE),
                wanted,
            )
        except Exception as e:
            now = self._clock.monotonic()
            self._away_until = now + AWAY
            if not self.away:
                self._bucket.empty(now)
                log.warning(
                    "the shared rate limit %s does not answer (%s), so this worker uses its static share; check the "
                    "limiter's server",
                    self._quota.key,
                    type(e).__name__,
                )
            self.away, self._granted, self._used = True, 0, 0
        else:
            if self.away:
                log.warning("the shared rate limit %s answers again", self._quota.key)
            self.away = False
            self._granted, self._used, self._granted_at = grant.calls, 0, self._clock.monotonic()
            self._good_until = asked + min(GOOD_FOR, self._quota.per * MARGIN_USED)
        finally:
            self._asking = None
        if grant.calls or self.away:
            self._kick()
        else:
            self._wake(grant.wait)

    async def close(self) -> None:
        """Close the limiter: the worker has ended."""
        await super().close()
        if self._asking is not None:
            self._asking.cancel()
        try:
            await asyncio.wait_for(self._limiter.close(), PATIENCE)
        except Exception as e:
            log.warning("closing the shared rate limit %s failed: %s", self._quota.key, type(e).__name__)


def _checked(grant: Grant, wanted: int) -> Grant:
    """A limiter's grant, made valid. Raises when it is not a grant: such a limiter counts as unavailable."""
    wait = clamped(grant.wait)
    if wait is None:
        raise ValueError("Grant.wait is not a number of seconds")
    return Grant(min(max(int(grant.calls), 0), wanted), wait)


def _slowed(quota: Quota, factor: float) -> Quota:
    """A quota that is reduced by `factor` after throttles of the provider."""
    if factor >= 1:
        return quota
    return Quota(
        quota.key,
        max(1, int(quota.calls * factor)),
        quota.per,
        max(1, int(quota.burst * factor)),
        quota.lane,
        max(1, int(quota.lane_calls * factor)),
    )
