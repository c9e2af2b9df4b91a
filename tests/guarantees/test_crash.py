"""Workers are killed, stopped, frozen, started and taken away: nothing is lost, and order is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kafka_notify.testing.attempt_log import Owned, Started
from kafka_notify.testing.guarantees import DuplicatesBounded
from tests.guarantees.fleet import Fleet

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]
PROTOCOLS: dict[str, Any] = {"classic": {}, "consumer": {"consumer_config": {"group.protocol": "consumer"}}}


def test_killed_worker(fleet: Fleets) -> None:
    """Workers killed in the middle of sends lose nothing, keep the order, and repeat only what was under way."""
    f = fleet(attributes={"send_timeout": 2.0})
    f.start("a", "b", "c")
    f.until_owned("a", "b", "c")
    f.produce(f.traffic(1_000, users=60, seed=1))
    f.until_terminal(200)
    f.kill("a")
    f.until_terminal(500)
    f.start("a")
    f.kill("b")
    f.until_terminal(800)
    f.start("b")
    f.finish()
    f.verify()


@pytest.mark.invariant(n=5)
def test_failing_user(fleet: Fleets) -> None:
    """A user's later notifications wait behind his failing one while everyone else's go on; when it is dead
    they follow, and its partition's commit has passed it."""
    f = fleet(partitions=1)
    gate = f.directory / "open"
    f.start("a")
    [poor] = f.produce([f.notification("poor", plan=["transient"], gate=str(gate), gate_from=3)])
    f.until(lambda: f.copies(poor.id), "retry copy")
    mine = f.produce(f.notification("poor", n=n) for n in range(3))
    others = f.produce(f.notification(f"u{n % 7}", n=n) for n in range(50))
    f.until(lambda: {o.id for o in others} <= f.terminal, "end of the others' notifications")
    f.until_committed(54)  # all that waits is in the retry topic
    assert not {p.id for p in (poor, *mine)} & f.terminal
    gate.touch()
    f.finish()
    order = [line.id for line in f.all(Started) if line.user == "poor"]
    assert order == [poor.id] * 4 + [p.id for p in mine]
    assert [line.attempt for line in f.starts(poor.id)] == [1, 2, 3, 4]
    letter = f.letters()[poor.id]
    assert letter.reason == "max_attempts"
    assert (letter.partition, letter.origin) == (poor.partition, poor.offset)
    assert dict(letter.headers)["notif-last-error-code"] == b"provider.busy"
    f.verify()


@pytest.mark.invariant(n=13)
def test_attempts_survive(fleet: Fleets) -> None:
    """A notification with three attempts made before a crash continues with the fourth, not the first."""
    f = fleet(partitions=1)
    f.start("a")
    [poor] = f.produce([f.notification("poor", plan=["transient", "transient", "transient", "ok"])])
    f.until(lambda: any(c.attempts == 3 for c in f.copies(poor.id)), "copy with three attempts")
    f.kill("a")
    f.start("b")
    f.finish()
    assert [line.attempt for line in f.starts(poor.id)] == [1, 2, 3, 4]
    f.verify()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rolling_restart(fleet: Fleets, protocol: str) -> None:
    """Workers that are stopped and replaced one by one send nothing twice."""
    f = fleet(**PROTOCOLS[protocol])
    f.start("a", "b")
    f.until_owned("a", "b")
    f.produce(f.traffic(1_000, users=50, seed=2, failures=False))
    f.until_terminal(300)
    f.stop("a")
    f.start("a")
    f.until_owned("a")
    f.until_terminal(600)
    f.stop("b")
    f.start("b")
    f.finish()
    assert set(f.accepted().values()) == {1}
    held = f.verify()
    assert held.checker(DuplicatesBounded).duplicates == 0


def test_churn(fleet: Fleets) -> None:
    """Workers that join and leave all the time cost no duplicate, no loss and no order."""
    f = fleet()
    f.start("a")
    f.until_owned("a")
    f.produce(f.traffic(1_000, users=40, seed=3, failures=False))
    for n, (come, go) in enumerate([("b", "a"), ("c", "b"), ("d", "c"), ("e", "d")]):
        f.start(come)
        f.until_owned(come)
        f.until_terminal(200 * (n + 1))
        f.stop(go)
    f.finish()
    held = f.verify()
    assert held.checker(DuplicatesBounded).duplicates == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_zombie(fleet: Fleets, protocol: str) -> None:
    """A worker that was frozen for longer than its session does no harm when it wakes up."""
    f = fleet(consumer="SyncSender", attributes={"send_timeout": 2.0}, **PROTOCOLS[protocol])
    f.start("a", "b")
    f.until_owned("a", "b")
    f.produce(f.traffic(600, users=30, seed=4, seconds=0.1))
    f.until_terminal(100)
    f.pause("a")  # with sends under way, and more behind each of them
    since = len(f.lines)
    f.until(lambda: any(isinstance(line, Owned) for line in f.lines[since:]), "partition taken over")
    f.until_terminal(500)
    f.resume("a")
    f.produce(f.traffic(200, users=30, seed=6))
    f.finish()
    f.verify()


def test_evicted_payloads(fleet: Fleets) -> None:
    """Waiting retries whose payloads do not fit into memory are read again when they are due."""
    f = fleet(payload_budget=2_000, attributes={"breaker": None})  # nearly every send fails
    f.start("a")
    f.produce(
        f.notification(f"u{n % 40}", n=n, plan=["transient", "ok"] if n % 9 else ["transient"], pad="x" * 500)
        for n in range(160)
    )
    f.finish()
    assert len(f.letters()) == 18
    f.verify()
