"""The error codes that this library creates, and the families that they belong to.

Each code is defined only here. Headers, events, metrics and logs carry codes, so the text of a code must never change.
Providers' own codes are in `_classify.provider_codes`.
"""

from __future__ import annotations

from typing import Final

# -- a send ----------------------------------------------------------------------------------------

TIMEOUT: Final = "timeout"
"""The send outlived its deadline."""
CANCELLED: Final = "cancelled"
"""Something other than its deadline cancelled the send."""
NO_RECEIPT: Final = "no_receipt"
"""`send` returned something other than a `Receipt`."""
INVALID_CODE: Final = "invalid_code"
"""Replaces a code from a sender that is not valid."""

UNHANDLED: Final = "unhandled."
"""A family, by class: an exception that nothing classifies."""
UNHANDLED_UNKNOWN: Final = "unhandled.unknown"
"""An unhandled exception whose class cannot be named."""
CLASSIFY: Final = "classify."
"""A family, by class: `Consumer.classify` raised."""
DESTINATION: Final = "destination."
"""A family, by class: `Consumer.destination` raised."""
DEFERRED: Final = "deferred."
"""A family, by the team's reason: `should_send` deferred the notification, and nothing was sent."""
SHOULD_SEND: Final = "should_send."
NO_VERDICT: Final = "should_send.no_verdict"
"""`should_send` returned something other than a `Verdict`."""
MIDDLEWARE: Final = "middleware."
INVALID_OUTCOME: Final = "middleware.invalid_outcome"
"""A middleware returned an outcome that cannot be used."""

NOT_THE_PROVIDERS: Final = (
    *(UNHANDLED, CLASSIFY, DEFERRED, SHOULD_SEND, MIDDLEWARE, DESTINATION),
    *(NO_RECEIPT, CANCELLED),
)
"""Prefixes of codes that say nothing about the provider."""

# -- what a client library said --------------------------------------------------------------------

TLS_CERTIFICATE: Final = "tls.certificate"
TOO_MANY_ERRORS: Final = "too_many_errors"
"""An exception group contains more exceptions than are examined."""
HTTP_INVALID: Final = "http.invalid"
"""The status is not a number."""
SMTP_NO_REPLY: Final = "smtp.no_reply"
SMTP_NO_UTF8: Final = "smtp.no_smtputf8"
SMTP_NOT_SUPPORTED: Final = "smtp.not_supported"


def http(status: int) -> str:
    """The code of an HTTP status."""
    return f"http.{status}"


def smtp(reply: int, enhanced: str = "") -> str:
    """The code of an SMTP reply, with its enhanced status when it has one."""
    return f"smtp.{reply}-{enhanced}" if enhanced else f"smtp.{reply}"


# -- a record --------------------------------------------------------------------------------------

CODEC_UNAVAILABLE: Final = "codec_unavailable"
"""The codec's own service is unavailable; also a family, by the reason why the codec cannot decode now."""
CONTENT_TYPE_UNREAD: Final = "codec_unavailable.content_type"
CODEC: Final = "codec."
"""A family, by class: the codec raised."""
BAD_JSON: Final = "bad_json"
BAD_KEY: Final = "bad_key"
BAD_PAYLOAD: Final = "bad_payload"
BAD_TIMESTAMP: Final = "bad_timestamp"
NULL_VALUE: Final = "null_value"
BAD_HEADER: Final = "bad_header."
"""A family, by header."""
NO_HEADER: Final = "no_"
"""A family, by header: a required header is missing."""
BAD_RETRY_HEADERS: Final = "bad_retry_headers"
NO_DEAD_LETTER: Final = "no_dead_letter"
"""A record of a dead-letter topic lacks the headers of a dead letter."""
RECORD_TOO_LARGE: Final = "record_too_large"
"""No topic accepts a whole copy of the record."""

# -- copies that no failure caused ------------------------------------------------------------------

PAUSED: Final = "paused"
DESTINATION_HELD: Final = "destination_held"

FAMILIES: Final = (
    *(UNHANDLED, CLASSIFY, DESTINATION, DEFERRED, SHOULD_SEND, MIDDLEWARE, CODEC, BAD_HEADER),
    *("http.", "smtp."),
)
"""Prefixes that are reserved for the codes of this library."""
