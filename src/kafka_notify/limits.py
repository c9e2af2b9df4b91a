"""What protects a provider: how fast, what happens when it fails, and what was sent before. Values and protocols.

They are attributes of a `Consumer`. What it does not use costs nothing.
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
"""Of a `RateLimit`: each call of the last period is remembered, 8 bytes each."""


@attrs.frozen
class Quota:
    """What one lane may take out of a shared limit.

    Args:
        key: Names the limit; everybody who shares it uses the same one.
        calls: Calls in any stretch of `per` seconds, of all lanes together.
        per: Seconds.
        burst: Calls that may start at the same moment.
        lane: Who asks.
        lane_calls: What this lane may take of `calls` when another lane has a reserved share; `calls` otherwise.
    """

    key: str
    calls: int
    per: float
    burst: int
    lane: str
    lane_calls: int


@attrs.frozen
class Grant:
    """What a `Limiter` allows.

    Args:
        calls: How many calls may start now.
        wait: Seconds after which it is worth asking again, when it is fewer than were wanted.
    """

    calls: int
    wait: float


class Limiter(Protocol):
    """A limit that many processes share. `kafka_notify.redis.RedisLimiter` is one."""

    async def take(self, wanted: int, quota: Quota, /) -> Grant:
        """Take up to `wanted` calls (>= 1) out of a quota.

        Called on the worker's event loop, never twice at once for one worker, and cancelled after half a second.
        An exception or a delay means that the limiter is away: the worker uses its static share meanwhile.
        """
        ...

    async def close(self) -> None:
        """The worker has ended."""
        ...


@attrs.frozen(init=False)
class RateLimit:
    """How many sends may start in any stretch of time: records that may not start wait in Kafka.

    It acts before a send begins, so that neither its deadline nor its attempts run meanwhile. The limit belongs
    to all workers of the consumer: each one takes the share of the partitions that it is assigned, anew at each
    rebalance, or asks a shared limiter. Shares are rounded down to whole calls: the total is never above the limit.

    Args:
        calls: Sends that may start in any `per` seconds.
        per: Seconds.
        burst: Sends that may start at the same moment after a pause; a quarter of `calls` by default. It smooths:
            the limit holds whatever the burst is.
        adaptive: Whether a throttle of the provider halves the rate; it comes back evenly within `recovery`.
        recovery: Seconds from nothing to the full rate (FCM asks for at least 60).
        reserved: Lane name to the share, 0 to 1, that is kept for it; the other lanes of the topology use what is
            left. With it the limit is of all lanes together; without, each lane has it for itself.
        shared: Shares the limit exactly between processes, and lets a lane with a reserved share use what the
            others leave. When it is away, static shares are used.
        key: Names the limit in `shared`; by default the consumer's name.

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
        """The part of the limit that a lane may use when lanes do not know of each other.

        Args:
            lane: Its name.
            lanes: All lanes of the topology, by name.

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
        """What a lane may take out of the shared limit."""
        key = self.key or consumer or DEFAULT_CONSUMER
        if not self.reserved:
            return Quota(f"{key}.{lane}", self.calls, self.per, self.burst, lane, self.calls)
        others = sum(share for name, share in self.reserved.items() if name != lane)
        mine = max(1, math.floor(self.calls * (1 - others) + 1e-9))
        return Quota(key, self.calls, self.per, self.burst, lane, mine)


@attrs.frozen(init=False)
class CircuitBreaker:
    """When the provider counts as unavailable: the lane is then held, with a probe now and then.

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

    Args:
        failures: Users who fail for the first time while nothing is accepted.
        accepted: What an accepted send takes off: 3 means that more than three of four sends must fail.
        initial_wait: Seconds until the first probe.
        max_wait: Seconds between probes: how long a recovery goes unnoticed.
        account_wait: The same, in seconds, while the account is refused or the sender throttled: waits are doubled from
            `initial_wait` up to it.
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
    """Remembers which notifications were accepted, for `Consumer.dedupe`. Called on the worker's event loop,
    within the send's deadline."""

    async def seen(self, id: str, /) -> bool:
        """Whether this notification was accepted. An exception counts as no: it is sent."""
        ...

    async def add(self, id: str, /) -> None:
        """It was accepted. An exception is logged, and never repeats the send."""
        ...


class SeenInMemory:
    """The last `size` accepted ids, in this process: a restart, or another worker, knows nothing of them.

    Args:
        size: Ids; about 150 bytes each.

    Raises:
        ConfigError: `size` is below 1.
    """

    def __init__(self, size: int = 100_000) -> None:
        if not _whole(size) or size < 1:
            raise ConfigError(f"SeenInMemory.size must be a whole number >= 1, not {size!r}")
        self._size = size
        self._ids: dict[str, None] = {}

    async def seen(self, id: str, /) -> bool:
        """Whether it is one of the last `size`."""
        return id in self._ids

    async def add(self, id: str, /) -> None:
        """Remember it, and forget the oldest when there are too many."""
        self._ids[id] = None
        if len(self._ids) > self._size:
            del self._ids[next(iter(self._ids))]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
