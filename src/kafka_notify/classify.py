"""What a provider's answer means: an HTTP status, an SMTP reply or a client library's exception as a `DeliveryError`.

Pure functions that answer for any input and never raise. Client libraries are known by the names of their
exceptions, never imported. Of an answer only codes are kept: its text may hold an address, a number or a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from kafka_notify._provider_codes import EXCEPTION_CODES, PROVIDER_CODES, Codes
from kafka_notify._replies import (
    NO_CODES,
    NO_HEADERS,
    classify_http,
    classify_smtp,
    code_token,
    retry_after,
    status_number,
    valid_provider,
)
from kafka_notify.errors import DeliveryError, PermanentError, ProviderUnavailableError, UnknownOutcomeError

__all__ = ["PROVIDER_CODES", "Codes", "classify_exception", "classify_http", "classify_smtp", "retry_after"]

_MAX_CAUSES: Final = 8


def classify_exception(
    exc: BaseException, *, provider: str | None = None, codes: Codes = NO_CODES
) -> DeliveryError | None:
    """What a client library's exception says about a send. Never raises, whatever it is given.

    Knows httpx, requests, urllib, aiohttp, smtplib, aiosmtplib, botocore, twilio, firebase_admin, sendgrid and
    Python's own connection errors, by class name through the class's bases.

    Args:
        exc: What `send` raised; a `DeliveryError` is returned as it is.
        provider: Who answered, when the exception's class does not say it.
        codes: As for `classify_http`.

    Returns:
        None for any other exception: its type does not say whether a message was sent (a `ValueError` may be a bad
        payload, or an HTML page in place of JSON). Codes look like `httpx.ReadTimeout`, `timeout`, `http.504`.
    """
    try:
        return _classified(exc, provider, codes)
    except Exception:  # an attribute of a foreign exception raised: what went wrong stays that exception
        return None


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
        waiting += [_attribute(current, name) for name in ("reason", "os_error")]
        kwargs: Any = _attribute(current, "kwargs") or {}
        waiting += [kwargs["error"]] if "error" in kwargs else []  # botocore


def _certificate(exc: BaseException, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """A certificate that is not trusted stays so: our configuration or theirs, not this message."""
    for cause in _causes(exc):
        if any(base.__name__ == "SSLCertVerificationError" for base in type(cause).__mro__):
            return ProviderUnavailableError("tls.certificate", provider=valid_provider(provider))
    return None


def _by_cause(exc: BaseException, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """For exceptions raised both before and after a request is written: what they wrap knows which."""
    error = _certificate(exc, provider=provider, codes=codes)
    if error is not None:
        return error
    found = (_classified(cause, provider, codes) for cause in _causes(exc))
    return next((error for error in found if error is not None), None)


def _response(
    exc: Any, status: str, headers: str, *, provider: str | None, codes: Codes, code: object = None
) -> DeliveryError | None:
    """`classify_http` of the response that an exception carries: attributes by dotted path."""
    number = _attribute(exc, status)
    if number is None:
        return None
    found: Any = _attribute(exc, headers) if headers else None
    error = classify_http(
        number, NO_HEADERS if found is None else found, provider=provider, code=code_token(code), codes=codes
    )
    # A 2xx that could not be read: the provider has probably accepted it.
    return error or UnknownOutcomeError(f"http.{status_number(number)}", provider=valid_provider(provider))


def _attribute(value: Any, path: str) -> Any:
    """The attribute at a dotted path; None where there is none, or where asking for it raises."""
    for name in path.split("."):
        try:
            value = getattr(value, name, None)
        except Exception:  # a property of a foreign exception: the others may still tell
            return None
    return value


def _twilio(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    code = _attribute(exc, "code")
    return _response(exc, "status", "", provider=provider or "twilio", codes=codes, code=code)


_FCM_CODES: Final = {
    "UnregisteredError": "UNREGISTERED",
    "SenderIdMismatchError": "SENDER_ID_MISMATCH",
    "QuotaExceededError": "QUOTA_EXCEEDED",
    "ThirdPartyAuthError": "THIRD_PARTY_AUTH_ERROR",
}


def _firebase(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    code = _FCM_CODES.get(type(exc).__name__) or _attribute(exc, "code")
    who = provider or "fcm"
    if _attribute(exc, "http_response") is None:
        cause = _attribute(exc, "cause")
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


def _smtplib(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    return classify_smtp(exc.smtp_code, exc.smtp_error, provider=provider)


def _aiosmtplib(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    return classify_smtp(exc.code, exc.message, provider=provider)


def _refused(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """All recipients were refused: one notification has one, so the first that may be tried again speaks for all."""
    refused: Any = exc.recipients
    replies: list[tuple[Any, Any]]
    if hasattr(refused, "values"):  # smtplib: address to (code, text); the addresses are not looked at
        replies = [(reply[0], reply[1]) for reply in refused.values()]
    else:
        replies = [(reply.code, reply.message) for reply in refused]
    errors = [e for e in (classify_smtp(code, text, provider=provider) for code, text in replies) if e]
    return next((e for e in errors if not isinstance(e, PermanentError)), errors[0] if errors else None)


_Reader = Callable[..., DeliveryError | None]
_READERS: Final[Mapping[str, _Reader]] = {
    "httpx.HTTPStatusError": partial(_response, status="response.status_code", headers="response.headers"),
    "httpx.ConnectError": _certificate,
    "requests.HTTPError": partial(_response, status="response.status_code", headers="response.headers"),
    "requests.SSLError": _by_cause,
    "requests.ConnectionError": _by_cause,
    "urllib3.MaxRetryError": _by_cause,
    "urllib3.SSLError": _by_cause,
    "urllib.HTTPError": partial(_response, status="code", headers="headers"),
    "urllib.URLError": _by_cause,
    "aiohttp.ClientResponseError": partial(_response, status="status", headers="headers"),
    "aiohttp.ClientConnectorError": _certificate,
    "botocore.ClientError": _botocore,
    "botocore.SSLError": _by_cause,
    "botocore.HTTPClientError": _by_cause,
    "twilio.TwilioRestException": _twilio,
    "twilio.TwilioServiceException": _twilio,
    "firebase_admin.FirebaseError": _firebase,
    "python_http_client.HTTPError": partial(_response, status="status_code", headers="headers"),
    "smtplib.SMTPResponseException": _smtplib,
    "smtplib.SMTPRecipientsRefused": _refused,
    "aiosmtplib.SMTPResponseException": _aiosmtplib,
    "aiosmtplib.SMTPRecipientsRefused": _refused,
}
