"""The values around one send: the attempt, its receipt, and the verdicts of `should_send`."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs

from kafka_notify._wire.send_key import KeyParts, key_text
from kafka_notify.errors import ConfigError


@attrs.frozen
class Receipt:
    """Proof that the provider accepted a notification, returned by `send`.

    Args:
        provider: Name of the provider, for example `twilio`; a label in events and metrics, so keep it to a few values.
        message_id: The provider's id of the message.
    """

    provider: str
    message_id: str | None = None


@attrs.define
class _Attempt:
    """An attempt while it is made."""

    number: int
    """Number of the attempt, from 1; attempts that do not count have none of their own."""
    max_attempts: int
    """Counted attempts that the retry policy allows."""
    _key: str | KeyParts = attrs.field(alias="idempotency_key", repr=key_text)
    """Or the parts of a `SendKey`: one that is nobody's idempotency key is never made."""
    timeout: float
    """Seconds left for this call: the smaller of `send_timeout` and the remaining ttl."""
    remaining_ttl: float | None
    """Seconds until the notification expires; None when it never does."""
    maybe_sent: bool = False
    """True after an attempt whose outcome is unknown. False again after a redrive: whoever redrives has decided."""
    last_provider: str | None = None
    """Provider of the attempt before; None at the first one."""
    last_error: str | None = None
    """Error code of the attempt before; None at the first one."""

    @property
    def idempotency_key(self) -> str:
        """A UUID made of group, user and id, for the provider.

        It is the same at every attempt, redelivery and redrive, and never that of another user's notification or of
        another consumer's send.
        """
        return key_text(self._key)


# attrs can do what pyright says it cannot, and nobody else sees the base
@attrs.frozen  # pyright: ignore[reportGeneralTypeIssues]
class Attempt(_Attempt):
    """One counted call of `send`, and what is known of the calls before it."""


def new_attempt(
    number: int,
    max_attempts: int,
    key: KeyParts,
    timeout: float,
    remaining_ttl: float | None,
    maybe_sent: bool = False,
    last_provider: str | None = None,
    last_error: str | None = None,
) -> Attempt:
    """`Attempt(...)` at half the price, with the parts of a `SendKey`: one is made for every send."""
    attempt: Any = _Attempt(
        number, max_attempts, key, timeout, remaining_ttl, maybe_sent, last_provider, last_error
    )
    attempt.__class__ = Attempt
    return attempt  # type: ignore[no-any-return]


@attrs.frozen
class Send:
    """Verdict of `should_send`: send it now."""


@attrs.frozen
class Skip:
    """Verdict of `should_send`: never send it.

    Args:
        reason: A short token for events and metrics, for example `unsubscribed`.
    """

    reason: str


def _aware(_: object, attribute: attrs.Attribute[dt.datetime], value: Any) -> None:
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise ConfigError(
            f"Defer.{attribute.name} must be an aware datetime, such as datetime.now(timezone.utc)"
        )


@attrs.frozen
class Defer:
    """Verdict of `should_send`: do not send before `until`. It waits like a retry and counts no attempt.

    Args:
        until: Aware datetime, at most 366 days ahead. Times in the past wait for 1 s, and longer while they repeat.
        reason: A short token for events and metrics, for example `quiet_hours`.
    """

    until: dt.datetime = attrs.field(validator=_aware)
    reason: str


Verdict = Send | Skip | Defer
