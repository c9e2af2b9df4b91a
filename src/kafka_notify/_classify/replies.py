"""What an HTTP response says about a send: its status, headers and the provider's own code.

Pure functions that answer for any input and never raise. Of a reply only codes are kept: its text may hold an
address, a number or a token.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from kafka_notify._base import codes as _codes
from kafka_notify._classify.provider_codes import PROVIDER_CODES, Codes
from kafka_notify._classify.waits import waits
from kafka_notify.errors import (
    DeliveryError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
NO_CODES: Final[Codes] = MappingProxyType({})

_PROVIDER: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
# Digits only when few: a provider's number, not a telephone number.
_TOKEN: Final = re.compile(r"[0-9]{1,6}|[A-Za-z][A-Za-z0-9_]{0,47}")
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
        headers: Of the response, read as `retry_after` does. When a rate limit begins again (`RateLimit-Reset`)
            is the wait of a throttle alone: some providers say it in every response.
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
    asked, reset = waits(headers, now)
    label = _codes.http(number) if number >= 0 else _codes.HTTP_INVALID
    if name and token and len(name) + len(token) < _MAX_CODE:
        label = f"{name}.{token}"
    for known in (codes, PROVIDER_CODES.get(name or "", NO_CODES)):
        for key in (token, _codes.http(number)):
            error = _made(known, key, label, name, asked, reset)
            if error is not None:
                return error
    return _waiting(_kind(number, asked)(label, provider=name), asked, reset)


def _kind(status: int, asked: float | None) -> type[DeliveryError]:
    if status == 503 and asked is not None:
        return ThrottledError
    if 100 <= status <= 199 or 300 <= status <= 399:  # not the endpoint we are meant to talk to
        return ProviderUnavailableError
    return _STATUS.get(status) or (PermanentError if 400 <= status <= 499 else UnknownOutcomeError)


def _made(
    codes: Codes, key: str, label: str, provider: str | None, asked: float | None, reset: float | None
) -> DeliveryError | None:
    try:
        kind = codes.get(key) if key else None
        error = None if kind is None else kind(label, provider=provider)
    except Exception:  # a caller's own mapping: what it cannot answer, the status does
        return None
    return _waiting(error, asked, reset) if isinstance(error, DeliveryError) else None


def _waiting(error: DeliveryError, asked: float | None, reset: float | None) -> DeliveryError:
    if isinstance(error, ThrottledError):
        wait = reset if asked is None else asked
        error.retry_after = error.retry_after if wait is None else wait
    elif isinstance(error, TransientError) and asked is not None:
        error.retry_after = asked
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
