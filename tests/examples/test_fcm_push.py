"""The FCM example over httpx and google-auth, against a server that answers as Google documents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from examples.providers.fcm_push import LOGIN_ATTEMPT, FcmPush, FcmSettings, LoginAttempt
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
from kafka_notify.testing import HttpAnswer, HttpStub, check_sender, deliver
from tests.examples.conformance import error_of, one, told

TOKEN = "registration-token-of-ada"
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


def refused(
    status: int, name: str, *details: dict[str, object], text: str = "", **headers: str
) -> HttpAnswer:
    """An error as Google writes it; some texts quote the token."""
    error = {"code": status, "message": text or f"refused: {TOKEN}", "status": name, "details": list(details)}
    return HttpAnswer(status, {"error": error}, {name.replace("_", "-"): v for name, v in headers.items()})


def fcm(code: str) -> dict[str, object]:
    return {"@type": FCM_ERROR, "errorCode": code}


def bad_field(field: str) -> dict[str, object]:
    violation = {"field": field, "description": f"Invalid value at '{field}'"}
    return {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}


def over_quota(subject: str, text: str) -> dict[str, object]:
    violation = {"subject": subject, "description": text}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


NO_TOKEN = "The registration token is not a valid FCM registration token"
ANSWERS = {
    "accepted": HttpAnswer(200, {"name": "projects/shop/messages/m-1"}),
    "throttled": refused(429, "RESOURCE_EXHAUSTED", fcm("QUOTA_EXCEEDED"), Retry_After="7"),
    "permanent": refused(400, "INVALID_ARGUMENT", bad_field("message.data[0].value")),
    "invalid_recipient": refused(404, "NOT_FOUND", fcm("UNREGISTERED")),
    "unavailable": refused(401, "UNAUTHENTICATED"),
    "unknown": refused(500, "INTERNAL", fcm("INTERNAL")),
    "bad_token": refused(400, "INVALID_ARGUMENT", fcm("INVALID_ARGUMENT"), text=NO_TOKEN),
    "bad_token_field": refused(400, "INVALID_ARGUMENT", bad_field("message.token")),
    "too_big": refused(400, "INVALID_ARGUMENT", fcm("INVALID_ARGUMENT"), text="Message is too big"),
    "other_sender": refused(403, "PERMISSION_DENIED", fcm("SENDER_ID_MISMATCH")),
    "forbidden": refused(403, "PERMISSION_DENIED"),
    "apns_certificate": refused(401, "UNAUTHENTICATED", fcm("THIRD_PARTY_AUTH_ERROR")),
    "quota": refused(
        429, "RESOURCE_EXHAUSTED", fcm("QUOTA_EXCEEDED"), over_quota("project:shop", "per minute")
    ),
    "device": refused(
        429, "RESOURCE_EXHAUSTED", fcm("QUOTA_EXCEEDED"), over_quota("", "Device message rate")
    ),
    "overload": refused(503, "UNAVAILABLE", fcm("UNAVAILABLE")),
    "odd": HttpAnswer(400, {"error": ["x"]}),
    "page": HttpAnswer(200, "<html>welcome</html>"),
}
ACCESS = {
    "/token": HttpAnswer(200, {"access_token": "access-token-1", "expires_in": 3600, "token_type": "Bearer"})
}


@pytest.fixture(scope="module")
def key() -> str:
    """A service account's key, made here."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.PrivateFormat.PKCS8
    return made.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption()).decode()


@pytest.fixture
def stub() -> Iterator[HttpStub]:
    with HttpStub(ANSWERS, always=ACCESS) as stub:
        yield stub


def push(stub: HttpStub, key: str, api: str | None = None) -> FcmPush:
    """The sender, which fetches its access token from `stub` and sends there, or to `api`."""
    account = {
        "type": "service_account",
        "project_id": "shop",
        "private_key_id": "k1",
        "private_key": key,
        "client_email": "notify@shop.example",
        "token_uri": f"{stub.url}/token",
    }
    return FcmPush(FcmSettings(account, api=api or stub.url))


def login(**fields: Any) -> Notification[LoginAttempt]:
    return Notification(
        **{
            "user_id": "ada",
            "category": LOGIN_ATTEMPT,
            "channel": "push",
            "recipient": TOKEN,
            "data": LoginAttempt("a telephone", "Ludlow Castle"),
            **fields,
        }
    )


async def test_conformance(stub: HttpStub, key: str) -> None:
    """The sender gets right what every sender has to."""
    report = await check_sender(
        lambda: push(stub, key),
        stub,
        login(),
        retry_after=7,
        secrets=[key, "access-token-1"],
        expects={"bad_token": InvalidRecipientError, "other_sender": InvalidRecipientError},
    )
    report.verify()
    assert len(report.checked) > 40


async def test_message(stub: HttpStub, key: str) -> None:
    """A message has the time that is left for each platform, and is shown once however often it arrives."""
    assert await one(push(stub, key), login(id="n-1")) == Sent(Receipt("fcm", "m-1"))

    (request,) = stub.requests
    assert request.path == "/v1/projects/shop/messages:send"
    assert request.headers["Authorization"] == "Bearer access-token-1"
    message = request.json()["message"]
    seconds = int(message["android"].pop("ttl").removesuffix("s"))
    assert 590 <= seconds <= 600
    assert int(message["webpush"]["headers"].pop("TTL")) == seconds
    assert abs(int(message["apns"]["headers"].pop("apns-expiration")) - time.time() - seconds) < 60
    assert message == {
        "token": TOKEN,
        "notification": {"title": "New log-in", "body": "Was it you? a telephone, Ludlow Castle"},
        "data": {"notification_id": "n-1"},
        "android": {"priority": "high", "notification": {"tag": "n-1"}},
        "apns": {"headers": {"apns-collapse-id": "n-1", "apns-priority": "10"}},
        "webpush": {"headers": {"Urgency": "high"}, "notification": {"tag": "n-1"}},
    }


async def test_collapse_key(stub: HttpStub, key: str) -> None:
    """A newer message with a collapse key replaces the older one; ids that APNs has no room for are digested."""
    await one(push(stub, key), login(collapse_key="login"))
    message = stub.requests[-1].json()["message"]
    assert message["android"]["collapse_key"] == message["apns"]["headers"]["apns-collapse-id"] == "login"

    await one(push(stub, key), login(id="x" * 128))
    message = stub.requests[-1].json()["message"]
    assert len(message["apns"]["headers"]["apns-collapse-id"]) == 64
    assert message["data"]["notification_id"] == "x" * 128


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("throttled", (Retry, ThrottledError, "fcm.QUOTA_EXCEEDED")),
        ("overload", (Retry, ThrottledError, "fcm.UNAVAILABLE")),
        ("invalid_recipient", (Dead, InvalidRecipientError, "fcm.UNREGISTERED")),
        ("bad_token", (Dead, InvalidRecipientError, "fcm.INVALID_ARGUMENT")),
        ("bad_token_field", (Dead, InvalidRecipientError, "fcm.INVALID_ARGUMENT")),
        ("too_big", (Dead, PermanentError, "fcm.INVALID_ARGUMENT")),
        ("other_sender", (Dead, InvalidRecipientError, "fcm.SENDER_ID_MISMATCH")),
        ("unavailable", (Retry, ProviderUnavailableError, "fcm.UNAUTHENTICATED")),
        ("forbidden", (Retry, ProviderUnavailableError, "fcm.PERMISSION_DENIED")),
        ("apns_certificate", (Retry, ProviderUnavailableError, "fcm.THIRD_PARTY_AUTH_ERROR")),
        ("unknown", (Retry, UnknownOutcomeError, "fcm.INTERNAL")),
        ("html_page", (Retry, UnknownOutcomeError, "http.502")),
        ("page", (Retry, UnknownOutcomeError, "fcm.unreadable")),
        ("odd", (Dead, PermanentError, "http.400")),
        ("hang_up", (Retry, UnknownOutcomeError, "httpx.RemoteProtocolError")),
    ],
)
async def test_answers(stub: HttpStub, key: str, answer: str, expected: tuple[object, ...]) -> None:
    """Each documented answer has its outcome, by FCM's code where it has one."""
    stub.answer(answer)

    assert told(await one(push(stub, key), login())) == expected
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    ("answer", "scope", "seconds"),
    [("throttled", "provider", 7), ("quota", "provider", 60), ("device", "recipient", 60)],
)
async def test_quotas(stub: HttpStub, key: str, answer: str, scope: str, seconds: float) -> None:
    """The project's quota holds everybody up, a device's only its user; a minute unless FCM says otherwise."""
    stub.answer(answer)

    error = error_of(await one(push(stub, key), login()))

    assert isinstance(error, ThrottledError)
    assert (error.scope, error.retry_after) == (scope, seconds)


async def test_fcm_away(stub: HttpStub, key: str) -> None:
    """A port that refuses has certainly not sent."""
    with HttpStub(ANSWERS) as gone:
        url = gone.url

    assert told(await one(push(stub, key, url), login())) == (Retry, TransientError, "httpx.ConnectError")


# -- the access token


async def test_one_token_for_many(key: str) -> None:
    """Sends that begin together fetch one access token, and later ones use it."""
    with HttpStub({**ANSWERS, "token": ACCESS["/token"]}) as tokens, HttpStub(ANSWERS) as stub:
        tokens.answer("token")
        consumer = push(tokens, key, stub.url)
        await consumer.setup()
        await asyncio.gather(*(deliver(consumer, login()) for _ in range(5)))
        await deliver(consumer, login())
        await consumer.teardown()
        assert (len(tokens.requests), len(stub.requests)) == (1, 6)

        stub.answer("unavailable")
        await consumer.setup()
        await deliver(consumer, login())
        stub.answer("accepted")
        assert isinstance(await deliver(consumer, login()), Sent)
        await consumer.teardown()
        assert len(tokens.requests) == 3, "a token that FCM refused is not used again"


async def test_no_access(key: str) -> None:
    """While Google gives no access token the lane waits, and FCM is not asked."""
    denied = HttpAnswer(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
    with HttpStub(ANSWERS, always={"/token": denied}) as stub:
        assert told(await one(push(stub, key), login())) == (
            Retry,
            ProviderUnavailableError,
            "google.RefreshError",
        )
        assert stub.requests == []
