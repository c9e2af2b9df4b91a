"""The error for an SMTP reply, by the command that the server answered. Pure; never raises.

The command decides what a refusal is about. Connection, HELO, AUTH and MAIL FROM are the same for every mail, so the
lane waits; RCPT TO is about one recipient; DATA is about one message.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final, Literal

from kafka_notify._base import codes
from kafka_notify._classify.provider_codes import ErrorKind
from kafka_notify._classify.replies import status_number, valid_provider
from kafka_notify._classify.waits import MAX_RETRY_AFTER
from kafka_notify.errors import (
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)

SmtpPhase = Literal["connect", "auth", "sender", "recipient", "data"]
"""The command that a server answered: `connect` is the greeting, HELO/EHLO and STARTTLS, `auth` AUTH, `sender` MAIL
FROM, `recipient` RCPT TO, `data` DATA and the mail itself."""

GREYLIST_WAIT: Final = 60.0
"""Seconds until the next attempt after a recipient's server said "later"; greylisting takes one to five minutes."""

_ENHANCED: Final = re.compile(r"\s*([45]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.])")

# Enhanced status codes without their class: RFC 3463, its registry at IANA, and what large providers document.
_RATES: Final = frozenset(
    {"3.2", "4.5", "7.28"}
)  # 432 4.3.2 and 550 5.4.5 are quotas of Microsoft and Google
_ACCOUNT_NUMBERS: Final = frozenset({530, 534, 535, 538})
_ACCOUNT: Final = frozenset(
    {
        "1.7", "1.8", "1.20", "7.8", "7.9", "7.10", "7.11", "7.12", "7.13", "7.14",
        "7.20", "7.21", "7.22", "7.23", "7.24", "7.25", "7.26", "7.27", "7.29", "7.30",
    }
)  # fmt: skip
"""The sender's address or login, and the domain's SPF, DKIM and DMARC: the same for every mail."""
_ADDRESS: Final = frozenset(["1.1", "1.2", "1.3", "1.4", "1.6", "1.10", "7.17", "7.18"])
"""The recipient's address: it does not exist, accepts no mail, or has a new owner."""
_TOO_BIG: Final = frozenset({"2.3", "3.4"})

_LATER: Final = partial(ThrottledError, scope="recipient", retry_after=GREYLIST_WAIT)
_FULL: Final = partial(TransientError, retry_after=MAX_RETRY_AFTER)
"""A full mailbox, which its owner may empty."""


def classify_smtp(
    code: int,
    message: str | bytes = "",
    *,
    phase: SmtpPhase | None = None,
    after_data: bool = False,
    provider: str | None = None,
) -> DeliveryError | None:
    """Return the error for an SMTP reply to a send. Never raises, whatever the arguments.

    Args:
        code: The reply's number; anything below 200 (0, or smtplib's -1) means no reply: a broken connection.
        message: The reply's text; only an enhanced status such as `5.1.1` at its beginning is read.
        phase: The command that was answered: `connect` (greeting, HELO, STARTTLS), `auth`, `sender` (MAIL FROM),
            `recipient` (RCPT TO) or `data`. The same reply can be about the sender in one phase and about the recipient
            in another: 553 5.1.0 to MAIL FROM rejects the sender's own address. Without a phase only the reply counts,
            and an address is called invalid only if it cannot be the sender's.
        after_data: True if the message's final dot had been sent. Without a reply the message may then have been
            accepted; a reply is certain in any phase.
        provider: The operator of the server.

    Returns:
        None for 2yz. Otherwise an error to raise, with a code such as `smtp.451` or `smtp.550-5.1.1`.
        `connect`, `auth`, `sender`: `ProviderUnavailableError`, or `ThrottledError` for a rate; the lane waits. A
        message that is too large for MAIL FROM is `PermanentError`. `recipient`: `InvalidRecipientError` for an
        address that does not exist, `ThrottledError(scope="recipient")` for greylisting. `data`: `PermanentError`.
    """
    name = valid_provider(provider)
    number = status_number(code)
    if number in range(200, 300):
        return None
    if not 400 <= number <= 599:
        label = codes.smtp(number) if 300 <= number <= 399 else codes.SMTP_NO_REPLY
        return _no_reply(phase, after_data)(label, provider=name)
    enhanced = _enhanced(message, number)
    label = codes.smtp(number, enhanced)
    return _kind(number, enhanced, phase)(label, provider=name)


def _no_reply(phase: object, after_data: object) -> ErrorKind:
    if phase in ("connect", "auth"):
        return ProviderUnavailableError
    return UnknownOutcomeError if after_data is not False else TransientError


def _kind(number: int, enhanced: str, phase: object) -> ErrorKind:
    detail = enhanced[2:]
    later = number < 500
    if (
        number in (421, 432) or detail in _RATES or enhanced == "5.1.90"
    ):  # the last one is Microsoft's daily limit
        return ThrottledError if later else partial(ThrottledError, retry_after=MAX_RETRY_AFTER)
    if number in _ACCOUNT_NUMBERS or (detail in _ACCOUNT and not (later and detail.startswith("7."))):
        return ProviderUnavailableError
    if phase in ("connect", "auth"):
        rate = later and phase == "connect" and number != 454 and detail.startswith("7.")  # 454: no TLS now
        return ThrottledError if rate else ProviderUnavailableError
    if phase == "sender":
        return _of_sender(number, detail, later)
    if later:
        return _later(number, detail, phase)
    if detail == "2.2" or (number == 552 and not detail and phase == "recipient"):
        return _FULL
    if detail in _ADDRESS or (detail == "1.0" and phase == "recipient"):
        return InvalidRecipientError
    return PermanentError


def _of_sender(number: int, detail: str, later: bool) -> ErrorKind:
    # Clients announce a message's size and character set with MAIL FROM: these are properties of the message.
    if number in (552, 555) or detail in _TOO_BIG or detail.startswith("6."):
        return TransientError if later else PermanentError
    rate = later and (number in (452, 454) or detail.startswith("7."))
    return ThrottledError if rate else ProviderUnavailableError


def _later(number: int, detail: str, phase: object) -> ErrorKind:
    """A 4yz to RCPT TO, to DATA, or to a command that is not known."""
    if detail in ("2.1", "2.2"):  # receiving too fast, or full
        return partial(ThrottledError, scope="recipient")
    if detail == "7.1" or (phase == "recipient" and detail.startswith("7.") and detail not in _ACCOUNT):
        return _LATER
    if number == 452 and phase == "recipient" and not detail.startswith("3."):
        return partial(ThrottledError, scope="recipient")
    if number in (452, 454) or detail.startswith("7."):
        return ThrottledError
    return TransientError


def _enhanced(message: object, code: int) -> str:
    if isinstance(message, (bytes, bytearray)):
        text = bytes(message[:32]).decode("ascii", "replace")
    else:
        text = str.__str__(message)[:32] if isinstance(message, str) else ""
    found = _ENHANCED.match(text)
    return found[1] if found and found[1][0] == str(code)[0] else ""
