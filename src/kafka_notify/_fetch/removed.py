"""How much of a partition retention removed before it was finished."""

from __future__ import annotations

from kafka_notify._partition.offsets import OffsetTracker


class Removed:
    """Compares where one partition begins with how far it was read. Pure.

    Args:
        tracker: Of the partition, for one assignment.
        start: Where the partition began at its start.
    """

    def __init__(self, tracker: OffsetTracker, start: int) -> None:
        self._tracker = tracker
        self._start = start
        self._known = start
        """What is gone below this offset was told, or had been read."""

    def look(self, start: int) -> int:
        """How many open records are gone since the last look, at most.

        Args:
            start: Where the partition begins now.
        """
        tracker = self._tracker
        count = 0
        size, begin, end = tracker.jump
        tracker.jump = (0, 0, 0)
        # other holes, such as transaction markers, do not end where the log begins
        if size and self._known < end <= start:
            count = min(size, end - max(begin, self._known))
            self._known = end
        # what lies below the start may have been fetched before: then it is read within the time between two looks
        below = min(self._start, start)
        if below > max(tracker.position, self._known):
            count += min(tracker.open_below(below), below - self._known)
            self._known = below
        if tracker.position >= start:
            self._known = max(self._known, start)
        self._start = start
        return count
