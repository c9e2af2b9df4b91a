"""What the library raises, and what a sender raises to say how a send went.

Two levels, by what the caller can do. Everything derives from `NotifyError`. A sender raises a subclass
of `DeliveryError`; only its `code` ever reaches headers, events and logs.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from kafka_notify._units import Seconds, to_seconds

_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")

ThrottleScope = Literal["recipient", "sender", "provider"]


class NotifyError(Exception):
    """Base of every error this library raises on purpose."""


class InvalidNotification(NotifyError, ValueError):
    """A notification breaks a rule; the text names the field and the rule, never the value."""


class ConfigError(NotifyError, ValueError):
    """A setting is missing, contradictory, or would break a promise; the text says what to write instead."""


class QueueFull(NotifyError):
    """The producer's queue stayed full for `max_block` seconds: the notification was not accepted."""


class ProduceError(NotifyError):
    """The broker did not acknowledge a record. It may or may not have been written: send it again
    with the same id if it must arrive."""


class CodecUnavailable(NotifyError):
    """A codec's own service (a Schema Registry, a key store) is away: the lane waits and tries again."""


class DeliveryError(NotifyError):
    """How a send failed. Raise one of the subclasses.

    Args:
        code: A short token such as `http.504` or `smtp.451`: letters, digits, `_`, `.`, `-`, at most 64.
            It is written to headers, events and logs, so anything else (a message, an address) is
            replaced by `invalid_code`.
        detail: Free text for a debugger; it stays in the process and is not part of `str()`.
        provider: Who said so, for example `twilio`.
    """

    def __init__(self, code: str, *, detail: str = "", provider: str | None = None) -> None:
        self.code = code if isinstance(code, str) and _CODE.fullmatch(code) else "invalid_code"
        self.detail = detail
        self.provider = provider
        super().__init__(self.code)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, provider={self.provider!r})"


class TransientError(DeliveryError):
    """Certainly not sent; a later attempt may succeed. The attempt counts.

    Args:
        retry_after: Seconds that the provider asked to wait; the backoff is never shorter.
    """

    def __init__(
        self, code: str, *, detail: str = "", provider: str | None = None, retry_after: Seconds | None = None
    ) -> None:
        super().__init__(code, detail=detail, provider=provider)
        self.retry_after = None if retry_after is None else to_seconds(retry_after, "retry_after")


class ThrottledError(DeliveryError):
    """Certainly not sent: too fast. The attempt does not count.

    Args:
        retry_after: Seconds that the provider asked to wait.
        scope: Who has to wait: only this `recipient`, everything of this `sender`, or of the `provider`.
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
        self.retry_after = None if retry_after is None else to_seconds(retry_after, "retry_after")
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
