"""The checkers catch what they are there for: each test seeds a bug, and fails when nobody notices."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import pytest

from kafka_notify import Notification
from kafka_notify.testing._judgement import SHOWN, judged
from kafka_notify.testing.attempt_log import (
    Copied,
    DestinationHeld,
    Failing,
    LaneHeld,
    Owned,
    Produced,
    Sampled,
    Started,
)
from kafka_notify.testing.guarantees import (
    AttemptsBounded,
    Checker,
    DuplicatesBounded,
    Guarantees,
    Isolation,
    Liveness,
    Memory,
    NothingLost,
    NothingOpenCommitted,
    OrderKept,
    SourceRecord,
)
from kafka_notify.testing.history import HistoryFile
from kafka_notify.wire import Headers, History, Origin, RetryState, retry_copy
from tests.guarantees.fleet import Fleet
from tests.guarantees.production import Mix, Traffic

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]
MIB: Final = 2**20
LATER: Final = {"retry": {"initial_delay": 600, "max_delay": 600, "jitter": 0}, "breaker": None}
"""Retries that are not due while the test runs."""


def caught_by(f: Fleet) -> set[type[Checker]]:
    """The checkers that found something; they find the same in the file that the run leaves."""
    held = f.judge()
    path = f.directory / "history.jsonl"
    f.save_history(path)
    again = judged(HistoryFile(path))["violations"]
    found = [(checker, violation.text) for checker, violation in held.found()]
    assert found[:SHOWN] == [(b["checker"], b["text"]) for b in again]
    return {type(c) for c in held.checkers if c.violations()}


@pytest.mark.invariant(n=2)
def test_commit_highest_polled(fleet: Fleets) -> None:
    """A worker that commits what it has only read is caught before and after it is killed."""
    f = fleet(partitions=1)
    gate = f.directory / "open"
    f.start("a", bug="commit_highest_polled")
    f.produce(f.notification(f"u{n}", gate=str(gate)) for n in range(20))
    f.until_committed(20)
    f.kill("a")
    f.start("b")
    f.until_owned("b")
    gate.touch()
    f.end()
    assert caught_by(f) == {NothingOpenCommitted, NothingLost}


@pytest.mark.invariant(n=1)
def test_complete_before_acknowledgement(fleet: Fleets) -> None:
    """A worker that finishes a record before its retry copy is acknowledged is caught."""
    f = fleet(partitions=1)
    f.alter_topic(f.retry_topic, "max.message.bytes", 1)
    f.start("a", bug="complete_before_acknowledgement")
    f.produce(f.notification(f"u{n}", plan=["transient", "ok"]) for n in range(5))
    f.until_committed(5)
    f.kill("a")
    f.start("b")
    f.until_owned("b")
    f.end()
    assert caught_by(f) == {NothingOpenCommitted, NothingLost}


@pytest.mark.invariant(n=13)
def test_restart_attempts(fleet: Fleets) -> None:
    """A worker that counts attempts from 1 again after a restart is caught."""
    f = fleet(partitions=1)
    f.start("a")
    [poor] = f.produce([f.notification("u", plan=["transient"] * 3 + ["ok"])])
    f.until(lambda: any(c.attempts == 3 for c in f.copies(poor.id)), "copy with three attempts")
    f.kill("a")
    f.start("b", bug="restart_attempts")
    f.finish()
    assert caught_by(f) == {AttemptsBounded}


@pytest.mark.parametrize("bug", ["", "trust_zombies"])
@pytest.mark.invariant(n=9)
def test_trust_zombies(fleet: Fleets, bug: str) -> None:
    """A worker that believes a copy which a frozen predecessor wrote after it was replaced is caught; one that
    does not is fine."""
    f = fleet(partitions=1)
    f.start("a")
    [sent] = f.produce([f.notification("u")])
    f.until_all_terminal()
    f.until_caught_up()
    f.stop("a")
    state = RetryState(Origin(f.source, 0, sent.offset), History(1), 0, "zombie")
    [record] = [seen for seen in f.final() if isinstance(seen, SourceRecord)]
    own: Headers = [(name, value or b"") for name, value in record.headers]
    f.write_raw(f.retry_topic, record.key, record.value, retry_copy(own, state, sent.id, 0))
    f.start("b", bug=bug)
    f.until_owned("b")
    f.produce([f.notification("v")])
    f.finish()
    assert (DuplicatesBounded in caught_by(f)) == bool(bug)


@pytest.mark.invariant(n=2)
def test_skip_restore(fleet: Fleets) -> None:
    """A worker that does not look for its predecessor's retry copies is caught."""
    f = fleet(partitions=1)
    f.start("a", attributes={"retry": {"initial_delay": 2, "max_delay": 2}})
    f.produce(f.notification(f"u{n}", plan=["transient", "ok"]) for n in range(5))
    f.until_committed(5)
    f.kill("a")
    f.start("b", bug="skip_restore")
    f.until_caught_up()
    f.end()
    assert caught_by(f) == {NothingOpenCommitted, NothingLost}


@pytest.mark.invariant(n=5)
def test_overtake(fleet: Fleets) -> None:
    """A worker that lets a later notification pass one which waits for its retry is caught."""
    f = fleet(partitions=1)
    f.start("a", bug="overtake")
    f.produce([f.notification("u", plan=["transient", "ok"]), f.notification("u")])
    f.finish()
    assert OrderKept in caught_by(f)


@pytest.mark.invariant(n=3)
def test_forget_finished(fleet: Fleets) -> None:
    """A worker whose commits stay behind what it has finished is caught."""
    f = fleet(partitions=1)
    f.start("a", bug="forget_finished")
    f.produce(f.notification(f"u{n}") for n in range(30))
    f.until_all_terminal()
    f.until_committed(10)
    f.stop("a")
    f.start("b")
    f.finish()
    assert f.judge().checker(DuplicatesBounded).duplicates == 20
    assert caught_by(f) == {DuplicatesBounded}


@pytest.mark.parametrize("bug", ["", "stop_reading_for_all"])
def test_stop_reading_for_all(fleet: Fleets, bug: str) -> None:
    """A worker that reads nobody's notifications while one user's fill their partition is caught; one that stops
    reading that partition alone is fine."""
    f = fleet(partitions=2, samples=True)
    first = f.produce(f.notification(f"u{n}") for n in range(20))
    busy, quiet = first[0], [p.user for p in first if p.partition != first[0].partition]
    f.produce(f.notification(busy.user, seconds=0.02) for _ in range(20_000))
    f.start("a", bug=bug)
    f.until(lambda: any(seen.records > 1_000 for seen in f.all(Sampled)), "a full partition")
    f.until(lambda: len(f.all(Started)) > 70, "sends of the busy user")
    waiting = f.produce(f.notification(user) for user in quiet)
    end = waiting[-1].at + 12_000  # a busy machine gives it only a part of that, and only that part is judged
    f.until(lambda: served(f, waiting) or f.lines[-1].at > end, "sends of the others")
    f.kill("a")
    assert bool(f.judge(Guarantees([Isolation(grace=3)])).violations()) == bool(bug)


def served(f: Fleet, which: list[Produced]) -> bool:
    """Whether each of these notifications had an attempt."""
    return {p.id for p in which} <= {line.id for line in f.all(Started)}


@pytest.mark.parametrize("bug", ["", "keep_every_payload"])
def test_keep_every_payload(fleet: Fleets, bug: str) -> None:
    """A worker whose waiting retries take more memory than their budget is caught; one that reads them again is
    fine."""
    f = fleet(partitions=1, samples=True, payload_budget=MIB, attributes=LATER)
    f.start("a", bug=bug)
    for end in range(100, 900, 100):  # little by little: copies on their way take memory, too
        f.produce(large(f, n) for n in range(end - 100, end))
        f.until_committed(end)
    until_sampled(f)
    f.kill("a")
    assert bool(f.judge(Guarantees([Memory(slack=60 * MIB)])).violations()) == bool(bug)


@pytest.mark.parametrize("bug", ["", "keep_what_was_given_away"])
@pytest.mark.invariant(n=19)
def test_keep_what_was_given_away(fleet: Fleets, bug: str) -> None:
    """A worker that keeps the notifications of partitions that it handed over is caught; one that forgets them at
    once is fine."""
    f = fleet(partitions=2, samples=True, attributes=LATER)
    f.start("a", bug=bug)
    f.produce(large(f, n) for n in range(600))
    f.until(lambda: len({c.id for c in f.all(Copied)}) == 600, "retry record of each")
    for name in ("b", "c", "d"):
        f.start(name, samples=False)
        f.until_owned(name)
        owned = len(f.all(Owned))
        f.stop(name)
        f.until(lambda owned=owned: len(f.all(Owned)) >= owned + 2, "both partitions back")  # type: ignore[misc]
        until_sampled(f)
    f.kill("a")
    assert bool(f.judge(Guarantees([Memory()])).violations()) == bool(bug)


@pytest.mark.parametrize("bug", ["", "keep_queued_what_was_given_away"])
def test_keep_queued_what_was_given_away(fleet: Fleets, bug: str) -> None:
    """A worker that keeps in its queue what it gave away while its provider is unavailable is caught; one that forgets
    it at once is fine."""
    # without a server named, the outage holds the lane
    f = fleet(partitions=2, samples=True, consumer="Webhooks", attributes={"breaker": None})
    f.start("a", bug=bug)
    f.until_owned("a")
    f.produce(f.notification(f"u{n}", plan=["away"], gate=str(f.directory / "open")) for n in range(100))
    f.until(lambda: f.all(LaneHeld), "outage")
    f.start("b", samples=False)
    f.until_owned("b")
    owned = len(f.all(Owned))
    f.stop("b")
    f.until(lambda: len(f.all(Owned)) >= owned + 2, "both partitions back")
    until_sampled(f)
    f.kill("a")
    assert bool(f.judge(Guarantees([Memory()])).violations()) == bool(bug)


@pytest.mark.parametrize("bug", ["", "never_release_a_destination"])
def test_never_release_a_destination(fleet: Fleets, bug: str) -> None:
    """A worker that goes on holding a channel whose provider works again is caught; one that finds out is fine."""
    f = fleet(partitions=1, samples=True)
    gate = f.directory / "open"
    f.start("a", bug=bug)
    f.until_owned("a")
    f.log.write(Failing(True))
    f.produce(
        f.notification(f"u{n}", plan=["away"], gate=str(gate)) for n in range(120)
    )  # a probe each 1.5 s
    f.until(lambda: f.all(DestinationHeld), "hold of the channel")
    gate.touch()
    f.log.write(Failing(False))

    def found() -> bool:
        return bool(f.judge(Guarantees([Liveness()])).violations())

    # however slow the machine: a stretch without samples counts as nothing
    f.until(lambda: len(f.terminal) == 120 or (bug and found()), "end of the hold, or what is wrong with it")
    until_sampled(f)
    f.kill("a")
    assert found() == bool(bug)


def large(f: Fleet, n: int) -> Notification[Any]:
    """One of 100 kB that fails."""
    return f.notification(f"u{n}", plan=["transient"], attachment="x" * 100_000)


def until_sampled(f: Fleet) -> None:
    """Wait until a worker was sampled twice more."""
    f.look()
    count = len(f.all(Sampled))
    f.until(lambda: len(f.all(Sampled)) >= count + 2, "samples")


@pytest.mark.parametrize("bug", ["", "count_known_failures"])
def test_count_known_failures(fleet: Fleets, bug: str) -> None:
    """A worker that takes the retries of users who always fail for an outage of the provider is caught; one that
    knows them is fine."""
    f = fleet(partitions=2, samples=True, consumer="Production")
    traffic = Traffic(f, Mix(users=100, bad=0.4), seed=1)
    f.start("a", bug=bug)
    f.until_owned("a")
    end = f.lines[-1].at + 15_000
    for n in itertools.count():
        f.produce(traffic.some(10, n))
        f.look()
        now, last = f.lines[-1].at, f.all(LaneHeld)[-1:]
        if now > end or any(line.held and now - line.at > 8_000 for line in last):
            break
    f.kill("a")
    assert bool(f.judge(Guarantees([Liveness()])).violations()) == bool(bug)
