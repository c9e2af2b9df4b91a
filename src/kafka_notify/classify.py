"""Classification of answers: an HTTP status, an SMTP reply or a client library's exception as a `DeliveryError`.

Pure functions that answer for any input and never raise. Client libraries are known by the names of their
exceptions, never imported. Of an answer only codes are kept: its text may hold an address, a number or a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from kafka_notify._base import codes as _codes
from kafka_notify._classify import network
from kafka_notify._classify.provider_codes import EXCEPTION_CODES, PROVIDER_CODES, Codes
from kafka_notify._classify.reading import attribute, gravest
from kafka_notify._classify.replies import (
    NO_CODES,
    NO_HEADERS,
    classify_http,
    code_token,
    status_number,
    valid_provider,
)
from kafka_notify._classify.smtp_exceptions import SMTP_READERS
from kafka_notify._classify.smtp_replies import SmtpPhase, classify_smtp
from kafka_notify._classify.waits import retry_after
from kafka_notify.errors import (
    DeliveryError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)

__all__ = [
    "PROVIDER_CODES",
    "Codes",
    "SmtpPhase",
    "classify_exception",
    "classify_http",
    "classify_smtp",
    "retry_after",
]

_MAX_CAUSES: Final = 8
_MAX_PARTS: Final = 1_000


def classify_exception(
    exc: BaseException, *, provider: str | None = None, codes: Codes = NO_CODES
) -> DeliveryError | None:
    """Return what a client library's exception says about a send. Never raises, whatever it is given.

    Knows httpx, requests, urllib, aiohttp, smtplib, aiosmtplib, botocore, grpc, twilio, firebase_admin, sendgrid and
    Python's own network errors, by class name through the class's bases.

    - **Could not reach the provider** (refused, no route, no name, a handshake that failed): certainly not sent,
      `TransientError`; a certificate that is not trusted is `ProviderUnavailableError`. A connection that broke or a
      time-out is certain only when the traceback shows that it was still being made, else `UnknownOutcomeError`.
    - **An exception group** is read part by part. One part that may have been sent makes the whole
      `UnknownOutcomeError`; else the one with the widest effect counts: what holds the lane, before what waits for
      one recipient, before what is tried again, before what is permanent.
    - **An exception of another class** is read by what it was raised `from`; by what it was raised in place of only
      when that means a counted attempt or an untrusted certificate.

    Args:
        exc: The exception that `send` raised; a `DeliveryError` is returned unchanged.
        provider: Name of the provider that answered, when the exception's class does not say it.
        codes: As for `classify_http`.

    Returns:
        The error to raise, whose code looks like `httpx.ReadTimeout`, `timeout`, `http.504`; None for any other
        exception: its type does not say whether a message was sent (a `ValueError` may be a bad payload, or an HTML
        page in place of JSON).
    """
    try:
        return _read(exc, provider, codes)
    except Exception:  # an attribute of a foreign exception raised: what went wrong stays that exception
        return None


def _read(exc: BaseException, provider: str | None, codes: Codes) -> DeliveryError | None:
    """The exception itself, else what it wraps."""
    current, certain = exc, True
    seen: set[int] = set()
    while id(current) not in seen and len(seen) < _MAX_CAUSES:
        seen.add(id(current))
        error = _classified(current, provider, codes)
        if error is not None:
            return error if certain or _counts(error) else None
        if current.__cause__ is not None:
            current = current.__cause__
        elif current.__context__ is not None and not current.__suppress_context__:
            # What was being handled may be another call's failure, as when a second provider is asked after the
            # first one refused: it must neither hold the lane nor end the notification.
            current, certain = current.__context__, False
    return None


def _counts(error: DeliveryError) -> bool:
    return isinstance(error, (TransientError, UnknownOutcomeError)) or error.code == _codes.TLS_CERTIFICATE


def _classified(exc: BaseException, provider: str | None, codes: Codes) -> DeliveryError | None:
    if isinstance(exc, DeliveryError):
        return exc
    for base in type(exc).__mro__:
        name = f"{base.__module__.partition('.')[0]}.{base.__name__}"
        reader = _READERS.get(name)
        error = reader(exc, provider=provider, codes=codes) if reader else None
        if error is None and name in EXCEPTION_CODES:
            kind, label = EXCEPTION_CODES[name]
            error = kind(label, provider=valid_provider(provider))
        if error is not None:
            return error
    return None


# -- several at once -------------------------------------------------------------------------------


def _group(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """An exception group: all of its parts are about one notification."""
    found: list[DeliveryError] = []
    other = False
    waiting: list[Any] = list(exc.exceptions)
    for _ in range(_MAX_PARTS):
        if not waiting:
            break
        part = waiting.pop()
        inner: Any = attribute(part, "exceptions")
        if isinstance(inner, tuple):
            waiting += inner
            continue
        error = _read(part, provider, codes)
        other = other or error is None
        found += [error] if error else []
    if waiting:
        return UnknownOutcomeError(_codes.TOO_MANY_ERRORS, provider=valid_provider(provider))
    error = gravest(found)
    # Beside a part that is not known, nothing is permanent.
    return None if other and isinstance(error, PermanentError) else error


# -- the network -----------------------------------------------------------------------------------


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions that `exc` wraps, outermost first; each library keeps them somewhere else."""
    waiting: list[object] = [exc]
    seen: set[int] = set()
    while waiting and len(seen) < _MAX_CAUSES:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        if current is not exc:
            yield current
        waiting += [current.__cause__, *current.args[:2]]
        waiting += [attribute(current, name) for name in ("reason", "os_error")]
        kwargs: Any = attribute(current, "kwargs") or {}
        waiting += [kwargs["error"]] if "error" in kwargs else []  # botocore


def _certificate(exc: BaseException, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """A certificate that is not trusted stays so: our configuration or theirs, not this message."""
    for cause in _causes(exc):
        if any(base.__name__ == "SSLCertVerificationError" for base in type(cause).__mro__):
            return ProviderUnavailableError(_codes.TLS_CERTIFICATE, provider=valid_provider(provider))
    return None


def _unsent(exc: BaseException, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """For exceptions raised both before and after a request is written: certain when the connection was being made."""
    error = _certificate(exc, provider=provider, codes=codes)
    if error is not None:
        return error
    for each in (exc, *_causes(exc)):
        if network.connecting(each):
            return _not_reached(each, provider)
    return None


def _by_cause(exc: BaseException, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """For exceptions that say less than those that they wrap: read as by `_unsent`, then by their causes."""
    error = _unsent(exc, provider=provider, codes=codes)
    if error is not None:
        return error
    found = (_classified(cause, provider, codes) for cause in _causes(exc))
    return next((error for error in found if error is not None), None)


def _not_reached(exc: BaseException, provider: str | None) -> DeliveryError:
    label = network.label(exc) if isinstance(exc, OSError) else type(exc).__name__
    return TransientError(f"connect.{label}", provider=valid_provider(provider))


def _os_error(exc: OSError, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """A network error of Python's own; None for those of files, and for the classes in `EXCEPTION_CODES`."""
    if type(exc).__name__ in ("ConnectionRefusedError", "gaierror", "herror", "SSLCertVerificationError"):
        return None
    if network.never_connected(exc):
        return _not_reached(exc, provider)
    if type(exc) is OSError and network.lost(exc):
        return UnknownOutcomeError(f"OSError.{network.label(exc)}", provider=valid_provider(provider))
    return None


_GRPC: Final[Codes] = {
    **dict.fromkeys(("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"), ProviderUnavailableError),
    **dict.fromkeys(("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE"), PermanentError),
    "RESOURCE_EXHAUSTED": ThrottledError,
}
_GRPC_UNREACHED: Final = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "dns resolution failed",
    "name resolution failure",
)


def _grpc(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """UNAVAILABLE also comes for a call that was under way: only the client's own words tell."""
    status = code_token(attribute(exc.code(), "name"))
    if not status:
        return None
    kind = codes.get(status) or _GRPC.get(status, UnknownOutcomeError)
    if status == "UNAVAILABLE" and str(exc.details()).lower().startswith(_GRPC_UNREACHED):
        kind = TransientError
    return kind(f"grpc.{status}", provider=valid_provider(provider))


# -- replies in exceptions -------------------------------------------------------------------------


def _response(
    exc: Any, status: str, headers: str, *, provider: str | None, codes: Codes, code: object = None
) -> DeliveryError | None:
    """`classify_http` of the response that an exception carries: attributes by dotted path."""
    number = attribute(exc, status)
    if number is None:
        return None
    found: Any = attribute(exc, headers) if headers else None
    error = classify_http(
        number, NO_HEADERS if found is None else found, provider=provider, code=code_token(code), codes=codes
    )
    # A 2xx that could not be read: the provider has probably accepted it.
    return error or UnknownOutcomeError(_codes.http(status_number(number)), provider=valid_provider(provider))


def _twilio(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    code = attribute(exc, "code")
    return _response(exc, "status", "", provider=provider or "twilio", codes=codes, code=code)


_FCM_CODES: Final = {
    "UnregisteredError": "UNREGISTERED",
    "SenderIdMismatchError": "SENDER_ID_MISMATCH",
    "QuotaExceededError": "QUOTA_EXCEEDED",
    "ThirdPartyAuthError": "THIRD_PARTY_AUTH_ERROR",
}


def _firebase(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    code = _FCM_CODES.get(type(exc).__name__) or attribute(exc, "code")
    who = provider or "fcm"
    if attribute(exc, "http_response") is None:
        cause = attribute(exc, "cause")
        error = _classified(cause, who, codes) if isinstance(cause, BaseException) else None
        return error or classify_http(0, provider=who, code=code_token(code), codes=codes)
    path = "http_response.status_code"
    return _response(exc, path, "http_response.headers", provider=who, codes=codes, code=code)


def _botocore(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    answer: Any = exc.response
    about: Any = answer.get("ResponseMetadata") or {}
    error: Any = answer.get("Error") or {}
    return classify_http(
        about.get("HTTPStatusCode", 0),
        about.get("HTTPHeaders") or NO_HEADERS,
        provider=provider or "aws",
        code=code_token(error.get("Code")),
        codes=codes,
    )


_Reader = Callable[..., DeliveryError | None]
_READERS: Final[Mapping[str, _Reader]] = {
    "builtins.BaseExceptionGroup": _group,
    "exceptiongroup.BaseExceptionGroup": _group,  # the backport for Python 3.10
    **dict.fromkeys(
        (
            "builtins.ConnectionResetError",
            "builtins.ConnectionAbortedError",
            "builtins.BrokenPipeError",
            "builtins.TimeoutError",
            "builtins.OSError",
        ),
        _os_error,
    ),
    "ssl.SSLError": _unsent,
    "grpc.RpcError": _grpc,
    "httpx.HTTPStatusError": partial(_response, status="response.status_code", headers="response.headers"),
    "httpx.ConnectError": _certificate,
    "requests.HTTPError": partial(_response, status="response.status_code", headers="response.headers"),
    "requests.SSLError": _by_cause,
    "requests.ConnectionError": _by_cause,
    "urllib3.MaxRetryError": _by_cause,
    "urllib3.SSLError": _by_cause,
    "urllib3.ProtocolError": _unsent,
    "urllib.HTTPError": partial(_response, status="code", headers="headers"),
    "urllib.URLError": _by_cause,
    "aiohttp.ClientResponseError": partial(_response, status="status", headers="headers"),
    "aiohttp.ClientConnectorError": _certificate,
    "aiohttp.ClientOSError": _unsent,
    "botocore.ClientError": _botocore,
    "botocore.SSLError": _by_cause,
    "botocore.ConnectionClosedError": _unsent,
    "botocore.HTTPClientError": _by_cause,
    "twilio.TwilioRestException": _twilio,
    "twilio.TwilioServiceException": _twilio,
    "firebase_admin.FirebaseError": _firebase,
    "python_http_client.HTTPError": partial(_response, status="status_code", headers="headers"),
    **SMTP_READERS,
    "aiosmtplib.SMTPConnectError": _certificate,
}
