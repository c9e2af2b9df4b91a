"""The headers of a redriven copy: what its dead letter says, made a first attempt again."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, cast

from kafka_notify import wire
from kafka_notify._wire import headers as h
from kafka_notify.notification import Notification

if TYPE_CHECKING:
    from kafka_notify._wire.dead_letter import DeadLetter


def is_expired(notification: Notification[Any]) -> bool:
    expires = notification._expires_ms
    return expires is not None and expires <= time.time() * 1000


def copy_headers(letter: DeadLetter, origin_topic_id: str | None) -> wire.Headers:
    state, now = letter.state, int(time.time() * 1000)
    notification = cast(Notification[Any], letter.notification)  # an undecodable one was left out before
    headers = wire.strip_retry(list(letter.headers))
    if is_expired(notification):
        lifetime = (notification._expires_ms or now) - notification._created_ms
        headers = [(name, raw) for name, raw in headers if name != h.EXPIRES_AT]
        headers.append((h.EXPIRES_AT, b"%d" % (now + lifetime)))
    return wire.retry_copy(
        headers,
        wire.RetryState(
            origin_topic=state.origin_topic,
            origin_partition=state.origin_partition,
            origin=state.origin,
            attempt=0,
            due_ms=now,
            first_failed_ms=None,
            error_class=state.error_class,
            error_code=state.error_code,
            provider=state.provider,
            # whoever redrives it has decided: else a sender that asks a person would do so again, for ever
            outcome_unknown=False,
            writer=wire.REDRIVE_WRITER,
            redrives=state.redrives + 1,
            origin_topic_id=origin_topic_id,
            unknown_before=state.outcome_unknown or state.unknown_before,
        ),
        notification.id,
        notification._created_ms,
    )


def packed(headers: wire.Headers) -> str:
    # A value that another client wrote as null stays null.
    return json.dumps([(name, None if raw is None else raw.decode("latin-1")) for name, raw in headers])


def unpacked(text: str) -> wire.Headers:
    return [
        (name, cast(bytes, None if raw is None else raw.encode("latin-1"))) for name, raw in json.loads(text)
    ]
