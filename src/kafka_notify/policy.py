"""Retry policies and orderings: values without I/O."""

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
    """Which notifications wait for each other, also while one of them is retried."""

    USER = "user"
    """One at a time per user and lane, retries included (the default)."""
    USER_CHANNEL = "user_channel"
    """One at a time per user, lane and channel."""
    NONE = "none"
    """No waiting: a later notification may overtake one that waits for its retry."""


@attrs.frozen(init=False)
class RetryPolicy:
    """Exponential backoff with jitter, and a limit of attempts.

    A notification that waits for its retry is a record of the retry topic, so that a wait survives crashes and
    rebalances: the next owner of the partition retries it at the same time.

    Args:
        max_attempts: Counted attempts, the first one included; then the notification becomes a dead letter.
        initial_delay: Seconds (or a timedelta) before the second attempt.
        multiplier: Factor between one delay and the next, at least 1.
        max_delay: Longest delay in seconds (or a timedelta).
        jitter: Share by which a delay varies at random in both directions, 0 to 1.
        max_wait: Seconds (or a timedelta) for which a notification may be throttled, or deferred by `should_send`, in a
            row. The first such answer after that makes it a dead letter (`throttle_timeout`). So does waiting as long
            for a destination that is held for throttles; an outage has no such limit. By default, throttles of a
            notification without expiry are limited to a day, and deferrals have no limit.

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
            raise ConfigError(f"RetryPolicy.jitter must be between 0 and 1, not {jitter!r}")
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
        """The longest delay in milliseconds that the policy makes by itself, jitter included."""
        last = self.initial_delay * self.multiplier ** min(max(self.max_attempts - 2, 0), 64)
        return round(min(self.max_delay, last) * (1 + self.jitter) * 1000) if self.max_attempts > 1 else 0

    def delay(self, attempts_made: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            attempts_made: Counted attempts so far, at least 1.
            retry_after: Seconds that the provider asked to wait; the delay is never less.
        """
        exponent = min(max(attempts_made, 1) - 1, 64)  # multiplier ** 64 is past every max_delay
        delay = min(self.max_delay, self.initial_delay * self.multiplier**exponent)
        delay *= 1 + self.jitter * (2 * random.random() - 1)
        return max(delay, retry_after or 0.0)


LATENCY_RETRY = RetryPolicy()
"""The backoff of lanes with the profile `latency`."""
THROUGHPUT_RETRY = RetryPolicy(initial_delay=30, max_delay=900)
"""The backoff of lanes with the profile `throughput`."""


def holds_lane(error: DeliveryError | None) -> bool:
    """Return True if a failure is the provider's or the account's: the whole lane waits, and no attempt counts.

    Args:
        error: How a send failed.
    """
    if isinstance(error, ThrottledError):
        return error.scope != "recipient"
    return isinstance(error, ProviderUnavailableError)


def deferred(reason: str) -> TransientError:
    """Return the error that carries why `should_send` deferred a notification; a reason that is not a code is left out.

    Args:
        reason: Reason of a `Defer`.
    """
    error = TransientError(f"{codes.DEFERRED}{reason}")
    return error if error.code.startswith(codes.DEFERRED) else TransientError(f"{codes.DEFERRED}reason")


def is_deferred(error: DeliveryError | None) -> bool:
    """Return True if `should_send` deferred the notification: the provider was not asked.

    Args:
        error: As for `holds_lane`.
    """
    return error is not None and error.code.startswith(codes.DEFERRED)
