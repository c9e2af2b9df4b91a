"""What `check_sender` finds in the shortest senders that client libraries allow: why the examples are longer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from sendgrid import SendGridAPIClient  # type: ignore[import-untyped]
from twilio.http.http_client import TwilioHttpClient  # type: ignore[import-untyped]
from twilio.rest import Client  # type: ignore[import-untyped]

from kafka_notify import Attempt, Consumer, Notification, Receipt
from kafka_notify.testing import HttpStub, SenderReport, check_sender
from tests.examples import test_sendgrid_email as sendgrid
from tests.examples import test_twilio_sms as twilio


class ToStub(TwilioHttpClient):  # type: ignore[misc]
    """Twilio's own client, as it is, to another host."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        return super().request(method, self._url + urlsplit(url).path, *args, **options)


class NaiveTwilio(Consumer):
    def __init__(self, url: str) -> None:
        self.http = ToStub(url)
        # Here and not in `send`: the first use imports a second's worth of modules.
        self.messages = Client("AC0", "secret-token", http_client=self.http).messages

    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        message = self.messages.create(
            to=notification.recipient, from_="+15550100", body=notification.data.code
        )
        return Receipt("twilio", message.sid)

    def teardown(self) -> None:
        self.http.session.close()


class NaiveSendGrid(Consumer):
    def __init__(self, url: str) -> None:
        self.client = SendGridAPIClient("SG.secret-key", host=url)

    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        response = self.client.client.mail.send.post(
            request_body={
                "personalizations": [{"to": [{"email": notification.recipient}]}],
                "from": {"email": "shop@example.com"},
                "subject": "Your week",
                "content": [{"type": "text/plain", "value": notification.data.week}],
            }
        )
        return Receipt("sendgrid", response.headers["X-Message-Id"])


@pytest.fixture
def twilio_stub() -> Iterator[HttpStub]:
    with HttpStub(twilio.ANSWERS) as stub:
        yield stub


@pytest.fixture
def sendgrid_stub() -> Iterator[HttpStub]:
    with HttpStub(sendgrid.ANSWERS) as stub:
        yield stub


def found(report: SenderReport) -> dict[str, set[str]]:
    """Answers by check."""
    checks: dict[str, set[str]] = {}
    for finding in report.findings:
        checks.setdefault(finding.check, set()).add(finding.answer)
    return checks


async def test_naive_twilio(twilio_stub: HttpStub) -> None:
    """Twilio's blocking client waits for ever, quotes the number in its exceptions, and passes no Retry-After on."""
    report = await check_sender(
        lambda: NaiveTwilio(twilio_stub.url),
        twilio_stub,
        twilio.code(),
        retry_after=7,
        secrets=["secret-token"],
        patience=1,
    )

    assert found(report) == {
        "idempotency_key": {"accepted"},
        "remaining_ttl": {"accepted"},
        "retry_after": {"throttled"},
        "provider": {"hang_up"},
        "leaks": {"throttled", "permanent", "invalid_recipient", "unavailable", "unknown"},
        "deadline": {"hang"},
    }


async def test_naive_sendgrid(sendgrid_stub: HttpStub) -> None:
    """SendGrid's client waits for ever; what its exceptions say does not tell a wrong address from a wrong mail."""
    report = await check_sender(
        lambda: NaiveSendGrid(sendgrid_stub.url),
        sendgrid_stub,
        sendgrid.summary(),
        retry_after=7,
        secrets=["SG.secret-key"],
        without=["remaining_ttl", "provider"],
        patience=1,
    )

    assert found(report) == {
        "idempotency_key": {"accepted"},
        "outcome": {"invalid_recipient"},
        "deadline": {"hang"},
    }
