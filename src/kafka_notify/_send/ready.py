"""What may be sent now. Pure."""

from __future__ import annotations

from collections import deque

from kafka_notify._lanes.entry import Entry


class Ready:
    """Queued attempts: of new notifications, and of retries that are due, taken in turns.

    In one queue a retry would come late by all that was read before it was due (1 s behind a busy lane's backlog,
    measured), and after an outage a hundred thousand retries would stand in front of the next new notification.
    """

    __slots__ = ("_retry_next", "due", "new")

    def __init__(self) -> None:
        self.new: deque[Entry] = deque()
        """Those that live in the source topic. When `due` is empty, the next one is the first of these."""
        self.due: deque[Entry] = deque()
        """Those that live in the retry topic."""
        self._retry_next = True

    def __len__(self) -> int:
        return len(self.new) + len(self.due)

    def add(self, entry: Entry) -> None:
        """Queue it behind those of its kind."""
        (self.new if entry.held is None else self.due).append(entry)

    def put_back(self, entry: Entry) -> None:
        """It could not be sent after all: it is the next of its kind again."""
        (self.new if entry.held is None else self.due).appendleft(entry)

    def pop(self) -> Entry:
        """The next one; an IndexError when there is none."""
        if self.due and (self._retry_next or not self.new):
            self._retry_next = False
            return self.due.popleft()
        self._retry_next = True
        return self.new.popleft()
