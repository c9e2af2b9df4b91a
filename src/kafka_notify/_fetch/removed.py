"""A count of the records that retention removed from a partition before they were finished."""

from __future__ import annotations

from kafka_notify._partition.offsets import OffsetTracker


class Removed:
    """Compares the first offset of one partition with how far it was read. Pure.

    Args:
        tracker: The partition's offsets in one assignment.
        start: First offset of the partition when the assignment began.
    """

    def __init__(self, tracker: OffsetTracker, start: int) -> None:
        self._tracker = tracker
        self._start = start
        self._known = start
        """Removed records below this offset have been counted, or had been read."""

    def look(self, start: int) -> int:
        """The number of open records, at most, that were removed since the last look.

        Args:
            start: First offset of the partition now.
        """
        tracker = self._tracker
        count = 0
        size, begin, end = tracker.jump
        tracker.jump = (0, 0, 0)
        # other holes, such as transaction markers, do not end where the log begins
        if size and self._known < end <= start:
            count = min(size, end - max(begin, self._known))
            self._known = end
        # records below the start may have been fetched before their removal: then they are read before the next look
        below = min(self._start, start)
        if below > max(tracker.position, self._known):
            count += min(tracker.open_below(below), below - self._known)
            self._known = below
        if tracker.position >= start:
            self._known = max(self._known, start)
        self._start = start
        return count
