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
from kafka_notify._wire.history import History, Origin

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
"""Prefix of the writer of a spill: no fence admits it, so it is passed over like another writer's copy."""
_MAX_TOKEN: Final = 128
_PAYLOADS: Final[Mapping[bytes | None, DlqPayload]] = {b"intact": "intact", b"redacted": "redacted"}


@attrs.frozen
class RetryState:
    """What the headers of a retry record say besides the notification."""

    origin: Origin
    history: History
    due_ms: int
    """Before it no attempt starts."""
    writer: str
    """The assignment that wrote the copy, or `REDRIVE_WRITER`."""

    @property
    def is_spill(self) -> bool:
        """True for a record that says which offsets are finished, and is not a copy."""
        return self.origin.offset == SPILL_ORIGIN and self.writer.startswith(SPILL_WRITER)


def read_retry(headers: Headers | None, origin_topic: str, origin_partition: int) -> RetryState | None:
    """The state of a record of our own retry topic.

    Args:
        headers: The record's headers.
        origin_topic: The source topic that this retry topic belongs to, as `origin_partition`: a header never
            routes anywhere else.

    Returns:
        None when something is missing, malformed, or names another origin: dead-letter it.
    """
    got = dict(headers or ())
    try:
        state = RetryState(
            _origin(got),
            _history(got, read_integer(got, h.WAITING_SINCE, MAX_MILLIS)),
            _required(read_integer(got, h.NEXT_RETRY_AT, MAX_MILLIS)),
            _required(read_text(got, h.WRITER)),
        )
    except Undecodable:
        return None
    is_ours = state.origin.topic == origin_topic and state.origin.partition == origin_partition
    return state if is_ours and state.writer else None


def retry_copy(headers: Headers | None, state: RetryState, id: str, created_ms: int) -> Headers:
    """The headers of a retry copy: the record's own, untouched and in order, and `state` instead of an older one.

    Args:
        headers: The record's headers.
        state: The state that the copy says.
        id: ID of the notification, written when the record has none; likewise `created_ms`.
        created_ms: Its creation time, epoch milliseconds.
    """
    copy = own_headers(headers, id, created_ms)
    copy += _origin_and_history(state)
    copy += [(h.NEXT_RETRY_AT, b"%d" % min(state.due_ms, MAX_MILLIS)), (h.WRITER, _token(state.writer))]
    if state.history.redrives:
        copy.append((h.REDRIVES, b"%d" % state.history.redrives))
    if state.history.waiting_since_ms is not None:
        copy.append((h.WAITING_SINCE, b"%d" % state.history.waiting_since_ms))
    return copy


def strip_retry(headers: Headers | None) -> Headers:
    """The record's own headers, in order, without those of retry copies and dead letters."""
    return [header for header in headers or () if header[0] not in h.HOP_HEADERS]


def own_headers(headers: Headers | None, id: str | None, created_ms: int | None) -> Headers:
    """The record's own headers, with id and creation time where it had none: what every copy of it carries."""
    got = dict(headers or ())
    copy = list(headers or ()) if h.HOP_HEADERS.isdisjoint(got) else strip_retry(headers)
    if id is not None and got.get(h.ID) is None:
        copy.append((h.ID, id.encode()))
    if created_ms is not None and got.get(h.CREATED_AT) is None:
        copy.append((h.CREATED_AT, b"%d" % created_ms))
    return copy


def _origin_and_history(state: RetryState | DeadLetterState) -> Headers:
    """Return the headers that retry records and dead letters have in common."""
    origin, history = state.origin, state.history
    written: Headers = [
        (h.ORIGIN_TOPIC, origin.topic.encode()),
        (h.ORIGIN_PARTITION, b"%d" % origin.partition),
        (h.ORIGIN_OFFSET, b"%d" % origin.offset),
        (h.ATTEMPT, b"%d" % history.attempts),
    ]
    if origin.topic_id:
        written.append((h.ORIGIN_TOPIC_ID, _token(origin.topic_id)))
    if history.first_failed_ms is not None:
        written.append((h.FIRST_FAILED_AT, b"%d" % history.first_failed_ms))
    written += _failure(history.error_class, history.error_code, history.provider)
    if history.outcome_unknown:
        written.append((h.OUTCOME_UNKNOWN, b"1"))
    if history.unknown_before:
        written.append((h.UNKNOWN_BEFORE, b"1"))
    return written


def _origin(got: Mapping[str, bytes]) -> Origin:
    return Origin(
        _required(read_text(got, h.ORIGIN_TOPIC)),
        _required(read_integer(got, h.ORIGIN_PARTITION, MAX_INT32)),
        _required(read_integer(got, h.ORIGIN_OFFSET, MAX_OFFSET)),
        read_text(got, h.ORIGIN_TOPIC_ID),
    )


def _history(got: Mapping[str, bytes], waiting_since_ms: int | None = None) -> History:
    return History(
        _required(read_integer(got, h.ATTEMPT, MAX_INT32)),
        read_integer(got, h.REDRIVES, MAX_INT32) or 0,
        read_integer(got, h.FIRST_FAILED_AT, MAX_MILLIS),
        waiting_since_ms,
        read_text(got, h.LAST_ERROR_CLASS),
        read_text(got, h.LAST_ERROR_CODE),
        read_text(got, h.LAST_PROVIDER),
        bool(read_integer(got, h.OUTCOME_UNKNOWN, 1)),
        bool(read_integer(got, h.UNKNOWN_BEFORE, 1)),
    )


@functools.lru_cache(1_000)  # there are few of them, and each copy has four
def _token(text: str) -> bytes:
    """A sender's own word (a class, a provider), made so that `read_retry` accepts whatever it was."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text[:_MAX_TOKEN]).encode(errors="replace")


@functools.lru_cache(1_000)  # likewise
def _failure(name: str | None, code: str | None, provider: str | None) -> tuple[tuple[str, bytes], ...]:
    """The headers of the last failure."""
    texts = ((h.LAST_ERROR_CLASS, name), (h.LAST_ERROR_CODE, code), (h.LAST_PROVIDER, provider))
    return tuple((header, _token(text)) for header, text in texts if text is not None)


# -- dead letters ----------------------------------------------------------------------------------


@attrs.frozen
class DeadLetterState:
    """What the headers of a dead letter say besides the notification."""

    origin: Origin
    history: History
    """As the consumer that gave up left it, without `waiting_since_ms`."""
    reason: str
    """A `DlqReason`, or what a newer version writes."""
    at_ms: int
    """When it was dead-lettered, epoch milliseconds."""
    group: str
    """The consumer group that gave up."""
    payload: DlqPayload
    """`intact` when the value is the original's bytes."""


def dead_letter(
    headers: Headers | None, state: DeadLetterState, id: str | None = None, created_ms: int | None = None
) -> Headers:
    """The headers of a dead letter: the record's own, untouched and in order, and `state` instead of an older one.

    Args:
        headers: The record's headers.
        state: Why it was dead-lettered, and what happened before.
        id: ID of the notification when it could be decoded, written when the record has none; likewise `created_ms`.
        created_ms: Its creation time, epoch milliseconds.
    """
    written = own_headers(headers, id, created_ms)
    written += _origin_and_history(state)
    written += [
        (h.DLQ_REASON, state.reason.encode()),
        (h.DLQ_AT, b"%d" % state.at_ms),
        (h.GROUP, state.group.encode()),
        (h.PAYLOAD, state.payload.encode()),
        (h.REDRIVES, b"%d" % state.history.redrives),
    ]
    return written


def read_dead_letter(headers: Headers | None) -> DeadLetterState | None:
    """The state of a record of a dead-letter topic; None when something is missing or malformed."""
    got = dict(headers or ())
    try:
        return DeadLetterState(
            _origin(got),
            _history(got),
            _required(read_text(got, h.DLQ_REASON)),
            _required(read_integer(got, h.DLQ_AT, MAX_MILLIS)),
            _required(read_text(got, h.GROUP)),
            _required(_PAYLOADS.get(got.get(h.PAYLOAD))),
        )
    except Undecodable:
        return None


def _required(value: T | None) -> T:
    if value is None:
        raise Undecodable("undecodable", "missing_header")
    return value
