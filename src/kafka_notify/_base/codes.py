"""The error codes that this library makes itself, and the families that they belong to.

Each is written down here alone: headers, events, metrics and logs carry them, so none may change its text. What
providers say for themselves is in `_classify.provider_codes`.
"""

from __future__ import annotations

from typing import Final

# -- a send ----------------------------------------------------------------------------------------

TIMEOUT: Final = "timeout"
"""It outlived its deadline."""
CANCELLED: Final = "cancelled"
"""It was cancelled by something else than its deadline."""
NO_RECEIPT: Final = "no_receipt"
"""It returned something else than a `Receipt`."""
INVALID_CODE: Final = "invalid_code"
"""Stands for a code of a sender's that cannot be one."""

UNHANDLED: Final = "unhandled."
"""A family, by class: an exception that nobody knows."""
UNHANDLED_UNKNOWN: Final = "unhandled.unknown"
"""One whose class cannot be named either."""
CLASSIFY: Final = "classify."
"""A family, by class: `Consumer.classify` raised."""
DESTINATION: Final = "destination."
"""A family, by class: `Consumer.destination` raised."""
DEFERRED: Final = "deferred."
"""A family, by the team's reason: `should_send` put the notification off, so that nothing was sent."""
SHOULD_SEND: Final = "should_send."
NO_VERDICT: Final = "should_send.no_verdict"
"""It returned something else than a `Verdict`."""
MIDDLEWARE: Final = "middleware."
INVALID_OUTCOME: Final = "middleware.invalid_outcome"
"""One returned an outcome that cannot be used."""

NOT_THE_PROVIDERS: Final = (
    *(UNHANDLED, CLASSIFY, DEFERRED, SHOULD_SEND, MIDDLEWARE, DESTINATION),
    *(NO_RECEIPT, CANCELLED),
)
"""Beginnings of codes that say nothing about the provider."""

# -- what a client library said --------------------------------------------------------------------

TLS_CERTIFICATE: Final = "tls.certificate"
TOO_MANY_ERRORS: Final = "too_many_errors"
"""An exception group that holds more of them than are looked at."""
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
"""The codec's own service is unavailable; also the family of why it cannot decode now."""
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
"""A family, by header: one that is needed is missing."""
BAD_RETRY_HEADERS: Final = "bad_retry_headers"
NO_DEAD_LETTER: Final = "no_dead_letter"
"""A record of a dead-letter topic lacks the headers of one."""
RECORD_TOO_LARGE: Final = "record_too_large"
"""No topic takes a whole copy of it."""

# -- copies that no failure made --------------------------------------------------------------------

PAUSED: Final = "paused"
DESTINATION_HELD: Final = "destination_held"

FAMILIES: Final = (
    *(UNHANDLED, CLASSIFY, DESTINATION, DEFERRED, SHOULD_SEND, MIDDLEWARE, CODEC, BAD_HEADER),
    *("http.", "smtp."),
)
"""How no code may begin that is made elsewhere."""
