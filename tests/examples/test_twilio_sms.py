"""The Twilio example through Twilio's own client library, against a server that answers as Twilio documents."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from examples.providers.twilio_sms import LOGIN_CODE, LoginCode, TwilioSettings, TwilioSms
from kafka_notify import (
    InvalidRecipientError,
    Notification,
    PermanentError,
    ProviderUnavailableError,
    Receipt,
    ThrottledError,
    UnknownOutcomeError,
)
from kafka_notify.outcome import Dead, Retry, Sent
from kafka_notify.testing import HttpAnswer, HttpStub, check_sender
from tests.examples.conformance import error_of, one, told

# Twilio's client gives aiohttp its credentials in a way that aiohttp 3.14 is going to drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'auth' parameter:DeprecationWarning"),
]

NUMBER = "+15550103344"


def refused(status: int, code: int, **headers: str) -> HttpAnswer:
    """An error as Twilio writes it: the text quotes the recipient."""
    body = {
        "code": code,
        "message": f"The 'To' number {NUMBER} could not be used",
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return HttpAnswer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


ANSWERS = {
    "accepted": HttpAnswer(201, {"sid": "SM1", "status": "queued", "to": NUMBER, "body": "…"}),
    "throttled": refused(429, 20429, Retry_After="7"),
    "permanent": refused(400, 21602),
    "invalid_recipient": refused(400, 21211),
    "unavailable": refused(401, 20003),
    "unknown": refused(500, 20500),
    "opted_out": refused(400, 21610),
    "sender_queue_full": refused(429, 21611),
    "no_mobile": refused(400, 21614),
    "suspended": refused(403, 20403),
    "region": refused(400, 21408),
    "new_code": refused(400, 29999),
    "timeout": refused(504, 20500),
    "unreadable": HttpAnswer(201, "<html>welcome</html>"),
    "redirect": HttpAnswer(302, "", {"Location": "/elsewhere"}),
}


@pytest.fixture
def stub() -> Iterator[HttpStub]:
    with HttpStub(ANSWERS) as stub:
        yield stub


def sms(stub: HttpStub, **other: Any) -> TwilioSms:
    fields = {
        "sender": "+15550100",
        "status_callback": "https://shop.example/twilio",
        "api": stub.url,
        **other,
    }
    return TwilioSms(TwilioSettings("AC0123", "SK0123", "secret-of-the-key", **fields))


def code(**fields: Any) -> Notification[LoginCode]:
    return Notification(
        **{
            "user_id": "ada",
            "category": LOGIN_CODE,
            "channel": "sms",
            "recipient": NUMBER,
            "data": LoginCode("918273"),
            **fields,
        }
    )


async def test_conformance(stub: HttpStub) -> None:
    """The sender gets right what every sender has to."""
    report = await check_sender(
        lambda: sms(stub),
        stub,
        code(),
        retry_after=7,
        secrets=["secret-of-the-key"],
        expects={"opted_out": InvalidRecipientError, "sender_queue_full": ThrottledError},
    )
    report.verify()
    assert len(report.checked) > 40


async def test_message(stub: HttpStub) -> None:
    """A message goes to the account's messages, with its text, the time it is worth, and the id in its callback."""
    outcome = await one(sms(stub), code(id="n-1"))

    assert outcome == Sent(Receipt("twilio", "SM1"))
    (request,) = stub.requests
    form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    assert request.path == "/2010-04-01/Accounts/AC0123/Messages.json"
    assert 298 <= int(form.pop("ValidityPeriod")) <= 300
    assert form == {
        "To": NUMBER,
        "From": "+15550100",
        "Body": "918273 is your code to log in.",
        "StatusCallback": "https://shop.example/twilio?notification=n-1",
    }


async def test_no_ttl(stub: HttpStub) -> None:
    """Without an expiry Twilio's own ten hours hold, and never more."""
    await one(sms(stub, sender="MG01", status_callback=None), code(category="login_code"))
    for_ever = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=2)
    (first,) = stub.requests
    assert parse_qs(first.body.decode()).keys() == {"To", "MessagingServiceSid", "Body"}

    await one(sms(stub), code(expires_at=for_ever))
    assert parse_qs(stub.requests[-1].body.decode())["ValidityPeriod"] == ["36000"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("throttled", (Retry, ThrottledError, "twilio.20429")),
        ("sender_queue_full", (Retry, ThrottledError, "twilio.21611")),
        ("invalid_recipient", (Dead, InvalidRecipientError, "twilio.21211")),
        ("opted_out", (Dead, InvalidRecipientError, "twilio.21610")),
        ("no_mobile", (Dead, InvalidRecipientError, "twilio.21614")),
        ("region", (Dead, PermanentError, "twilio.21408")),
        ("new_code", (Dead, PermanentError, "twilio.29999")),
        ("unavailable", (Retry, ProviderUnavailableError, "twilio.20003")),
        ("suspended", (Retry, ProviderUnavailableError, "twilio.20403")),
        ("unknown", (Retry, UnknownOutcomeError, "twilio.20500")),
        ("timeout", (Retry, UnknownOutcomeError, "twilio.20500")),
        ("html_page", (Retry, UnknownOutcomeError, "http.502")),
        ("unreadable", (Retry, UnknownOutcomeError, "twilio.unreadable")),
        ("redirect", (Retry, ProviderUnavailableError, "http.302")),
        ("hang_up", (Retry, UnknownOutcomeError, "aiohttp.ServerDisconnectedError")),
    ],
)
async def test_answers(stub: HttpStub, answer: str, expected: tuple[object, ...]) -> None:
    """Each documented answer has its outcome, by Twilio's code where it has one."""
    stub.answer(answer)

    assert told(await one(sms(stub), code())) == expected
    assert len(stub.requests) == 1


async def test_full_queue_of_a_sender(stub: HttpStub) -> None:
    """Twilio's queue of a sender being ten hours long is no matter of one recipient, and takes a while."""
    stub.answer("sender_queue_full")

    error = error_of(await one(sms(stub), code()))

    assert isinstance(error, ThrottledError)
    assert (error.scope, error.retry_after) == ("sender", 900)


async def test_twilio_away() -> None:
    """A port that refuses has certainly not sent."""
    with HttpStub(ANSWERS) as gone:
        url = gone.url

    error = error_of(await one(TwilioSms(TwilioSettings("AC", "SK", "s3cret", "+1", api=url)), code()))

    assert error.code == "aiohttp.ClientConnectorError"


@pytest.mark.parametrize("recipient", [None, ""])
async def test_no_number(stub: HttpStub, recipient: str | None) -> None:
    """Without a number Twilio is not asked."""
    assert told(await one(sms(stub), code(recipient=recipient)))[1:] == (
        InvalidRecipientError,
        "sms.no_recipient",
    )
    assert stub.requests == []
