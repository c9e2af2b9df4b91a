"""The headers of a redriven copy: those of its dead letter, as a first attempt that is due now."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, cast

import attrs

from kafka_notify import wire
from kafka_notify._wire import headers as h
from kafka_notify.notification import Notification

if TYPE_CHECKING:
    from kafka_notify._wire.dead_letter import DeadLetter


def is_expired(notification: Notification[Any]) -> bool:
    expires = notification._expires_ms
    return expires is not None and expires <= time.time() * 1000


def copy_headers(dead_letter: DeadLetter, origin_topic_id: str | None) -> wire.Headers:
    state, now = dead_letter.state, int(time.time() * 1000)
    notification = cast(Notification[Any], dead_letter.notification)  # undecodable ones were left out before
    headers = wire.strip_retry(list(dead_letter.headers))
    if is_expired(notification):
        lifetime = (notification._expires_ms or now) - notification._created_ms
        headers = [(name, raw) for name, raw in headers if name != h.EXPIRES_AT]
        headers.append((h.EXPIRES_AT, b"%d" % (now + lifetime)))
    origin = attrs.evolve(state.origin, topic_id=origin_topic_id)
    copied = wire.RetryState(origin, state.history.redriven(), now, wire.REDRIVE_WRITER)
    return wire.retry_copy(headers, copied, notification.id, notification._created_ms)


def packed(headers: wire.Headers) -> str:
    # A null value, as other clients may write it, stays null.
    return json.dumps([(name, None if raw is None else raw.decode("latin-1")) for name, raw in headers])


def unpacked(text: str) -> wire.Headers:
    return [
        (name, cast(bytes, None if raw is None else raw.encode("latin-1"))) for name, raw in json.loads(text)
    ]
