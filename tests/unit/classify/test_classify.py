from __future__ import annotations

import asyncio
import datetime as dt
import errno
import http.client
import smtplib
import socket
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from typing import Any

import aiohttp
import aiosmtplib
import botocore.exceptions  # type: ignore[import-untyped]
import firebase_admin.exceptions  # type: ignore[import-untyped]
import firebase_admin.messaging  # type: ignore[import-untyped]
import google.auth.exceptions
import httpx
import pytest
import python_http_client.exceptions  # type: ignore[import-untyped]
import requests
import twilio.base.exceptions  # type: ignore[import-untyped]
import urllib3.exceptions
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.httpsession import URLLib3Session  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from kafka_notify.classify import (
    PROVIDER_CODES,
    SmtpPhase,
    classify_exception,
    classify_http,
    classify_smtp,
    retry_after,
)
from kafka_notify.errors import (
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.timezone.utc)
SECRET = "ada@example.org"


class Hostile(Exception):
    """Everything about it raises."""

    def __str__(self) -> str:
        raise RuntimeError(SECRET)

    __repr__ = __str__

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(SECRET)


class HostileMapping(dict[str, str]):
    def items(self) -> Any:
        raise RuntimeError(SECRET)

    def get(self, key: str, default: object = None) -> Any:
        raise RuntimeError(SECRET)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.dictionaries(st.text(), st.text()),
    st.builds(object),
    st.builds(Hostile),
    st.builds(HostileMapping),
    st.just(10**5000),
)


def shown(error: DeliveryError | None) -> tuple[type[DeliveryError], str]:
    assert error is not None
    return type(error), error.code


# -- HTTP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ([400, 404, 405, 406, 410, 411, 413, 414, 415, 422, 418, 451], PermanentError),
        ([401, 402, 403, 407, 100, 101, 301, 302, 304, 308], ProviderUnavailableError),
        ([408, 500, 502, 503, 504, 520, 521, 522, 523, 524, 599], UnknownOutcomeError),
        ([409, 421, 425], TransientError),
        ([429], ThrottledError),
    ],
)
def test_the_status_decides_when_the_provider_has_no_code_of_its_own(
    statuses: list[int], kind: type[DeliveryError]
) -> None:
    """Each HTTP status has one class, and the code names the status."""
    for status in statuses:
        assert shown(classify_http(status)) == (kind, f"http.{status}")


@given(st.integers(200, 299), st.text(), ANYTHING)
def test_every_2xx_is_accepted(status: int, provider: str, code: Any) -> None:
    """A 2xx is no error, whatever else the response holds."""
    assert classify_http(status, provider=provider, code=code) is None


def test_a_503_that_names_a_time_is_a_throttle() -> None:
    """With Retry-After a 503 says that the request was turned away; without it nobody knows."""
    error = classify_http(503, {"retry-after": "7"})
    assert shown(error) == (ThrottledError, "http.503")
    assert isinstance(error, ThrottledError)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("provider", "status", "code", "kind"),
    [
        ("twilio", 400, 21610, InvalidRecipientError),
        ("twilio", 400, "21211", InvalidRecipientError),
        ("twilio", 400, 21408, PermanentError),
        ("twilio", 400, 21606, ProviderUnavailableError),
        *(
            ("twilio", 400, code, ProviderUnavailableError)
            for code in (
                20404,
                21212,
                21601,
                21603,
                21607,
                21659,
                21660,
                21661,
                21701,
                21703,
                21704,
                21705,
                63007,
            )
        ),
        ("twilio", 400, 21268, InvalidRecipientError),
        ("twilio", 429, 63038, ThrottledError),
        ("twilio", 403, 20003, ProviderUnavailableError),
        ("twilio", 429, 20429, ThrottledError),
        ("twilio", 500, 20500, UnknownOutcomeError),
        ("fcm", 404, "UNREGISTERED", InvalidRecipientError),
        ("fcm", 403, "SENDER_ID_MISMATCH", InvalidRecipientError),
        ("fcm", 401, "THIRD_PARTY_AUTH_ERROR", ProviderUnavailableError),
        ("fcm", 400, "INVALID_ARGUMENT", PermanentError),
        ("fcm", 500, "INTERNAL", UnknownOutcomeError),
        ("apns", 400, "BadDeviceToken", InvalidRecipientError),
        ("apns", 410, "Unregistered", InvalidRecipientError),
        ("apns", 403, "InvalidProviderToken", ProviderUnavailableError),
        ("apns", 403, "ExpiredProviderToken", TransientError),
        ("apns", 503, "Shutdown", TransientError),
        ("apns", 413, "PayloadTooLarge", PermanentError),
        ("ses", 400, "ThrottlingException", ThrottledError),
        ("ses", 400, "SendingPausedException", ProviderUnavailableError),
        ("ses", 400, "MessageRejected", PermanentError),
        ("ses", 400, "ExpiredTokenException", ProviderUnavailableError),
    ],
)
def test_a_providers_own_code_goes_before_the_status(
    provider: str, status: int, code: str | int, kind: type[DeliveryError]
) -> None:
    """What a provider's code means is known better than what its status means."""
    error = classify_http(status, provider=provider, code=code)
    assert shown(error) == (kind, f"{provider}.{code}")
    assert error is not None
    assert error.provider == provider


@pytest.mark.parametrize(
    ("error", "scope", "wait"),
    [
        (classify_http(429, provider="apns", code="TooManyRequests"), "recipient", None),
        (classify_http(429, provider="twilio", code=21611), "sender", 900),
        (classify_http(429, provider="fcm", code="QUOTA_EXCEEDED"), "provider", 60),
        (classify_http(429, provider="fcm"), "provider", 60),
        (classify_http(429, {"Retry-After": "3"}, provider="fcm", code="QUOTA_EXCEEDED"), "provider", 3),
        (classify_http(429), "provider", None),
    ],
)
def test_a_throttle_says_who_waits_and_how_long(
    error: DeliveryError | None, scope: str, wait: float | None
) -> None:
    """Scope and waiting time are the provider's rule; the response's own Retry-After goes before it."""
    assert isinstance(error, ThrottledError)
    assert (error.scope, error.retry_after) == (scope, wait)


def test_sendgrid_leaves_a_503_open_and_apns_drops_the_token_of_a_410() -> None:
    """A provider's table may read a status without a code differently."""
    assert shown(classify_http(503, {"Retry-After": "1"}, provider="sendgrid")) == (
        UnknownOutcomeError,
        "http.503",
    )
    assert shown(classify_http(410, provider="apns")) == (InvalidRecipientError, "http.410")


def test_codes_of_the_caller_go_first() -> None:
    """A team extends or overrides a provider's table by an argument; the tables themselves cannot be changed."""
    codes = {**PROVIDER_CODES["twilio"], "21408": ProviderUnavailableError, "http.404": TransientError}
    assert (
        shown(classify_http(400, provider="twilio", code=21408, codes=codes))[0] is ProviderUnavailableError
    )
    assert shown(classify_http(404, provider="acme", codes=codes)) == (TransientError, "http.404")
    assert shown(classify_http(400, provider="twilio", code=21610, codes={}))[0] is InvalidRecipientError
    with pytest.raises(TypeError):
        PROVIDER_CODES["twilio"]["21408"] = TransientError  # type: ignore[index]


@pytest.mark.parametrize(
    "code", [SECRET, "+15551234567", "15551234567", 15551234567, "a b", "x" * 49, True, ""]
)
def test_text_in_the_place_of_a_code_is_left_out(code: Any) -> None:
    """A code that could be an address or a number does not get into ours."""
    assert shown(classify_http(400, provider="acme", code=code)) == (PermanentError, "http.400")


@given(st.integers(0, 999) | ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_an_answer_for_every_response(
    status: Any, headers: Any, provider: Any, code: Any, codes: Any
) -> None:
    """Whatever it is given, classify_http answers the same twice, raises nothing, and its code is a token."""
    first = classify_http(status, headers, provider=provider, code=code, codes=codes, now=NOW)
    again = classify_http(status, headers, provider=provider, code=code, codes=codes, now=NOW)
    if first is None:
        assert again is None
        assert 200 <= int(status) <= 299
    else:
        assert shown(first) == shown(again)
        assert first.code != "invalid_code"
        assert SECRET not in repr(first)


@given(st.integers(300, 999), st.sampled_from(sorted(PROVIDER_CODES)), st.data())
def test_every_row_of_the_tables_makes_an_error(status: int, provider: str, data: st.DataObject) -> None:
    """Each code of each provider's table builds an error that carries it."""
    code = data.draw(
        st.sampled_from(sorted(c for c in PROVIDER_CODES[provider] if not c.startswith("http.")) or ["x"])
    )
    error = classify_http(status, {"Retry-After": "1"}, provider=provider, code=code)
    assert error is not None
    assert error.code == f"{provider}.{code}"


# -- Retry-After -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30),
        ({"RETRY-AFTER": " 1.5 "}, 1.5),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:10 GMT"}, 10),
        ({"Retry-After": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0),
        ({"Retry-After": "Sun, 22 Nov 2026 13:00:00 +0100"}, 0),
        ({"Retry-After": "86400"}, 900),
        ({"Retry-After": "9" * 200}, 900),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp()) + 42)}, 42),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp()) - 42)}, 0),
        ({"X-RateLimit-Reset": "17"}, 17),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp() * 1000) + 42_500)}, 42.5),
        ({"Retry-After": str(int(NOW.timestamp()) + 42)}, 42),
        ({"Retry-After": str(int(NOW.timestamp() * 1000) + 42_000)}, 42),
        ({"Retry-After": str(int(NOW.timestamp() * 1e6) + 42_000_000)}, 42),
        ({"Retry-After": "30, 30"}, 30),
        ({"Retry-After": "30,60"}, 60),
        ({"Retry-After": "30, soon", "RateLimit-Reset": "7"}, 7),
        ({"Retry-After-Ms": "1500", "Retry-After": "2"}, 1.5),
        ({"RateLimit-Reset": "50"}, 50),
        ({"X-Rate-Limit-Reset": str(int(NOW.timestamp()) + 42)}, 42),
        ({"X-RateLimit-Reset-After": "1.25", "X-RateLimit-Reset": "9"}, 1.25),
        ({"X-RateLimit-Reset": "2026-11-22T12:00:05Z"}, 5),
        ({"RateLimit": '"default";r=0;t=50'}, 50),
        ({"RateLimit": '"burst";r=0;t=5, "day";r=9;t=700'}, 700),
        ({"RateLimit": "limit=10, remaining=0, reset=50"}, 50),
        ({"RateLimit": "limit=10"}, None),
        ({"Retry-After": "2026-11-22"}, None),
        ({"Retry-After": "soon", "x-ratelimit-reset": "17"}, 17),
        ({"Retry-After": "1", "x-ratelimit-reset": "17"}, 1),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e3"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "Sun, 99 Nov 2026"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_in_its_spellings(headers: Mapping[str, str], seconds: float | None) -> None:
    """Seconds, dates and resets become seconds between 0 and 15 minutes; what is none of them is no wait."""
    assert retry_after(headers, now=NOW) == seconds


@given(st.text() | st.integers() | st.floats() | st.binary() | st.none() | st.datetimes().map(str))
def test_any_retry_after_is_a_bounded_wait_or_none(value: Any) -> None:
    """No value makes a wait below 0, above 15 minutes, or an exception."""
    for name in ("Retry-After", "Retry-After-Ms", "X-RateLimit-Reset", "RateLimit"):
        seconds = retry_after({name: value}, now=NOW)
        assert seconds is None or 0 <= seconds <= 900


def test_headers_of_the_client_libraries_are_read() -> None:
    """The header types of httpx, requests, aiohttp and urllib all answer whatever the case of the name."""
    message = Message()
    message["retry-After"] = "4"
    types: tuple[Any, ...] = (
        httpx.Headers({"Retry-After": "4"}),
        requests.structures.CaseInsensitiveDict({"Retry-After": "4"}),
        CIMultiDictProxy(CIMultiDict({"Retry-After": "4"})),
        message,
    )
    for headers in types:
        assert retry_after(headers) == 4


def test_the_reset_of_a_rate_limit_explains_a_throttle_alone() -> None:
    """Providers send it with every response: a 503 with it is as open as one without, and a 409 waits no longer."""
    headers = {"RateLimit-Reset": "600"}
    throttled, conflict = classify_http(429, headers), classify_http(409, headers)
    assert isinstance(throttled, ThrottledError)
    assert throttled.retry_after == 600
    assert isinstance(conflict, TransientError)
    assert conflict.retry_after is None
    assert shown(classify_http(503, headers)) == (UnknownOutcomeError, "http.503")


# -- SMTP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text", "kind", "label"),
    [
        (421, "4.3.0 try later", ThrottledError, "smtp.421-4.3.0"),
        (450, "4.7.1 greylisted", ThrottledError, "smtp.450-4.7.1"),
        (450, b"4.2.1 too fast", ThrottledError, "smtp.450-4.2.1"),
        (451, "4.7.0 slow down", ThrottledError, "smtp.451-4.7.0"),
        (452, "4.2.2 full", ThrottledError, "smtp.452-4.2.2"),
        (454, "Throttling failure: Maximum sending rate exceeded", ThrottledError, "smtp.454"),
        (450, "mailbox busy", TransientError, "smtp.450"),
        (451, b"", TransientError, "smtp.451"),
        (530, "5.7.0 authenticate first", ProviderUnavailableError, "smtp.530-5.7.0"),
        (535, b"5.7.8 no", ProviderUnavailableError, "smtp.535-5.7.8"),
        (550, "5.1.1 <ada@example.org> unknown", InvalidRecipientError, "smtp.550-5.1.1"),
        (553, "5.1.3 bad address", InvalidRecipientError, "smtp.553-5.1.3"),
        (553, "5.1.7 sender's address", ProviderUnavailableError, "smtp.553-5.1.7"),
        (553, "5.1.8 sender's domain", ProviderUnavailableError, "smtp.553-5.1.8"),
        (553, "5.1.0 whose address?", PermanentError, "smtp.553-5.1.0"),
        (550, "5.1.90 daily limit", ThrottledError, "smtp.550-5.1.90"),
        (550, "5.4.5 daily quota", ThrottledError, "smtp.550-5.4.5"),
        (432, "4.3.2 too many connections", ThrottledError, "smtp.432-4.3.2"),
        (550, "5.7.26 no SPF, no DKIM", ProviderUnavailableError, "smtp.550-5.7.26"),
        (550, "5.7.28 flood", ThrottledError, "smtp.550-5.7.28"),
        (550, "5.7.1 policy", PermanentError, "smtp.550-5.7.1"),
        (552, "5.3.4 too big", PermanentError, "smtp.552-5.3.4"),
        (552, "5.2.2 mailbox full", TransientError, "smtp.552-5.2.2"),
        (554, "4.1.1 not an enhanced status of a 5yz", PermanentError, "smtp.554"),
        (550, "no such user 5.1.1", PermanentError, "smtp.550"),
        (354, "go ahead", TransientError, "smtp.354"),
        (-1, "", TransientError, "smtp.no_reply"),
    ],
)
def test_an_smtp_reply_has_one_class(
    code: int, text: str | bytes, kind: type[DeliveryError], label: str
) -> None:
    """The number and the enhanced status decide; of the text nothing else is kept."""
    assert shown(classify_smtp(code, text)) == (kind, label)


def test_only_a_missing_reply_after_the_final_dot_is_open() -> None:
    """A reply is certain in any phase; without one the message may have been accepted once the dot was sent."""
    assert shown(classify_smtp(0, after_data=True))[0] is UnknownOutcomeError
    assert shown(classify_smtp(0, after_data=False))[0] is TransientError
    assert shown(classify_smtp(454, after_data=True))[0] is ThrottledError
    assert classify_smtp(250, after_data=True) is None


def test_a_mailbox_that_refuses_because_it_is_full_is_asked_again_much_later() -> None:
    """A 5yz for a full mailbox is no dead letter at once, and no reason to hurry."""
    error = classify_smtp(552, "5.2.2 mailbox full")
    assert isinstance(error, TransientError)
    assert error.retry_after == 900


def test_a_full_mailbox_holds_up_nobody_else() -> None:
    """Replies about the recipient's mailbox throttle the recipient, others the provider."""
    replies: list[tuple[int, str, SmtpPhase | None, str]] = [
        (452, "4.2.2", None, "recipient"),
        (450, "4.2.1", None, "recipient"),
        (421, "", None, "provider"),
        (450, "4.7.1 greylisted", None, "recipient"),
        (450, "4.7.1 greylisted", "recipient", "recipient"),
        (450, "4.7.0 later", "recipient", "recipient"),
        (452, "", "recipient", "recipient"),
        (452, "4.3.1 disk full", "recipient", "provider"),
        (421, "4.7.0 too many", "recipient", "provider"),
        (450, "4.7.1 too many of yours", "sender", "provider"),
        (454, "Throttling failure", "data", "provider"),
    ]
    for code, text, phase, scope in replies:
        error = classify_smtp(code, text, phase=phase)
        assert isinstance(error, ThrottledError)
        assert error.scope == scope


@pytest.mark.parametrize(
    ("phase", "later", "never"),
    [
        ("connect", ProviderUnavailableError, ProviderUnavailableError),
        ("auth", ProviderUnavailableError, ProviderUnavailableError),
        ("sender", ProviderUnavailableError, ProviderUnavailableError),
        ("recipient", TransientError, PermanentError),
        ("data", TransientError, PermanentError),
        (None, TransientError, PermanentError),
    ],
)
def test_whose_trouble_a_refusal_is_depends_on_the_command(
    phase: SmtpPhase | None, later: type[DeliveryError], never: type[DeliveryError]
) -> None:
    """What is the same for every mail holds the lane; the rest is this recipient's or this message's."""
    for code, text, kind in ((451, "4.3.0 local error", later), (550, "5.7.1 not allowed", never)):
        assert type(classify_smtp(code, text, phase=phase)) is kind


def test_an_address_is_called_invalid_only_when_it_is_the_trouble() -> None:
    """Teams drop invalid addresses: our own address, a policy or a quota must not look like one."""
    replies = ("5.1.0", "5.1.7", "5.1.8", "5.1.90", "5.4.5", "5.7.1", "5.7.26", "")
    for text in replies:
        for phase in PHASES:
            kind = type(classify_smtp(550, text, phase=phase))
            assert (kind is InvalidRecipientError) == (text == "5.1.0" and phase == "recipient")
    for phase in PHASES:
        kind = type(classify_smtp(550, "5.1.1", phase=phase))
        assert (kind is InvalidRecipientError) == (phase in ("recipient", "data"))


def test_without_a_reply_the_phase_tells_what_is_known() -> None:
    """A connection that breaks while it is made is ours; before the final dot nothing was sent."""
    for phase in PHASES:
        kind = ProviderUnavailableError if phase in ("connect", "auth") else TransientError
        assert type(classify_smtp(0, phase=phase)) is kind
    assert type(classify_smtp(0, phase="data", after_data=True)) is UnknownOutcomeError


PHASES: tuple[SmtpPhase, ...] = ("connect", "auth", "sender", "recipient", "data")


@given(st.integers(0, 999) | ANYTHING, ANYTHING, ANYTHING, ANYTHING, st.sampled_from(PHASES) | ANYTHING)
def test_an_answer_for_every_smtp_reply(
    code: Any, message: Any, after_data: Any, provider: Any, phase: Any
) -> None:
    """Whatever it is given, classify_smtp raises nothing and its code is a token."""
    error = classify_smtp(code, message, after_data=after_data is True, provider=provider, phase=phase)
    if error is not None:
        assert error.code != "invalid_code"
        assert SECRET not in repr(error)


# -- exceptions ------------------------------------------------------------------------------------

REQUEST = httpx.Request("POST", "http://localhost")
CERTIFICATE = ssl.SSLCertVerificationError("self-signed")
POOL: Any = None


def wrapped(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def http_error(status: int, headers: Mapping[str, str] | None = None) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers or {})
    return requests.HTTPError(SECRET, response=response)


def aiohttp_error(kind: type[aiohttp.ClientResponseError], status: int) -> Exception:
    return kind(None, (), status=status, message=SECRET)  # type: ignore[arg-type]


def client_error(code: str, status: int = 400) -> Exception:
    made: Exception = botocore.exceptions.ClientError(
        {"Error": {"Code": code, "Message": SECRET}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "SendEmail",
    )
    return made


def connector_error(kind: type[aiohttp.ClientConnectorError], cause: OSError) -> Exception:
    return kind(aiohttp.client_reqrep.ConnectionKey("h", 1, False, True, None, None, None), cause)


def google_error(kind: Any) -> Exception:
    made: Exception = kind(SECRET)
    return made


def firebase_error(kind: Any, status: int | None, cause: Exception | None = None) -> Exception:
    response = None
    if status is not None:
        response = requests.Response()
        response.status_code = status
    made: Exception = kind(SECRET, cause=cause, http_response=response)
    return made


def sendgrid_error(status: int) -> Exception:
    message = Message()
    message["X-RateLimit-Reset"] = "5"
    error = urllib.error.HTTPError("http://localhost", status, SECRET, message, None)
    made: Exception = python_http_client.exceptions.handle_error(error)
    return made


T, H, U, P, R, C = (
    TransientError,
    ThrottledError,
    UnknownOutcomeError,
    PermanentError,
    InvalidRecipientError,
    ProviderUnavailableError,
)
REFUSED = ConnectionRefusedError(111, SECRET)


@pytest.mark.parametrize(
    ("exc", "kind", "code"),
    [
        # Python's own
        (TimeoutError(SECRET), U, "timeout"),
        (asyncio.TimeoutError(), U, "timeout"),
        (REFUSED, T, "ConnectionRefusedError"),
        (OSError(errno.ENETUNREACH, SECRET), T, "connect.ENETUNREACH"),
        (OSError(errno.EHOSTUNREACH, SECRET), T, "connect.EHOSTUNREACH"),
        (OSError(errno.EADDRNOTAVAIL, SECRET), T, "connect.EADDRNOTAVAIL"),
        (OSError(errno.ENETDOWN, SECRET), T, "connect.ENETDOWN"),
        (OSError(errno.ETIMEDOUT, SECRET), U, "timeout"),
        (OSError(errno.ECONNRESET, SECRET), U, "ConnectionResetError"),
        (OSError(errno.ENETRESET, SECRET), U, "OSError.ENETRESET"),
        (socket.herror(1, SECRET), T, "socket.herror"),
        (socket.gaierror(-2, SECRET), T, "socket.gaierror"),
        (ConnectionResetError(SECRET), U, "ConnectionResetError"),
        (BrokenPipeError(SECRET), U, "BrokenPipeError"),
        (http.client.RemoteDisconnected(SECRET), U, "ConnectionResetError"),
        (http.client.IncompleteRead(b""), U, "http.HTTPException"),
        (CERTIFICATE, C, "ssl.SSLCertVerificationError"),
        (ssl.SSLEOFError(SECRET), U, "ssl.SSLError"),
        # urllib
        (urllib.error.HTTPError("http://h", 429, SECRET, Message(), None), H, "http.429"),
        (urllib.error.URLError(REFUSED), T, "ConnectionRefusedError"),
        (urllib.error.URLError(CERTIFICATE), C, "tls.certificate"),
        (urllib.error.URLError(SECRET), U, "urllib.URLError"),
        # httpx
        (httpx.ConnectTimeout(SECRET), T, "httpx.ConnectTimeout"),
        (httpx.ConnectError(SECRET), T, "httpx.ConnectError"),
        (wrapped(httpx.ConnectError(SECRET), wrapped(OSError(), CERTIFICATE)), C, "tls.certificate"),
        (httpx.PoolTimeout(SECRET), T, "httpx.PoolTimeout"),
        (httpx.ReadTimeout(SECRET), U, "httpx.ReadTimeout"),
        (httpx.WriteError(SECRET), U, "httpx.WriteError"),
        (httpx.RemoteProtocolError(SECRET), U, "httpx.RemoteProtocolError"),
        (httpx.UnsupportedProtocol(SECRET), P, "httpx.UnsupportedProtocol"),
        (httpx.InvalidURL(SECRET), P, "httpx.InvalidURL"),
        (httpx.ProxyError(SECRET), C, "httpx.ProxyError"),
        (httpx.TooManyRedirects(SECRET), C, "httpx.TooManyRedirects"),
        (httpx.HTTPStatusError(SECRET, request=REQUEST, response=httpx.Response(504)), U, "http.504"),
        (httpx.HTTPStatusError(SECRET, request=REQUEST, response=httpx.Response(422)), P, "http.422"),
        # requests
        (requests.ConnectTimeout(SECRET), T, "requests.ConnectTimeout"),
        (requests.ReadTimeout(SECRET), U, "requests.ReadTimeout"),
        (
            requests.ConnectionError(
                urllib3.exceptions.MaxRetryError(
                    POOL, "/", urllib3.exceptions.NewConnectionError(POOL, SECRET)
                )
            ),
            T,
            "urllib3.NewConnectionError",
        ),
        (
            requests.ConnectionError(urllib3.exceptions.ProtocolError(SECRET, ConnectionResetError())),
            U,
            "urllib3.ProtocolError",
        ),
        (requests.ConnectionError(SECRET), U, "requests.ConnectionError"),
        (
            requests.exceptions.SSLError(
                urllib3.exceptions.MaxRetryError(POOL, "/", urllib3.exceptions.SSLError(CERTIFICATE))
            ),
            C,
            "tls.certificate",
        ),
        (requests.exceptions.SSLError(SECRET), U, "requests.SSLError"),
        (requests.exceptions.ProxyError(SECRET), C, "requests.ProxyError"),
        (requests.exceptions.MissingSchema(SECRET), P, "requests.MissingSchema"),
        (requests.exceptions.JSONDecodeError(SECRET, "<html>", 0), U, "requests.RequestException"),
        (http_error(403), C, "http.403"),
        (http_error(503, {"Retry-After": "2"}), H, "http.503"),
        (requests.HTTPError(SECRET), U, "requests.RequestException"),
        # aiohttp
        (aiohttp.ServerDisconnectedError(SECRET), U, "aiohttp.ServerDisconnectedError"),
        (aiohttp.ConnectionTimeoutError(SECRET), T, "aiohttp.ConnectionTimeoutError"),
        (aiohttp.SocketTimeoutError(SECRET), U, "aiohttp.SocketTimeoutError"),
        (aiohttp.ClientOSError(104, SECRET), U, "aiohttp.ClientOSError"),
        (aiohttp.ClientPayloadError(SECRET), U, "aiohttp.ClientPayloadError"),
        (connector_error(aiohttp.ClientConnectorError, REFUSED), T, "aiohttp.ClientConnectorError"),
        (connector_error(aiohttp.ClientConnectorDNSError, REFUSED), T, "aiohttp.ClientConnectorError"),
        (connector_error(aiohttp.ClientConnectorError, TimeoutError()), T, "aiohttp.ClientConnectorError"),
        (connector_error(aiohttp.ClientConnectorSSLError, CERTIFICATE), C, "tls.certificate"),
        (
            connector_error(aiohttp.ClientProxyConnectionError, REFUSED),
            C,
            "aiohttp.ClientProxyConnectionError",
        ),
        (aiohttp.InvalidURL("x"), P, "aiohttp.InvalidURL"),
        (aiohttp_error(aiohttp.ClientResponseError, 429), H, "http.429"),
        (aiohttp_error(aiohttp.ContentTypeError, 200), U, "http.200"),
        (aiohttp_error(aiohttp.TooManyRedirects, 302), C, "aiohttp.TooManyRedirects"),
        # smtplib, aiosmtplib
        (smtplib.SMTPDataError(554, SECRET.encode()), P, "smtp.554"),
        (smtplib.SMTPAuthenticationError(535, b"5.7.8 no"), C, "smtp.535-5.7.8"),
        (smtplib.SMTPSenderRefused(451, b"4.7.1 later", SECRET), H, "smtp.451-4.7.1"),
        (smtplib.SMTPRecipientsRefused({SECRET: (550, b"5.1.1 unknown")}), R, "smtp.550-5.1.1"),
        (smtplib.SMTPRecipientsRefused({"a": (550, b"5.1.1"), "b": (450, b"")}), T, "smtp.450"),
        (smtplib.SMTPConnectError(421, "busy"), H, "smtp.421"),
        (smtplib.SMTPConnectError(554, "no"), C, "smtp.554"),
        (smtplib.SMTPHeloError(501, b"5.5.2 your name?"), C, "smtp.501-5.5.2"),
        (
            smtplib.SMTPNotSupportedError("STARTTLS extension not supported by server."),
            C,
            "smtp.not_supported",
        ),
        (smtplib.SMTPNotSupportedError("SMTPUTF8 not supported by server"), P, "smtp.no_smtputf8"),
        (smtplib.SMTPException("No suitable authentication method found."), C, "smtplib.SMTPException"),
        (smtplib.SMTPSenderRefused(553, b"5.1.0 rejected", SECRET), C, "smtp.553-5.1.0"),
        (smtplib.SMTPSenderRefused(552, b"5.3.4 too big", SECRET), P, "smtp.552-5.3.4"),
        (smtplib.SMTPRecipientsRefused({SECRET: (450, b"4.7.1 greylisted")}), H, "smtp.450-4.7.1"),
        (smtplib.SMTPRecipientsRefused({SECRET: (550, b"5.1.0 rejected")}), R, "smtp.550-5.1.0"),
        (smtplib.SMTPDataError(-1, b"garbage"), U, "smtp.no_reply"),
        (smtplib.SMTPDataError(251, b"odd"), U, "smtp.251"),
        (smtplib.SMTPResponseException(500, "Line too long."), U, "smtp.500"),
        (smtplib.SMTPServerDisconnected(SECRET), U, "smtplib.SMTPServerDisconnected"),
        (aiosmtplib.SMTPDataError(452, "4.3.1"), H, "smtp.452-4.3.1"),
        (
            aiosmtplib.SMTPRecipientsRefused([aiosmtplib.SMTPRecipientRefused(550, "5.1.1 no", SECRET)]),
            R,
            "smtp.550-5.1.1",
        ),
        (aiosmtplib.SMTPRecipientRefused(450, "4.7.1 greylisted", SECRET), H, "smtp.450-4.7.1"),
        (aiosmtplib.SMTPSenderRefused(550, "5.1.90 daily limit", SECRET), H, "smtp.550-5.1.90"),
        (aiosmtplib.SMTPHeloError(504, "no"), C, "smtp.504"),
        (aiosmtplib.SMTPException("SMTP STARTTLS extension not supported"), C, "aiosmtplib.SMTPException"),
        (aiosmtplib.SMTPNotSupported("SMTPUTF8 is not supported by this server"), P, "smtp.no_smtputf8"),
        (aiosmtplib.SMTPResponseException(-1, "Malformed SMTP response line"), U, "smtp.no_reply"),
        (aiosmtplib.SMTPConnectTimeoutError(SECRET), C, "aiosmtplib.SMTPConnectTimeoutError"),
        (aiosmtplib.SMTPReadTimeoutError(SECRET), U, "aiosmtplib.SMTPReadTimeoutError"),
        (aiosmtplib.SMTPServerDisconnected(SECRET), U, "aiosmtplib.SMTPServerDisconnected"),
        (aiosmtplib.SMTPConnectError(SECRET), C, "aiosmtplib.SMTPConnectError"),
        (aiosmtplib.errors.SMTPConnectResponseError(554, "no"), C, "smtp.554"),
        # botocore
        (client_error("Throttling"), H, "aws.Throttling"),
        (client_error("AccountSuspendedException"), C, "aws.AccountSuspendedException"),
        (client_error("MessageRejected"), P, "aws.MessageRejected"),
        (client_error("InternalFailure", 500), U, "aws.InternalFailure"),
        (
            botocore.exceptions.EndpointConnectionError(endpoint_url="x"),
            T,
            "botocore.EndpointConnectionError",
        ),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="x"), T, "botocore.ConnectTimeoutError"),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), U, "botocore.ReadTimeoutError"),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="x"), U, "botocore.ConnectionClosedError"),
        (botocore.exceptions.SSLError(endpoint_url="x", error=CERTIFICATE), C, "tls.certificate"),
        (botocore.exceptions.HTTPClientError(error=REFUSED), T, "ConnectionRefusedError"),
        (botocore.exceptions.NoCredentialsError(), C, "botocore.NoCredentialsError"),
        # twilio
        (twilio.base.exceptions.TwilioRestException(400, "/x", SECRET, code=21610), R, "twilio.21610"),
        (twilio.base.exceptions.TwilioRestException(429, "/x", SECRET, code=20429), H, "twilio.20429"),
        (twilio.base.exceptions.TwilioRestException(401, "/x", SECRET), C, "http.401"),
        (twilio.base.exceptions.TwilioServiceException("t", SECRET, 500, 20500), U, "twilio.20500"),
        # firebase_admin
        (firebase_error(firebase_admin.messaging.UnregisteredError, 404), R, "fcm.UNREGISTERED"),
        (firebase_error(firebase_admin.messaging.SenderIdMismatchError, 403), R, "fcm.SENDER_ID_MISMATCH"),
        (firebase_error(firebase_admin.messaging.QuotaExceededError, 429), H, "fcm.QUOTA_EXCEEDED"),
        (firebase_error(firebase_admin.messaging.ThirdPartyAuthError, 401), C, "fcm.THIRD_PARTY_AUTH_ERROR"),
        (firebase_error(firebase_admin.exceptions.InvalidArgumentError, 400), P, "fcm.INVALID_ARGUMENT"),
        (firebase_error(firebase_admin.exceptions.InternalError, 500), U, "fcm.INTERNAL"),
        (firebase_error(firebase_admin.exceptions.UnavailableError, 503), H, "fcm.UNAVAILABLE"),
        (
            firebase_error(firebase_admin.exceptions.DeadlineExceededError, None, requests.ReadTimeout()),
            U,
            "requests.ReadTimeout",
        ),
        (
            firebase_error(firebase_admin.exceptions.UnavailableError, None, requests.ConnectTimeout()),
            T,
            "requests.ConnectTimeout",
        ),
        (firebase_error(firebase_admin.exceptions.UnknownError, None), U, "fcm.UNKNOWN"),
        (google_error(google.auth.exceptions.RefreshError), C, "google.RefreshError"),
        (google_error(google.auth.exceptions.TransportError), T, "google.TransportError"),
        # sendgrid
        (sendgrid_error(400), P, "http.400"),
        (sendgrid_error(401), C, "http.401"),
        (sendgrid_error(429), H, "http.429"),
        (sendgrid_error(500), U, "http.500"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_the_exceptions_of_client_libraries(exc: Exception, kind: type[DeliveryError], code: str) -> None:
    """Each exception of a client library says whether the message was sent; nothing of its text is kept."""
    error = classify_exception(exc)
    assert shown(error) == (kind, code)
    assert error is not None
    assert SECRET not in f"{error!r} {error} {error.detail}"


def test_an_exceptions_own_waiting_time_is_kept() -> None:
    """Retry-After and its like arrive whichever library's exception carries them."""
    for exc, seconds in ((http_error(429, {"retry-after": "2"}), 2), (sendgrid_error(429), 5)):
        error = classify_exception(exc)
        assert isinstance(error, ThrottledError)
        assert error.retry_after == seconds


def test_the_caller_names_the_provider() -> None:
    """`provider` is kept as the error's, and its codes and table apply to exceptions too."""
    error = classify_exception(http_error(410), provider="apns")
    assert shown(error) == (InvalidRecipientError, "http.410")
    assert error is not None
    assert error.provider == "apns"
    assert shown(classify_exception(client_error("Throttling"), provider="ses")) == (
        ThrottledError,
        "ses.Throttling",
    )
    assert shown(classify_exception(client_error("Odd"), codes={"Odd": TransientError}))[0] is TransientError


def test_a_delivery_error_is_left_as_it_is() -> None:
    """What a sender raised on purpose is not read again."""
    error = PermanentError("mine")
    assert classify_exception(error) is error


@pytest.mark.parametrize(
    "exc",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        RuntimeError(),
        OSError(5, SECRET),
        Hostile(),
        KeyboardInterrupt(),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_an_exception_whose_type_says_nothing_is_left_to_the_caller(exc: BaseException) -> None:
    """An unlisted type may be a bad payload or a lost reply: it is not guessed at."""
    assert classify_exception(exc) is None


def test_a_subclass_is_read_as_its_base() -> None:
    """A team's or library's own subclass counts as what it is derived from."""

    class Slow(httpx.ReadTimeout):
        pass

    assert shown(classify_exception(Slow(SECRET))) == (UnknownOutcomeError, "httpx.ReadTimeout")


# -- several, and wrapped --------------------------------------------------------------------------


class Group(Exception):
    """Has the shape of an exception group on every supported Python."""

    def __init__(self, *parts: BaseException) -> None:
        self.exceptions = parts


Group.__module__, Group.__name__ = "exceptiongroup", "BaseExceptionGroup"

HELD = http_error(401)
THROTTLED = http_error(429, {"Retry-After": "7"})
BUSY_MAILBOX = smtplib.SMTPRecipientsRefused({SECRET: (450, b"4.7.1")})
REFUSED_PORT = ConnectionRefusedError(111, SECRET)
OPEN = httpx.ReadTimeout(SECRET)
WRONG = http_error(400)
GONE = smtplib.SMTPRecipientsRefused({SECRET: (550, b"5.1.1")})
BUG = KeyError(SECRET)


@pytest.mark.parametrize(
    ("parts", "kind", "code"),
    [
        ((HELD,), C, "http.401"),
        ((Group(Group(HELD)),), C, "http.401"),
        ((HELD, THROTTLED), C, "http.401"),
        ((BUSY_MAILBOX, THROTTLED), H, "http.429"),
        ((REFUSED_PORT, BUSY_MAILBOX), H, "smtp.450-4.7.1"),
        ((WRONG, REFUSED_PORT), T, "ConnectionRefusedError"),
        ((GONE, WRONG), P, "http.400"),
        ((GONE, GONE), R, "smtp.550-5.1.1"),
        *(((part, OPEN), U, "httpx.ReadTimeout") for part in (HELD, THROTTLED, REFUSED_PORT, WRONG, BUG)),
        ((BUG, HELD), C, "http.401"),
        ((BUG, REFUSED_PORT), T, "ConnectionRefusedError"),
        ((TransientError("mine"), WRONG), T, "mine"),
    ],
)
def test_a_group_is_read_part_by_part(
    parts: tuple[Exception, ...], kind: type[DeliveryError], code: str
) -> None:
    """One part that may have been sent opens the whole; then what holds the lane; permanent comes last."""
    assert shown(classify_exception(Group(*parts))) == (kind, code)
    assert shown(classify_exception(Group(*reversed(parts)))) == (kind, code)


@pytest.mark.parametrize("parts", [(BUG,), (BUG, WRONG), (BUG, GONE), ()])
def test_a_part_that_is_not_known_keeps_the_rest_from_being_permanent(parts: tuple[Exception, ...]) -> None:
    """It is left to the caller: a counted failure that is tried again."""
    assert classify_exception(Group(*parts)) is None


@given(st.lists(st.sampled_from([HELD, THROTTLED, BUSY_MAILBOX, REFUSED_PORT, WRONG, GONE, BUG, OPEN])))
def test_certainly_not_sent_is_never_said_of_a_group_with_an_open_part(parts: list[Exception]) -> None:
    """Whatever else is in it."""
    error = classify_exception(Group(*parts))
    assert isinstance(error, UnknownOutcomeError) == (OPEN in parts)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no task groups")
def test_what_a_task_group_raises() -> None:
    """The error of the one task that failed."""

    async def fail() -> None:
        raise HELD

    async def send() -> None:
        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]  # from Python 3.11
            group.create_task(fail())

    with pytest.raises(Exception, match="unhandled errors") as caught:
        asyncio.run(send())
    assert shown(classify_exception(caught.value)) == (C, "http.401")


class AcmeError(Exception):
    """A client's own exception, which says less than what it was raised for."""


def raised_from(cause: Exception) -> Exception:
    try:
        raise AcmeError(SECRET) from cause
    except AcmeError as e:
        return e


def raised_while_handling(handled: Exception) -> Exception:
    try:
        try:
            raise handled
        except Exception:
            raise AcmeError(SECRET)  # noqa: B904  # what the test is about
    except AcmeError as e:
        return e


def raised_in_place_of(hidden: Exception) -> Exception:
    try:
        try:
            raise hidden
        except Exception:
            raise AcmeError(SECRET) from None
    except AcmeError as e:
        return e


@pytest.mark.parametrize("cause", [HELD, THROTTLED, REFUSED_PORT, OPEN, WRONG, GONE, CERTIFICATE])
def test_a_client_that_wraps_is_read_by_what_it_wraps(cause: Exception) -> None:
    """`raise X from e` says that e is the reason; `from None` says that it is not."""
    assert shown(classify_exception(raised_from(cause))) == shown(classify_exception(cause))
    assert shown(classify_exception(raised_from(raised_from(cause)))) == shown(classify_exception(cause))
    assert classify_exception(raised_in_place_of(cause)) is None


@pytest.mark.parametrize(
    ("handled", "kind"), [(REFUSED_PORT, T), (OPEN, U), (HELD, None), (THROTTLED, None), (WRONG, None)]
)
def test_what_was_being_handled_neither_holds_the_lane_nor_ends_the_notification(
    handled: Exception, kind: type[DeliveryError] | None
) -> None:
    """It may be the first provider's refusal, while the exception is the second one's."""
    error = classify_exception(raised_while_handling(handled))
    assert (None if error is None else type(error)) is kind


class HostileResponse(httpx.HTTPStatusError):
    def __init__(self) -> None:
        pass

    @property
    def response(self) -> httpx.Response:  # type: ignore[override]
        raise RuntimeError(SECRET)


@given(ANYTHING, ANYTHING)
def test_an_answer_for_every_object(value: Any, provider: Any) -> None:
    """No object makes classify_exception raise, raising attributes and cycles of causes included."""
    assert classify_exception(value, provider=provider) is None
    cycle = requests.ConnectionError(value)
    cycle.__cause__ = cycle
    assert classify_exception(cycle, provider=provider) is not None
    broken = (
        HostileResponse(),
        client_error("x", value),
        urllib.error.URLError(value),
        smtplib.SMTPRecipientsRefused(value),
        twilio.base.exceptions.TwilioRestException(value, value, value, code=value),
    )
    for exc in broken:
        error = classify_exception(exc, provider=provider)
        assert error is None or (error.code != "invalid_code" and SECRET not in repr(error))


# -- against sockets -------------------------------------------------------------------------------


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def hangs_up() -> Iterator[int]:
    """A server that reads a request and closes the connection without an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


async def with_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(url, data=b"x"):
        pass


def with_botocore(url: str) -> None:
    URLLib3Session().send(AWSRequest("POST", url, data=b"x").prepare())


CLIENTS: dict[str, Callable[[str], object]] = {
    "httpx": lambda url: httpx.post(url, content=b"x", trust_env=False),
    "requests": lambda url: requests.post(url, data=b"x", timeout=30),
    "urllib": lambda url: urllib.request.urlopen(url, b"x", timeout=30),  # noqa: S310
    "aiohttp": lambda url: asyncio.run(with_aiohttp(url)),
    "botocore": with_botocore,
}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_port_that_refuses_is_certain_and_a_reply_that_stays_out_is_not(
    client: str, closed_port: int, hangs_up: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the request nothing was sent; once it was written, nobody knows, whichever library wrote it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for port, kind in ((closed_port, TransientError), (hangs_up, UnknownOutcomeError)):
        with pytest.raises(Exception) as raised:  # noqa: PT011
            CLIENTS[client](f"http://127.0.0.1:{port}/")
        assert shown(classify_exception(raised.value))[0] is kind, repr(raised.value)
