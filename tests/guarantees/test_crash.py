"""Workers are killed, stopped, frozen, started and taken away: nothing is lost, and order is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kafka_notify.testing.attempt_log import Ended, Started
from kafka_notify.testing.guarantees import DuplicatesBounded
from tests.guarantees.fleet import Fleet, checker

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]


def test_killed_worker(fleet: Fleets) -> None:
    """Workers killed in the middle of sends lose nothing, keep the order, and repeat only what was under way."""
    f = fleet(attributes={"send_timeout": 2.0})
    f.start("a", "b", "c")
    f.until_owned("a", "b", "c")
    f.produce(f.traffic(1_500, users=60, seed=1))
    f.until_terminal(200)
    f.kill("a")
    f.until_terminal(500)
    f.start("a")
    f.kill("b")
    f.until_terminal(800)
    f.start("b")
    f.finish()
    held = f.verify()
    unknown = sum(e.outcome == "UnknownOutcomeError" for e in f.all(Ended))
    assert checker(held, DuplicatesBounded).duplicates <= unknown + 2 * 200


def test_failing_user(fleet: Fleets) -> None:
    """A user's later notifications wait behind his failing one while everyone else's go on; when it is dead
    they follow, and its partition's commit has passed it."""
    f = fleet(partitions=1)
    f.start("a")
    first, *later = f.produce(
        [
            f.notification("poor", plan=["transient"]),
            *(f.notification("poor", n=n) for n in range(3)),
            *(f.notification(f"u{n % 7}", n=n) for n in range(50)),
        ]
    )
    mine, others = later[:3], later[3:]
    f.until(lambda: len(f.starts(first.id)) >= 3, "third attempt")
    f.until(lambda: {o.id for o in others} <= f.terminal, "end of the others' notifications")
    f.finish()
    order = [line.id for line in f.all(Started)]
    last_attempt = max(i for i, id in enumerate(order) if id == first.id)
    assert [line.attempt for line in f.starts(first.id)] == [1, 2, 3, 4]
    assert order.index(mine[0].id) > last_attempt
    assert sum(order.index(o.id) < last_attempt for o in others) == len(others)
    letter = f.letters()[first.id]
    headers = dict(letter.headers)
    assert letter.reason == "max_attempts"
    assert (letter.partition, letter.origin) == (first.partition, first.offset)
    assert headers["notif-last-error-code"] == b"provider.busy"
    assert f.last_commits()[0].source == len(later) + 1
    f.verify()


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


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_rolling_restart(fleet: Fleets, protocol: str) -> None:
    """Workers that are stopped and replaced one by one send nothing twice."""
    config = {"group.protocol": "consumer"} if protocol == "consumer" else None
    f = fleet(**({"consumer_config": config} if config else {}))
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
    assert checker(held, DuplicatesBounded).duplicates == 0
