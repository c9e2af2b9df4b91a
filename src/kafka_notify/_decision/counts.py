"""Counts of what a worker did since its start."""

from __future__ import annotations

import attrs


@attrs.define
class Counts:
    """Numbers of notifications and attempts, by how they ended."""

    sent: int = 0
    retried: int = 0
    dead: int = 0
    expired: int = 0
    skipped: int = 0
    parked: int = 0
    passed_over: int = 0
    unknown: int = 0
    assumed: int = 0
    """The part of `sent` that no provider confirmed."""

    def accepted(self) -> int:
        """The number of sends that a provider accepted."""
        return self.sent - self.assumed
