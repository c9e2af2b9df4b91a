"""Each hand-over of a worker is checked at both ends: a planted bug for each assertion, and nothing while it is off."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest

from kafka_notify import config_from_env
from kafka_notify._fetch.committer import Committer
from kafka_notify._fetch.exchange import CommitRequest, CommitResult
from kafka_notify._fetch.partition_feed import PartitionFeed
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.entry import Busy, Entry
from kafka_notify._partition.offsets import OffsetTracker
from kafka_notify._partition.scheduler import Scheduler
from kafka_notify._partition.table import EntryTable
from kafka_notify._partition.wide import RetryHalf
from kafka_notify._send.delivery import Delivery
from kafka_notify._send.ready import Ready
from kafka_notify._send.slots import Slot
from kafka_notify._worker import pair_assertions
from kafka_notify._worker.pair_assertions import PAIRS, InvariantBroken
from tests.model.test_threats import NOW, Bench, bench, working


@pytest.fixture(autouse=True)
def bound() -> Iterator[None]:
    """The assertions are on, as in all tests."""
    pair_assertions.bind()
    yield
    pair_assertions.bind()


def opened(count: int = 1) -> tuple[Bench, Entry]:
    """A partition with so many notifications of one user, the first of which is queued for its send."""
    b = working()
    for offset in range(count):
        b.source(offset)
    return b, b.asked.sends[0]


def waiting(b: Bench, entry: Entry, attempts: int = 2) -> Entry:
    """The same notification as a retry copy at offset 0, with so many attempts."""
    b.copy(entry, at=0, attempt=attempts)
    return b.partition.pending[0]


def run(entry: Entry, *running: Entry) -> None:
    """Begin a send while others are under way."""
    slots = [Slot() for _ in running]
    for slot, other in zip(slots, running, strict=True):
        slot.entry = other
    here = cast(Any, SimpleNamespace(_slots=SimpleNamespace(running=slots)))
    Delivery.run(here, Slot(), entry).send(None)  # to its first await: what is checked comes before


def another_partition() -> None:
    message: Any = SimpleNamespace(error=lambda: None, partition=lambda: 1, offset=lambda: 7)
    PartitionFeed.source_record(cast(Any, None), working().partition, message, None, 1, NOW)


def forget_a_record() -> None:
    b, _ = opened()
    with mock.patch.object(EntryTable, "append"):
        b.source(1)


def queue_before_the_fence() -> None:
    b = bench()
    b.source(0)
    entry = b.partition.queues["u"].head
    assert entry is not None
    entry.busy = Busy.SENDING
    Ready().add(entry)


def queue_what_is_idle() -> None:
    _, entry = opened()
    entry.busy = Busy.NO
    Ready().add(entry)


def queue_what_is_not_covered() -> None:
    b, entry = opened()
    with mock.patch.object(Scheduler, "_missing", return_value=None):
        waiting(b, entry)
    Ready().add(b.asked.sends[-1])


def queue_what_has_ended() -> None:
    b, entry = opened()
    b.partition.finish(entry, accepted=True, now=NOW)
    Ready().add(entry)


def send_what_has_ended() -> None:
    b, entry = opened()
    b.partition.finish(entry, accepted=True, now=NOW)
    run(entry)


def send_two_of_a_user() -> None:
    b, first = opened(2)
    later = b.partition.queues["u"].find(1)
    assert later is not None
    later.busy = Busy.SENDING
    run(later, first)


def finish_twice() -> None:
    b, entry = opened()
    b.partition.finish(entry, accepted=True, now=NOW)
    b.partition.finish(entry, accepted=True, now=NOW)


def finish_what_is_copied() -> None:
    b, entry = opened()
    b.partition.copying(entry)
    b.partition.finish(entry, accepted=True, now=NOW)


def finish_before_the_end() -> None:
    b, entry = opened()
    b.partition.source.complete(0)
    b.partition.finish(entry, accepted=True, now=NOW)


def finish_without_the_offset() -> None:
    b, entry = opened()
    with mock.patch.object(OffsetTracker, "complete"):
        b.partition.finish(entry, accepted=True, now=NOW)


def copy_what_is_sent() -> None:
    b, entry = opened()
    with mock.patch.object(type(b.partition), "copying"):
        b.copy(entry, at=0)


def copy_without_the_offset() -> None:
    b, entry = opened()
    with mock.patch.object(OffsetTracker, "complete"):
        b.copy(entry, at=0)


def copy_with_fewer_attempts() -> None:
    b, entry = opened()
    b.copy(waiting(b, entry), at=1, attempt=1)


def commit_what_was_read() -> None:
    b, _ = opened()
    with mock.patch.object(OffsetTracker, "snapshot", lambda self: Committed(self.position)):
        b.partition.snapshot()


def commit_a_waiting_copy() -> None:
    b, entry = opened()
    waiting(b, entry)
    b.retry(0, origin=0, writer="me")  # it is read, as our own
    with mock.patch.object(RetryHalf, "snapshot", return_value=(Committed(1), None)):
        b.partition.snapshot()


def commit_less_than_before() -> None:
    checked = pair_assertions.commit(lambda self, consumer, asked: CommitResult(asked, frozenset({0}), 0.0))
    committer = Committer(cast(Any, SimpleNamespace(started={0: 1}, channels=mock.Mock())), cast(Any, None))
    for frontier in (5, 4):
        checked(committer, None, CommitRequest({0: (Committed(frontier), Committed(0))}, {0: 1}))


PLANTED = [
    (another_partition, 4, "fetch → partition", "partition 0, offset 7", "the record is of partition 1"),
    (forget_a_record, 4, "fetch → partition", "partition 0, offset 1", "no entry holds it"),
    (queue_before_the_fence, 8, "partition → ready queue", "partition 0, offset 0", "has not begun"),
    (queue_what_is_idle, 6, "partition → ready queue", "partition 0, offset 0", "it is NO, not SENDING"),
    (queue_what_is_not_covered, 7, "partition → ready queue", "partition 0, offset 0", "no confirmed commit"),
    (queue_what_has_ended, 6, "partition → ready queue", "partition 0, offset 0", "it has ended before"),
    (send_what_has_ended, 6, "ready queue → send", "partition 0, offset 0", "it has ended before"),
    (
        send_two_of_a_user,
        6,
        "ready queue → send",
        "partition 0, offset 1",
        "offset 0 of the same user is being sent",
    ),
    (finish_twice, 6, "send → settle", "partition 0, offset 0", "it has ended before"),
    (finish_what_is_copied, 6, "send → settle", "partition 0, offset 0", "it ends while it is COPYING"),
    (finish_before_the_end, 1, "send → settle", "partition 0, offset 0", "was finished while it was open"),
    (finish_without_the_offset, 1, "send → settle", "partition 0, offset 0", "its offset is open"),
    (copy_what_is_sent, 6, "settle → partition", "partition 0, offset 0", "copied while SENDING"),
    (copy_without_the_offset, 1, "settle → partition", "partition 0, offset 0", "it was copied, and is open"),
    (copy_with_fewer_attempts, 13, "settle → partition", "partition 0, offset 0", "a copy with 1 attempts"),
    (commit_what_was_read, 2, "settle → commit", "partition 0, offset 0", "would be committed"),
    (commit_a_waiting_copy, 2, "settle → commit", "partition 0, offset 0", "retry offset 0 is open"),
    (
        commit_less_than_before,
        3,
        "commit → broker",
        "partition 0, offset 0",
        "would go back from (5, 0) to (4, 0)",
    ),
]


@pytest.mark.parametrize(("plant", "number", "where", "place", "what"), PLANTED)
def test_planted(plant: Any, number: int, where: str, place: str, what: str) -> None:
    """One sentence says which invariant broke, at which hand-over and offset, and nothing of the payload."""
    with pytest.raises(InvariantBroken) as caught:
        plant()
    text = str(caught.value)
    assert re.fullmatch(rf"I{number} broken at {where}: {place}: .*{re.escape(what)}.*", text)
    assert "value" not in text


@pytest.mark.parametrize(
    "plant", [planted[0] for planted in PLANTED if planted[0] is not commit_less_than_before]
)
def test_nothing_is_checked_while_it_is_off(plant: Any) -> None:
    """Without the assertions the same bugs go unnoticed here, or fail otherwise: nothing else sees them."""
    pair_assertions.unbind()
    try:
        plant()
    except InvariantBroken:
        raise
    except Exception:  # some of them break what comes later
        assert plant in (another_partition, finish_twice, send_what_has_ended, send_two_of_a_user)


def test_off_is_as_written() -> None:
    """Without the switch the methods are the very functions of their modules: the same code, and nothing around it."""
    pair_assertions.unbind()
    written = {(owner, name): owner.__dict__.get(name) for owner, name, _ in PAIRS}
    pair_assertions.bind()
    for owner, name, _ in PAIRS:
        assert hasattr(getattr(owner, name), "__wrapped__")
    pair_assertions.unbind()
    for owner, name, _ in PAIRS:
        assert owner.__dict__.get(name) is written[owner, name]
        assert not hasattr(getattr(owner, name), "__wrapped__")


@pytest.mark.parametrize(("value", "on"), [("", False), ("0", False), ("cgrp", False), ("1", True)])
def test_the_switch(value: str, on: bool) -> None:
    """`KAFKA_NOTIFY_DEBUG=1` binds them in a worker's process; otherwise they are not even imported."""
    program = (
        "import sys, kafka_notify._worker.engine\n"
        "from kafka_notify._send.delivery import Delivery\n"
        "print('kafka_notify._worker.pair_assertions' in sys.modules, hasattr(Delivery.run, '__wrapped__'))"
    )
    env = {**os.environ, "KAFKA_NOTIFY_DEBUG": value}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(on)] * 2


def test_the_switch_is_not_librdkafkas() -> None:
    """The value 1 names no debug context of librdkafka; any other value does."""
    assert config_from_env({"KAFKA_NOTIFY_DEBUG": "1"}) == {}
    assert config_from_env({"KAFKA_NOTIFY_DEBUG": "cgrp"}) == {"debug": "cgrp"}
