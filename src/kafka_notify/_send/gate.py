"""Holds a whole lane while its provider (or a codec's service) is away: records wait in Kafka. Pure.

`Failures` decides when failures are the provider's; `Gate` then lets nothing start until its time is over, and
after that a few probes. What they meet decides.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from kafka_notify.errors import DeliveryError, TransientError, UnknownOutcomeError
from kafka_notify.limits import CircuitBreaker

QUIET: Final = 5.0
"""Seconds without an accepted send after which fewer failures are enough."""
OURS: Final = (
    "unhandled.",
    "classify.",
    "deferred.",
    "should_send.",
    "middleware.",
    "no_receipt",
    "cancelled",
)
"""Codes that say nothing about the provider."""


def providers_trouble(error: DeliveryError | None) -> bool:
    """Whether a failure may be the provider's, not the notification's: enough of them open the breaker."""
    return isinstance(error, (TransientError, UnknownOutcomeError)) and not error.code.startswith(OURS)


class Failures:
    """The last failures of different users, and what was accepted in between.

    Accepted sends need not be told one by one: the caller brings their number since the start.
    """

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._few = max(3, breaker.failures // 4)
        self._last: dict[Hashable, tuple[float, int]] = {}
        """User to when he failed last and how many sends had been accepted by then; the latest failure last."""

    def add(self, user: Hashable, accepted: int, now: float) -> bool:
        """Note a failure; whether the provider counts as down with it.

        Args:
            user: Who failed.
            accepted: Sends accepted since the start.
            now: Monotonic seconds.
        """
        last, breaker = self._last, self._breaker
        last.pop(user, None)
        last[user] = now, accepted
        if len(last) > breaker.failures:
            del last[next(iter(last))]
        if len(last) == breaker.failures:
            since = next(iter(last.values()))[1]
            if breaker.failures >= breaker.share * (breaker.failures + accepted - since):
                return True
        lately = [at for at, before in last.values() if before == accepted]
        return len(lately) >= self._few and now - lately[0] >= QUIET

    def clear(self) -> None:
        """The breaker opened, or the provider answers again."""
        self._last.clear()


class Gate:
    """Open, shut until a monotonic time, or probing. The caller brings the time.

    Args:
        breaker: How long it waits, and how many answers open it.
    """

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self.shut = False
        self.reason = ""
        self.since = 0.0
        """Monotonic seconds at which it was shut."""
        self.until = 0.0
        """Monotonic seconds from which a probe may start."""
        self.round = 0
        """Raised with each outage and each probe that fails: what belongs to an earlier round says nothing new."""
        self._probing = 0
        self._answers = 0
        self._failures = 0

    def close(self, now: float, wait: float | None, reason: str, probe: int = 0) -> bool:
        """Shut, or stay shut for longer after a failed probe.

        Args:
            now: Monotonic seconds.
            wait: Seconds until a probe, as the provider asked; by default those of the breaker.
            reason: Code of the error, for `health`.
            probe: Round of the probe that failed; 0 for a send that was no probe.

        Returns:
            Whether this is news; not when it ends a send that was under way before.
        """
        if not self.shut:
            self.since = now
        news = not self.shut or probe == self.round
        if news:
            self.round += 1
            self._failures += 1
            self._probing = self._answers = 0
            self.until = now
            if wait is None:
                wait = self._breaker.first_wait * 2.0 ** min(self._failures - 1, 20)
                wait = min(self._breaker.max_wait, wait)
        self.shut, self.reason = True, reason
        self.until = max(self.until, now + (wait or 0.0))
        return news

    def room(self, now: float) -> int:
        """Probes that may start now."""
        return 0 if now < self.until else 1 + self._answers - self._probing

    def pass_probe(self, now: float) -> int:
        """The round of a probe that may start; 0 when none may."""
        if self.room(now) <= 0:
            return 0
        self._probing += 1
        return self.round

    def answered(self, probe: int) -> bool:
        """The provider answered a probe; whether that opens the gate."""
        if probe != self.round or not self.shut:
            return False
        self._probing -= 1
        self._answers += 1
        self._failures = 0
        if self._answers < self._breaker.probes:
            return False
        self.open()
        return True

    def failed(self, probe: int) -> bool:
        """A probe failed. Whether that is its own trouble, as the provider answers others: it then takes back one
        answer. Were it to shut the gate for longer, a few notifications that always fail would keep it shut for ever.
        """
        if probe != self.round or not self.shut or not self._answers:
            return False
        self._probing -= 1
        self._answers -= 1
        return True

    def open(self) -> None:
        """The provider answers again."""
        self.shut = False
        self._failures = self._probing = self._answers = 0

    def give_up(self, probe: int) -> None:
        """The probe said nothing: another may start."""
        if probe == self.round:
            self._probing -= 1
