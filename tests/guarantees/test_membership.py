"""Who is in the group, and who is not: members that fall silent, and members that should not be there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import confluent_kafka
import pytest

from kafka_notify import Worker
from kafka_notify._worker import report
from kafka_notify.testing.attempt_log import Owned, Started
from tests.guarantees.deployment import LANE
from tests.guarantees.fleet import QUICK, Fleet

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]


def test_max_poll_interval_exceeded(fleet: Fleets) -> None:
    """A worker whose event loop a send blocks for longer than `max.poll.interval.ms` loses its partitions to
    another one, starts nothing more when it wakes up, and takes part again."""
    f = fleet(partitions=2, attributes={"send_timeout": 2.0}, drain_timeout=0.5)
    backlog = [
        f.notification(f"u{n % 50}", n=n, plan=["ok" if n else "block"], seconds=0) for n in range(12_000)
    ]
    [blocked, *_] = f.produce(backlog)  # more than what fits into the buffers and on the way to the loop
    f.start("a", consumer_config={**QUICK, "max.poll.interval.ms": 6_000})
    f.until(lambda: f.starts(blocked.id), "the send that blocks")
    f.start("b")
    f.until(lambda: {line.partition for line in began(f, "b")} == {0, 1}, "all partitions for b")
    f.until(lambda: len(began(f, "a")) > 2, "a's return")
    f.finish()
    f.verify()


def began(f: Fleet, name: str) -> list[Owned]:
    """When that worker began to work on a partition."""
    return [line for line in f.all(Owned) if line.worker == f.logged_as(name)]


def test_two_consumers_in_one_group(fleet: Fleets) -> None:
    """Two different consumers that somebody put into one group share its notifications: each is sent by one of
    them, retries and all, and no promise is broken."""
    f = fleet(partitions=4, attributes={"send_timeout": 2.0})
    f.start("a", consumer="AsyncSender")
    f.start("b", consumer="SyncSender")
    f.until_owned("a", "b")
    f.produce(f.traffic(400, users=40, seed=11))
    f.finish()
    assert {line.worker.split("-")[0] for line in f.all(Started)} == {"a", "b"}
    f.verify()


def test_stranger_in_the_group(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign consumer that joins the group for the source topic alone takes partitions away from their retries:
    the worker sends nothing of these and says so, and goes on when the stranger has left."""
    monkeypatch.setattr(report, "HALF_ASSIGNED_LIMIT", 0.5)
    f = fleet(partitions=4)
    with f.worker_here() as ours:
        f.produce(f.traffic(100, users=40, seed=12))
        f.until_all_terminal()
        with stranger(f) as poll:
            f.until(lambda: poll() or halves(ours), "health that names the halves")
            late = f.produce(f.traffic(100, users=40, seed=13))
            theirs = {p.id for p in late if p.partition not in ours.stats().partitions}
            assert theirs
            f.until(lambda: poll() or {p.id for p in late} - theirs <= f.terminal, "end of what is ours")
            assert not theirs & {line.id for line in f.all(Started)}
        f.finish()
        f.until(lambda: not halves(ours), "good health")
    f.verify()


def halves(ours: Worker) -> bool:
    """Whether the worker complains of halves."""
    return any("alone" in problem for problem in ours.health().problems)


@contextmanager
def stranger(f: Fleet) -> Iterator[Callable[[], None]]:
    """A plain consumer with the group's name; what is given polls it once."""
    config = {
        "bootstrap.servers": f.bootstrap_servers,
        "group.id": f.topology.group(LANE),
        "enable.auto.commit": False,
        "session.timeout.ms": 3_000,
    }
    consumer = confluent_kafka.Consumer(config)
    consumer.subscribe([f.source])

    def poll() -> None:
        consumer.poll(0.01)

    try:
        yield poll
    finally:
        consumer.close()
