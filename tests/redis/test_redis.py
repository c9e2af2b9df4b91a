"""Limits and accepted ids shared through a real Redis."""

from __future__ import annotations

import asyncio
import time
import uuid

import attrs
import pytest
from redis.exceptions import RedisError

from kafka_notify import ConfigError, RateLimit
from kafka_notify.limits import Quota
from kafka_notify.redis import RedisLimiter, RedisSeen
from tests.redis.server import RedisServer


def quota(limit: RateLimit, lane: str = "high") -> Quota:
    """What a lane may take of a limit that no other test uses."""
    return limit.quota(lane, f"c{uuid.uuid4().hex}")


Granted = list[tuple[float, float]]
"""For each call, when it was asked for and when it was granted: Redis decided somewhere in between."""


async def draw(limiter: RedisLimiter, quota: Quota, until: float, wanted: int = 10) -> Granted:
    """What was granted to a worker that always wants more."""
    granted: Granted = []
    while (asked := time.monotonic()) < until:
        grant = await limiter.take(wanted, quota)
        granted += [(asked, time.monotonic())] * grant.calls
        if grant.calls < wanted:
            await asyncio.sleep(grant.wait)
    return granted


def most(granted: Granted, per: float = 1.0) -> int:
    """The largest number that was certainly granted within some stretch of `per` seconds, however late the answers
    came on a busy machine."""
    return max(
        (sum(begin <= asked and got <= begin + per for asked, got in granted) for begin, _ in set(granted)),
        default=0,
    )


async def test_workers_share_a_limit(redis_server: RedisServer) -> None:
    """However the demand is spread over workers, no second sees more than the limit, and nearly all of it is used."""
    limiters = [RedisLimiter(redis_server.url) for _ in range(3)]
    shared, began = quota(RateLimit(200)), time.monotonic()
    parts = await asyncio.gather(*(draw(limiter, shared, began + 3.0) for limiter in limiters))
    times = [at for part in parts for at in part]
    print(f"{len(times) / 3:.0f} of 200 per second, at most {most(times)} in one: {[len(p) for p in parts]}")

    assert most(times) <= 200
    assert len(times) >= 0.9 * 200 * 3
    for limiter in limiters:
        await limiter.close()


async def test_a_reserved_share(redis_server: RedisServer) -> None:
    """However much the other lane wants, the lane with a reserved share finds it free; alone it may use all."""
    limiter = RedisLimiter(redis_server.url)
    limit = RateLimit(100, burst=100, reserved={"high": 0.3})
    low = quota(limit, "low")
    high = attrs.evolve(low, lane="high", lane_calls=limit.quota("high", "").lane_calls)
    began = time.monotonic()
    lows = await draw(limiter, low, began + 2.0)
    assert most(lows) <= 70
    grants = []
    for _ in range(30):
        grants.append((await limiter.take(1, high)).calls)
    assert sum(grants) == 30
    assert (high.calls, high.lane_calls, low.lane_calls) == (100, 100, 70)
    await limiter.close()


async def test_one_call_per_long_period(redis_server: RedisServer) -> None:
    """A limit below one call per second works too, and says how long to wait."""
    limiter = RedisLimiter(redis_server.url)
    slow = quota(RateLimit(1, per=60))
    first, second = await limiter.take(1, slow), await limiter.take(1, slow)

    assert (first.calls, second.calls) == (1, 0)
    assert 50 < second.wait < 65
    await limiter.close()


async def test_redis_away(redis_server: RedisServer) -> None:
    """While Redis is away every request fails quickly; afterwards the limiter goes on by itself."""
    limiter, seen = RedisLimiter(redis_server.url), RedisSeen(redis_server.url)
    shared = quota(RateLimit(100))
    assert (await limiter.take(1, shared)).calls == 1
    redis_server.kill()
    for _ in range(2):
        with pytest.raises(RedisError):
            await limiter.take(1, shared)
        with pytest.raises(RedisError):
            await seen.seen("id")
    redis_server.start()

    assert (await limiter.take(1, shared)).calls == 1
    for connected in (limiter, seen):
        await connected.close()


async def test_accepted_ids(redis_server: RedisServer) -> None:
    """Every worker knows what one of them has sent."""
    one, other = RedisSeen(redis_server.url), RedisSeen(redis_server.url)
    id = uuid.uuid4().hex
    assert not await other.seen(id)
    await one.add(id)

    assert await other.seen(id)
    for store in (one, other):
        await store.close()


def test_shows_no_secret() -> None:
    """Neither the representation nor an error shows the address, which may hold a password."""
    limiter = RedisLimiter("redis://user:canary@127.0.0.1:1/0")
    assert "canary" not in repr(limiter) + str(RateLimit(5, shared=limiter))
    with pytest.raises(ConfigError) as e:
        RedisLimiter("http://user:canary@127.0.0.1:1/0")
    assert "canary" not in str(e.value)
    assert e.value.__suppress_context__
