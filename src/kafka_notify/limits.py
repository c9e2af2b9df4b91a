"""Protection of a provider: rate limits, the circuit breaker, and a memory of what was sent. Values and protocols.

They are attributes of a `Consumer`. Those that it does not set cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Protocol

import attrs

from kafka_notify._base.arguments import check_flag, to_seconds
from kafka_notify._base.frozen import put
from kafka_notify._base.names import DEFAULT_CONSUMER
from kafka_notify._base.units import Seconds
from kafka_notify.errors import ConfigError

MAX_CALLS = 1_000_000
"""Largest `RateLimit.calls`: each call of the last period is remembered, 8 bytes each."""


@attrs.frozen
class Quota:
    """The part of a shared limit that one lane may take.

    Args:
        key: Name of the limit, the same for everybody who shares it.
        calls: Calls in any stretch of `per` seconds, of all lanes together.
        per: Length of the period in seconds.
        burst: Calls that may start at the same moment.
        lane: Name of the lane that asks.
        lane_calls: Calls of `calls` that this lane may take when another lane has a reserved share; else `calls`.
    """

    key: str
    calls: int
    per: float
    burst: int
    lane: str
    lane_calls: int


@attrs.frozen
class Grant:
    """The answer of a `Limiter`.

    Args:
        calls: Calls that may start now.
        wait: Seconds after which to ask again, when `calls` is less than was wanted.
    """

    calls: int
    wait: float


class Limiter(Protocol):
    """A limit that many processes share. `kafka_notify.redis.RedisLimiter` is one."""

    async def take(self, wanted: int, quota: Quota, /) -> Grant:
        """Take up to `wanted` calls out of a quota.

        Called on the worker's event loop, never twice at once for one worker, and cancelled after half a second. After
        an exception or a delay the worker uses its static share until the limiter answers again.

        Args:
            wanted: Calls that could start now, at least 1.
            quota: The limit, and the lane that asks.

        Returns:
            How many calls may start now, and when to ask again.
        """
        ...

    async def close(self) -> None:
        """Release connections: the worker has ended."""
        ...


@attrs.frozen(init=False)
class RateLimit:
    """A limit of the sends that may start in any stretch of time; records that may not start wait in Kafka.

    It acts before a send begins, so that neither its deadline nor its attempts run meanwhile. The limit applies to all
    workers of the consumer together. Each worker takes the share of the partitions that it owns, recalculated at each
    rebalance, or asks a shared limiter. Shares are rounded down to whole calls: the total is never above the limit.

    Args:
        calls: Sends that may start in any `per` seconds.
        per: Length of the period in seconds (or a timedelta).
        burst: Sends that may start at the same moment after a pause; a quarter of `calls` by default. The limit holds
            whatever the burst is.
        adaptive: Halve the rate when the provider throttles; it comes back evenly within `recovery`.
        recovery: Seconds (or a timedelta) from nothing to the full rate; FCM asks for at least 60.
        reserved: Lane name to the share, between 0 and 1, that is kept for it; the other lanes of the topology use what
            is left. The limit then applies to all lanes together; without it, each lane has the limit for itself.
        shared: Shares the limit exactly between processes, and lets a lane with a reserved share use what the others
            leave. When it does not answer, static shares are used.
        key: Name of the limit in `shared`; by default the consumer's name.

    Raises:
        ConfigError: A value is out of range.
    """

    calls: int
    per: float
    burst: int
    adaptive: bool
    recovery: float
    reserved: Mapping[str, float]
    shared: Limiter | None
    key: str

    def __init__(
        self,
        calls: int,
        per: Seconds = 1.0,
        *,
        burst: int | None = None,
        adaptive: bool = True,
        recovery: Seconds = 60.0,
        reserved: Mapping[str, float] | None = None,
        shared: Limiter | None = None,
        key: str = "",
    ) -> None:
        if not _whole(calls) or not 1 <= calls <= MAX_CALLS:
            raise ConfigError(
                f"RateLimit.calls must be a whole number between 1 and {MAX_CALLS}, not {calls!r}; "
                "for less than one per second raise `per`"
            )
        if burst is None:
            burst = max(1, calls // 4)
        if not _whole(burst) or not 1 <= burst <= calls:
            raise ConfigError(f"RateLimit.burst must be a whole number between 1 and `calls`, not {burst!r}")
        seconds = to_seconds(per, "RateLimit.per")
        if seconds <= 0:
            raise ConfigError("RateLimit.per must be > 0")
        check_flag(adaptive, "RateLimit.adaptive")
        kept = dict(reserved or {})
        if any(not 0 < share < 1 for share in kept.values()) or sum(kept.values()) > 1:
            raise ConfigError(
                "RateLimit.reserved must give each lane a share between 0 and 1, together at most 1"
            )
        put(
            self,
            calls=calls,
            per=seconds,
            burst=burst,
            adaptive=adaptive,
            recovery=max(to_seconds(recovery, "RateLimit.recovery"), 0.001),
            reserved=kept,
            shared=shared,
            key=key,
        )

    def lane_share(self, lane: str, lanes: Mapping[str, Any]) -> float:
        """Return the part of the limit that a lane may use without asking `shared`.

        Args:
            lane: Name of the lane.
            lanes: All lanes of the topology, by name.

        Returns:
            A share between 0 and 1.

        Raises:
            ConfigError: A share is reserved for a lane that does not exist.
        """
        if not self.reserved:
            return 1.0
        unknown = sorted(set(self.reserved) - set(lanes))
        if unknown:
            raise ConfigError(
                f"RateLimit.reserved: unknown lane {unknown[0]!r}; known lanes: {', '.join(sorted(lanes))}"
            )
        left, others = 1 - sum(self.reserved.values()), len(lanes) - len(self.reserved)
        if others and left < 1e-9:
            raise ConfigError("RateLimit.reserved leaves nothing for the other lanes of the topology")
        return self.reserved[lane] if lane in self.reserved else left / max(others, 1)

    def quota(self, lane: str, consumer: str) -> Quota:
        """Return what a lane may take out of the shared limit.

        Args:
            lane: Name of the lane.
            consumer: Name of the consumer; "" when it has none.
        """
        key = self.key or consumer or DEFAULT_CONSUMER
        if not self.reserved:
            return Quota(f"{key}.{lane}", self.calls, self.per, self.burst, lane, self.calls)
        others = sum(share for name, share in self.reserved.items() if name != lane)
        mine = max(1, math.floor(self.calls * (1 - others) + 1e-9))
        return Quota(key, self.calls, self.per, self.burst, lane, mine)


@attrs.frozen(init=False)
class CircuitBreaker:
    """The conditions under which a provider counts as unavailable, so that its lane is held except for probes.

    A failed first send of a user adds 1 to a score, an accepted send takes off `accepted`, and at a score of
    `failures` (half of it once nothing was accepted for 1.5 s) the lane is held. Failures are `TransientError` and
    `UnknownOutcomeError` that a sender raised or a client library's exception was read as (a 503, a refused
    connection, a time-out). A failed retry weighs as much as such retries are usually accepted, and a user adds at
    most once between two accepted sends: notifications that always fail do not hold a lane. Exceptions that nobody
    knows are taken for bugs and say nothing.

    While the lane is held, one probe starts after `initial_wait` and then every `max_wait`; a notification that never
    failed is preferred. Once a probe is accepted, probes follow each other, more and more at once, and at a score of
    0 the lane is released. What fails meanwhile is no attempt. Only when all that waits failed before, so that nothing
    tells an outage from notifications that always fail, each failed probe is an attempt of its notification, whose
    last one is kept for `patience`.

    Each worker judges by its own sends. While the lane is held, its notifications wait in Kafka.

    Args:
        failures: Score at which the lane is held: users who fail for the first time while nothing is accepted.
        accepted: Score that an accepted send takes off: 3 means that more than three of four sends must fail.
        initial_wait: Seconds (or a timedelta) until the first probe.
        max_wait: Seconds between probes: how long a recovery goes unnoticed.
        account_wait: Seconds between probes while the account is refused or the sender throttled: waits are doubled
            from `initial_wait` up to it.
        patience: Seconds since its first failure for which a notification keeps its last attempt, while nothing is
            accepted and only such notifications wait.

    Raises:
        ConfigError: A value is out of range.
    """

    failures: int
    accepted: float
    initial_wait: float
    max_wait: float
    account_wait: float
    patience: float

    def __init__(
        self,
        failures: int = 12,
        *,
        accepted: float = 3,
        initial_wait: Seconds = 1.0,
        max_wait: Seconds = 1.5,
        account_wait: Seconds = 30.0,
        patience: Seconds = 3600.0,
        **removed: object,
    ) -> None:
        for name in removed:
            if name not in _REMOVED:
                raise TypeError(f"CircuitBreaker() has no argument {name!r}")
            raise ConfigError(f"CircuitBreaker.{name} was removed: {_REMOVED[name]}")
        if not _whole(failures) or failures < 2:
            raise ConfigError(
                f"CircuitBreaker.failures must be a whole number >= 2, not {failures!r}: one user "
                "alone must not hold the lane"
            )
        if (
            isinstance(accepted, bool)
            or not isinstance(accepted, (int, float))
            or not 0 < accepted <= failures
        ):
            raise ConfigError(
                f"CircuitBreaker.accepted must be a number above 0 and at most `failures`, not {accepted!r}"
            )
        first = to_seconds(initial_wait, "CircuitBreaker.initial_wait")
        longest = to_seconds(max_wait, "CircuitBreaker.max_wait")
        account = to_seconds(account_wait, "CircuitBreaker.account_wait")
        if not 0 < first <= longest:
            raise ConfigError("CircuitBreaker.initial_wait must be > 0 and at most max_wait")
        if account < first:
            raise ConfigError("CircuitBreaker.account_wait must be at least initial_wait")
        put(
            self,
            failures=failures,
            accepted=accepted,
            initial_wait=first,
            max_wait=longest,
            account_wait=account,
            patience=to_seconds(patience, "CircuitBreaker.patience"),
        )


_REMOVED: Final = {
    "share": "write accepted=3 (the lane is held when more than three of four sends fail); `accepted` says what an "
    "accepted send takes off the score",
    "probes": "the score also releases the lane: after failures / accepted accepted probes",
}


class SeenStore(Protocol):
    """A memory of accepted notifications, for `Consumer.dedupe`.

    Called on the worker's event loop, within the send's deadline.
    """

    async def seen(self, id: str, /) -> bool:
        """Return True if a notification was accepted before. An exception counts as False: it is sent.

        Args:
            id: A UUID made of group, user and id of the notification.
        """
        ...

    async def add(self, id: str, /) -> None:
        """Remember that a notification was accepted. An exception is logged, and never repeats the send.

        Args:
            id: As for `seen`.
        """
        ...


class SeenInMemory:
    """The last `size` accepted ids, in this process: a restart, or another worker, knows nothing of them.

    Args:
        size: Number of ids that are kept; about 150 bytes each.

    Raises:
        ConfigError: `size` is below 1.
    """

    def __init__(self, size: int = 100_000) -> None:
        if not _whole(size) or size < 1:
            raise ConfigError(f"SeenInMemory.size must be a whole number >= 1, not {size!r}")
        self._size = size
        self._ids: dict[str, None] = {}

    async def seen(self, id: str, /) -> bool:
        """Return True if `id` is one of the last `size`.

        Args:
            id: As for `SeenStore.seen`.
        """
        return id in self._ids

    async def add(self, id: str, /) -> None:
        """Remember an id, and forget the oldest when there are too many.

        Args:
            id: As for `SeenStore.seen`.
        """
        self._ids[id] = None
        if len(self._ids) > self._size:
            del self._ids[next(iter(self._ids))]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
