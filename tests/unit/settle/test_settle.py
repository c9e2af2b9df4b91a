"""How long a notification may wait without an attempt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kafka_notify import (
    DeliveryError,
    Notification,
    ProviderUnavailableError,
    RetryPolicy,
    ThrottledError,
    TransientError,
)
from kafka_notify._decision.counts import Counts
from kafka_notify._decision.what_follows import decide
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.entry import Entry, UserQueue
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._send.outcomes import Outcomes
from kafka_notify._settle.copies import Copy, CopyWriter
from kafka_notify._settle.publisher import CopyPublisher
from kafka_notify.outcome import Retry
from kafka_notify.policy import deferred
from kafka_notify.wire import History, read_dead_letter, read_retry
from tests.model.promises import Bytes
from tests.unit.settle.publishing import NOW, publishing

HOUR = 3_600_000


class Written:
    """Stands for the writer of copies."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Any]] = []

    def write(self, copy: Copy) -> None:
        self.records.append((copy.topic, copy.headers))


def settled(
    error: DeliveryError,
    *,
    first_failed: int,
    waiting: int | None = None,
    last: str = "http.429",
    max_wait: int | None = None,
    expires: int | None = None,
) -> Written:
    """What is written for a notification that failed first, and that waits in a row, for so many milliseconds, and that
    fails now again."""
    written = Written()
    context = publishing(RetryPolicy(4, max_wait=None if max_wait is None else max_wait / 1000))
    publisher = CopyPublisher(context, cast(CopyWriter, written), None, lambda _: None)
    hooks, permits = (
        cast(Any, SimpleNamespace(on_sent=None)),
        cast(Any, SimpleNamespace(guard=None, pace=None)),
    )
    outcomes = Outcomes(context, permits, publisher, hooks, Counts(), lambda _: None)
    none = Committed(0)
    partition = Partition(
        Epoch(0, "w"), Half(none, 0, 1), Half(none), effects=cast(Any, None), budget=PayloadBudget(1_000),
    )  # fmt: skip
    entry = Entry(UserQueue(partition, b"u"), 0, Bytes(b"u", b"{}"), [("notif-category", b"news")], 1)
    history = History(
        first_failed_ms=NOW - first_failed,
        waiting_since_ms=None if waiting is None else NOW - waiting,
        error_code=last,
    )
    entry.retry = RetryRecord(0, NOW, expires, "id", NOW, history)
    notification: Notification[Any] = Notification(user_id="u", category="news", channel="sms", data={})
    dies = notification._expires_ms if expires is None else expires
    answer = Retry(60, False, error)
    outcomes.settle(entry, notification, decide(answer, history, dies, outcomes.rules, NOW, outcomes.kept))
    return written


THROTTLES = [ThrottledError("http.429"), ThrottledError("http.429", scope="recipient")]


def fate(written: Written) -> tuple[str, int | None]:
    """`retry` and for how long it has waited in a row, in ms; or why it was dead-lettered."""
    [(topic, headers)] = written.records
    if topic == "dlq":
        letter = read_dead_letter(headers)
        assert letter is not None
        return letter.reason, None
    state = read_retry(headers, "source", 0)
    assert state is not None
    return topic, None if state.history.waiting_since_ms is None else NOW - state.history.waiting_since_ms


@pytest.mark.parametrize("error", THROTTLES)
def test_throttled_for_a_day(error: DeliveryError) -> None:
    """Throttled for a day in a row without an expiry, it is dead-lettered; an hour earlier it is not. What was before
    the first throttle does not count, be it an outage of a week or a deferral of one."""
    assert fate(settled(error, first_failed=0, waiting=23 * HOUR)) == ("retry", 23 * HOUR)
    assert fate(settled(error, first_failed=0, waiting=25 * HOUR)) == ("throttle_timeout", None)
    assert fate(settled(error, first_failed=170 * HOUR)) == ("retry", 0)
    assert fate(settled(error, first_failed=170 * HOUR, waiting=170 * HOUR, last="deferred.quiet")) == (
        "retry",
        0,
    )


def test_deferred_for_as_long_as_the_team_says() -> None:
    """A notification that `should_send` puts off again and again waits for as long as it is told to."""
    put_off, last = deferred("quiet"), "deferred.quiet"
    assert fate(settled(put_off, first_failed=500 * HOUR, waiting=500 * HOUR, last=last)) == (
        "retry",
        500 * HOUR,
    )


@pytest.mark.parametrize("error", [*THROTTLES, deferred("quiet")])
@pytest.mark.parametrize("expires", [None, NOW + 999 * HOUR])
def test_the_policy_says_how_long(error: DeliveryError, expires: int | None) -> None:
    """With `max_wait` both kinds end after it, with and without an expiry."""
    for waiting, reason in ((9, "retry"), (11, "throttle_timeout")):
        written = settled(
            error,
            first_failed=0,
            waiting=waiting * HOUR,
            last=error.code,
            max_wait=10 * HOUR,
            expires=expires,
        )
        assert fate(written)[0] == reason


@pytest.mark.parametrize("error", [ProviderUnavailableError("http.401"), TransientError("http.503")])
def test_an_outage_has_no_such_bound(error: DeliveryError) -> None:
    """However long the provider is away, nothing is dead-lettered for it."""
    assert fate(settled(error, first_failed=500 * HOUR, waiting=500 * HOUR, max_wait=HOUR)) == ("retry", None)


def test_a_reason_that_is_no_code_is_left_out() -> None:
    """What `should_send` says may be anything; only what looks like a code is written."""
    assert deferred("quiet_hours").code == "deferred.quiet_hours"
    assert deferred("until +1 555 0100 wakes up").code == "deferred.reason"
