"""What the readers of exceptions share: an attribute of a foreign object, and the error that speaks for several."""

from __future__ import annotations

from typing import Any

from kafka_notify.errors import (
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    UnknownOutcomeError,
)


def attribute(value: Any, path: str) -> Any:
    """The attribute at a dotted path; None where there is none, or where asking for it raises."""
    for name in path.split("."):
        try:
            value = getattr(value, name, None)
        except Exception:  # a property of a foreign exception: the others may still tell
            return None
    return value


def gravest(errors: list[DeliveryError]) -> DeliveryError | None:
    """The error that speaks for all of them.

    "May have been sent" beats everything: all other classes claim that nothing was sent. Then the widest effect: a
    lane that is held costs no attempt and loses nothing, and a permanent part says so again at the next attempt. An
    address is called invalid only when nothing else is wrong.
    """
    return max(errors, key=_gravity, default=None)


def _gravity(error: DeliveryError) -> tuple[int, float]:
    wait: float = attribute(error, "retry_after") or 0.0
    if isinstance(error, UnknownOutcomeError):
        return 6, 0.0
    if isinstance(error, ProviderUnavailableError):
        return 5, 0.0
    if isinstance(error, ThrottledError):
        return (3 if error.scope == "recipient" else 4), wait
    if isinstance(error, InvalidRecipientError):
        return 0, 0.0
    return (1, 0.0) if isinstance(error, PermanentError) else (2, wait)
