"""How long a notification may wait without an attempt."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kafka_notify import (
    Category,
    DeliveryError,
    JsonCodec,
    Notification,
    ProviderUnavailableError,
    Retry,
    ThrottledError,
    TransientError,
)
from kafka_notify._clock import Clock
from kafka_notify._fetch.offsets import Committed
from kafka_notify._lanes.entry import Entry, Held, Lane
from kafka_notify._lanes.partition import Partition, PayloadBudget
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._settle.settle import Settler
from kafka_notify.policy import deferred
from kafka_notify.wire import read_dead_letter, read_retry
from tests.model.promises import Bytes

HOUR = 3_600_000
NOW = 1_800_000_000_000


class Written:
    """Stands for the writer of copies."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Any]] = []

    def write(self, topic: str, partition: int, key: Any, value: Any, headers: Any, **_: Any) -> None:
        self.records.append((topic, headers))


def settled(error: DeliveryError, *, first_failed: int, expires: int | None = None) -> Written:
    """What is written for a notification that failed first so many milliseconds ago, and now again."""
    written = Written()
    settler = Settler(
        cast(CopyWriter, written),
        Clock(wall=lambda: NOW / 1000),
        topics=("source", "retry", "dlq"),
        group="group",
        categories={"news": Category("news", "l")},
        codec=JsonCodec(),
        on_event=None,
        on_dead_letter=None,
        spawn=lambda _: None,
    )
    none = Committed(0)
    partition = Partition(
        0, none, none, source_range=(0, 1), retry_range=(0, 0), writer="w", redrive_writer="r",
        effects=cast(Any, None), budget=PayloadBudget(1_000),
    )  # fmt: skip
    entry = Entry(Lane(partition, b"u"), 0, Bytes(b"u", b"{}"), [("notif-category", b"news")], 1)
    entry.held = Held(0, NOW, expires, "id", NOW)
    entry.held.first_failed = NOW - first_failed
    notification: Notification[Any] = Notification(user_id="u", category="news", channel="sms", data={})
    settler.retry(entry, notification, Retry(60, False, error), 4)
    return written


@pytest.mark.parametrize(
    "error",
    [ThrottledError("http.429"), ThrottledError("http.429", scope="recipient"), deferred("quiet hours")],
)
def test_throttled_for_a_day(error: DeliveryError) -> None:
    """Throttled or deferred for a day without an expiry, it is dead-lettered; an hour earlier it is not."""
    [(topic, headers)] = settled(error, first_failed=23 * HOUR).records
    state = read_retry(headers, "source", 0)
    assert (topic, state and state.attempt) == ("retry", 0)

    [(topic, headers)] = settled(error, first_failed=25 * HOUR).records
    letter = read_dead_letter(headers)
    assert (topic, letter and letter.reason) == ("dlq", "throttle_timeout")


@pytest.mark.parametrize("error", [ProviderUnavailableError("http.401"), TransientError("http.503")])
def test_an_outage_has_no_such_bound(error: DeliveryError) -> None:
    """However long the provider is away, nothing is dead-lettered for it."""
    [(topic, _)] = settled(error, first_failed=500 * HOUR).records

    assert topic == "retry"


def test_a_reason_that_is_no_code_is_left_out() -> None:
    """What `should_send` says may be anything; only what looks like a code is written."""
    assert deferred("quiet_hours").code == "deferred.quiet_hours"
    assert deferred("until +1 555 0100 wakes up").code == "deferred.reason"
