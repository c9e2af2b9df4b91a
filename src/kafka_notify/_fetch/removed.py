"""How much of a partition retention removed before it was finished."""

from __future__ import annotations

from kafka_notify._fetch.offsets import Tracker


class Removed:
    """Compares where one partition begins with how far it was read. Pure.

    Args:
        tracker: Of the partition, for one assignment.
        start: Where the partition began at its start.
    """

    def __init__(self, tracker: Tracker, start: int) -> None:
        self._tracker = tracker
        self._start = start
        self._told = start

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
        if size and max(self._start, self._told) < end <= start:
            count = min(size, end - max(begin, self._told))
            self._told = end
        # what lies below the start may have been fetched before: then it is read within the time between two looks
        below = min(self._start, start)
        if below > max(tracker.position, self._told):
            count += min(tracker.open_below(below), below - self._told)
            self._told = below
        self._start = start
        return count
