"""Facts that a record's headers tell without decoding its notification. Nothing here raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka_notify._wire import headers as h
from kafka_notify._wire.headers import MAX_MILLIS, Headers, Undecodable, read_integer, read_text
from kafka_notify._wire.ids import derived_id
from kafka_notify.notification import Category


def channel_of(headers: Headers | None) -> str | None:
    """The channel, without decoding the rest; None when absent or undecodable."""
    return _look_up(headers, h.CHANNEL)


def category_of(headers: Headers | None) -> str | None:
    """The category, without decoding the rest; None when absent or undecodable."""
    return _look_up(headers, h.CATEGORY)


def collapse_of(headers: Headers | None) -> str:
    """Return channel and collapse key, which a newer notification of the same user must share with this one to
    supersede it; empty without a collapse key. Nothing else is decoded."""
    key = _look_up(headers, h.COLLAPSE_KEY)
    return "" if key is None else f"{channel_of(headers)} {key}"


def identity(
    headers: Headers | None, topic: str, partition: int, offset: int, timestamp_ms: int
) -> tuple[str, int]:
    """The id and creation time (epoch ms) of the notification in a record, malformed or not: never raises.

    What a copy's headers say is what the record's said: a time that no header may hold is -1 for both.

    Args:
        topic: Of the origin, as `partition` and `offset`.
        timestamp_ms: The record's; stands in for a missing `notif-created-at`.
    """
    got = dict(headers) if headers else {}
    raw = got.get(h.ID)
    try:
        created = read_integer(got, h.CREATED_AT, MAX_MILLIS)
    except Undecodable:
        created = -1
    if created is None:
        created = timestamp_ms if 0 <= timestamp_ms <= MAX_MILLIS else -1
    return derived_id(topic, partition, offset) if raw is None else raw.decode(errors="replace"), created


def expiry(headers: Headers | None, created_ms: int, categories: Mapping[str, Category[Any]]) -> int | None:
    """When the notification in a record expires (epoch ms), without decoding it; None when it never does."""
    try:
        expires = read_integer(dict(headers or ()), h.EXPIRES_AT, MAX_MILLIS)
    except Undecodable:
        return None  # found out, and dead-lettered, when it is decoded
    known = categories.get(category_of(headers) or "")
    if expires is not None or known is None or created_ms < 0:  # of an unknown time, as above
        return expires
    return expires_at(created_ms, known.ttl)


def expires_at(created_ms: int, ttl: float | None) -> int | None:
    """The epoch ms at which a notification of a category expires; None when it never does."""
    return None if ttl is None else min(created_ms + round(ttl * 1000), MAX_MILLIS)


def _look_up(headers: Headers | None, name: str) -> str | None:
    for known, raw in reversed(headers or ()):
        if known == name and raw is not None:
            try:
                return read_text({name: raw}, name) or None
            except Undecodable:
                return None
    return None
