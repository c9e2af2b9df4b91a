"""A rate limit: never more sends than it says in any stretch of its period, and not many fewer."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_notify import ConfigError, RateLimit
from kafka_notify._base.clock import Clock
from kafka_notify._send.bucket import Bucket
from kafka_notify._send.pace import Pace, SharedPace
from kafka_notify.limits import Grant, Quota

LANES = {"high": 1, "low": 2}


def full(limit: RateLimit, share: float = 1.0) -> Bucket:
    """A bucket that has waited long enough."""
    bucket = Bucket(limit, 0.0)
    bucket.set_share(share, 0.0)
    return bucket


def drain(bucket: Bucket, start: float, end: float, *, look: float = 0.001) -> list[float]:
    """When sends start if there is always one more, and somebody looks every so many seconds."""
    starts: list[float] = []
    now = start
    while now < end:
        while bucket.room(now):
            bucket.spend(now)
            starts.append(now)
        now += look
    return starts


def most(starts: Sequence[float], per: float) -> int:
    """The largest number of starts in any stretch of `per` seconds."""
    return max((i + 1 - bisect_left(starts, at - per + 1e-9) for i, at in enumerate(starts)), default=0)


def test_holds_the_limit_and_uses_it() -> None:
    """With always one more waiting, no second sees more than the limit, and all together at least 95 % of it."""
    starts = drain(full(RateLimit(200)), 100.0, 160.0)

    assert most(starts, 1.0) <= 200
    assert len(starts) >= 0.95 * 200 * 60
    print(f"{len(starts) / 60:.1f} of 200 per second")


@given(
    calls=st.integers(1, 40),
    per=st.sampled_from([0.5, 1.0, 7.0]),
    share=st.floats(0.05, 1.0),
    pauses=st.lists(st.floats(0, 20), max_size=40),
    throttles=st.sets(st.integers(0, 39)),
)
def test_never_more_whatever_happens(
    calls: int, per: float, share: float, pauses: list[float], throttles: set[int]
) -> None:
    """However long the pauses, and whatever the provider says, the worker's share of the limit holds."""
    bucket, now, starts = full(RateLimit(calls, per), share), 50.0, []
    for n, pause in enumerate(pauses):
        now += pause
        if n in throttles:
            bucket.throttled(now)
        while bucket.room(now):
            bucket.spend(now)
            starts.append(now)

    assert most(starts, per) <= max(1, math.floor(calls * share + 1e-9))
    if share * calls < 1:
        assert most(starts, per / (share * calls)) <= 1


@given(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5), st.integers(1, 300))
def test_shares_never_exceed_the_whole(weights: list[float], calls: int) -> None:
    """What workers may start together in a period is at most the limit, down to one call."""
    limit = RateLimit(calls)
    shares = [w / sum(weights) for w in weights]
    starts = sorted(at for share in shares for at in drain(full(limit, share), 100.0, 103.0, look=0.01))
    if all(share * calls >= 1 for share in shares):
        assert most(starts, 1.0) <= calls


def test_begins_empty() -> None:
    """A process that is started again and again gets no burst each time."""
    bucket = full(RateLimit(1_000, burst=1_000))

    assert bucket.room(0.0) == 0
    assert 450 < bucket.room(0.5) <= 500


def test_begins_empty_again() -> None:
    """When a shared limiter goes away, nobody has a burst left: others may have used what this one did not."""
    bucket = full(RateLimit(100))
    assert bucket.room(50.0) == 25
    bucket.empty(50.0)

    assert bucket.room(50.0) == 0
    assert bucket.room(50.1) == 9


def test_smooths_after_a_pause() -> None:
    """After a pause at most the burst starts at once, however large the limit."""
    assert full(RateLimit(200, burst=20)).room(1_000.0) == 20


def test_without_partitions_nothing_starts() -> None:
    """A worker that owns nothing has no share, and need not look again."""
    bucket = full(RateLimit(200), 0.0)

    assert bucket.room(1_000.0) == 0
    assert bucket.wait(1_000.0) == math.inf


def test_throttles_halve_it_and_it_comes_back() -> None:
    """Each throttle halves the rate; it comes back evenly within the recovery time."""
    bucket = full(RateLimit(200, recovery=60))
    bucket.throttled(100.0)
    bucket.throttled(100.0)
    factors = [round(bucket.factor(100.0 + s), 3) for s in (0, 15, 30, 45, 60)]

    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert most(drain(bucket, 100.0, 101.0), 1.0) <= 55


def test_throttles_leave_something() -> None:
    """The rate never falls to nothing: somebody must find out that the provider is well again."""
    bucket = full(RateLimit(200))
    for _ in range(100):
        bucket.throttled(100.0)

    assert bucket.factor(100.0) == 1 / 64


def test_not_adaptive() -> None:
    """When told so, throttles leave the rate alone."""
    bucket = full(RateLimit(200, adaptive=False))
    bucket.throttled(100.0)

    assert bucket.factor(100.0) == 1.0


def test_gives_back_what_was_not_sent() -> None:
    """A start that reached nobody makes room again, exactly where it was."""
    bucket = full(RateLimit(2, burst=2))
    for now in (100.0, 100.1):
        bucket.spend(now)
    assert bucket.room(100.5) == 0
    bucket.give_back(100.0)

    assert bucket.room(100.5) == 1
    bucket.spend(100.5)
    assert bucket.room(101.1) == 0
    assert bucket.room(101.3) == 1  # what started at 100.1 has left the window


def test_says_how_long_to_wait() -> None:
    """The wait that it names is enough, and not much too long."""
    bucket = full(RateLimit(10, burst=10))
    now = 100.0
    for _ in range(100):
        while bucket.room(now):
            bucket.spend(now)
        wait = bucket.wait(now)
        assert 0 < wait <= 1.041
        now += wait + 1e-6
        assert bucket.room(now) >= 1


def test_reserved_shares() -> None:
    """A lane with a reserved share has it for itself; the others use what is left."""
    limit = RateLimit(100, reserved={"high": 0.3})

    assert limit.lane_share("high", LANES) == 0.3
    assert limit.lane_share("low", LANES) == 0.7
    assert limit.quota("high", "sms").lane_calls == 100
    assert limit.quota("low", "sms").lane_calls == 70
    assert limit.quota("low", "sms").key == limit.quota("high", "sms").key
    assert RateLimit(100).quota("low", "sms").key != RateLimit(100).quota("high", "sms").key


@pytest.mark.parametrize("reserved", [{"elsewhere": 0.5}, {"high": 0.5, "low": 0.2, "elsewhere": 0.1}])
def test_refuses_lanes_that_do_not_exist(reserved: dict[str, float]) -> None:
    """A share that is reserved for nobody would be lost."""
    with pytest.raises(ConfigError, match="known lanes: high, low"):
        RateLimit(10, reserved=reserved).lane_share("high", LANES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"calls": 0}, {"calls": 1.5}, {"calls": True}, {"calls": 10**9}, {"calls": 5, "per": 0},
        {"calls": 5, "burst": 6}, {"calls": 5, "burst": 0},
        {"calls": 5, "reserved": {"a": 1.0}}, {"calls": 5, "reserved": {"a": 0.6, "b": 0.6}},
        {"calls": 5, "per": float("inf")}, {"calls": 5, "recovery": -1},
    ],
)  # fmt: skip
def test_refuses_settings_that_make_no_sense(wrong: dict[str, object]) -> None:
    """A limit that is none, or that lets nothing pass, is refused."""
    with pytest.raises(ConfigError):
        RateLimit(**wrong)  # type: ignore[arg-type]


async def test_kicks_when_there_is_room_again() -> None:
    """Whoever was refused is woken, once, when a send may start."""
    kicked = asyncio.Event()
    pace = Pace(RateLimit(50, burst=1), 1.0, asyncio.get_running_loop(), Clock(), kicked.set)
    pace.set_share(1, 1)
    await kicked.wait()
    for _ in range(5):
        kicked.clear()
        while pace.take(1):
            pass
        await kicked.wait()
        assert pace.room(1) == 1
    await pace.close()


class Shared:
    """A limiter that grants what it is told to, or fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Quota]] = []
        self.grants = asyncio.Queue[Grant | Exception]()
        self.closed = False

    async def take(self, wanted: int, quota: Quota) -> Grant:
        self.asked.append((wanted, quota))
        grant = await self.grants.get()
        if isinstance(grant, Exception):
            raise grant
        return grant

    async def close(self) -> None:
        self.closed = True


async def test_a_shared_limiter_decides() -> None:
    """What it grants may start, no more, and it is not asked twice at once."""
    shared, kicked = Shared(), asyncio.Event()
    limit = RateLimit(1_000, shared=shared, key="acme")
    pace = SharedPace(
        shared, limit.quota("high", "sms"), limit, 1.0, asyncio.get_running_loop(), Clock(), kicked.set
    )
    assert [pace.room(5), pace.room(5)] == [0, 0]
    shared.grants.put_nowait(Grant(2, 0.0))
    await kicked.wait()

    assert [bool(pace.take(5)) for _ in range(3)] == [True, True, False]
    while len(shared.asked) < 2:  # noqa: ASYNC110 - it asks again within a few turns
        await asyncio.sleep(0)
    assert [wanted for wanted, _ in shared.asked] == [5, 5]
    await pace.close()
    assert shared.closed


async def test_a_shared_limiter_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """While it does not answer, the worker uses its static share, and says so once."""
    shared, kicked = Shared(), asyncio.Event()
    limit = RateLimit(100, shared=shared)
    pace = SharedPace(
        shared, limit.quota("high", "sms"), limit, 1.0, asyncio.get_running_loop(), Clock(), kicked.set
    )
    pace.set_share(1, 2)
    kicked.clear()
    shared.grants.put_nowait(ConnectionError("a secret host"))
    assert pace.room(5) == 0
    await kicked.wait()
    while not pace.take(5):
        kicked.clear()
        await kicked.wait()

    assert pace.away
    assert "static share" in caplog.text
    assert "secret" not in caplog.text
    await pace.close()
