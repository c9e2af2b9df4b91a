"""No secret shows in what may be logged, written or sent elsewhere, wherever it was put."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafka_notify import (
    Attempt,
    ConfigError,
    Consumer,
    Defer,
    DeliveryError,
    InvalidNotificationError,
    InvalidRecipientError,
    Notification,
    NotifyError,
    PermanentError,
    Producer,
    ProviderUnavailableError,
    Receipt,
    Send,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
    Verdict,
    Worker,
    classify_http,
    classify_smtp,
)
from kafka_notify._base.units import UTC, from_millis
from kafka_notify._send.attempt import describe
from kafka_notify.outcome import Outcome
from kafka_notify.redis import RedisLimiter
from kafka_notify.testing import deliver
from tests.unit.settle.test_settle import settled

CANARY = "cAnArY"
secrets = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20).map(
    lambda text: f"{text} {CANARY}+1555"
)
KINDS = [
    TransientError, ThrottledError, UnknownOutcomeError, PermanentError, InvalidRecipientError,
    ProviderUnavailableError,
]  # fmt: skip


class Leaky(Consumer):
    """Puts a secret wherever a team could."""

    def __init__(self, place: str, kind: type[DeliveryError], secret: str) -> None:
        self.place, self.kind, self.secret = place, kind, secret

    def should_send(self, notification: Notification[Any]) -> Verdict:
        return (
            Defer(from_millis(4_000_000_000_000).astimezone(UTC), self.secret)
            if self.place == "defer"
            else Send()
        )

    def classify(self, exc: Exception) -> DeliveryError | None:
        if self.place == "classify":
            raise ValueError(self.secret)
        return None

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        match self.place:
            case "code":
                raise self.kind(self.secret)
            case "detail":
                raise self.kind("x", detail=self.secret)
            case "cause":
                raise self.kind("x") from ValueError(self.secret)
            case "exception" | "classify":
                raise ValueError(self.secret)
            case "http":
                raise classify_http(
                    503, {"retry-after": self.secret, "x": self.secret}, code=self.secret
                ) or self.kind("x")
            case "smtp":
                raise classify_smtp(450, self.secret) or self.kind("x")
            case "returned":
                return self.secret  # type: ignore[return-value]
            case _:
                return Receipt("acme", self.secret)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    secret=secrets,
    place=st.sampled_from("code detail cause exception classify http smtp returned receipt defer".split()),
    kind=st.sampled_from(KINDS),
)
async def test_of_a_send(caplog: pytest.LogCaptureFixture, secret: str, place: str, kind: Any) -> None:
    """Whatever a sender puts into an error, an exception or a receipt: it stays out of codes, headers and logs."""
    caplog.set_level(logging.DEBUG)
    notification: Notification[Any] = Notification(
        user_id="u", category="otp", channel="sms", recipient=secret, data={"code": secret}
    )
    outcome = await deliver(Leaky(place, kind, secret), notification)
    error = getattr(outcome, "error", None)
    told = [
        repr(notification),
        str(describe(outcome)),
        caplog.text,
        repr(error),
        str(error),
        *_written(outcome),
    ]

    assert not [text for text in told if CANARY in text]


def _written(outcome: Outcome) -> list[str]:
    """What a retry copy and a dead letter would say."""
    error = getattr(outcome, "error", None)
    if error is None:
        return []
    return [str(settled(error, first_failed=hours * 3_600_000).records) for hours in (1, 25)]


@given(secret=secrets)
def test_of_a_notification(secret: str) -> None:
    """What is wrong with a notification is said without showing it."""
    for wrong in (
        {"recipient": 5, "data": {"x": secret}},
        {"user_id": f" {secret}"},
        {"id": secret},
        {"data": {"x": {secret}}},
        {"headers": {"notif-x": secret}},
        {"headers": {f"ü{secret}": "x"}},
    ):
        fields = {"user_id": "u", "category": "otp", "channel": "sms", "data": {}, **wrong}
        try:
            shown = repr(Notification(**fields))  # type: ignore[arg-type]
        except InvalidNotificationError as e:
            shown = str(e)
        assert CANARY not in shown


@given(secret=secrets)
def test_of_a_configuration(secret: str) -> None:
    """Neither representations nor errors show what was configured."""
    config = {"bootstrap.servers": "127.0.0.1:1", "sasl.password": secret, "ssl.key.password": secret}

    class Plain(Consumer):
        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            return Receipt("acme")

    shown: list[str] = []
    for changes in ({}, {"enable.auto.commit": secret}, {"acks": secret}, {"no.such.setting": secret}):
        for make in (
            lambda c: Producer(c),
            lambda c: Worker(Plain, c, lane="high_priority"),
            lambda c: RedisLimiter(f"redis://:{secret}@127.0.0.1/0"),
        ):
            try:
                shown.append(repr(make({**config, **changes})))
            except (NotifyError, ConfigError) as e:
                shown.append(str(e))
    assert not [text for text in shown if CANARY in text]
