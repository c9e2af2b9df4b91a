"""Rate limits and accepted ids shared through Redis (extra `redis`; Redis 5 or newer).

Both work on the worker's event loop, answer within `timeout` or fail, and hold nothing but counts and ids.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, Final, cast

from kafka_notify._base.extras import missing

try:
    from redis import asyncio as aioredis
except ModuleNotFoundError as _e:
    raise missing(_e, "redis") from None

from kafka_notify._base.arguments import to_seconds
from kafka_notify._base.units import Seconds
from kafka_notify.errors import ConfigError
from kafka_notify.limits import Grant, Quota

MARGIN: Final = 1.04
"""As in a worker's own limit: calls take different times to reach the provider, and must not pile up there."""

# Exact in one round trip: a list of "when:how many" holds the sliding window, a hash the sum of it and the tokens
# that smooth. KEYS are list and hash of the whole limit and of the lane; ARGV: wanted, microseconds of the window,
# then calls and burst of each. Redis' own clock counts, whatever the workers' say.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local grant, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local wait, limits = 0, {}
for i = 1, #KEYS / 2 do
  local starts, state = KEYS[2 * i - 1], KEYS[2 * i]
  local calls, burst = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local known = redis.call('HMGET', state, 'used', 'tokens', 'at')
  local used, tokens, at = tonumber(known[1] or 0), tonumber(known[2] or 1), tonumber(known[3] or now)
  if at > now + window then
    redis.call('DEL', starts, state)
    used, tokens, at = 0, 1, now
  end
  local oldest = nil
  while true do
    local first = redis.call('LINDEX', starts, 0)
    if not first then break end
    local start, count = string.match(first, '(%d+):(%d+)')
    oldest = tonumber(start)
    if oldest > now - window then break end
    redis.call('LPOP', starts)
    used = used - tonumber(count)
  end
  tokens = math.min(burst, tokens + math.max(now - at, 0) * calls / window)
  grant = math.min(grant, math.floor(tokens), math.max(calls - used, 0))
  if tokens < 1 then wait = math.max(wait, (1 - tokens) * window / calls) end
  if used >= calls and oldest then wait = math.max(wait, oldest + window - now) end
  limits[i] = {starts, state, used, tokens}
end
for _, limit in ipairs(limits) do
  local starts, state, used, tokens = unpack(limit)
  if grant > 0 then redis.call('RPUSH', starts, string.format('%.0f:%.0f', now, grant)) end
  redis.call('HSET', state, 'used', used + grant, 'tokens', tostring(tokens - grant),
             'at', string.format('%.0f', now))
  redis.call('PEXPIRE', starts, math.ceil(window / 500))
  redis.call('PEXPIRE', state, math.ceil(window / 500))
end
return {grant, math.ceil(wait)}
"""


class _Connected:
    """One client per event loop: workers of one process have a loop each.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with credentials if there are any: it is never shown.
        prefix: First part of all keys.
        timeout: Seconds (or a timedelta) for an answer.
    """

    def __init__(self, url: str, *, prefix: str = "kafka-notify", timeout: Seconds = 0.25) -> None:
        self._url = url
        self._prefix = prefix
        self._timeout = to_seconds(timeout, "timeout")
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, aioredis.Redis] = (
            weakref.WeakKeyDictionary()
        )
        _ = self._client()  # a malformed address is found here
        self._clients.clear()

    def _client(self) -> aioredis.Redis:
        try:
            return aioredis.Redis.from_url(  # type: ignore[no-any-return, no-untyped-call, unused-ignore]
                self._url, socket_timeout=self._timeout, socket_connect_timeout=self._timeout
            )
        except ValueError:
            raise ConfigError("the address of Redis must begin with redis://, rediss:// or unix://") from None

    def _connected(self) -> aioredis.Redis:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._client()
        return client

    async def close(self) -> None:
        """Close the connections of this event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prefix={self._prefix!r})"


class RedisLimiter(_Connected):
    """A rate limit that all workers of a provider share exactly: `RateLimit(200, shared=RedisLimiter(url))`.

    A lane with a reserved share finds it free whatever the other lanes want, and uses what they leave. When Redis
    does not answer, each worker goes on with its static share; when it answers again, one period may see up to `burst`
    more.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with credentials if there are any: it is never shown.
        prefix: First part of all keys.
        timeout: Seconds (or a timedelta) for an answer.

    Raises:
        ConfigError: `url` is malformed.
    """

    async def take(self, wanted: int, quota: Quota, /) -> Grant:
        """Take up to `wanted` calls, in one round trip.

        Args:
            wanted: As for `Limiter.take`.
            quota: As for `Limiter.take`.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        whole = f"{{{self._prefix}:{quota.key}}}"  # the braces keep all keys on one node of a Redis Cluster
        keys = [f"{whole}:starts", f"{whole}:state"]
        limits = [quota.calls, quota.burst]
        if quota.lane_calls < quota.calls:
            keys += [f"{whole}:{quota.lane}:starts", f"{whole}:{quota.lane}:state"]
            limits += [quota.lane_calls, min(quota.burst, quota.lane_calls)]
        window = round(quota.per * MARGIN * 1e6)
        answer = await cast(
            Any,
            self._connected().eval(
                _TAKE,
                len(keys),
                *keys,
                wanted,
                window,
                *limits,  # type: ignore[arg-type, unused-ignore]
            ),
        )
        return Grant(int(answer[0]), int(answer[1]) / 1e6)


class RedisSeen(_Connected):
    """Accepted ids in Redis, for `Consumer.dedupe`: known to all workers, also after a restart.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with credentials if there are any: it is never shown.
        ttl: Seconds (or a timedelta) for which an id is remembered.
        prefix: First part of all keys.
        timeout: Seconds (or a timedelta) for an answer.
    """

    def __init__(
        self, url: str, *, ttl: Seconds = 86_400.0, prefix: str = "kafka-notify", timeout: Seconds = 0.25
    ) -> None:
        super().__init__(url, prefix=prefix, timeout=timeout)
        self._ttl = max(1, round(to_seconds(ttl, "ttl")))

    async def seen(self, id: str, /) -> bool:
        """Return True if `id` was accepted within the last `ttl` seconds.

        Args:
            id: As for `SeenStore.seen`.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        return bool(await self._connected().exists(f"{self._prefix}:seen:{id}"))

    async def add(self, id: str, /) -> None:
        """Remember `id` for `ttl` seconds.

        Args:
            id: As for `SeenStore.seen`.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        await self._connected().set(f"{self._prefix}:seen:{id}", b"", ex=self._ttl)
