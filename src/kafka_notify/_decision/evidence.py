"""Evidence about a provider from the end of a send, and the cost of a failure to its notification. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Final, NamedTuple

from kafka_notify._base import codes
from kafka_notify.errors import (
    DeliveryError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify.policy import is_deferred

LEAST: Final = 1.0
"""Seconds of the shortest uncounted wait: no provider is asked more than once a second for one user."""
LONGEST_LEAST: Final = 30.0
"""Seconds up to which the shortest wait grows."""


class Kind(Enum):
    """The evidence about the provider in an outcome other than `Sent`."""

    NOTHING = "nothing"
    """The provider was not asked, or the failure is a bug on this side."""
    ANSWER = "answer"
    """The provider works: it refused this notification, or throttles its recipient."""
    FAILURE = "failure"
    """The provider may have failed."""
    ACCOUNT = "account"
    """A claim: the account is refused."""
    THROTTLE = "throttle"
    """A claim: the sender or the provider is throttled."""
    CODEC = "codec"
    """A claim: the codec's own service is unavailable."""


def kind_of(error: DeliveryError | None) -> Kind:
    """Classify a failure by what it says about the provider."""
    if error is None or is_deferred(error):
        return Kind.NOTHING
    if isinstance(error, ThrottledError):
        return Kind.ANSWER if error.scope == "recipient" else Kind.THROTTLE
    if isinstance(error, ProviderUnavailableError):
        return Kind.ACCOUNT
    if isinstance(error, (TransientError, UnknownOutcomeError)):
        return Kind.NOTHING if error.code.startswith(codes.NOT_THE_PROVIDERS) else Kind.FAILURE
    return Kind.ANSWER


def least_wait(asked: float, age: float) -> float:
    """Seconds that an uncounted failure waits: what was asked for, but at least a floor that grows.

    The floor is 1 s, then half the time since the notification failed first, up to 30 s. The backoff of the retry
    policy would not grow, because an uncounted failure leaves the attempt number unchanged.

    Args:
        asked: Seconds asked for; 0 or less when a `Retry-After` or a `Defer` is in the past.
        age: Seconds since the notification failed first; 0 for its first failure.
    """
    return max(asked, LEAST, min(age / 2, LONGEST_LEAST))


class Try(NamedTuple):
    """One send that has ended."""

    who: Hashable
    """The user; in the lane's circuit of a consumer that names destinations, the destination."""
    started: float
    """Monotonic seconds."""
    token: int = 0
    """The token that `Circuit.start` returned: 0 unless the send was a probe."""
    attempts: int = 0
    """Counted attempts before this one."""
    tried: bool = False
    """True when the notification failed before, counted or not."""
    age: float = 0.0
    """Seconds since the notification failed first."""
    last: bool = False
    """True when the notification is dead-lettered if this failure counts."""


class Verdict(NamedTuple):
    """The cost of a failure to its notification."""

    counted: bool
    wait: float
    """Seconds until the next attempt, at least."""
