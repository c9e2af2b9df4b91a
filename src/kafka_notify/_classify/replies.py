"""The error for an HTTP response: by its status, its headers and the provider's own code.

Pure functions that accept any input and never raise. Only codes are kept of a reply: its text may contain an address, a
number or a token.
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
# At most six digits: a provider's code, not a telephone number.
_TOKEN: Final = re.compile(r"[0-9]{1,6}|[A-Za-z][A-Za-z0-9_]{0,47}")
_MAX_CODE: Final = 64

_STATUS: Final[Mapping[int, type[DeliveryError]]] = {
    401: ProviderUnavailableError,
    402: ProviderUnavailableError,
    403: ProviderUnavailableError,
    407: ProviderUnavailableError,
    408: UnknownOutcomeError,  # it does not say whether the request had arrived
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
    """Return the error for an HTTP response to a send. Never raises, whatever the arguments.

    Args:
        status: The HTTP status.
        headers: The response headers, read as `retry_after` does. The reset of a rate limit (`RateLimit-Reset`) counts
            as a wait only for a throttle, because some providers send it with every response.
        provider: The provider that answered. Those in `PROVIDER_CODES` (twilio, fcm, apns, sendgrid, ses, aws) have
            their own codes, which take precedence over the status.
        code: The provider's own code in the response: `21610`, `UNREGISTERED`, `BadDeviceToken`.
        codes: Additional or different meanings, for example `{"21408": ProviderUnavailableError}`; these take
            precedence. A key such as `http.410` matches a status without a known code.
        now: The current time as an aware datetime, for a `Retry-After` that is a date.

    Returns:
        None for a 2xx status: the provider accepted the message. Otherwise an error to raise, with a code such as
        `http.504` or `twilio.21610`. Time-outs and 5xx are unknown outcomes: the message may have been sent.
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
    if 100 <= status <= 199 or 300 <= status <= 399:  # not from the endpoint of the API
        return ProviderUnavailableError
    return _STATUS.get(status) or (PermanentError if 400 <= status <= 499 else UnknownOutcomeError)


def _made(
    codes: Codes, key: str, label: str, provider: str | None, asked: float | None, reset: float | None
) -> DeliveryError | None:
    try:
        kind = codes.get(key) if key else None
        error = None if kind is None else kind(label, provider=provider)
    except Exception:  # the caller's own mapping raised: the status decides
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
    """A status as a number from 0 to 999; -1 for anything else."""
    try:
        number = int(status)  # type: ignore[call-overload]  # http.HTTPStatus, "504"; else below
    except Exception:
        return -1
    return number if 0 <= number <= 999 else -1


def valid_provider(provider: object) -> str | None:
    """`provider` if it can be a label, otherwise None."""
    return provider if isinstance(provider, str) and _PROVIDER.fullmatch(provider) else None


def code_token(code: object) -> str:
    """A provider's code as part of an error code; empty for anything that might be text."""
    if isinstance(code, bool) or not isinstance(code, (int, str)):
        return ""
    if isinstance(code, int) and not 0 <= code < 10**6:  # also keeps huge numbers from being written out
        return ""
    text = str.__str__(code) if isinstance(code, str) else int.__repr__(code)
    return text if _TOKEN.fullmatch(text) else ""
