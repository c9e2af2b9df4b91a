"""The names of the headers, and the parsing of one header: the only module that knows them.

Names are lower case. Values are UTF-8 text; of several headers with one name the last wins. Numbers are ASCII decimals.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from kafka_notify._base import codes
from kafka_notify.errors import CodecUnavailableError, NotifyError

Headers = list[tuple[str, bytes]]
"""Headers as `confluent_kafka.Message.headers()` returns them; a value from another client may be None."""

SCHEMA: Final = "notif-schema"
ID: Final = "notif-id"
CATEGORY: Final = "notif-category"
CHANNEL: Final = "notif-channel"
RECIPIENT: Final = "notif-recipient"
CREATED_AT: Final = "notif-created-at"
EXPIRES_AT: Final = "notif-expires-at"
COLLAPSE_KEY: Final = "notif-collapse-key"
CORRELATION_ID: Final = "notif-correlation-id"
CONTENT_TYPE: Final = "content-type"

ORIGIN_TOPIC: Final = "notif-origin-topic"
ORIGIN_PARTITION: Final = "notif-origin-partition"
ORIGIN_OFFSET: Final = "notif-origin-offset"
ORIGIN_TOPIC_ID: Final = "notif-origin-topic-id"
ATTEMPT: Final = "notif-attempt"
NEXT_RETRY_AT: Final = "notif-next-retry-at"
FIRST_FAILED_AT: Final = "notif-first-failed-at"
WAITING_SINCE: Final = "notif-waiting-since"
LAST_ERROR_CLASS: Final = "notif-last-error-class"
LAST_ERROR_CODE: Final = "notif-last-error-code"
LAST_PROVIDER: Final = "notif-last-provider"
OUTCOME_UNKNOWN: Final = "notif-outcome-unknown"
UNKNOWN_BEFORE: Final = "notif-outcome-unknown-before"
WRITER: Final = "notif-writer"

DLQ_REASON: Final = "notif-dlq-reason"
DLQ_AT: Final = "notif-dlq-at"
GROUP: Final = "notif-group"
PAYLOAD: Final = "notif-payload"
REDRIVES: Final = "notif-redrives"

HOP_HEADERS: Final = frozenset(
    {
        ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET, ORIGIN_TOPIC_ID, ATTEMPT, NEXT_RETRY_AT, FIRST_FAILED_AT,
        WAITING_SINCE,
        LAST_ERROR_CLASS, LAST_ERROR_CODE, LAST_PROVIDER, OUTCOME_UNKNOWN, UNKNOWN_BEFORE, WRITER, DLQ_REASON, DLQ_AT,
        GROUP, PAYLOAD, REDRIVES,
    }
)  # fmt: skip
"""Headers of retry copies and dead letters. They are ignored on source topics, where any producer can set them."""

MAX_BYTES: Final = 4096
MAX_MILLIS: Final = 253_402_300_799_999  # 9999-12-31, the last that datetime can hold
MAX_OFFSET: Final = 2**63 - 1
MAX_INT32: Final = 2**31 - 1
# confluent-kafka 2.16 returns those tuples together with an exception. From Python 3.11 on, a specialised call in
# bytecode misses the exception, which then appears at some later place; this call always raises it.
_ask_headers: Final = operator.methodcaller("headers")
_find_control: Final = re.compile(r"[\x00-\x1f\x7f]").search


class Undecodable(NotifyError):
    """A record is not a notification: `code` says where (`bad_key`, `bad_header.notif-id`, `bad_json`, ...)."""

    def __init__(
        self, reason: Literal["undecodable", "unsupported_schema"], code: str, detail: str = ""
    ) -> None:
        self.reason: Literal["undecodable", "unsupported_schema"] = reason
        self.code = code
        self.detail = detail
        """The class and field that do not fit, never a value; empty when the code is enough."""
        super().__init__(f"{reason}: {code}")


class ContentTypeUnread(CodecUnavailableError):
    """This process's codec does not read a record's `content-type`. Another codec can, so the record waits.

    Args:
        content_type: The record's content type, made safe to show.
        reads: The content type that the codec reads.
    """

    def __init__(self, content_type: str, reads: str) -> None:
        self.content_type = content_type
        self.reads = reads
        super().__init__(f"the codec does not read content-type {content_type!r}; it reads {reads}")


class HasHeaders(Protocol):
    """A `confluent_kafka.Message`."""

    def headers(self, /) -> Any: ...


def headers_of(message: HasHeaders) -> Headers:
    """The headers of a record; empty if a name is not UTF-8, because confluent-kafka then returns none of them.

    Call it once per message: after such a failure confluent-kafka 2.16 returns tuples without contents.
    """
    try:
        headers: Headers | None = _ask_headers(message)
    except (UnicodeError, SystemError):
        return []
    return headers or []


def read_text(got: Mapping[str, bytes], name: str) -> str | None:
    """Return the text of a header, None when it is absent; raise `Undecodable` when it is malformed."""
    raw = got.get(name)
    if raw is None:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Undecodable("undecodable", f"{codes.BAD_HEADER}{name}") from None
    # isprintable is the fast path; it also rejects characters that are allowed here, such as a no-break space
    if len(raw) > MAX_BYTES or (not text.isprintable() and _find_control(text)):
        raise Undecodable("undecodable", f"{codes.BAD_HEADER}{name}")
    return text


def read_integer(got: Mapping[str, bytes], name: str, limit: int) -> int | None:
    """Return the number of a header, 0 to `limit`, None when it is absent; raise `Undecodable` when it is malformed."""
    raw = got.get(name)
    if raw is None:
        return None
    if len(raw) < 20 and raw.isdigit() and (number := int(raw)) <= limit:  # bytes.isdigit knows only ASCII
        return number
    raise Undecodable("undecodable", f"{codes.BAD_HEADER}{name}")
