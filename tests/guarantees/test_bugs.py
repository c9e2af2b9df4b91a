"""The checkers catch what they are there for: each test seeds a bug, and fails when nobody notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kafka_notify.testing.guarantees import (
    AttemptsBounded,
    Checker,
    DuplicatesBounded,
    NothingLost,
    NothingOpenCommitted,
    OrderKept,
    SourceRecord,
)
from kafka_notify.wire import Headers, RetryState, retry_copy
from tests.guarantees.fleet import Fleet, checker

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]


def caught_by(f: Fleet) -> set[type[Checker]]:
    """The checkers that found something."""
    return {type(c) for c in f.judge().checkers if c.violations()}


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
def test_trust_zombies(fleet: Fleets, bug: str) -> None:
    """A worker that believes a copy which a frozen predecessor wrote after it was replaced is caught; one that
    does not is fine."""
    f = fleet(partitions=1)
    f.start("a")
    [sent] = f.produce([f.notification("u")])
    f.until_all_terminal()
    f.until_caught_up()
    f.stop("a")
    state = RetryState(f.source, 0, sent.offset, 1, 0, None, None, None, None, False, "zombie", 0)
    [record] = [seen for seen in f.final() if isinstance(seen, SourceRecord)]
    own: Headers = [(name, value or b"") for name, value in record.headers]
    f.write_raw(f.retry_topic, record.key, record.value, retry_copy(own, state, sent.id, 0))
    f.start("b", bug=bug)
    f.until_owned("b")
    f.produce([f.notification("v")])
    f.finish()
    assert (DuplicatesBounded in caught_by(f)) == bool(bug)


def test_skip_restore(fleet: Fleets) -> None:
    """A worker that does not look for its predecessor's retry copies is caught."""
    f = fleet(partitions=1)
    f.start("a", attributes={"retry": {"first": 2, "cap": 2}})
    f.produce(f.notification(f"u{n}", plan=["transient", "ok"]) for n in range(5))
    f.until_committed(5)
    f.kill("a")
    f.start("b", bug="skip_restore")
    f.until_caught_up()
    f.end()
    assert caught_by(f) == {NothingOpenCommitted, NothingLost}


def test_overtake(fleet: Fleets) -> None:
    """A worker that lets a later notification pass one which waits for its retry is caught."""
    f = fleet(partitions=1)
    f.start("a", bug="overtake")
    f.produce([f.notification("u", plan=["transient", "ok"]), f.notification("u")])
    f.finish()
    assert OrderKept in caught_by(f)


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
    assert checker(f.judge(), DuplicatesBounded).duplicates == 20
    assert caught_by(f) == {DuplicatesBounded}
