"""Headers of the hops: what retry copies and dead letters add to a record's own, and how it is read back.

A hop replaces what an earlier one wrote, it never appends: a record does not grow on its way.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Final, Literal, TypeVar

import attrs

from kafka_notify._wire import headers as h
from kafka_notify._wire.headers import (
    MAX_INT32,
    MAX_MILLIS,
    MAX_OFFSET,
    Headers,
    Undecodable,
    read_integer,
    read_text,
)

DlqReason = Literal[
    "permanent",
    "invalid_recipient",
    "max_attempts",
    "expired",
    "undecodable",
    "unsupported_schema",
    "throttle_timeout",
    "unknown_outcome",
    "wait_too_long",
    "removed",
]
DlqPayload = Literal["intact", "redacted"]
T = TypeVar("T")

REDRIVE_WRITER: Final = "redrive"
SPILL_ORIGIN: Final = MAX_OFFSET
"""Origin of a spill: no record has it. A spill has the headers of a retry copy, so that versions which know of none
take it for the copy of another writer."""
SPILL_WRITER: Final = "spill:"
"""What the writer of a spill begins with: no fence admits it, so it is passed over like another writer's copy."""
_MAX_TOKEN: Final = 128
_PAYLOADS: Final[Mapping[bytes | None, DlqPayload]] = {b"intact": "intact", b"redacted": "redacted"}


@attrs.frozen
class RetryState:
    """What a retry copy knows besides its notification."""

    origin_topic: str
    origin_partition: int
    origin: int
    """Offset in the source partition: the one order that counts."""
    attempt: int
    """Counted attempts made."""
    due_ms: int
    first_failed_ms: int | None
    error_class: str | None
    error_code: str | None
    provider: str | None
    outcome_unknown: bool
    """An attempt ended with an unknown outcome; sticky, until somebody redrives it."""
    writer: str
    """The assignment that wrote the copy, or `REDRIVE_WRITER`."""
    redrives: int
    origin_topic_id: str | None = None
    """Of the topic that `origin` is an offset of: one of the same name may have come after it. None when it is not
    known, as of older versions; `-` when it is known to be another one than the present."""
    unknown_before: bool = False
    """The same of an attempt before a redrive: whoever redrove it took it for not sent, or wanted it sent again."""
    waiting_since_ms: int | None = None
    """When it was first throttled, or deferred, of all times in a row that it was."""

    @property
    def is_spill(self) -> bool:
        """Whether it is no copy, but says which offsets are finished."""
        return self.origin == SPILL_ORIGIN and self.writer.startswith(SPILL_WRITER)


def read_retry(headers: Headers | None, origin_topic: str, origin_partition: int) -> RetryState | None:
    """The state of a record of our own retry topic.

    Args:
        origin_topic: The source topic that this retry topic belongs to, as `origin_partition`: a header never
            routes anywhere else.

    Returns:
        None when something is missing, malformed, or names another origin: dead-letter it.
    """
    got = dict(headers or ())
    try:
        state = RetryState(
            origin_topic=_required(read_text(got, h.ORIGIN_TOPIC)),
            origin_partition=_required(read_integer(got, h.ORIGIN_PARTITION, MAX_INT32)),
            origin=_required(read_integer(got, h.ORIGIN_OFFSET, MAX_OFFSET)),
            attempt=_required(read_integer(got, h.ATTEMPT, MAX_INT32)),
            due_ms=_required(read_integer(got, h.NEXT_RETRY_AT, MAX_MILLIS)),
            first_failed_ms=read_integer(got, h.FIRST_FAILED_AT, MAX_MILLIS),
            error_class=read_text(got, h.LAST_ERROR_CLASS),
            error_code=read_text(got, h.LAST_ERROR_CODE),
            provider=read_text(got, h.LAST_PROVIDER),
            outcome_unknown=bool(read_integer(got, h.OUTCOME_UNKNOWN, 1)),
            writer=_required(read_text(got, h.WRITER)),
            redrives=read_integer(got, h.REDRIVES, MAX_INT32) or 0,
            origin_topic_id=read_text(got, h.ORIGIN_TOPIC_ID),
            unknown_before=bool(read_integer(got, h.UNKNOWN_BEFORE, 1)),
            waiting_since_ms=read_integer(got, h.WAITING_SINCE, MAX_MILLIS),
        )
    except Undecodable:
        return None
    is_ours = state.origin_topic == origin_topic and state.origin_partition == origin_partition
    return state if is_ours and state.writer else None


def retry_copy(headers: Headers | None, state: RetryState, id: str, created_ms: int) -> Headers:
    """The headers of a retry copy: the record's own, untouched and in order, and `state` instead of an older one.

    Args:
        id: Of the notification, written when the record has none; as `created_ms`.
    """
    copy = own_headers(headers, id, created_ms)
    copy += _origin_headers(state)
    copy += [(h.NEXT_RETRY_AT, b"%d" % min(state.due_ms, MAX_MILLIS)), (h.WRITER, _token(state.writer))]
    if state.redrives:
        copy.append((h.REDRIVES, b"%d" % state.redrives))
    if state.waiting_since_ms is not None:
        copy.append((h.WAITING_SINCE, b"%d" % state.waiting_since_ms))
    return copy


def strip_retry(headers: Headers | None) -> Headers:
    """The record's own headers, in order, without those of retry copies and dead letters."""
    return [header for header in headers or () if header[0] not in h.HOP_HEADERS]


def own_headers(headers: Headers | None, id: str | None, created_ms: int | None) -> Headers:
    """The record's own headers, with id and creation time where it had none: what every copy of it carries."""
    copy = strip_retry(headers)
    got = dict(copy)
    if id is not None and got.get(h.ID) is None:
        copy.append((h.ID, id.encode()))
    if created_ms is not None and got.get(h.CREATED_AT) is None:
        copy.append((h.CREATED_AT, b"%d" % created_ms))
    return copy


def _origin_headers(state: RetryState) -> Headers:
    written: Headers = [
        (h.ORIGIN_TOPIC, state.origin_topic.encode()),
        (h.ORIGIN_PARTITION, b"%d" % state.origin_partition),
        (h.ORIGIN_OFFSET, b"%d" % state.origin),
        (h.ATTEMPT, b"%d" % state.attempt),
    ]
    if state.origin_topic_id:
        written.append((h.ORIGIN_TOPIC_ID, _token(state.origin_topic_id)))
    if state.first_failed_ms is not None:
        written.append((h.FIRST_FAILED_AT, b"%d" % state.first_failed_ms))
    for name, text in (
        (h.LAST_ERROR_CLASS, state.error_class),
        (h.LAST_ERROR_CODE, state.error_code),
        (h.LAST_PROVIDER, state.provider),
    ):
        if text is not None:
            written.append((name, _token(text)))
    if state.outcome_unknown:
        written.append((h.OUTCOME_UNKNOWN, b"1"))
    if state.unknown_before:
        written.append((h.UNKNOWN_BEFORE, b"1"))
    return written


@functools.lru_cache(1_000)  # there are few of them, and each copy has four
def _token(text: str) -> bytes:
    """A sender's own word (a class, a provider), made so that `read_retry` accepts whatever it was."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text[:_MAX_TOKEN]).encode(errors="replace")


# -- dead letters ----------------------------------------------------------------------------------


@attrs.frozen
class DeadLetterState:
    """What a dead letter knows besides its notification."""

    reason: str
    at_ms: int
    group: str
    payload: DlqPayload
    redrives: int
    origin_topic: str
    origin_partition: int
    origin: int
    attempt: int
    first_failed_ms: int | None
    error_class: str | None
    error_code: str | None
    provider: str | None
    outcome_unknown: bool
    origin_topic_id: str | None = None
    """As in `RetryState`."""
    unknown_before: bool = False
    """As in `RetryState`."""


def dead_letter(
    headers: Headers | None,
    *,
    reason: DlqReason,
    at_ms: int,
    group: str,
    payload: DlqPayload,
    redrives: int,
    state: RetryState,
    id: str | None = None,
    created_ms: int | None = None,
) -> Headers:
    """The headers of a dead letter: the record's own, untouched and in order, and why it died.

    Args:
        at_ms: When it died, epoch milliseconds.
        group: The consumer group that gave up.
        payload: Whether the value is the original's bytes.
        state: Origin, attempts and last error; its `due_ms`, `writer` and `redrives` are not written.
        id: Of the notification when it could be decoded, written when the record has none; as `created_ms`.
    """
    letter = own_headers(headers, id, created_ms)
    letter += _origin_headers(state)
    letter += [
        (h.DLQ_REASON, reason.encode()),
        (h.DLQ_AT, b"%d" % at_ms),
        (h.GROUP, group.encode()),
        (h.PAYLOAD, payload.encode()),
        (h.REDRIVES, b"%d" % redrives),
    ]
    return letter


def read_dead_letter(headers: Headers | None) -> DeadLetterState | None:
    """The state of a record of a dead-letter topic; None when something is missing or malformed."""
    got = dict(headers or ())
    try:
        return DeadLetterState(
            reason=_required(read_text(got, h.DLQ_REASON)),
            at_ms=_required(read_integer(got, h.DLQ_AT, MAX_MILLIS)),
            group=_required(read_text(got, h.GROUP)),
            payload=_required(_PAYLOADS.get(got.get(h.PAYLOAD))),
            redrives=read_integer(got, h.REDRIVES, MAX_INT32) or 0,
            origin_topic=_required(read_text(got, h.ORIGIN_TOPIC)),
            origin_partition=_required(read_integer(got, h.ORIGIN_PARTITION, MAX_INT32)),
            origin=_required(read_integer(got, h.ORIGIN_OFFSET, MAX_OFFSET)),
            attempt=_required(read_integer(got, h.ATTEMPT, MAX_INT32)),
            first_failed_ms=read_integer(got, h.FIRST_FAILED_AT, MAX_MILLIS),
            error_class=read_text(got, h.LAST_ERROR_CLASS),
            error_code=read_text(got, h.LAST_ERROR_CODE),
            provider=read_text(got, h.LAST_PROVIDER),
            outcome_unknown=bool(read_integer(got, h.OUTCOME_UNKNOWN, 1)),
            origin_topic_id=read_text(got, h.ORIGIN_TOPIC_ID),
            unknown_before=bool(read_integer(got, h.UNKNOWN_BEFORE, 1)),
        )
    except Undecodable:
        return None


def _required(value: T | None) -> T:
    if value is None:
        raise Undecodable("undecodable", "missing_header")
    return value
