"""Errors that the library raises, and errors that a sender raises to say how a send went.

All derive from `NotifyError`. A sender raises a subclass of `DeliveryError`; only its `code` reaches headers, events
and logs.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, get_args

from kafka_notify._base import codes
from kafka_notify._base.text import either
from kafka_notify._base.units import Seconds, clamped

_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
MAX_PROVIDER: Final = 128
"""Characters of a provider's name that are kept."""

ThrottleScope = Literal["recipient", "sender", "provider"]
_SCOPES: Final = get_args(ThrottleScope)


class NotifyError(Exception):
    """Base of every error this library raises on purpose."""


class InvalidNotificationError(NotifyError, ValueError):
    """A notification breaks a rule; the text names the field and the rule, never the value."""


class ConfigError(NotifyError, ValueError):
    """A setting is missing, contradictory, or would break a promise; the text says what to write instead."""


class QueueFullError(NotifyError):
    """The producer's queue stayed full for `max_block` seconds: the notification was not accepted. Send it later."""


class ProduceError(NotifyError):
    """The broker did not acknowledge a record, which may or may not have been written.

    Send it again with the same id if it must arrive.
    """


class CodecUnavailableError(NotifyError):
    """A codec's own service (a Schema Registry, a key store) does not answer: the lane waits and tries again."""


class DeliveryError(NotifyError):
    """Base of the errors that say how a send failed. Raise one of the subclasses.

    Making one never raises, whatever a sender computed for `code`, `provider` and `retry_after`: a negative
    `retry_after` is 0; one that is not a duration up to 366 days and a provider that is not text are left out, and the
    worker's log says so.

    Args:
        code: A short token such as `http.504` or `smtp.451`: letters, digits, `_`, `.`, `-`, at most 64.
            It is written to headers, events and logs, so anything else (a message, an address) is
            replaced by `invalid_code`.
        detail: Free text for a debugger; it stays in the process and is not part of `str()`.
        provider: Name of the provider that said so, for example `twilio`; at most 128 characters are kept.
    """

    _left_out: tuple[tuple[str, type], ...] = ()
    """Arguments that were left out, with the class of each value: a worker says so in its log."""

    def __init__(self, code: str, *, detail: str = "", provider: str | None = None) -> None:
        token = valid_code(code) or codes.INVALID_CODE
        self.code: str = token
        self.detail: str = detail
        self.provider: str | None = plain_text(provider)
        if provider is not None and not issubclass(type(provider), str):
            self._left_out += (("provider", type(provider)),)
        super().__init__(token)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, provider={self.provider!r})"


def valid_code(code: Any) -> str:
    """Return `code` as a plain str, or "" if it is not a valid code.

    Args:
        code: Any value.
    """
    if not issubclass(type(code), str):
        return ""
    text = str.__str__(code)
    return text if _CODE.fullmatch(text) else ""


def plain_text(text: Any) -> str | None:
    """Return the first 128 characters of `text` as a plain str, or None if it is not a str.

    Args:
        text: Any value.
    """
    return str.__str__(text)[:MAX_PROVIDER] if issubclass(type(text), str) else None


def _wait(error: DeliveryError, retry_after: Any) -> float | None:
    if retry_after is None:
        return None
    seconds = clamped(retry_after)
    if seconds is None:
        error._left_out += (("retry_after", type(retry_after)),)
    return seconds


class TransientError(DeliveryError):
    """Certainly not sent; a later attempt may succeed. The attempt counts.

    Args:
        code: As for `DeliveryError`.
        detail: As for `DeliveryError`.
        provider: As for `DeliveryError`.
        retry_after: Seconds (or a timedelta) that the provider asked to wait; the backoff is never shorter.
    """

    def __init__(
        self, code: str, *, detail: str = "", provider: str | None = None, retry_after: Seconds | None = None
    ) -> None:
        super().__init__(code, detail=detail, provider=provider)
        self.retry_after: float | None = _wait(self, retry_after)


class ThrottledError(DeliveryError):
    """Certainly not sent: too fast. The attempt does not count.

    Args:
        code: As for `DeliveryError`.
        retry_after: Seconds (or a timedelta) that the provider asked to wait; 5 s for a recipient when None.
        scope: Who has to wait: only this `recipient`, everything of this `sender`, or of the `provider`. The last two
            hold the lane, or the destination when the consumer has several.
        detail: As for `DeliveryError`.
        provider: As for `DeliveryError`.

    Raises:
        ConfigError: `scope` has another value: a misspelt "recipient" must not hold everybody's notifications.
    """

    def __init__(
        self,
        code: str,
        *,
        retry_after: Seconds | None = None,
        scope: ThrottleScope = "provider",
        detail: str = "",
        provider: str | None = None,
    ) -> None:
        super().__init__(code, detail=detail, provider=provider)
        self.retry_after: float | None = _wait(self, retry_after)
        if scope not in _SCOPES:
            raise ConfigError(f"ThrottledError.scope must be {either(_SCOPES)}, not {scope!r}")
        self.scope: ThrottleScope = scope


class UnknownOutcomeError(DeliveryError):
    """The notification may have been sent (a timeout, a 500). The attempt counts; a retry carries the same key.

    `Consumer.unknown_outcome` says what follows.
    """


class PermanentError(DeliveryError):
    """The provider will never accept the notification: it becomes a dead letter at once."""


class InvalidRecipientError(PermanentError):
    """The recipient does not exist (any more): a dead letter at once. Delete the address in `on_dead_letter`."""


class ProviderUnavailableError(DeliveryError):
    """The account or the provider is down (401, 402, 403, suspended): the lane waits.

    The attempt does not count, and nothing goes to the dead-letter topic.
    """
