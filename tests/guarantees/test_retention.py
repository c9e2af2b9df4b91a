"""What retention removes: nothing waits longer than its topic keeps it, and what is removed is said."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

import pytest

from kafka_notify import Defer, Notification, Verdict, Worker
from kafka_notify._fetch import retention
from kafka_notify._worker import engine
from kafka_notify.admin import create_topics
from kafka_notify.pauses import Pauses
from kafka_notify.testing.attempt_log import DeadLettered
from tests.guarantees import provider
from tests.guarantees.fleet import Fleet
from tests.guarantees.test_holes import LATER

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]
DAY_MS: Final = 86_400_000
DAY: Final = dt.timedelta(days=1)


class DefersForDays(provider.AsyncSender):
    """Puts everything off for `data["days"]`."""

    def should_send(self, notification: Notification[Any]) -> Verdict:
        return Defer(dt.datetime.now(dt.timezone.utc) + notification.data["days"] * DAY, "quiet_hours")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STARTS_LOOK", 0.2)
    monkeypatch.setattr(retention, "SETTINGS_LOOK", 0.2)
    monkeypatch.setitem(provider.CONSUMERS, "DefersForDays", DefersForDays)


def complaint(worker: Worker, text: str) -> bool:
    return any(text in problem for problem in worker.health().problems)


@pytest.mark.parametrize(
    ("days", "keeps", "dies"), [(30, 9, False), (7, 9, False), (7, 2, False), (7, 1, True), (30, -1, False)]
)
def test_deferred_for_longer_than_the_topic_keeps_it(
    fleet: Fleets, days: int, keeps: int, dies: bool
) -> None:
    """A notification that is put off for longer than the retry topic keeps a record waits all the same, as it is
    written again; in a topic whose retention leaves less than a day for that it is dead-lettered at once, and the
    letter says why."""
    f = fleet(partitions=1)
    f.alter_topic(f.retry_topic, "retention.ms", keeps * DAY_MS if keeps > 0 else -1)
    with f.worker_here("DefersForDays") as ours:
        f.until(lambda: knows_retention(ours, keeps), "answer about the retention")
        [sent] = f.produce([f.notification("u", days=days)])
        f.until(lambda: sent.id in f.terminal if dies else ours.stats().waiting_retries == 1, "end")
    if dies:
        [line] = f.all(DeadLettered)
        assert line.reason == "wait_too_long"
        [letter] = f.letters().values()
        assert dict(letter.headers)["notif-last-error-code"] == b"deferred.quiet_hours"


def knows_retention(worker: Worker, days: int) -> bool:
    """Whether the worker has heard of it; what it takes for granted until then is the same as nine days."""
    running: Any = worker._running
    longest = running.engine.sends.outcomes.kept.longest_wait_ms
    return bool(longest is None if days < 0 else longest == (days - 1 if days > 4 else days * 0.75) * DAY_MS or
                longest == days * DAY_MS - DAY_MS)  # fmt: skip


def test_unread_records_are_removed(fleet: Fleets, caplog: pytest.LogCaptureFixture) -> None:
    """Records of the source that retention removes before a worker reads them are counted and said, at its start; the
    rest is sent."""
    f = fleet(partitions=1)
    with f.worker_here():
        f.produce([f.notification("u")])
        f.until_all_terminal()
        f.until_committed(1)
    f.produce(f.notification("u", n=n) for n in range(9))
    f.remove_before(f.source, 6)
    with f.worker_here() as ours:
        ours_said = f"up to 5 records of {f.source}[0] before they were read"
        f.until(lambda: complaint(ours, ours_said), "complaint")
        f.until_committed(10)
        assert ours_said in caplog.text
        ours.acknowledge()
        assert ours.health().ok
    assert len(f.accepted()) == 5


@pytest.mark.parametrize("goes_on", ["paused", "read on"])
def test_unread_records_are_removed_meanwhile(fleet: Fleets, goes_on: str) -> None:
    """The same while a worker has the partition: when its reading is held, and when it goes on behind the hole."""
    f = fleet(partitions=1, attributes={"breaker": None})
    with f.worker_here() as ours:
        running: Any = ours._running
        f.produce([f.notification("u")])
        f.until_all_terminal()
        f.until_committed(1)
        pressure = running.engine.intake._pressure
        running.engine.post(setattr, pressure, "publish_wanted", lambda: None)
        running.engine.post(setattr, running.fetch.flow, "wanted", frozenset())
        f.until(lambda: running.fetch._member.paused, "pause")
        f.produce(f.notification("u", n=n) for n in range(9))
        f.remove_before(f.source, 6)
        ours_said = f"up to 5 records of {f.source}[0] before they were read"
        if goes_on == "paused":
            f.until(lambda: complaint(ours, ours_said), "complaint")
        running.engine.post(delattr, pressure, "publish_wanted")
        f.until_committed(10)
        f.until(lambda: complaint(ours, ours_said), "complaint")
        ours.acknowledge()
        f.produce([f.notification("u")])
        f.until_committed(11)
        assert ours.health().ok
    assert len(f.accepted()) == 6


def waiting(f: Fleet, ours: Worker, count: int) -> None:
    f.produce(f.notification(f"u{n}", n=n, plan=["transient", "ok"]) for n in range(count))
    f.until(lambda: ours.stats().waiting_retries == count, "waiting retries")


LONG: Final[Any] = {
    "retry": {"max_attempts": 4, "initial_delay": 6, "max_delay": 6, "jitter": 0},
    "breaker": None,
}


def test_waiting_retries_are_removed(fleet: Fleets) -> None:
    """Retries that retention removes while no worker runs are counted and said at the next start, as far as nobody can
    know more of them; the others are sent."""
    f = fleet(partitions=1, attributes=LATER)
    with f.worker_here() as ours:
        waiting(f, ours, 9)
    f.remove_before(f.retry_topic, 4)
    with f.worker_here() as ours:
        f.until(lambda: complaint(ours, f"up to 4 records of {f.retry_topic}[0] that waited"), "complaint")
        f.until(lambda: len(f.accepted()) == 5, "end of the others")


def test_waiting_retries_are_saved(fleet: Fleets) -> None:
    """Retries that retention removes while a worker holds them in memory are written again: none is lost, even when
    that worker ends."""
    f = fleet(partitions=1, attributes=LONG)
    with f.worker_here() as ours:
        waiting(f, ours, 9)
        f.remove_before(f.retry_topic, 9)
        f.until(lambda: len(f.final()) and retry_end(f) >= 18, "copies of the copies")
    with f.worker_here():
        f.finish()
    assert len(f.accepted()) == 9
    f.verify()


def retry_end(f: Fleet) -> int:
    running: Any = f
    return max((end.retry for end in running._ends()), default=0)


def test_queued_retries_outlast_retention(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that are due and may not start, as their consumer is paused, are written again before retention removes
    them, with and without their payloads in memory; then all are sent, once."""
    f = fleet(partitions=1, attributes=LONG)
    kafka = {"bootstrap.servers": f.bootstrap_servers}
    create_topics(f.topology, kafka, consumers=[""])
    switch = Pauses(kafka, topology=f.topology)
    with f.worker_here() as ours:
        waiting(f, ours, 9)
        switch.pause("consumer", "workers")
        engine_here: Any = ours._running.engine  # type: ignore[union-attr]
        f.until(lambda: engine_here.sends.ready.up_to(9) == 9, "queued retries")
        f.alter_topic(f.retry_topic, "retention.ms", 3_000)
        f.until(lambda: ours.stats().carried_retention >= 18, "second carry of each")
        f.remove_before(f.retry_topic, 18)
        f.alter_topic(f.retry_topic, "retention.ms", 9 * DAY_MS)
        assert ours.stats().sent == 0
    monkeypatch.setattr(engine, "PAYLOAD_BUDGET", 0)
    with f.worker_here() as ours:
        engine_here = ours._running.engine  # type: ignore[union-attr]
        f.until(lambda: engine_here.loader.waiting == 9, "payloads that wait for their sends")
        f.alter_topic(f.retry_topic, "retention.ms", 3_000)
        f.until(lambda: ours.stats().carried_retention >= 9, "carry of each")
        f.alter_topic(f.retry_topic, "retention.ms", 9 * DAY_MS)
        switch.resume("consumer", "workers")
        f.until(lambda: len(f.accepted()) == 9, "end")
    assert set(f.accepted().values()) == {1}
    assert not f.all(DeadLettered)


def test_removed_payloads_become_letters(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting retry whose payload was forgotten to save memory, and is removed, becomes a letter that names it; its
    lane goes on."""
    monkeypatch.setattr(engine, "PAYLOAD_BUDGET", 0)
    f = fleet(partitions=1, attributes=LONG)
    with f.worker_here() as ours:
        waiting(f, ours, 9)
        f.remove_before(f.retry_topic, 9)
        f.until(lambda: len(f.all(DeadLettered)) == 9, "letters")
        assert {line.reason for line in f.all(DeadLettered)} == {"removed"}
        assert {line.id for line in f.all(DeadLettered)} == {p.id for p in f.produced}
        assert complaint(ours, f"up to 9 records of {f.retry_topic}[0] that waited")
        [last] = f.produce([f.notification("u0")])
        f.until(lambda: f.accepted()[last.id], "what comes after")
