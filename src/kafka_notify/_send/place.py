"""A sender and its current send as the circuits see them, and the interface of the parts that send."""

from __future__ import annotations

from collections.abc import Callable, Collection

import attrs

from kafka_notify._decision.destinations import Destination
from kafka_notify._partition.entry import Entry


class Place:
    """A sender, which makes one send after another, and what its current send is to the circuits."""

    __slots__ = ("entry", "of", "of_token", "token")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.token = 0
        """Token of the lane's circuit; not 0 when the send is a probe."""
        self.of: Destination[Entry] | None = None
        """The destination of the send, when its sends are counted or it has failed."""
        self.of_token = 0
        """Token of the destination's circuit."""


@attrs.define
class Probes:
    """Counts of the probes that were answered or failed."""

    made: int = 0
    failed: int = 0


@attrs.frozen
class Senders:
    """The interface of the parts that send, for a guard.

    Args:
        places: Places of all sends under way.
        accepted: Returns the number of sends accepted since the start.
        backoff: Returns the seconds that the retry policy waits after so many counted attempts.
        throttled: Called when the provider asks to slow down.
        kick: Called when more sends may start.
    """

    places: Collection[Place]
    accepted: Callable[[], int]
    backoff: Callable[[int], float]
    throttled: Callable[[], object]
    kick: Callable[[], object]
