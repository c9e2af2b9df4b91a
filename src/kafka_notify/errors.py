"""What the library raises, and what a sender raises to say how a send went.

Two levels, by what the caller can do. Everything derives from `NotifyError`. A sender raises a subclass
of `DeliveryError`; only its `code` ever reaches headers, events and logs.
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
    """The producer's queue stayed full for `max_block` seconds: the notification was not accepted."""


class ProduceError(NotifyError):
    """The broker did not acknowledge a record. It may or may not have been written: send it again
    with the same id if it must arrive."""


class CodecUnavailableError(NotifyError):
    """A codec's own service (a Schema Registry, a key store) is away: the lane waits and tries again."""


class DeliveryError(NotifyError):
    """How a send failed. Raise one of the subclasses.

    Making one never raises, whatever a sender computed for `code`, `provider` and `retry_after`: a negative
    `retry_after` is 0; one that is not a duration up to 366 days and a provider that is not text are left out, and the
    worker's log says so.

    Args:
        code: A short token such as `http.504` or `smtp.451`: letters, digits, `_`, `.`, `-`, at most 64.
            It is written to headers, events and logs, so anything else (a message, an address) is
            replaced by `invalid_code`.
        detail: Free text for a debugger; it stays in the process and is not part of `str()`.
        provider: Who said so, for example `twilio`.
    """

    _left_out: tuple[tuple[str, type], ...] = ()
    """Arguments that were not what they have to be, with the class that they were: a worker says so in its log."""

    def __init__(self, code: str, *, detail: str = "", provider: str | None = None) -> None:
        self.code: str = valid_code(code) or codes.INVALID_CODE
        self.detail: str = detail
        self.provider: str | None = plain_text(provider)
        if provider is not None and not issubclass(type(provider), str):
            self._left_out += (("provider", type(provider)),)
        super().__init__(self.code)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, provider={self.provider!r})"


def valid_code(code: Any) -> str:
    """`code` as a plain str when it can be one; else empty."""
    if not issubclass(type(code), str):
        return ""
    text = str.__str__(code)
    return text if _CODE.fullmatch(text) else ""


def plain_text(text: Any) -> str | None:
    """The beginning of `text` as a plain str; None when it is no text."""
    return str.__str__(text)[:MAX_PROVIDER] if issubclass(type(text), str) else None


def _wait(error: DeliveryError, retry_after: Any) -> float | None:
    seconds = clamped(retry_after)
    if seconds is None and retry_after is not None:
        error._left_out += (("retry_after", type(retry_after)),)
    return seconds


class TransientError(DeliveryError):
    """Certainly not sent; a later attempt may succeed. The attempt counts.

    Args:
        retry_after: Seconds that the provider asked to wait; the backoff is never shorter.
    """

    def __init__(
        self, code: str, *, detail: str = "", provider: str | None = None, retry_after: Seconds | None = None
    ) -> None:
        super().__init__(code, detail=detail, provider=provider)
        self.retry_after: float | None = _wait(self, retry_after)


class ThrottledError(DeliveryError):
    """Certainly not sent: too fast. The attempt does not count.

    Args:
        retry_after: Seconds that the provider asked to wait.
        scope: Who has to wait: only this `recipient`, everything of this `sender`, or of the `provider`.

    Raises:
        ConfigError: `scope` is none of these: a misspelt "recipient" must not hold everybody's notifications.
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
    """It may have been sent (a time-out, a 500). The attempt counts; a retry carries the same key."""


class PermanentError(DeliveryError):
    """It never will be sent: to the dead-letter topic at once."""


class InvalidRecipientError(PermanentError):
    """The recipient does not exist (any more): drop the address in `on_dead_letter`."""


class ProviderUnavailableError(DeliveryError):
    """Our account or the provider is down (401, 402, 403, suspended). The attempt does not count and
    nothing goes to the dead-letter topic: the notification waits."""
