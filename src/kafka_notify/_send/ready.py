"""What may be sent now. Pure."""

from __future__ import annotations

from collections import deque

from kafka_notify._lanes.entry import Entry
from kafka_notify._lanes.partition import Partition


class Ready:
    """Queued attempts: of new notifications, and of retries that are due, taken in turns; within each kind the
    partitions take turns, and within a partition it is first come, first served.

    A lane has at most one attempt queued, so within a partition users take turns by themselves.
    """

    __slots__ = ("_retry_next", "due", "new")

    def __init__(self) -> None:
        self.new: deque[deque[Entry]] = deque()
        """The queues of partitions that have something: the first one is next."""
        self.due: deque[deque[Entry]] = deque()
        self._retry_next = True

    def __len__(self) -> int:
        return sum(map(len, self.new)) + sum(map(len, self.due))

    def __bool__(self) -> bool:
        return bool(self.new or self.due)

    def up_to(self, most: int) -> int:
        """How many are queued, counted no further than `most`."""
        queued = 0
        for ring in (self.due, self.new):
            for queue in ring:
                queued += len(queue)
                if queued >= most:
                    return most
        return queued

    def add(self, entry: Entry) -> None:
        """Queue it behind those of its kind and partition."""
        if entry.held is None:
            queue = entry.lane.partition.new
            if not queue:
                self.new.append(queue)
        else:
            queue = entry.lane.partition.due
            if not queue:
                self.due.append(queue)
        queue.append(entry)

    def put_back(self, entry: Entry) -> None:
        """It could not be sent after all: it is the next of its kind again."""
        partition = entry.lane.partition
        ring, queue = (self.new, partition.new) if entry.held is None else (self.due, partition.due)
        if queue:
            ring.remove(queue)
        queue.appendleft(entry)
        ring.appendleft(queue)

    def pop(self) -> Entry:
        """The next one; an IndexError when there is none."""
        ring = self.new
        if self.due and (self._retry_next or not ring):
            self._retry_next = False
            ring = self.due
        else:
            self._retry_next = True
        queue = ring[0]
        entry = queue.popleft()
        if not queue:
            ring.popleft()
        elif len(ring) > 1:
            ring.rotate(-1)
        return entry

    def drop(self, partition: Partition) -> None:
        """Its assignment has ended."""
        for ring, queue in ((self.new, partition.new), (self.due, partition.due)):
            if queue:
                ring.remove(queue)
                queue.clear()
