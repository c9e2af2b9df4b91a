"""When to try again, and what order means: values without I/O."""

from __future__ import annotations

import random
from enum import Enum
from typing import Literal

import attrs

from kafka_notify._base import codes
from kafka_notify._base.arguments import to_seconds
from kafka_notify._base.frozen import put
from kafka_notify._base.units import Seconds
from kafka_notify.errors import (
    ConfigError,
    DeliveryError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
)

UnknownOutcome = Literal["retry", "dead_letter", "assume_sent"]


class Ordering(Enum):
    """Whose notifications wait for each other while one of them is retried."""

    USER = "user"
    """One at a time per user and lane, retries included (the default)."""
    USER_CHANNEL = "user_channel"
    """One at a time per user, lane and channel."""
    NONE = "none"
    """No waiting: a later notification may overtake one that waits for its retry."""


@attrs.frozen(init=False)
class RetryPolicy:
    """Exponential backoff with jitter, and when to give up.

    Args:
        max_attempts: Counted attempts before the dead-letter topic; the first one counts.
        initial_delay: Seconds before the second attempt.
        multiplier: What each further delay is multiplied by.
        max_delay: The longest delay in seconds.
        jitter: The share by which a delay varies at random in both directions, 0 to 1.
        max_wait: Seconds for which a notification may be throttled, or deferred by `should_send`, again and again: once
            it has waited so long since the first such answer in a row, the next one makes a dead letter
            (`throttle_timeout`). So does one that has waited as long for a destination that is held for throttles, when
            it is looked at; an outage has no such bound. None, the default: a day for throttles of a notification
            without expiry, and no bound for what is deferred.

    Raises:
        ConfigError: A value is out of range.
    """

    max_attempts: int
    initial_delay: float
    multiplier: float
    max_delay: float
    jitter: float
    max_wait: float | None

    def __init__(
        self,
        max_attempts: int = 4,
        *,
        initial_delay: Seconds = 2,
        multiplier: float = 4,
        max_delay: Seconds = 60,
        jitter: float = 0.1,
        max_wait: Seconds | None = None,
    ) -> None:
        if not isinstance(max_attempts, int) or max_attempts < 1:
            raise ConfigError(f"RetryPolicy.max_attempts must be a whole number >= 1, not {max_attempts!r}")
        if not 0 <= jitter <= 1:
            raise ConfigError(f"RetryPolicy.jitter must lie between 0 and 1, not {jitter!r}")
        if not multiplier >= 1:
            raise ConfigError(f"RetryPolicy.multiplier must be >= 1, not {multiplier!r}")
        put(
            self,
            max_attempts=max_attempts,
            initial_delay=to_seconds(initial_delay, "RetryPolicy.initial_delay"),
            multiplier=multiplier,
            max_delay=to_seconds(max_delay, "RetryPolicy.max_delay"),
            jitter=jitter,
            max_wait=None if max_wait is None else to_seconds(max_wait, "RetryPolicy.max_wait"),
        )

    @property
    def longest_ms(self) -> int:
        """The longest delay that it can make by itself, in ms."""
        last = self.initial_delay * self.multiplier ** min(max(self.max_attempts - 2, 0), 64)
        return round(min(self.max_delay, last) * (1 + self.jitter) * 1000) if self.max_attempts > 1 else 0

    def delay(self, attempts_made: int, retry_after: float | None = None) -> float:
        """Seconds to wait after `attempts_made` (>= 1) counted attempts; never less than `retry_after`."""
        exponent = min(max(attempts_made, 1) - 1, 64)  # multiplier ** 64 is past every max_delay
        delay = min(self.max_delay, self.initial_delay * self.multiplier**exponent)
        delay *= 1 + self.jitter * (2 * random.random() - 1)
        return max(delay, retry_after or 0.0)


LATENCY_RETRY = RetryPolicy()
THROUGHPUT_RETRY = RetryPolicy(initial_delay=30, max_delay=900)


def holds_lane(error: DeliveryError | None) -> bool:
    """Whether a failure is the provider's or the account's trouble: the whole lane waits, no notification's
    attempts count."""
    if isinstance(error, ThrottledError):
        return error.scope != "recipient"
    return isinstance(error, ProviderUnavailableError)


def deferred(reason: str) -> TransientError:
    """Why `should_send` put a notification off, as a code; a reason that would make none is left out."""
    error = TransientError(f"{codes.DEFERRED}{reason}")
    return error if error.code.startswith(codes.DEFERRED) else TransientError(f"{codes.DEFERRED}reason")


def is_deferred(error: DeliveryError | None) -> bool:
    """Whether `should_send` put it off: the provider was not asked."""
    return error is not None and error.code.startswith(codes.DEFERRED)
