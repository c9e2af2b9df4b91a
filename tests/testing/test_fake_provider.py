"""The provider without a network."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_notify import (
    Attempt,
    ConfigError,
    Consumer,
    DeliveryError,
    InvalidRecipientError,
    Notification,
    PermanentError,
    ProviderUnavailableError,
    Receipt,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify.outcome import Retry, Sent
from kafka_notify.testing import FakeClock, FakeProvider, Outage, deliver, lognormal


def hello(**fields: Any) -> Notification[Any]:
    return Notification(**{"user_id": "u1", "category": "otp", "channel": "sms", "data": {}, **fields})


def attempt_at(notification: Notification[Any], timeout: float = 30.0) -> Attempt:
    return Attempt(1, 4, notification.id, timeout=timeout, remaining_ttl=None)


def ask(provider: FakeProvider, notification: Notification[Any], timeout: float = 30.0) -> object:
    """What a plain send returns or raises."""
    try:
        return provider.send_blocking(notification, attempt_at(notification, timeout))
    except DeliveryError as e:
        return e


def shown(result: object) -> object:
    return result if isinstance(result, Receipt) else repr(result)


# -- answers


async def test_accepted() -> None:
    """It accepts what nobody told it to refuse, async and plain."""
    provider = FakeProvider("acme")

    first, second = hello(id="n1"), hello(id="n2")
    assert await provider.send(first, attempt_at(first)) == Receipt("acme", "n1-1")
    assert provider.send_blocking(second, attempt_at(second)) == Receipt("acme", "n2-1")
    assert [d.key for d in provider.delivered] == ["n1", "n2"]
    assert provider.calls == 2


@pytest.mark.parametrize(
    ("answer", "kind", "delivers"),
    [
        ("accepted_unheard", UnknownOutcomeError, 1),
        ("unknown", UnknownOutcomeError, 0),
        ("transient", TransientError, 0),
        ("throttled", ThrottledError, 0),
        ("permanent", PermanentError, 0),
        ("invalid_recipient", InvalidRecipientError, 0),
        ("unavailable", ProviderUnavailableError, 0),
    ],
)
async def test_refused(answer: Any, kind: type[DeliveryError], delivers: int) -> None:
    """Each answer raises its class, with the provider's name, async and plain alike."""
    provider = FakeProvider("acme")
    provider.always("+1555", answer)
    to_her = hello(recipient="+1555")

    with pytest.raises(kind) as raised:
        await provider.send(to_her, attempt_at(to_her))
    again = ask(provider, to_her)

    assert type(raised.value) is type(again) is kind
    assert (raised.value.code, raised.value.provider) == (f"acme.{answer}", "acme")
    assert len(provider.delivered) == 2 * delivers


def test_script() -> None:
    """A script is for one recipient, one answer per request; then it accepts, or what holds always."""
    provider = FakeProvider()
    provider.script("+1555", "transient", "throttled")
    provider.always("+1666", "permanent")
    provider.script("+1666", "accepted")

    hers = [ask(provider, hello(recipient="+1555")) for _ in range(3)]
    his = [ask(provider, hello(recipient="+1666")) for _ in range(3)]
    without_recipient = ask(provider, hello(user_id="u1"))

    assert [type(result) for result in hers] == [TransientError, ThrottledError, Receipt]
    assert [type(result) for result in his] == [Receipt, PermanentError, PermanentError]
    assert isinstance(without_recipient, Receipt)


def test_user_without_recipient() -> None:
    """A notification without a recipient is scripted by its user."""
    provider = FakeProvider()
    provider.script("u7", "permanent")

    assert isinstance(ask(provider, hello(user_id="u7")), PermanentError)


async def test_as_a_sender() -> None:
    """It stands in for `send`, and a worker reads its errors."""

    class Sms(Consumer):
        def __init__(self, provider: FakeProvider) -> None:
            self.provider = provider

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            return await self.provider.send(notification, attempt)

    class PlainSms(Sms):
        def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:  # type: ignore[override]
            return self.provider.send_blocking(notification, attempt)

    for cls in (Sms, PlainSms):
        provider = FakeProvider("acme")
        provider.script("u1", "unknown")
        first = await deliver(cls(provider), hello())
        assert isinstance(first, Retry)
        assert isinstance(first.error, UnknownOutcomeError)
        assert isinstance(await deliver(cls(provider), hello(id="n")), Sent)


# -- time


async def test_latency() -> None:
    """An answer takes its time, on the clock it was given."""
    clock = FakeClock(100)
    provider = FakeProvider(latency=0.3, clock=clock)

    await provider.send(hello(), attempt_at(hello()))
    provider.send_blocking(hello(), attempt_at(hello()))

    assert clock.now() == pytest.approx(100.6)


async def test_concurrent_latencies() -> None:
    """Sends that wait at the same time wait together, and end in the order of their times."""
    clock = FakeClock()
    provider = FakeProvider(latency=lambda rng: rng.choice([1.0, 2.0, 3.0]), seed=3, clock=clock)
    ended: list[float] = []

    async def send(notification: Notification[Any]) -> None:
        await provider.send(notification, attempt_at(notification))
        ended.append(clock.now())

    await asyncio.gather(*(send(hello(id=f"n{n}")) for n in range(20)))

    assert set(ended) == {1.0, 2.0, 3.0}
    assert ended == sorted(ended)
    assert clock.now() == 3.0


@pytest.mark.parametrize("answer", ["accepted", "hang"])
async def test_deadline(answer: Any) -> None:
    """An answer that does not come within the attempt's time is an unknown outcome, delivered or not."""
    clock = FakeClock()
    provider = FakeProvider("acme", latency=5, clock=clock)
    provider.script("u1", answer)

    with pytest.raises(UnknownOutcomeError, match=r"^acme\.timeout$"):
        await provider.send(hello(), attempt_at(hello(), timeout=2))

    assert clock.now() == 2
    assert len(provider.delivered) == (1 if answer == "accepted" else 0)


def test_lognormal() -> None:
    """Half of the answers are faster than the median, one in a hundred is slower than p99."""
    draw, rng = lognormal(0.2, 1.0), random.Random(5)
    drawn = sorted(draw(rng) for _ in range(10_000))

    assert drawn[5_000] == pytest.approx(0.2, rel=0.05)
    assert drawn[9_900] == pytest.approx(1.0, rel=0.15)
    with pytest.raises(ConfigError, match="0 < median <= p99"):
        lognormal(1, 0.5)


def test_outage() -> None:
    """During an outage everybody gets its answer, whatever was scripted; scripts go on afterwards."""
    clock = FakeClock(50)
    provider = FakeProvider(outages=[Outage(10, 20), Outage(20, 30, "unknown")], clock=clock)
    provider.script("u1", "accepted", "permanent")
    results = []
    for _ in range(4):
        results.append(type(ask(provider, hello())))
        clock.advance(10)

    assert results == [Receipt, ProviderUnavailableError, UnknownOutcomeError, PermanentError]


def test_rate() -> None:
    """Beyond its rate it throttles, says how long, and takes the request when that time is over."""
    clock = FakeClock()
    provider = FakeProvider(rate=10, burst=3, clock=clock)

    results = [ask(provider, hello()) for _ in range(5)]
    assert [type(result) for result in results] == [Receipt] * 3 + [ThrottledError] * 2
    error = results[3]
    assert isinstance(error, ThrottledError)
    assert error.scope == "provider"
    assert error.retry_after == pytest.approx(0.1)

    clock.advance(error.retry_after or 0)
    assert isinstance(ask(provider, hello()), Receipt)
    assert isinstance(ask(provider, hello()), ThrottledError)
    clock.advance(60)
    assert [type(ask(provider, hello())) for _ in range(4)] == [Receipt] * 3 + [ThrottledError]


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 10))
def test_rate_holds(gaps: list[float], rate: int, burst: int) -> None:
    """However requests come, no second sees more than the rate and one burst."""
    clock = FakeClock()
    provider = FakeProvider(rate=rate, burst=burst, clock=clock)
    for gap in gaps:
        clock.advance(gap)
        for _ in range(3):
            ask(provider, hello())
    times = [delivery.at for delivery in provider.delivered]
    for start in times:
        assert sum(start <= at < start + 1 for at in times) <= rate + burst


# -- keys


def test_remembered_key() -> None:
    """A provider with a memory answers a second send as the first, and delivers nothing; until it has forgotten."""
    clock = FakeClock()
    provider = FakeProvider(remembers=100, clock=clock)
    provider.script("u1", "accepted_unheard")
    notification = hello(id="n")

    assert isinstance(ask(provider, notification), UnknownOutcomeError)
    assert ask(provider, notification) == Receipt("fake", "n-1")
    assert (len(provider.delivered), provider.duplicates) == (1, {})

    clock.advance(100)
    assert ask(provider, notification) == Receipt("fake", "n-3")
    assert provider.duplicates == {"n": 2}


def test_without_memory() -> None:
    """Without a memory a retry after an unknown outcome is delivered twice, as with Twilio, FCM, SendGrid and SMTP."""
    provider = FakeProvider()
    provider.script("u1", "accepted_unheard")
    notification = hello(id="n")
    ask(provider, notification)
    ask(provider, notification)

    assert provider.duplicates == {"n": 2}


# -- chance


def test_same_seed_same_fate() -> None:
    """With one seed each notification meets the same answers, in whatever order they come."""
    shares: Any = {"transient": 0.2, "unknown": 0.1, "permanent": 0.1}

    def run(seed: int, order: random.Random) -> dict[str, list[object]]:
        provider = FakeProvider(shares=shares, seed=seed, latency=lognormal(0.1, 1), clock=FakeClock())
        asked = [f"n{n}" for n in range(100)] * 3
        order.shuffle(asked)
        fates: dict[str, list[object]] = {}
        for key in asked:
            fates.setdefault(key, []).append(shown(ask(provider, hello(id=key), timeout=0.5)))
        return fates

    assert run(1, random.Random(1)) == run(1, random.Random(2))
    assert run(1, random.Random(1)) != run(2, random.Random(1))


def test_shares() -> None:
    """Shares are how often an answer comes."""
    provider = FakeProvider(shares={"transient": 0.3, "permanent": 0.2}, clock=FakeClock(), seed=1)
    kinds = [type(ask(provider, hello(id=f"n{n}"))) for n in range(4000)]

    assert kinds.count(TransientError) / 4000 == pytest.approx(0.3, abs=0.03)
    assert kinds.count(PermanentError) / 4000 == pytest.approx(0.2, abs=0.03)
    assert kinds.count(Receipt) == len(provider.delivered)


def test_threads() -> None:
    """Threads that send at once lose no count and no delivery."""
    provider = FakeProvider(rate=1e9)

    def send() -> None:
        for _ in range(200):
            ask(provider, hello())

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert provider.calls == 1600
    assert len(provider.delivered) == 1600


# -- what it refuses, what it shows


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "Acme Inc"}, "name must be"),
        ({"rate": 0}, "rate must be"),
        ({"burst": 0}, "burst must be"),
        ({"shares": {"permanent": 0.7, "transient": 0.7}}, "shares must be"),
        ({"shares": {"permanent": -1}}, "shares must be"),
        ({"shares": {"broken": 0.1}}, "unknown answers broken"),
        ({"outages": [Outage(0, 1, "gone")]}, "unknown answers gone"),  # type: ignore[arg-type]
    ],
)
def test_refused_settings(options: Any, text: str) -> None:
    """A setting that cannot be meant is refused by name."""
    with pytest.raises(ConfigError, match=text):
        FakeProvider(**options)


def test_unknown_answer() -> None:
    """A misspelt answer is refused when it is told, not when it is due."""
    provider = FakeProvider()
    with pytest.raises(ConfigError, match="unknown answers acepted; known: accepted"):
        provider.script("u1", "acepted")  # type: ignore[arg-type]


def test_repr() -> None:
    """Neither the provider nor a delivery shows a recipient."""
    provider = FakeProvider()
    ask(provider, hello(recipient="+15550100"))

    assert "+1555" not in f"{provider!r} {provider.delivered!r}"
