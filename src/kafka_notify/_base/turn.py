"""Work of the event loop in turns of a few milliseconds, so that other work runs between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LENGTH: Final = 0.005
"""Seconds of one turn. Commits, leases, deadlines and all users' sends wait meanwhile."""
LOOK: Final = 16
"""Items between two reads of the clock."""


class Turn:
    """The time limit of one turn. Items that take less than 0.1 ms each exceed it by 2 ms at most."""

    __slots__ = ("_items", "_monotonic", "_until")

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._until = monotonic() + LENGTH
        self._items = 0

    def over(self) -> bool:
        """Count one item, and return whether the rest must wait for the next turn."""
        self._items += 1
        return not self._items % LOOK and self._monotonic() > self._until

    @property
    def late(self) -> bool:
        """True when the turn is over, for a caller that counts items itself."""
        return self._monotonic() > self._until


class InTurns:
    """Work that may take more than one turn. The rest follows in the next turns of the loop, in its order.

    Args:
        soon: Calls its argument in the next turn of the loop, after what is already scheduled.
        work: Does some of the work, until its turn is over; returns whether something is left.
        monotonic: Returns seconds.
    """

    def __init__(
        self,
        soon: Callable[[Callable[[], object]], object],
        work: Callable[[Turn], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._soon = soon
        self._work = work
        self._monotonic = monotonic
        self.pending = False
        """True while another turn is scheduled."""

    def __call__(self) -> None:
        """Begin at once, unless the rest of earlier work has to come first."""
        if not self.pending:
            self._turn()

    def _turn(self) -> None:
        self.pending = False
        if self._work(Turn(self._monotonic)) and not self.pending:
            self.pending = True
            self._soon(self._turn)
