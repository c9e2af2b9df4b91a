"""What a provider's reply says about a send: an HTTP status with its headers, or an SMTP reply.

Pure functions that answer for any input and never raise. Of a reply only codes are kept: its text may hold an
address, a number or a token.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

from kafka_notify._provider_codes import PROVIDER_CODES, Codes
from kafka_notify._units import UTC
from kafka_notify.errors import (
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)

MAX_RETRY_AFTER: Final = 900.0
"""Seconds that are believed of a `Retry-After`; a longer outage is asked again after that."""
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
NO_CODES: Final[Codes] = MappingProxyType({})

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{0,9})?")
_PROVIDER: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
# Digits only when few: a provider's number, not a telephone number.
_TOKEN: Final = re.compile(r"[0-9]{1,6}|[A-Za-z][A-Za-z0-9_]{0,47}")
_ENHANCED: Final = re.compile(r"\s*([45]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.])")
_DELTA_NOT_EPOCH: Final = 1e8  # as an epoch that would be 1973
_MAX_CODE: Final = 64

_STATUS: Final[Mapping[int, type[DeliveryError]]] = {
    401: ProviderUnavailableError,
    402: ProviderUnavailableError,
    403: ProviderUnavailableError,
    407: ProviderUnavailableError,
    408: UnknownOutcomeError,  # whether the request had arrived is not said
    409: TransientError,  # an idempotency key in flight
    421: TransientError,
    425: TransientError,
    429: ThrottledError,
}


# -- HTTP ------------------------------------------------------------------------------------------


def classify_http(
    status: int,
    headers: Mapping[str, str] = NO_HEADERS,
    *,
    provider: str | None = None,
    code: str | int | None = None,
    codes: Codes = NO_CODES,
    now: dt.datetime | None = None,
) -> DeliveryError | None:
    """What an HTTP response says about a send. Never raises, whatever it is given.

    Args:
        status: The HTTP status.
        headers: Of the response; `Retry-After` and `X-RateLimit-Reset` are read.
        provider: Who answered. Those in `PROVIDER_CODES` (twilio, fcm, apns, sendgrid, ses, aws) have codes of
            their own, which go before the status.
        code: The provider's own code in the response: `21610`, `UNREGISTERED`, `BadDeviceToken`.
        codes: More of them, or other readings, for example `{"21408": ProviderUnavailableError}`; these go first.
            A key `http.410` stands for a status without a known code.
        now: Aware datetime; for a `Retry-After` that is a date.

    Returns:
        None for a 2xx: the provider accepted it. Otherwise an error to raise, with a code such as `http.504` or
        `twilio.21610`. Time-outs and 5xx are unknown outcomes: the message may have been sent.
    """
    number = status_number(status)
    if number in range(200, 300):
        return None
    name = valid_provider(provider)
    token = code_token(code)
    wait = retry_after(headers, now=now)
    label = f"http.{number}" if number >= 0 else "http.invalid"
    if name and token and len(name) + len(token) < _MAX_CODE:
        label = f"{name}.{token}"
    for known in (codes, PROVIDER_CODES.get(name or "", NO_CODES)):
        for key in (token, f"http.{number}"):
            error = _made(known, key, label, name, wait)
            if error is not None:
                return error
    return _waiting(_kind(number, wait)(label, provider=name), wait)


def _kind(status: int, wait: float | None) -> type[DeliveryError]:
    if status == 503 and wait is not None:
        return ThrottledError
    if 100 <= status <= 199 or 300 <= status <= 399:  # not the endpoint we are meant to talk to
        return ProviderUnavailableError
    return _STATUS.get(status) or (PermanentError if 400 <= status <= 499 else UnknownOutcomeError)


def _made(
    codes: Codes, key: str, label: str, provider: str | None, wait: float | None
) -> DeliveryError | None:
    try:
        kind = codes.get(key) if key else None
        error = None if kind is None else kind(label, provider=provider)
    except Exception:  # a caller's own mapping: what it cannot answer, the status does
        return None
    return _waiting(error, wait) if isinstance(error, DeliveryError) else None


def _waiting(error: DeliveryError, wait: float | None) -> DeliveryError:
    if wait is not None and isinstance(error, (TransientError, ThrottledError)):
        error.retry_after = wait
    return error


def status_number(status: object) -> int:
    """A status as a number from 0 to 999, -1 when it is none."""
    try:
        number = int(status)  # type: ignore[call-overload]  # http.HTTPStatus, "504"; else below
    except Exception:
        return -1
    return number if 0 <= number <= 999 else -1


def valid_provider(provider: object) -> str | None:
    """`provider` when it can be a label, else None."""
    return provider if isinstance(provider, str) and _PROVIDER.fullmatch(provider) else None


def code_token(code: object) -> str:
    """A provider's code as part of ours; empty for anything that might be text."""
    if isinstance(code, bool) or not isinstance(code, (int, str)):
        return ""
    if isinstance(code, int) and not 0 <= code < 10**6:  # also keeps huge numbers from being written out
        return ""
    text = str.__str__(code) if isinstance(code, str) else int.__repr__(code)
    return text if _TOKEN.fullmatch(text) else ""


def retry_after(headers: Mapping[str, str], *, now: dt.datetime | None = None) -> float | None:
    """Seconds that a response asks to wait, at most 15 minutes; None when it does not say. Never raises.

    Args:
        headers: `Retry-After` (seconds or an HTTP date) goes before `X-RateLimit-Reset` (epoch seconds, or seconds
            when it is too small for that). What lies in the past is 0; what cannot be read is ignored.
        now: Aware datetime; the current time by default.
    """
    try:
        found = {
            name.lower(): value
            for name, value in headers.items()
            if isinstance(name, str) and name.lower() in ("retry-after", "x-ratelimit-reset")
        }
        moment = (dt.datetime.now(UTC) if now is None else now).timestamp()
    except Exception:  # no mapping, or one that raises
        return None
    seconds = _seconds(found.get("retry-after"))
    if seconds is None:
        date = _date(found.get("retry-after"))
        seconds = None if date is None else date - moment
    if seconds is None:
        reset = _seconds(found.get("x-ratelimit-reset"))
        seconds = reset if reset is None or reset < _DELTA_NOT_EPOCH else reset - moment
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _seconds(value: object) -> float | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = int.__repr__(value) if abs(value) < 10**15 else None
    if not isinstance(value, str):
        return None
    text = str.__str__(value).strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _date(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except Exception:  # ValueError, TypeError, OverflowError, IndexError: its ways to say that it is no date
        return None


# -- SMTP ------------------------------------------------------------------------------------------


def classify_smtp(
    code: int, message: str | bytes = "", *, after_data: bool = False, provider: str | None = None
) -> DeliveryError | None:
    """What an SMTP reply says about a send. Never raises, whatever it is given.

    Args:
        code: The reply's number; anything below 200 (0, or smtplib's -1) stands for no reply: a broken connection.
        message: The reply's text; only an enhanced status such as `5.1.1` at its beginning is read.
        after_data: Whether the message's final dot had been sent. Without a reply it may then have been accepted;
            a reply is certain in any phase.
        provider: Whose server it is.

    Returns:
        None for 2yz. Otherwise an error to raise, with a code such as `smtp.451` or `smtp.550-5.1.1`.
    """
    name = valid_provider(provider)
    number = status_number(code)
    if number in range(200, 300):
        return None
    if not 400 <= number <= 599:
        label = f"smtp.{number}" if 300 <= number <= 399 else "smtp.no_reply"
        return (UnknownOutcomeError if after_data is not False else TransientError)(label, provider=name)
    enhanced = _enhanced(message, number)
    label = f"smtp.{number}-{enhanced}" if enhanced else f"smtp.{number}"
    if number < 500:
        if number in (421, 452, 454) or enhanced.startswith("4.7.") or enhanced == "4.2.1":
            # x.2.x is the recipient's mailbox: full, or receiving too fast
            is_mailbox = enhanced.startswith("4.2.")
            return ThrottledError(label, scope="recipient" if is_mailbox else "provider", provider=name)
        return TransientError(label, provider=name)
    if number in (530, 534, 535, 538) or enhanced in ("5.7.8", "5.7.9"):
        return ProviderUnavailableError(label, provider=name)
    if enhanced.startswith("5.1.") and enhanced not in (
        "5.1.7",
        "5.1.8",
    ):  # those two are the sender's address
        return InvalidRecipientError(label, provider=name)
    if enhanced == "5.2.2":  # a full mailbox, which its owner may empty
        return TransientError(label, retry_after=MAX_RETRY_AFTER, provider=name)
    return PermanentError(label, provider=name)


def _enhanced(message: object, code: int) -> str:
    if isinstance(message, (bytes, bytearray)):
        text = bytes(message[:32]).decode("ascii", "replace")
    else:
        text = str.__str__(message)[:32] if isinstance(message, str) else ""
    found = _ENHANCED.match(text)
    return found[1] if found and found[1][0] == str(code)[0] else ""
