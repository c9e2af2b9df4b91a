"""Filters of dead letters, by their headers alone."""

from __future__ import annotations

import datetime as dt

import attrs
from confluent_kafka import Message

from kafka_notify import wire
from kafka_notify._base.names import of_group
from kafka_notify._base.units import to_millis
from kafka_notify.errors import ConfigError


@attrs.frozen
class Allowed:
    """Dead letters that `DeadLetters.redrive` leaves alone unless told otherwise."""

    expired: bool
    unproven: bool
    unverified: bool


@attrs.frozen
class Filter:
    """The filters of `DeadLetters.find`; None matches everything."""

    id: str | None
    reason: str | None
    category: str | None
    channel: str | None
    error_code: str | None
    key: bytes | None
    consumer: str | None
    since_ms: int | None
    until_ms: int | None

    def matches(self, state: wire.DeadLetterState, message: Message, headers: wire.Headers | None) -> bool:
        """Return True if a record of a dead-letter topic matches all of them."""
        return (
            (self.reason is None or self.reason == state.reason)
            and (self.error_code is None or self.error_code == state.history.error_code)
            and (self.consumer is None or self.consumer == of_group(state.group)[1])
            and (self.key is None or self.key == message.key())
            and (self.since_ms is None or state.at_ms >= self.since_ms)
            and (self.until_ms is None or state.at_ms < self.until_ms)
            and (self.category is None or self.category == wire.category_of(headers))
            and (self.channel is None or self.channel == wire.channel_of(headers))
            and (self.id is None or self.id == _id_of(state, message, headers))
        )


def _id_of(state: wire.DeadLetterState, message: Message, headers: wire.Headers | None) -> str:
    return wire.identity(headers, *state.origin.place, message.timestamp()[1])[0]


def identity_of(state: wire.DeadLetterState, headers: wire.Headers | None) -> tuple[str, int]:
    """The part of a dead letter that is the same when a crash wrote it twice; -1 for an unknown creation time."""
    return wire.identity(headers, *state.origin.place, -1)


def moment(name: str, value: dt.datetime | None) -> int | None:
    """Return an aware datetime as epoch ms; a `ConfigError` names the argument otherwise."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise ConfigError(f"{name} must be an aware datetime, such as datetime.now(timezone.utc)")
    return to_millis(value)
