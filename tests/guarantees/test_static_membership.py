"""Static membership: two processes with one `group.instance.id` are a mistake that must be seen at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kafka_notify import Worker
from kafka_notify.testing.attempt_log import Accepted, Disturbed, Started
from tests.guarantees.fleet import QUICK, Fleet

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]
SAME = {"group.instance.id": "same"}


def ended_because(worker: Worker) -> str:
    """Why a worker that is not alive any more ended."""
    health = worker.health()
    return "" if health.live else health.problems[0]


def test_a_second_member_with_the_same_id_ends_the_first(fleet: Fleets) -> None:
    """The brokers fence the first one: it starts no send after it knows, commits nothing more, and says why."""
    f = fleet(consumer_config={**QUICK, **SAME})
    with f.worker_here() as first:
        f.produce(f.notification(f"u{n % 50}", n=n, seconds=0.02) for n in range(200))
        f.until(lambda: f.all(Accepted), "first accepted notification")
        one = f.all(Started)[0].worker
        with f.worker_here():
            f.until(lambda: ended_because(first), "end of the first worker")
            f.look()
            fenced, *_ = [line for line in f.all(Disturbed) if (line.worker, line.how) == (one, "fenced")]
            f.produce(f.notification(f"u{n % 50}", n=n) for n in range(200))
            f.finish()
    assert "same group.instance.id" in ended_because_text(first)
    after = f.lines[f.lines.index(fenced) :]
    assert not [line for line in after if isinstance(line, Started) and line.worker == one]


def ended_because_text(worker: Worker) -> str:
    """Why it ended, also once it was stopped."""
    running = worker._running
    return "" if running is None else str(running.engine.error)


def test_a_second_member_with_the_same_id_is_refused_by_the_consumer_protocol(fleet: Fleets) -> None:
    """There the brokers keep the first one: the second ends, and says why; the first goes on."""
    f = fleet(consumer_config={**SAME, "group.protocol": "consumer"})
    with f.worker_here() as first:
        f.produce(f.notification(f"u{n}", n=n) for n in range(20))
        f.until_all_terminal()
        with f.worker_here() as second:
            f.until(lambda: ended_because(second), "end of the second worker")
            assert "same group.instance.id" in ended_because(second)
        f.produce(f.notification(f"u{n}", n=n) for n in range(20))
        f.finish()
        assert first.health().ok
    f.verify()
