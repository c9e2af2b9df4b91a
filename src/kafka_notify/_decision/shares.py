"""The shares of failed sends and of accepted retries, as moving averages of one circuit. Pure."""

from __future__ import annotations

from typing import Final

PRIOR: Final = 0.4
"""Share of first retries that is assumed to be accepted at the start; of each later retry a quarter of that."""
HOPELESS: Final = 0.02
"""Share of accepted retries below which a retry loses an attempt even while the lane is held."""
HALF: Final = 0.5
"""Share of failed sends, weighted, from which failures do not count."""
MEMORY: Final = 32
"""Sends over which the shares are averaged; twice as many for retries."""
STALE: Final = 60.0
"""Seconds without news after which the share of failures is ignored."""
KINDS: Final = 4
"""Retries are told apart by their counted attempts, up to this many."""


class Shares:
    """The shares that a circuit learns from outcomes.

    Args:
        now: Monotonic seconds.
    """

    __slots__ = ("failed", "first_failed_at", "first_sends", "heard_at", "hopeless", "retries")

    def __init__(self, now: float) -> None:
        self.failed = 0.0
        """Share of all sends that fail, each with its weight."""
        self.first_sends = 1.0
        """Share of first sends that are accepted."""
        self.retries = [PRIOR / 4.0 ** max(0, k - 1) for k in range(KINDS)]
        """Share of retries that are accepted, by counted attempts."""
        self.hopeless: set[int] = set()
        """Counted attempts of the retries that are not accepted while other sends are."""
        self.heard_at = now
        """When an outcome was last heard other than the failure of a retry."""
        self.first_failed_at = now - STALE
        """When a first send failed last."""

    def learn(
        self, failed: bool, again: bool, attempts: int, now: float, *, frozen: bool, others: bool
    ) -> float:
        """Take an outcome into the shares.

        Args:
            failed: True for a failure, False for an accepted send.
            again: True for a retry, or for another failure of the same user.
            attempts: Counted attempts before this one.
            now: Monotonic seconds.
            frozen: True while nothing is accepted: an outage must not teach that retries are hopeless.
            others: True when something was accepted a moment ago: nor must the failures with which an outage begins.

        Returns:
            The weight of the outcome: a retry weighs as much as such retries are usually accepted.
        """
        kind = min(attempts, KINDS - 1)
        retries = self.retries
        weight = min(1.0, retries[kind] / max(self.first_sends, 0.01)) if again else 1.0
        self.failed += weight * (failed - self.failed) / MEMORY
        if not frozen:
            if again:
                retries[kind] += (1 - failed - retries[kind]) / (2 * MEMORY)
                if retries[kind] >= HOPELESS:
                    self.hopeless.discard(kind)
                elif others:
                    self.hopeless.add(kind)
            else:
                self.first_sends += (1 - failed - self.first_sends) / MEMORY
        if not (failed and again):
            self.heard_at = now
        if failed and not again:
            self.first_failed_at = now
        return weight

    def catch_up(self, accepted: int, now: float) -> None:
        """Take in first sends that were accepted without being told one by one."""
        kept = (1 - 1 / MEMORY) ** accepted
        self.failed *= kept
        self.first_sends += (1 - self.first_sends) * (1 - kept)
        self.heard_at = now

    def is_hopeless(self, attempts: int) -> bool:
        """True when retries with so many counted attempts are not accepted while other sends are."""
        return min(attempts, KINDS - 1) in self.hopeless

    def half_fail(self, now: float) -> bool:
        """True while half of all sends fail."""
        return self.failed >= HALF and now - self.heard_at < STALE
