"""Exceptions of smtplib and aiosmtplib as a `DeliveryError`, by the command that was refused or cut off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from kafka_notify._base import codes as _codes
from kafka_notify._classify import network
from kafka_notify._classify.provider_codes import Codes
from kafka_notify._classify.reading import attribute, gravest
from kafka_notify._classify.replies import status_number, valid_provider
from kafka_notify._classify.smtp_replies import SmtpPhase, classify_smtp
from kafka_notify.errors import (
    DeliveryError,
    PermanentError,
    ProviderUnavailableError,
    TransientError,
    UnknownOutcomeError,
)

_SMTP_FUNCTIONS: Final[Mapping[str, SmtpPhase | None]] = {
    **dict.fromkeys(("connect", "ehlo", "helo", "starttls", "start_tls"), "connect"),
    **dict.fromkeys(("login", "auth", "auth_plain", "auth_login", "auth_crammd5", "auth_xoauth2"), "auth"),
    "mail": "sender",
    "rcpt": "recipient",
    "data": "data",
    **dict.fromkeys(("rset", "quit", "__exit__", "__aexit__"), None),  # also after a mail was accepted
}


def _phase(exc: BaseException) -> SmtpPhase | None:
    """Which command smtplib or aiosmtplib was at, by the functions that the exception passed through."""
    phase: SmtpPhase | None = None
    for package, name in network.frames(exc):
        if package in ("smtplib", "aiosmtplib") and name in _SMTP_FUNCTIONS:
            phase = _SMTP_FUNCTIONS[name]
    return phase


def _refused(exc: Any, *, phase: SmtpPhase, provider: str | None, codes: Codes) -> DeliveryError | None:
    """A reply to a command that the exception's class names."""
    code, text = _reply(exc)
    return _replied(code, text, phase, provider)


def _reply(exc: Any) -> tuple[Any, Any]:
    code = attribute(exc, "smtp_code")  # smtplib's name
    return (attribute(exc, "code"), exc.message) if code is None else (code, exc.smtp_error)


def _replied(code: Any, text: Any, phase: SmtpPhase, provider: str | None) -> DeliveryError:
    error = classify_smtp(code, text, phase=phase, after_data=phase == "data", provider=provider)
    if error is not None:
        return error
    # A positive reply that the client did not expect: to DATA, the mail may be on its way.
    kind = UnknownOutcomeError if phase == "data" else TransientError
    return kind(_codes.smtp(status_number(code)), provider=valid_provider(provider))


def _all_refused(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """All recipients were refused: one notification has one."""
    refused: Any = exc.recipients
    replies: list[tuple[Any, Any]]
    if hasattr(refused, "values"):  # smtplib: address to (code, text); the addresses are not looked at
        replies = [(reply[0], reply[1]) for reply in refused.values()]
    else:
        replies = [(reply.code, reply.message) for reply in refused]
    return gravest([_replied(code, text, "recipient", provider) for code, text in replies])


def _some_reply(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """A reply without a command: to STARTTLS, or to RSET or QUIT after a mail that may have been accepted."""
    code, text = _reply(exc)
    phase = _phase(exc)
    if phase is not None:
        return _replied(code, text, phase, provider)
    error = classify_smtp(code, text, after_data=True, provider=provider)
    if isinstance(error, (ProviderUnavailableError, UnknownOutcomeError)):
        return error
    return UnknownOutcomeError(
        error.code if error else _codes.smtp(status_number(code)), provider=valid_provider(provider)
    )


def _hung_up(exc: Any, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """No reply: before the mail was handed over it is certain, and while connecting it is ours."""
    phase = _phase(exc)
    if phase in (None, "data"):
        return None
    kind = ProviderUnavailableError if phase in ("connect", "auth") else TransientError
    package = type(exc).__module__.partition(".")[0]
    return kind(f"{package}.{type(exc).__name__}"[:64], provider=valid_provider(provider))


def _not_supported(exc: BaseException, *, provider: str | None, codes: Codes) -> DeliveryError | None:
    """No STARTTLS or AUTH is the server's or our configuration; no SMTPUTF8 is about this mail's addresses."""
    utf8 = "SMTPUTF8" in str(exc) or "internationalized" in str(exc)
    kind = PermanentError if utf8 else ProviderUnavailableError
    return kind(_codes.SMTP_NO_UTF8 if utf8 else _codes.SMTP_NOT_SUPPORTED, provider=valid_provider(provider))


_SMTP_PHASES: Final[Mapping[SmtpPhase, str]] = {
    "connect": "SMTPConnectResponseError SMTPHeloError",
    "auth": "SMTPAuthenticationError",
    "sender": "SMTPSenderRefused",
    "recipient": "SMTPRecipientRefused",
    "data": "SMTPDataError",
}
SMTP_READERS: Final[Mapping[str, Callable[..., DeliveryError | None]]] = {
    **{
        f"{package}.{name}": partial(_refused, phase=phase)
        for package in ("smtplib", "aiosmtplib")
        for phase, names in _SMTP_PHASES.items()
        for name in names.split()
    },
    **{
        f"{package}.{name}": reader
        for package in ("smtplib", "aiosmtplib")
        for name, reader in (
            ("SMTPRecipientsRefused", _all_refused),
            ("SMTPResponseException", _some_reply),
            ("SMTPServerDisconnected", _hung_up),
            ("SMTPReadTimeoutError", _hung_up),
            ("SMTPTimeoutError", _hung_up),
            ("SMTPNotSupported", _not_supported),
            ("SMTPNotSupportedError", _not_supported),
        )
    },
    "smtplib.SMTPConnectError": partial(_refused, phase="connect"),
}
"""By package and class. A reader returns None where the exception does not tell."""
