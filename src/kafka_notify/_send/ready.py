"""What may be sent now. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from kafka_notify._partition.entry import Assignment, Entry


class Ready:
    """Queued attempts: of new notifications, of copies that are due, and of those that failed before. New ones and
    the others take turns; within each kind the partitions take turns, and within a partition it is first come, first
    served.

    A lane has at most one attempt queued, so within a partition users take turns by themselves.
    """

    __slots__ = ("_failed_next", "_newest_next", "_retry_next", "due", "failed", "new", "row")

    def __init__(self) -> None:
        self.new: deque[deque[Entry]] = deque()
        """The queues of partitions that have something: the first one is next."""
        self.due: deque[deque[Entry]] = deque()
        self.failed: deque[deque[Entry]] = deque()
        self.row = 1
        """Probes that failed in a row, and one at the beginning of a hold, as the caller counts; and those that came
        last, as they are chosen."""
        self._retry_next = True
        self._failed_next = True
        self._newest_next = False

    def __len__(self) -> int:
        return sum(map(len, self.new)) + sum(map(len, self.due)) + sum(map(len, self.failed))

    def __bool__(self) -> bool:
        return bool(self.new or self.due or self.failed)

    def up_to(self, most: int) -> int:
        """How many are queued, counted no further than `most`."""
        queued = 0
        for ring in (self.due, self.new, self.failed):
            for queue in ring:
                queued += len(queue)
                if queued >= most:
                    return most
        return queued

    def add(self, entry: Entry) -> None:
        """Queue it behind those of its kind and partition."""
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
        """The next one is to find out whether the provider works: bring it to the front of its queue. It never failed,
        if there is one, and has waited for longest. But those in front may all be ones that fail whatever the provider
        does: nobody knows that of those whose failure could not be written down. So the second probe of a hold, and
        each fourth one after failed ones, is the one that came last.

        When all have failed, the one that is due longest and the one that became due last are chosen by turns: these
        differ in what they failed of.
        """
        ring = self.new or self.due
        if ring:
            newest = self.row % 5 == 2
            self.row += newest  # should it not be sent after all, the next one is from the front again
        else:
            ring = self.failed
            newest = self._newest_next = not self._newest_next
        if ring and newest:
            ring[0].rotate(1)

    def pop(self, *, probe: bool = False) -> Entry:
        """The next one; an IndexError when there is none.

        Args:
            probe: It is what `choose_probe` chose.
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
        """Take these retries out, wherever they are queued; which of them were."""
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
        """Queued attempts of partitions that were given away; from any thread, for the test kit."""
        count = 0
        for ring in (self.new, self.due, self.failed):
            for queue in tuple(ring):  # copied in one step: the event loop goes on changing it
                try:
                    first = queue[0]  # all of a queue are of one partition
                except IndexError:  # the event loop was quicker
                    continue
                count += 0 if first.partition.alive else len(queue)
        return count

    def drop(self, partition: Assignment) -> None:
        """Its assignment has ended."""
        for ring, queue in (
            (self.new, partition.new),
            (self.due, partition.due),
            (self.failed, partition.failed),
        ):
            if queue:
                ring.remove(queue)
                queue.clear()
