"""What fails for its own reasons holds nobody else, and what fails for the provider's loses no attempt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest

from kafka_notify.testing.attempt_log import Copied, DestinationHeld, Sampled, Started, Uncounted
from tests.guarantees.fleet import Fleet

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]
QUICK: Final[dict[str, Any]] = {"max_attempts": 4, "initial_delay": 0.3, "multiplier": 2, "max_delay": 1.2}
PROBES: Final = {"initial_wait": 0.05, "max_wait": 0.1, "account_wait": 0.5}


@pytest.mark.parametrize("percent", [10, pytest.param(20, marks=pytest.mark.soak), 35])
def test_users_who_always_fail(fleet: Fleets, percent: int) -> None:
    """Many users whose every send ends with a 500: all others are sent, the failing ones are dead-lettered, and the
    lane is never held."""
    f = fleet(attributes={"retry": QUICK})
    sent = f.produce(
        f.notification(
            f"u{n % 600}", n=n, plan=["unknown" if n % 600 % 20 < percent / 5 else "ok"], seconds=0.05
        )
        for n in range(1_200)
    )
    f.start("a")
    f.finish()
    bad = {p.id for p in sent if int(p.user[1:]) % 20 < percent / 5}
    assert f.holds() == []
    assert set(f.accepted()) == {p.id for p in sent} - bad
    assert {id for id, _ in Counter(line.id for line in f.all(Started)).items()} == {p.id for p in sent}
    assert len(f.letters()) == len(bad)
    f.verify()


def test_taken_over_retries_fail_once_more(fleet: Fleets) -> None:
    """A worker takes over 232 retries, each of which fails once more and is accepted then: a hold on that ends with
    accepted ones, although nothing but such retries waits."""
    f = fleet(attributes={"retry": QUICK, "breaker": PROBES})
    sent = f.produce(f.notification(f"u{n}", n=n, plan=["transient", "transient", "ok"]) for n in range(232))
    slow = {**QUICK, "initial_delay": 3_600, "max_delay": 3_600}
    f.start("a", attributes={"breaker": None, "retry": {**slow, "initial_delay": 5, "max_delay": 5}})
    f.until(lambda: len({line.id for line in f.all(Started)}) == 232, "first attempts")
    f.until(lambda: all(f.copies(p.id) for p in sent), "retry copies")
    f.kill("a")
    f.start("b")
    f.finish()
    assert set(f.accepted()) == {p.id for p in sent}
    assert f.letters() == {}
    assert max(line.attempt for line in f.all(Started)) == 3
    f.verify()


def test_retries_that_fail_twice(fleet: Fleets) -> None:
    """A tenth of all notifications is accepted at the third attempt: retries that are due together do not hold the
    lane."""
    f = fleet(attributes={"retry": {**QUICK, "initial_delay": 0.5}})
    sent = f.produce(
        f.notification(
            f"u{n}", n=n, plan=["unknown", "unknown", "ok"] if n % 10 == 0 else ["ok"], seconds=0.05
        )
        for n in range(2_000)
    )
    f.start("a")
    f.finish()
    assert f.holds() == []
    assert set(f.accepted()) == {p.id for p in sent}
    f.verify()


@pytest.mark.parametrize("step", ["403", "429_900", "503"])
def test_one_endpoint(fleet: Fleets, step: str) -> None:
    """One webhook endpoint refuses, throttles for a quarter of an hour, or is down: all others are sent meanwhile, it
    is asked a few times, and nothing of it is lost. Users with notifications to several endpoints keep their order."""
    f = fleet(attributes={"retry": QUICK, "breaker": PROBES, "concurrency": 40})
    gate = f.directory / "open"

    def traffic(count: int) -> list[Any]:
        return f.produce(
            f.notification(f"u{n % 90}", n=n, host=n % 90 % 9, plan=[step if n % 90 % 9 == 3 else "ok"], gate=str(gate))
            if n % 90 % 9 == 3 else f.notification(f"u{n % 90}", n=n, host=n % 90 % 9)
            for n in range(count)
        )  # fmt: skip

    f.start("a", consumer="Webhooks")
    sent = traffic(900)
    ids = {p.id for p in sent if int(p.user[1:]) % 9 == 3}
    f.until(lambda: {p.id for p in sent} - ids <= f.terminal, "end of the others' notifications")
    assert not ids & f.terminal
    assert any(line.held for line in f.all(DestinationHeld))
    calls = sum(line.id in ids for line in f.all(Started))
    print(f"\n{step}: {calls} calls of the endpoint until 800 others were sent")
    assert calls < len(ids)
    if step == "503":  # the next worker knows nothing of it, and learns it again
        f.kill("a")
        f.start("b", consumer="Webhooks")
        f.until_owned("b")
    gate.touch()
    if step != "429_900":
        f.finish()
        assert f.letters() == {}
        f.verify()


def test_a_held_endpoint_while_the_retry_topic_takes_nothing(fleet: Fleets) -> None:
    """What waits for an endpoint cannot be copied, and the endpoint works again: the hold ends."""
    breaker = {**PROBES, "max_wait": 0.5}  # so few probes fail meanwhile that enough are left
    f = fleet(partitions=1, samples=True, attributes={"retry": QUICK, "breaker": breaker, "concurrency": 20})
    f.alter_topic(f.retry_topic, "max.message.bytes", 1)
    gate = f.directory / "open"

    def traffic(name: str, count: int) -> list[Any]:
        return f.produce(
            f.notification(f"{name}{n}", host="h", plan=["503"], gate=str(gate)) for n in range(count)
        )

    f.start("a", consumer="Webhooks")
    failed = traffic("f", 5)
    f.until(lambda: any(line.held for line in f.all(DestinationHeld)), "hold of the endpoint")
    waiting = traffic("w", 300)
    f.until(lambda: f.all(Sampled)[-1].records == 305 and not f.all(Sampled)[-1].in_flight, "all in memory")
    before = len(f.all(Sampled))
    f.until(lambda: len(f.all(Sampled)) > before + 1, "that all are put aside")
    gate.touch()
    f.until(lambda: {p.id for p in waiting} & f.terminal, "acceptance of one that never failed")
    assert not {p.id for p in failed} & f.terminal
    f.alter_topic(f.retry_topic, "max.message.bytes", 1_000_000)
    f.finish()
    assert set(f.accepted()) == {p.id for p in [*failed, *waiting]}
    assert f.letters() == {}
    f.verify()


@pytest.mark.parametrize("step", ["401", "503", "429_900"])
def test_one_channel(fleet: Fleets, step: str) -> None:
    """A consumer of two channels: while one channel's provider fails the other is sent, users with both keep their
    order, and nothing is lost."""
    f = fleet(attributes={"retry": QUICK, "breaker": PROBES, "concurrency": 20})
    gate = f.directory / "open"
    f.start("a")
    texts = f.produce(f.notification(f"u{n % 60}", n=n, plan=[step], gate=str(gate)) for n in range(300))
    pushes = f.produce(f.notification(f"v{n % 60}", n=n, channel="push") for n in range(600))
    both = f.produce(
        f.notification(
            f"w{n % 20}", n=n, channel="sms" if n % 40 < 20 else "push", plan=[step], gate=str(gate)
        )
        for n in range(80)
    )
    f.until(lambda: {p.id for p in pushes} <= f.terminal, "end of the other channel's notifications")
    assert not {p.id for p in [*texts, *both]} & f.terminal
    assert any(line.held for line in f.all(DestinationHeld))
    gate.touch()
    if step != "429_900":
        f.finish()
        assert f.letters() == {}
        f.verify()


def test_an_endpoint_that_does_not_answer(fleet: Fleets) -> None:
    """It takes a quarter of the senders; what waits for it is kept in memory up to the concurrency, and copied to the
    retry topic beyond; all others are sent meanwhile."""
    f = fleet(attributes={"retry": QUICK, "concurrency": 20})
    gate = f.directory / "open"
    f.start("a", consumer="Webhooks")
    hanging = f.produce(f.notification(f"h{n}", n=n, host="slow", gate=str(gate)) for n in range(100))
    others = f.produce(f.notification(f"u{n % 50}", n=n, host=n % 7) for n in range(400))
    f.until(lambda: {p.id for p in others} <= f.terminal, "end of the others' notifications")
    ids = {p.id for p in hanging}
    assert sum(line.id in ids for line in f.all(Started)) == 5
    assert f.holds() == []
    gate.touch()
    f.finish()
    copied = {line.id for line in f.all(Copied)}
    assert copied <= ids
    assert 1 <= len(copied) <= 75
    assert set(f.accepted()) == ids | {p.id for p in others}
    f.verify()


def test_one_endpoint_among_users_of_one_provider(fleet: Fleets) -> None:
    """Without destinations, a recipient that is answered with 403 among others that are accepted is not the account's
    trouble: it uses up its attempts, and the lane goes on."""
    f = fleet(attributes={"retry": QUICK, "breaker": {**PROBES, "account_wait": 30}})
    sent = f.produce(
        f.notification(f"u{n % 200}", n=n, plan=["403" if n % 200 == 7 else "ok"], gate="/nowhere") if n % 200 == 7
        else f.notification(f"u{n % 200}", n=n)
        for n in range(1_000)
    )  # fmt: skip
    f.start("a")
    f.finish()
    bad = {p.id for p in sent if p.user == "u7"}
    assert set(f.accepted()) == {p.id for p in sent} - bad
    assert {letter.reason for letter in f.letters().values()} == {"max_attempts"}
    assert len(f.letters()) == len(bad)


def test_nothing_but_failing_ones(fleet: Fleets) -> None:
    """All that waits always fails: it is dead-lettered, one attempt per probe, and the last ones after `patience`; an
    untroubled notification that arrives meanwhile is the next probe, and ends the hold."""
    f = fleet(attributes={"retry": QUICK, "breaker": {**PROBES, "patience": 2}}, partitions=2)
    f.produce(f.notification(f"u{n}", n=n, plan=["unknown"]) for n in range(60))
    f.start("a", attributes={"breaker": None, "retry": {**QUICK, "initial_delay": 4, "max_delay": 4}})
    f.until(lambda: len({line.id for line in f.all(Started)}) == 60, "first attempts")
    f.until(lambda: all(f.copies(p.id) for p in f.produced), "retry copies")
    f.kill("a")
    f.start("b")
    f.until(lambda: any(line.held for line in f.holds()), "a hold")
    [good] = f.produce([f.notification("good")])
    f.until(lambda: good.id in f.terminal, "end of the untroubled notification")
    f.finish()
    assert set(f.accepted()) == {good.id}
    assert len(f.letters()) == 60
    f.verify()


@pytest.mark.parametrize(("consumer", "data"), [
    ("AsyncSender", {"plan": ["throttle_now"]}), ("Choosy", {"verdict": "defer_past"}),
])  # fmt: skip
def test_a_wait_of_nothing_is_no_hot_loop(fleet: Fleets, consumer: str, data: dict[str, Any]) -> None:
    """`Retry-After: 0` for one recipient, or a `Defer` into the past: while another user's two hundred are sent one
    after the other, it is copied a few times."""
    f = fleet(partitions=1)
    gate = f.directory / "open"
    with f.worker_here(consumer):
        [poor] = f.produce([f.notification("poor", gate=str(gate), **data)])
        f.until(lambda: f.copies(poor.id), "retry copy")
        others = f.produce(f.notification("rich", n=n) for n in range(200))
        f.until(lambda: {p.id for p in others} <= f.terminal, "end of the other user's notifications")
        copies = len(f.copies(poor.id))
        gate.touch()
        f.finish()
    print(f"\n{copies} copies while 200 others were sent")
    assert copies <= 40
    assert poor.id in f.accepted()
    assert f.all(Uncounted)
    f.verify()
