"""Holds a whole lane while its provider (or a codec's service) is away: records wait in Kafka.

Shut, it lets nothing start until its time is over; then one probe. What the probe meets decides.
"""

from __future__ import annotations

from typing import Final

FIRST_WAIT: Final = 1.0
MAX_WAIT: Final = 60.0


class Gate:
    """Open, shut until a monotonic time, or probing with one send. Pure: the caller brings the time."""

    def __init__(self) -> None:
        self.shut = False
        self.reason = ""
        self.since = 0.0
        """Monotonic seconds at which it was shut."""
        self.until = 0.0
        """Monotonic seconds from which a probe may start."""
        self._probing = False
        self._failures = 0

    def close(self, now: float, wait: float | None, reason: str) -> float:
        """Shut, or stay shut for longer after a failed probe.

        Args:
            now: Monotonic seconds.
            wait: Seconds until a probe, as the provider asked; by default 1 s, doubled with each failed probe
                up to 60 s.
            reason: Code of the error, for `health`.

        Returns:
            Monotonic seconds from which a probe may start.
        """
        if not self.shut:
            self.since = now
        if not self.shut or self._probing:  # sends that were under way when it shut say nothing new
            self._failures += 1
            self.until = now
        self.shut, self._probing, self.reason = True, False, reason
        if wait is None:
            wait = min(MAX_WAIT, FIRST_WAIT * 2.0 ** min(self._failures - 1, 10))
        self.until = max(self.until, now + wait)
        return self.until

    def try_pass(self, now: float) -> bool:
        """Whether a send may start; the first one after the wait is the probe."""
        if not self.shut:
            return True
        if self._probing or now < self.until:
            return False
        self._probing = True
        return True

    def open(self) -> None:
        """The provider answers again."""
        self.shut = self._probing = False
        self._failures = 0

    def give_up_probe(self) -> None:
        """The probe did not start after all: the next may."""
        self._probing = False
