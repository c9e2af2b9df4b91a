"""Flow control between fetch thread and event loop: the partitions to be read, and how far the thread may be ahead."""

from __future__ import annotations

from collections import deque
from typing import Final

from kafka_notify._base.runtime import SYSTEM, Runtime

BATCH: Final = 1_000
"""Records handed over at once."""
IN_TRANSIT: Final = 3_000
"""Records handed over and not yet taken; with more the thread waits."""
TRANSIT_BYTES: Final = 32 * 2**20
"""Bytes of values handed over and not yet taken; with more the thread waits. One batch always passes."""


class Flow:
    """The state that both sides share: ints and references, atomic under the GIL.

    Args:
        runtime: The waits of the fetch thread.
    """

    def __init__(self, runtime: Runtime = SYSTEM) -> None:
        # set by the event loop, read by the fetch thread
        self.taken = 0
        """Messages that the event loop has taken."""
        self.batch = BATCH
        """Records that one poll takes at most: fewer when they are large."""
        self.polling_suspended = False
        """True while nothing is polled: cheaper than a pause of partitions, which discards the prefetch."""
        self.wanted: frozenset[int] = frozenset()
        """Source partitions to be read now; the others are paused."""

        # set by the fetch thread
        self.transit_bytes = 0
        """Bytes handed over and not yet taken."""
        self._handed = 0
        self._transit: deque[tuple[int, int]] = deque()
        """For each batch that is not taken yet: the value of `taken` once it is, and its bytes."""
        self._awake = runtime.event()

    def wake(self) -> None:
        """Wake the fetch thread if it waits. From any thread."""
        self._awake.set()

    # -- for the fetch thread -------------------------------------------------------------------------

    def handed_over(self, count: int, size: int) -> None:
        """Count a batch of records and the bytes of their values as handed over."""
        self._handed += count
        self._transit.append((self._handed, size))
        self.transit_bytes += size

    def must_wait(self) -> bool:
        """Return True while nothing may be polled."""
        return self.polling_suspended or self._is_far_ahead()

    def wait(self, seconds: float) -> None:
        """Wait until `wake` is called, unless polling may go on already."""
        self._awake.clear()
        if self.must_wait():  # else `wake` was called between the check and `clear`
            self._awake.wait(seconds)

    def _is_far_ahead(self) -> bool:
        transit = self._transit
        while transit and transit[0][0] <= self.taken:
            self.transit_bytes -= transit.popleft()[1]
        return self._handed - self.taken > IN_TRANSIT or self.transit_bytes > TRANSIT_BYTES
