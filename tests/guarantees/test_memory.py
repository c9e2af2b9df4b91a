"""What a worker takes stays bounded, whatever fails and whatever waits; `memory` measures it at full length."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kafka_notify._fetch import backpressure
from kafka_notify._worker import engine
from tests.guarantees.fleet import Fleet
from tests.guarantees.hostile import NEWS, SMS, Hostile, Intruder
from tests.guarantees.memory import LITTLE, MEGABYTE, backlog, given_away, handovers, holders, soak

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]


def test_all_sends_fail(fleet: Fleets) -> None:
    """While the provider fails for everyone, memory, threads and open files stay as they are, and the group
    never rebalances."""
    seen = soak(fleet(partitions=2), seconds=15, count=1_000, users=500)
    assert seen.last.rss <= 1.5 * seen.third.rss + 50 * MEGABYTE, seen
    assert (seen.last.threads, seen.last.files) == (seen.third.threads, seen.third.files), seen
    assert set(seen.owned.values()) == {1}, seen
    assert not seen.fenced, seen
    assert seen.sends > 2 * seen.waiting, seen


@pytest.mark.parametrize("overdue", [False, True], ids=["due later", "all due"])
def test_backlog_survives_restart(fleet: Fleets, overdue: bool) -> None:
    """Waiting retries survive a killed worker: the next one sends new notifications while they wait, and all of
    them when they are due, within a bounded memory, whether or not their payloads fit in it."""
    f = fleet(partitions=2, payload_budget=200_000)
    seen = backlog(f, count=5_000, delay=10, overdue=overdue)
    assert seen.after.peak <= 400 * MEGABYTE, seen
    assert set(seen.owned.values()) == {1}, seen


def test_rebalances_during_an_outage(fleet: Fleets) -> None:
    """With payloads of 100 kB, an outage and partitions that go and come back, a worker takes what its budgets say,
    and no more in the end than before."""
    seen = handovers(fleet(partitions=4, **LITTLE), count=1_000, times=3)
    assert seen.peak <= 1.2 * seen.allowed, seen
    assert seen.highest(2 / 3, 1) <= 1.2 * seen.highest(0, 2 / 3), seen


def test_partitions_given_away_are_freed(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """When partitions go to another worker, nothing keeps their notifications in memory: no timer of those that wait,
    no queue of those that are ready while the provider is away, no payload that was to be read again, no copy under
    way."""
    monkeypatch.setattr(engine, "PAYLOAD_BUDGET", 200_000)
    monkeypatch.setattr(engine, "LOAD_BUDGET", 100_000)
    f = fleet(partitions=4)
    gate, pad = str(f.directory / "open"), "x" * 2_000
    retry = {"max_attempts": 20, "initial_delay": 12.0, "max_delay": 12.0, "jitter": 0}
    settings = {"retry": retry, "concurrency": 10, "breaker": None}

    def produce(user: str, *plan: str, gate_from: int = 1) -> None:
        f.produce(
            f.notification(f"{user}{n}", plan=plan, seconds=0, gate=gate, gate_from=gate_from, pad=pad)
            for n in range(100)
        )

    # without a server named, nothing is held alone: the outage is the lane's
    with f.worker_here("Webhooks", attributes=settings) as worker:
        running = worker._running
        assert running is not None
        produce("late", "transient", "ok", gate_from=2)
        produce("soon", "throttle")
        f.until(lambda: worker.stats().waiting_retries == 200, "waiting retries")
        produce("new", "away")
        f.until(lambda: worker.stats().circuit_open, "outage")
        f.until(lambda: running.engine.loader.waiting, "payloads to be read again")
        f.start("b", consumer="Webhooks")
        f.until(lambda: f.owned("b"), "partition for b")
        f.until(lambda: len(worker.stats().partitions) < 4, "end of the hand-over")
        try:
            f.until(lambda: not given_away(running.engine), "end of all references")
        except AssertionError as e:
            raise AssertionError(f"{holders(given_away(running.engine))}\n{e}") from None
        assert len(running.engine.wakeups.timers) <= worker.stats().waiting_retries
        (f.directory / "open").touch()
        f.until_all_terminal()
        f.stop("b")
    assert not given_away(running.engine)


def test_large_headers(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts against the limit of buffered bytes is all of a record: a flood of large headers stops the
    reading as a flood of large values does."""
    monkeypatch.setattr(backpressure, "BUFFER_BYTES", 10 * 2**20)
    f = fleet(partitions=1)
    gate = f.directory / "open"
    value = b'{"gate": "%s"}' % str(gate).encode()
    large = ("x-large", b"x" * (MEGABYTE // 2))
    Intruder(f).write([Hostile("", b"u%d" % n, value, [NEWS, SMS, large]) for n in range(100)])
    with f.worker_here() as worker:
        running = worker._running
        assert running is not None
        f.until(lambda: worker.stats().buffered, "first record")
        f.until(lambda: not running.fetch.flow.wanted, "end of reading")
        assert worker.stats().buffered < 100
        gate.touch()
        f.finish()
    f.verify()
