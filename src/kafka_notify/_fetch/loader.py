"""Which evicted payloads are read again, and when: just before their send, so that few are in memory. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from typing import Final

from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.entry import Assignment, Busy, Entry
from kafka_notify._partition.record import Record

AHEAD: Final = 2
"""Payloads for each sender that are read ahead of it: a sender that is free should not wait for Kafka."""
AT_MOST: Final = 500
"""Payloads that are being read or wait for their send at most."""
COPIES: Final = 200
"""The same of those that are only to be copied."""


class Load:
    """A payload that is being read again, or waits for its send since."""

    __slots__ = ("at", "entry", "here", "number", "to_copy")

    def __init__(self, entry: Entry, *, to_copy: bool) -> None:
        assert entry.retry is not None
        self.entry: Entry | None = entry
        """None once nobody waits for it: its partition was given away."""
        self.number = entry.partition.number
        self.at = entry.retry.at
        """Where it lies in the retry partition of that number."""
        self.to_copy = to_copy
        self.here = False


class _Cold:
    """Queued heads without payload, by partition; the partitions take turns."""

    def __init__(self) -> None:
        self._queues: dict[Assignment, deque[Entry]] = {}
        self._turns: deque[Assignment] = deque()

    def __bool__(self) -> bool:
        return bool(self._turns)

    def add(self, entry: Entry) -> None:
        """Queue it behind those of its partition."""
        queue = self._queues.get(entry.partition)
        if queue is None:
            queue = self._queues[entry.partition] = deque()
            self._turns.append(entry.partition)
        queue.append(entry)

    @property
    def next(self) -> Entry:
        """The one that `pop` takes."""
        return self._queues[self._turns[0]][0]

    def pop(self) -> None:
        """Take out the next one."""
        partition = self._turns[0]
        queue = self._queues[partition]
        queue.popleft()
        if queue:
            self._turns.rotate(-1)
        else:
            self._turns.popleft()
            del self._queues[partition]

    def recall(self, partition: Assignment, entries: Container[Entry]) -> list[Entry]:
        """Take these out; which of them were queued."""
        queue = self._queues.get(partition, ())
        taken = [entry for entry in queue if entry in entries]
        if len(taken) == len(queue):
            self.drop(partition)
        elif taken:
            self._queues[partition] = deque(entry for entry in queue if entry not in entries)
        return taken

    def drop(self, partition: Assignment) -> int:
        """Its assignment has ended; how many were queued of it."""
        queue = self._queues.pop(partition, None)
        if queue is None:
            return 0
        self._turns.remove(partition)
        return len(queue)


class Loader:
    """Keeps evicted payloads waiting until their send may start. Those that never failed and those that did take turns,
    so that a probe soon finds one that does not fail whatever the provider does; so do partitions within each kind.

    Args:
        budget: Of payloads; loads count from their request on.
        request: Reads a payload again; answered by `loaded`.
        room: How many payloads may be read for sends now, those included that are here and not being sent yet.
    """

    def __init__(
        self, budget: PayloadBudget, request: Callable[[Load], object], room: Callable[[], int]
    ) -> None:
        self._budget = budget
        self._request = request
        self._room = room
        self.waiting = 0
        """Entries whose payload is to be read."""
        self._untried = _Cold()
        self._tried = _Cold()
        self._next: _Cold = self._untried
        """The kind whose turn it is; `_then` the other one."""
        self._then: _Cold = self._tried
        self._to_copy: deque[Entry] = deque()
        self._loads: dict[Entry, Load] = {}
        self._copies = 0
        """Of these, those that are only to be copied."""

    def add(self, entry: Entry, *, to_copy: bool) -> None:
        """Read its payload again: for its send once there is room, or at once to copy it."""
        self.waiting += 1
        if to_copy:
            self._to_copy.append(entry)
        else:
            (self._tried if entry.failed else self._untried).add(entry)

    def fill(self) -> None:
        """Request what there is room for. Called whenever a send may have become possible, and with each tick."""
        to_copy, loads = self._to_copy, self._loads
        while to_copy and self._copies < COPIES and self._load(to_copy[0], to_copy=True):
            to_copy.popleft()
            self.waiting -= 1
        if not (self._next or self._then):
            return
        room = self._room()
        while len(loads) - self._copies < room and (self._next or self._then):
            cold = self._next or self._then
            if not self._load(cold.next, to_copy=False):
                return
            cold.pop()
            self.waiting -= 1
            self._next, self._then = self._then, self._next

    def _load(self, entry: Entry, *, to_copy: bool) -> bool:
        held = entry.retry
        assert held is not None
        if not self._budget.may_load(held):
            return False
        self._budget.load(held, held.bytes)
        self._loads[entry] = load = Load(entry, to_copy=to_copy)
        self._copies += to_copy
        self._request(load)
        return True

    def loaded(self, load: Load, record: Record, now: int) -> None:
        """A payload is here."""
        if load.entry is not None:
            load.here = True
            load.entry.partition.loaded(load.entry, record, now)

    def gone(self, load: Load) -> None:
        """A record does not exist any more: whoever holds the entry ends it."""
        if load.entry is not None:
            self._forget(load.entry)

    def started(self, entry: Entry) -> None:
        """A queued entry came to its turn: its payload is no longer read ahead."""
        if entry in self._loads:
            self._forget(entry)
            if self.waiting and 2 * len(self._loads) <= self._room():  # many at once are read in one go
                self.fill()

    def recall(self, partition: Assignment, entries: Container[Entry]) -> list[Entry]:
        """Forget that these are to be read for their send, unless they were requested; which of them."""
        found = [*self._untried.recall(partition, entries), *self._tried.recall(partition, entries)]
        self.waiting -= len(found)
        return found

    def tidy(self) -> None:
        """Let go of what is here and was neither queued for a send nor copied after all. With each tick."""
        for entry, load in tuple(self._loads.items()):
            if load.here and entry.busy is not Busy.SENDING:
                self._forget(entry)
                if entry.busy is Busy.NO:
                    entry.partition.rest(entry)

    def _forget(self, entry: Entry) -> None:
        load = self._loads.pop(entry)
        load.entry = None
        self._copies -= load.to_copy

    def drop(self, partition: Assignment) -> None:
        """Its assignment has ended."""
        queued = len(self._to_copy)
        self._to_copy = deque(e for e in self._to_copy if e.partition is not partition)
        queued -= len(self._to_copy)
        self.waiting -= queued + self._untried.drop(partition) + self._tried.drop(partition)
        for entry in [e for e in self._loads if e.partition is partition]:
            self._forget(entry)
