"""The queue of attempts that may start now. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from kafka_notify._partition.entry import Assignment, Entry


class Ready:
    """The queued attempts of new notifications, of copies that are due, and of copies that failed before.

    New notifications and copies take turns. Within each kind the partitions take turns, and each partition is served in
    order of arrival. A user has at most one attempt queued, so the users of a partition take turns by themselves.
    """

    __slots__ = ("_failed_next", "_newest_next", "_retry_next", "due", "failed", "new", "row")

    def __init__(self) -> None:
        self.new: deque[deque[Entry]] = deque()
        """The partitions' queues that are not empty; the first one is next. `due` and `failed` alike."""
        self.due: deque[deque[Entry]] = deque()
        self.failed: deque[deque[Entry]] = deque()
        self.row = 1
        """Counts towards the next probe from the end: 1 at the beginning of a hold, and 1 for each failed probe, as the
        caller counts; 1 more when a probe from the end is chosen."""
        self._retry_next = True
        self._failed_next = True
        self._newest_next = False

    def __len__(self) -> int:
        return sum(map(len, self.new)) + sum(map(len, self.due)) + sum(map(len, self.failed))

    def __bool__(self) -> bool:
        return bool(self.new or self.due or self.failed)

    def up_to(self, most: int) -> int:
        """The number of queued attempts, counted no further than `most`."""
        queued = 0
        for ring in (self.due, self.new, self.failed):
            for queue in ring:
                queued += len(queue)
                if queued >= most:
                    return most
        return queued

    def add(self, entry: Entry) -> None:
        """Queue an attempt behind those of its kind and partition."""
        if entry.retry is None:
            queue = entry.queue.partition.new
            if not queue:
                self.new.append(queue)
        elif entry.history.failed:
            queue = entry.queue.partition.failed
            if not queue:
                self.failed.append(queue)
        else:
            queue = entry.queue.partition.due
            if not queue:
                self.due.append(queue)
        queue.append(entry)

    def choose_probe(self) -> None:
        """Bring to the front the attempt that is to find out whether the provider works.

        It is one that never failed, if there is one, and the one that has waited longest. But those in front may all be
        of notifications that fail whatever the provider does: a failure whose copy could not be written is forgotten.
        So the second probe of a hold, and every fourth one that follows failed ones, is the attempt that came last.

        When all have failed before, the attempt that has been due longest and the one that became due last take turns,
        as they differ in how often they failed.
        """
        ring = self.new or self.due
        if ring:
            newest = self.row % 5 == 2
            self.row += newest  # if it is not sent, the next probe is from the front again
        else:
            ring = self.failed
            newest = self._newest_next = not self._newest_next
        if ring and newest:
            ring[0].rotate(1)

    def pop(self, *, probe: bool = False) -> Entry:
        """Take out the next attempt. Raises IndexError when there is none.

        Args:
            probe: True to take what `choose_probe` chose.
        """
        ring = self.new
        if probe:
            ring = self.new or self.due or self.failed
        elif (self.due or self.failed) and (self._retry_next or not ring):
            self._retry_next = False
            self._failed_next = not self._failed_next
            ring = self.failed if self.failed and (self._failed_next or not self.due) else self.due
        else:
            self._retry_next = True
        queue = ring[0]
        entry = queue.popleft()
        if not queue:
            ring.popleft()
        elif len(ring) > 1:
            ring.rotate(-1)
        return entry

    def recall(self, partition: Assignment, entries: Container[Entry]) -> list[Entry]:
        """Take these retries out of their queues. Return those that were queued."""
        found: list[Entry] = []
        for ring, queue in ((self.due, partition.due), (self.failed, partition.failed)):
            taken = [entry for entry in queue if entry in entries]
            if not taken:
                continue
            found += taken
            if len(taken) == len(queue):
                ring.remove(queue)
                queue.clear()
            else:
                left = [entry for entry in queue if entry not in entries]
                queue.clear()
                queue.extend(left)
        return found

    def given_away(self) -> int:
        """The number of queued attempts of partitions that were given away. For the test kit, from any thread."""
        count = 0
        for ring in (self.new, self.due, self.failed):
            for queue in tuple(ring):  # copied in one step, as the event loop goes on changing the ring
                try:
                    first = queue[0]  # a queue belongs to one partition
                except IndexError:  # the event loop emptied it meanwhile
                    continue
                count += 0 if first.partition.alive else len(queue)
        return count

    def drop(self, partition: Assignment) -> None:
        """Drop the attempts of a partition whose assignment has ended."""
        for ring, queue in (
            (self.new, partition.new),
            (self.due, partition.due),
            (self.failed, partition.failed),
        ):
            if queue:
                ring.remove(queue)
                queue.clear()
