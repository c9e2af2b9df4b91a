"""The SendGrid example over httpx, against a server that answers as SendGrid documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from examples.providers.sendgrid_email import SUMMARY, SendGridEmail, SendGridSettings, WeeklySummary
from kafka_notify import (
    InvalidRecipientError,
    Notification,
    PermanentError,
    ProviderUnavailableError,
    Receipt,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify.outcome import Dead, Retry, Sent
from kafka_notify.testing import HttpAnswer, HttpStub, check_sender
from tests.examples.conformance import error_of, one, told

ADDRESS = "ada@example.com"


def refused(status: int, *fields: str | None, **headers: str) -> HttpAnswer:
    """Errors as SendGrid writes them: free text, and the field."""
    errors = [
        {"message": f"{ADDRESS} does not contain a valid address.", "field": f, "help": None} for f in fields
    ]
    return HttpAnswer(status, {"errors": errors}, {name.replace("_", "-"): v for name, v in headers.items()})


TO = "personalizations.0.to.0.email"
ANSWERS = {
    "accepted": HttpAnswer(202, "", {"X-Message-Id": "m-1"}),
    "throttled": refused(429, None, Retry_After="7"),
    "permanent": refused(400, "content.0.value"),
    "invalid_recipient": refused(400, TO),
    "unavailable": refused(401, None),
    "unknown": refused(500, None),
    "reset": refused(429, None, X_RateLimit_Reset="12"),
    "recipient_and_more": refused(400, TO, "subject"),
    "too_large": refused(413, None),
    "unverified_sender": refused(403, "from"),
    "away": refused(503, None, Retry_After="7"),
    "odd": HttpAnswer(400, {"errors": 1}),
    "page": HttpAnswer(200, "<html>welcome</html>"),
}


@pytest.fixture
def stub() -> Iterator[HttpStub]:
    with HttpStub(ANSWERS) as stub:
        yield stub


def mail(stub: HttpStub) -> SendGridEmail:
    return SendGridEmail(SendGridSettings("SG.secret-key", "shop@example.com", stub.url))


def summary(**fields: Any) -> Notification[WeeklySummary]:
    return Notification(
        **{
            "user_id": "ada",
            "category": SUMMARY,
            "channel": "email",
            "recipient": ADDRESS,
            "data": WeeklySummary("2026-W47", 17),
            **fields,
        }
    )


async def test_conformance(stub: HttpStub) -> None:
    """The sender gets right what every sender has to; SendGrid takes no expiry."""
    report = await check_sender(
        lambda: mail(stub),
        stub,
        summary(),
        retry_after=7,
        secrets=["SG.secret-key"],
        without=["remaining_ttl"],
    )
    report.verify()
    assert len(report.checked) > 40


async def test_mail(stub: HttpStub) -> None:
    """A mail goes out with the notification's id, which comes back with every event about it."""
    assert await one(mail(stub), summary(id="n-1")) == Sent(Receipt("sendgrid", "m-1"))

    (request,) = stub.requests
    assert request.path == "/v3/mail/send"
    assert request.headers["Authorization"] == "Bearer SG.secret-key"
    assert request.json() == {
        "personalizations": [{"to": [{"email": ADDRESS}]}],
        "from": {"email": "shop@example.com"},
        "subject": "Your week 2026-W47",
        "content": [{"type": "text/plain", "value": "17 people have visited your page.\n"}],
        "custom_args": {"notification_id": "n-1"},
        "categories": ["activity_summary"],
    }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("throttled", (Retry, ThrottledError, "http.429")),
        ("permanent", (Dead, PermanentError, "http.400")),
        ("invalid_recipient", (Dead, InvalidRecipientError, "sendgrid.invalid_address")),
        ("recipient_and_more", (Dead, PermanentError, "http.400")),
        ("too_large", (Dead, PermanentError, "http.413")),
        ("odd", (Dead, PermanentError, "http.400")),
        ("unavailable", (Retry, ProviderUnavailableError, "http.401")),
        ("unverified_sender", (Retry, ProviderUnavailableError, "http.403")),
        ("unknown", (Retry, UnknownOutcomeError, "http.500")),
        ("away", (Retry, UnknownOutcomeError, "http.503")),
        ("html_page", (Retry, UnknownOutcomeError, "http.502")),
        ("page", (Retry, UnknownOutcomeError, "sendgrid.not_accepted")),
        ("hang_up", (Retry, UnknownOutcomeError, "httpx.RemoteProtocolError")),
    ],
)
async def test_answers(stub: HttpStub, answer: str, expected: tuple[object, ...]) -> None:
    """Each documented answer has its outcome."""
    stub.answer(answer)

    assert told(await one(mail(stub), summary())) == expected
    assert len(stub.requests) == 1


@pytest.mark.parametrize(("answer", "seconds"), [("throttled", 7), ("reset", 12)])
async def test_throttle(stub: HttpStub, answer: str, seconds: float) -> None:
    """The lane waits as long as SendGrid says, in either header."""
    stub.answer(answer)

    error = error_of(await one(mail(stub), summary()))

    assert isinstance(error, ThrottledError)
    assert (error.scope, error.retry_after) == ("provider", seconds)


async def test_sendgrid_away() -> None:
    """A port that refuses has certainly not sent."""
    with HttpStub(ANSWERS) as gone:
        consumer = mail(gone)

    assert told(await one(consumer, summary())) == (Retry, TransientError, "httpx.ConnectError")
