"""The permits of sends, as one value: circuits, a rate limit, pauses, and the lease on the partitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs

from kafka_notify._send.guard import Guard
from kafka_notify._send.pace import Pace
from kafka_notify._wire.pause import Paused


class Lease(Protocol):
    """The time until which this worker surely owns its partitions, so that sends may start."""

    lease_until: float
    """Seconds of `boottime`."""

    def tell_lease(self) -> None:
        """Report that a send did not start because the lease had ended."""


@attrs.frozen
class Permits:
    """The parts that are asked before a send.

    Args:
        guard: The circuits of the lane and of its destinations.
        pace: The rate limit; None when the consumer has none.
        paused: The pauses in force.
        lease: The lease on the partitions.
        boottime: Returns the seconds in which the lease ends.
    """

    guard: Guard
    pace: Pace | None
    paused: Paused
    lease: Lease
    boottime: Callable[[], float]

    @property
    def closed(self) -> bool:
        """True while no send may start at all. A confirmed commit or a resume wakes the senders again."""
        return bool(self.paused.whole) or self.boottime() > self.lease.lease_until
