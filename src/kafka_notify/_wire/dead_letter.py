"""One dead letter, as a value: made from a record by the tools and by a worker that tells its team."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from kafka_notify import wire
from kafka_notify._base import codes
from kafka_notify._base.names import of_group
from kafka_notify._base.units import UTC, from_millis
from kafka_notify._wire.headers import CONTENT_TYPE
from kafka_notify.codec import Codec, JsonCodec
from kafka_notify.notification import Category, Notification


@attrs.frozen
class SourceRecord:
    """State of the source record of a dead letter's notification."""

    state: Literal["kept", "gone", "different"]
    """`kept`: it is still in its topic, and says the same as the dead letter. `gone`: retention removed it, its topic
    was deleted, or nobody can tell whether it is the dead letter's. `different`: another record is in its place, so the
    dead letter is forged or foreign."""
    kept_until: dt.datetime | None = None
    """Its topic surely keeps it until then; None when that is not known."""


@attrs.frozen
class DeadLetter:
    """A notification that a consumer gave up on, and why. Its `repr` hides user, data and raw bytes."""

    id: str
    """ID of the notification; derived from its origin when it has none."""
    reason: str
    """permanent, invalid_recipient, max_attempts, expired, undecodable, unsupported_schema, throttle_timeout,
    unknown_outcome, wait_too_long or removed."""
    error_code: str | None
    """Code of the last failure, such as `twilio.21610`."""
    user_id: str | None = attrs.field(repr=False)
    notification: Notification[Any] | None = attrs.field(repr=False)
    """None when it cannot be decoded. The data of a redacted one is an empty mapping."""
    raw: bytes | None = attrs.field(repr=False)
    """The record's value, as the producer wrote it; None when redacted."""
    topic: str
    partition: int
    """Its place in the dead-letter topic, with `offset`; -1 in `on_dead_letter`, where it is not known."""
    offset: int
    died_at: dt.datetime
    consumer: str
    """Name of the consumer that gave up; `workers` is the one without a name."""
    expired: bool
    """True when it had expired when it was read."""
    redacted: bool
    redrives: int
    """How often it was redriven before it was dead-lettered this time."""
    key: bytes | None = attrs.field(repr=False)
    headers: tuple[tuple[str, bytes], ...] = attrs.field(repr=False)
    """Its headers in the dead-letter topic."""
    state: wire.DeadLetterState = attrs.field(repr=False)
    """Origin, group, attempts and last error, as the consumer left them."""
    source: SourceRecord | None = None
    """Its source record, when that was looked for: see `DeadLetters.restored`."""

    def to_dict(self, *, personal: bool = False) -> dict[str, object]:
        """Return it as plain data for JSON: what was dead-lettered, why and where.

        Args:
            personal: Also user id, recipient, headers and value: as text where they are UTF-8, else as
                `{"base64": ...}`.
        """
        n, history, origin = self.notification, self.state.history, self.state.origin
        failed = None if history.first_failed_ms is None else from_millis(history.first_failed_ms)
        plain: dict[str, object] = {
            "id": self.id,
            "reason": self.reason,
            "error_code": self.error_code,
            "category": n.category if n else None,
            "channel": n.channel if n else None,
            "consumer": self.consumer,
            "died_at": self.died_at.isoformat(),
            "created_at": n.created_at.isoformat() if n else None,
            "expires_at": n.expires_at.isoformat() if n and n.expires_at else None,
            "first_failed_at": failed.isoformat() if failed else None,
            "attempts": history.attempts,
            "redrives": self.redrives,
            "provider": history.provider,
            "maybe_sent": history.outcome_unknown,
            "maybe_sent_before_redrive": history.unknown_before,
            "expired": self.expired,
            "redacted": self.redacted,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "origin": {
                "topic": origin.topic,
                "partition": origin.partition,
                "offset": origin.offset,
            },
            "source": None
            if self.source is None
            else {
                "state": self.source.state,
                "kept_until": self.source.kept_until.isoformat() if self.source.kept_until else None,
            },
        }
        if personal:
            plain |= {
                "user_id": self.user_id,
                "recipient": n.recipient if n else None,
                "headers": [[name, _readable(raw)] for name, raw in self.headers],
                "value": _readable(self.raw),
            }
        return plain

    @classmethod
    def from_record(
        cls,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        headers: wire.Headers | None,
        timestamp_ms: int,
        codec: Codec,
        categories: Mapping[str, Category[Any]],
        notification: Notification[Any] | None = None,
    ) -> DeadLetter:
        """The dead letter that a record of a dead-letter topic is.

        Args:
            timestamp_ms: The record's.
            categories: The topology's categories.
            notification: When the caller has it decoded already; a redacted one's data is then there too.

        Raises:
            Undecodable: The record is not a dead letter.
            CodecUnavailableError: The codec's service is unavailable: try again.
        """
        state = wire.read_dead_letter(headers)
        if state is None:
            raise wire.Undecodable("undecodable", codes.NO_DEAD_LETTER)
        redacted = state.payload == "redacted"
        if notification is None:
            notification = _decoded(state, key, value, headers, timestamp_ms, codec, categories)
        id, _ = wire.identity(headers, *state.origin.place, timestamp_ms)
        return cls(
            id=id,
            reason=state.reason,
            error_code=state.history.error_code,
            user_id=notification.user_id if notification else _text(key),
            notification=notification,
            raw=None if redacted else value,
            topic=topic,
            partition=partition,
            offset=offset,
            died_at=from_millis(state.at_ms),
            consumer=of_group(state.group)[1],
            expired=_expired(notification, state.reason),
            redacted=redacted,
            redrives=state.history.redrives,
            key=key,
            headers=tuple(headers or ()),
            state=state,
        )

    def with_record(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: wire.Headers,
        timestamp_ms: int,
        codec: Codec,
        categories: Mapping[str, Category[Any]],
        source: SourceRecord,
    ) -> DeadLetter:
        """Return the same dead letter with the whole of its notification.

        Args:
            key: The source record's key; likewise `value` and `timestamp_ms`.
            headers: Its own headers, and those that the dead letter adds.
            codec: Reads the value.
            categories: The topology's categories.
            source: What is known of the record.

        Raises:
            CodecUnavailableError: The codec's service is unavailable: try again.
        """
        state = attrs.evolve(self.state, payload="intact")
        notification = _decoded(state, key, value, headers, timestamp_ms, codec, categories)
        return attrs.evolve(
            self,
            user_id=notification.user_id if notification else _text(key),
            notification=notification,
            raw=value,
            key=key,
            headers=tuple(headers),
            expired=_expired(notification, self.reason),
            source=source,
        )


def _decoded(
    state: wire.DeadLetterState,
    key: bytes | None,
    value: bytes | None,
    headers: wire.Headers | None,
    timestamp_ms: int,
    codec: Codec,
    categories: Mapping[str, Category[Any]],
) -> Notification[Any] | None:
    if state.payload == "redacted":  # the envelope is still worth reading: user, category, recipient, expiry
        value, codec = b"{}", JsonCodec()
        headers = [header for header in headers or () if header[0] != CONTENT_TYPE]
        categories = {name: Category(name, known.lane, ttl=known.ttl) for name, known in categories.items()}
    try:
        return wire.decode(
            key, value, wire.strip_retry(headers), *state.origin.place, timestamp_ms, codec, categories
        )
    except (wire.Undecodable, wire.ContentTypeUnread):
        return None


def _readable(raw: bytes | None) -> object:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _expired(notification: Notification[Any] | None, reason: str) -> bool:
    if notification is None:
        return reason == "expired"
    return notification.expires_at is not None and notification.expires_at <= dt.datetime.now(UTC)


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="replace")
