"""When the next send may start under a rate limit, and who wakes the tasks then. Runs on the event loop.

`Pace` knows the worker's static share; `SharedPace` asks a limiter that all workers share, and falls back to it.
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
"""Seconds for an answer of a shared limiter."""
AWAY: Final = 1.0
"""Seconds before one that did not answer is asked again."""
GOOD_FOR: Final = 0.025
"""Seconds after the question within which granted calls must start: later they would crowd with those that others
are granted."""
MARGIN_USED: Final = 0.03
"""The part of a period that this may be at most: limiters keep a little more distance."""
AT_ONCE: Final = 100
"""Calls asked for at most in one request."""


class Pace:
    """The rate limit of one worker.

    Args:
        limit: The consumer's.
        lane_share: The part of it that this lane may use.
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
        """This worker owns so many partitions of the source topic."""
        share = self._lane_share * min(1.0, owned / partitions) if partitions else 0.0
        self._bucket.set_share(share, self._clock.monotonic())
        self._kick()

    def throttled(self) -> None:
        """The provider asked to slow down."""
        self._bucket.throttled(self._clock.monotonic())

    def room(self, wanted: int) -> int:
        """How many of `wanted` sends may start now; when none may, it kicks once one may."""
        now = self._clock.monotonic()
        room = self._bucket.room(now)
        if room <= 0:
            self._wake(self._bucket.wait(now))
        return min(room, wanted)

    def take(self, wanted: int) -> float:
        """Start a send: when that was, for `give_back`; 0 when none may start.

        Args:
            wanted: How many would like to start, this one included.
        """
        if self.room(wanted) <= 0:
            return 0.0
        now = self._clock.monotonic()
        self._bucket.spend(now)
        return now

    def give_back(self, start: float) -> None:
        """Nothing was sent after all."""
        self._bucket.give_back(start)

    def _wake(self, wait: float) -> None:
        if self._timer is None and wait < math.inf:
            self._timer = self._loop.call_later(max(wait, 0.001), self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._kick()

    async def close(self) -> None:
        """The worker has ended."""
        if self._timer is not None:
            self._timer.cancel()


class SharedPace(Pace):
    """The same, out of a limit that processes share.

    Args:
        limiter: Shares it.
        quota: What this lane may take.
        limit: The consumer's; likewise `lane_share`, `loop`, `clock` and `kick`.
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
        """When the limiter answered last; a call that was taken before is not of this grant."""
        self._used = 0
        """Calls taken of this grant."""
        self._asking: asyncio.Task[Any] | None = None
        self._away_until = 0.0
        self.away = False
        """The limiter does not answer: the static share is used."""

    def room(self, wanted: int) -> int:
        """As `Pace.room`; asks the limiter when nothing is granted any more."""
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
        """As `Pace.give_back`: what was granted, and is still good, may be used for another send."""
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
                    "the shared rate limit %s does not answer (%s): each worker uses its static share",
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
        """The worker has ended."""
        await super().close()
        if self._asking is not None:
            self._asking.cancel()
        try:
            await asyncio.wait_for(self._limiter.close(), PATIENCE)
        except Exception as e:
            log.warning("closing the shared rate limit %s: %s", self._quota.key, type(e).__name__)


def _checked(grant: Grant, wanted: int) -> Grant:
    """What a limiter of the team's own says, or an exception: a limiter that says nonsense is away."""
    wait = clamped(grant.wait)
    if wait is None:
        raise ValueError("Grant.wait is not a number of seconds")
    return Grant(min(max(int(grant.calls), 0), wanted), wait)


def _slowed(quota: Quota, factor: float) -> Quota:
    """A quota after throttles of the provider."""
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
