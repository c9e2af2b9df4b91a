"""What may keep sends from starting: circuits, a rate limit, pauses, and the lease on the partitions."""

from __future__ import annotations

from typing import Protocol

import attrs

from kafka_notify._base.clock import boottime
from kafka_notify._send.guard import Guard
from kafka_notify._send.pace import Pace
from kafka_notify._wire.pause import Paused


class Lease(Protocol):
    """Until when sends may start."""

    lease_until: float
    """`boottime`."""

    def tell_lease(self) -> None:
        """A send would have started without it."""


@attrs.frozen
class Permits:
    """The four, as the parts that make sends ask them.

    Args:
        guard: The circuits of the lane and of its destinations.
        pace: The rate limit, when the consumer has one.
        paused: What must not be sent now.
        lease: Until when the partitions are surely this worker's.
    """

    guard: Guard
    pace: Pace | None
    paused: Paused
    lease: Lease

    @property
    def closed(self) -> bool:
        """Whether no send may start at all: a confirmed commit, or a resume, wakes the senders again."""
        return bool(self.paused.whole) or boottime() > self.lease.lease_until
