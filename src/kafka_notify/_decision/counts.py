"""What a worker did since its start."""

from __future__ import annotations

import attrs


@attrs.define
class Counts:
    """How many notifications, or attempts, ended in which way."""

    sent: int = 0
    retried: int = 0
    dead: int = 0
    expired: int = 0
    skipped: int = 0
    parked: int = 0
    passed_over: int = 0
    unknown: int = 0
    assumed: int = 0
    """Of what counts as sent: nobody said so."""

    def accepted(self) -> int:
        """Sends that a provider accepted."""
        return self.sent - self.assumed
