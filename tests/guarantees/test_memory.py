"""What a worker takes stays bounded, whatever fails and whatever waits; `memory` measures it at full length."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kafka_notify._fetch import intake
from tests.guarantees.fleet import Fleet
from tests.guarantees.hostile import NEWS, SMS, Hostile, Intruder
from tests.guarantees.memory import MEGABYTE, backlog, soak

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


def test_large_headers(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts against the limit of buffered bytes is all of a record: a flood of large headers stops the
    reading as a flood of large values does."""
    monkeypatch.setattr(intake, "BUFFER_BYTES", 10 * 2**20)
    f = fleet(partitions=1)
    gate = f.directory / "open"
    value = b'{"gate": "%s"}' % str(gate).encode()
    large = ("x-large", b"x" * (MEGABYTE // 2))
    Intruder(f).write([Hostile("", b"u%d" % n, value, [NEWS, SMS, large]) for n in range(100)])
    with f.worker_here() as worker:
        running = worker._running
        assert running is not None
        f.until(lambda: worker.stats().buffered, "first record")
        f.until(lambda: not running.fetch.wanted, "end of reading")
        assert worker.stats().buffered < 100
        gate.touch()
        f.finish()
    f.verify()
