"""What is written of a notification that died: all of it, or as much as a topic takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from kafka_notify import _codes as codes
from kafka_notify._partition.entry import Entry
from kafka_notify.notification import MAX_USER_ID_BYTES, Category, Notification
from kafka_notify.wire import DlqPayload, Headers, category_of


@attrs.frozen
class Form:
    """One way to write a dead letter."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def payload_policy(
    entry: Entry, notification: Notification[Any] | None, categories: Mapping[str, Category[Any]]
) -> DlqPayload:
    """Whether the value is kept.

    A known category decides; one of a newer producer counts as sensitive; what is no notification at all must
    be inspected as it is.
    """
    if entry.record is None:
        return "redacted"  # removed from its topic before anybody could read it again
    name = notification.category if notification is not None else category_of(entry.headers)
    category = categories.get(name or "")
    if category is not None:
        return "redacted" if category.dlq_payload == "redact" else "intact"
    return "intact" if notification is None else "redacted"


def forms(
    entry: Entry,
    payload: DlqPayload,
    headers: Callable[[Headers | None, DlqPayload, str | None], Headers],
) -> Iterator[Form]:
    """The letter as it should be, then what is tried when a topic refuses that for its size.

    First without the value, then without the record's own headers and a key that is no user id: that fits
    everywhere, as it holds nothing of unknown length.

    Args:
        entry: Whose letter it is.
        payload: Whether the value is kept.
        headers: Adds to a record's own headers why it died, given what becomes of its value and the error code
            that goes before its own.
    """
    yield Form(entry.key, entry.value if payload == "intact" else None, headers(entry.headers, payload, None))
    if payload == "intact":
        yield Form(entry.key, None, headers(entry.headers, "redacted", codes.RECORD_TOO_LARGE))
    key = entry.key if len(entry.key or b"") <= MAX_USER_ID_BYTES else None
    yield Form(key, None, headers(None, "redacted", codes.RECORD_TOO_LARGE))
