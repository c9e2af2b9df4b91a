"""Evicted payloads, reloaded just before their send, so that few are in memory. Pure: `PayloadReloader` reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from itertools import islice
from typing import Final

from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.entry import Assignment, Busy, Entry
from kafka_notify._partition.record import Record
from kafka_notify._partition.retry_record import RetryRecord

AHEAD: Final = 2
"""Payloads reloaded ahead for each sender: a free sender should not wait for Kafka."""
AT_MOST: Final = 500
"""Payloads that are being reloaded, or wait for their send, at most."""
COPIES: Final = 200
"""Payloads that are being reloaded only to be copied, at most."""
FOLLOWERS: Final = 32
"""Followers of a user's head that are reloaded with it. A reload takes some 50 ms whether it brings one record or
hundreds, and a user's notifications are sent one after the other: one by one, 3,000 of them would take minutes."""
FOLLOWERS_AT_MOST: Final = 500
"""Followers that are reloaded ahead of their turn, over all users."""
_PROGRESS: Final = frozenset({Busy.SENDING, Busy.LOADING})


class Load:
    """A payload that is being reloaded, or waits for its send since."""

    __slots__ = ("ahead", "at", "entry", "here", "number", "to_copy")

    def __init__(self, entry: Entry, *, to_copy: bool, ahead: bool = False) -> None:
        assert entry.retry is not None
        self.entry: Entry | None = entry
        """None once nobody waits for it: its partition was given away."""
        self.number = entry.partition.number
        self.at = entry.retry.at
        """Its offset in the retry partition of that number."""
        self.to_copy = to_copy
        self.ahead = ahead
        """Its entry follows the head of its user's queue: nothing is under way for it."""
        self.here = False


class _Cold:
    """Queued heads without payload, by partition. The partitions take turns."""

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
        """Take these out; return those that were queued."""
        queue = self._queues.get(partition, ())
        taken = [entry for entry in queue if entry in entries]
        if len(taken) == len(queue):
            self.drop(partition)
        elif taken:
            self._queues[partition] = deque(entry for entry in queue if entry not in entries)
        return taken

    def drop(self, partition: Assignment) -> int:
        """Forget a partition whose assignment has ended; return how many of its entries were queued."""
        queue = self._queues.pop(partition, None)
        if queue is None:
            return 0
        self._turns.remove(partition)
        return len(queue)


class Loader:
    """Reloads evicted payloads once their send may start. Entries that never failed and entries that did take turns, so
    that a probe soon finds one which does not fail whatever the provider does; so do partitions within each kind. The
    followers of a head are reloaded with it, and are kept while sends of their user make progress.

    Args:
        budget: Memory for payloads. A load counts from its request on.
        request: Reloads a payload; `loaded` or `gone` answers.
        room: Returns how many payloads may be reloaded for sends now, including those that are here and not being sent
            yet. Followers are not counted.
    """

    def __init__(
        self, budget: PayloadBudget, request: Callable[[Load], object], room: Callable[[], int]
    ) -> None:
        self._budget = budget
        self._request = request
        self._room = room
        self.waiting = 0
        """Entries whose payload is to be reloaded."""
        self._untried = _Cold()
        self._tried = _Cold()
        self._next: _Cold = self._untried
        """The kind whose turn it is; `_then` the other one."""
        self._then: _Cold = self._tried
        self._to_copy: deque[Entry] = deque()
        self._loads: dict[Entry, Load] = {}
        self._copies = 0
        """Loads that are only to be copied."""
        self._ahead = 0
        """Loads of followers."""

    def add(self, entry: Entry, *, to_copy: bool) -> None:
        """Reload its payload: for its send once there is room, or at once to copy it."""
        if (load := self._loads.get(entry)) is not None:
            if load.ahead and not to_copy:  # its turn came before its payload
                load.ahead = False
                self._ahead -= 1
                return
            self._forget(entry)
        self.waiting += 1
        if to_copy:
            self._to_copy.append(entry)
        else:
            (self._tried if entry.history.failed else self._untried).add(entry)

    def fill(self) -> None:
        """Request what there is room for. Called whenever a send may have become possible, and with each tick."""
        to_copy = self._to_copy
        while to_copy and self._copies < COPIES and self._load(to_copy[0], to_copy=True):
            to_copy.popleft()
            self.waiting -= 1
        if not (self._next or self._then):
            return
        room = self._room()
        while self._for_sends < room and (self._next or self._then):
            cold = self._next or self._then
            entry = cold.next
            if not self._load(entry, to_copy=False):
                return
            self._load_followers(entry)
            cold.pop()
            self.waiting -= 1
            self._next, self._then = self._then, self._next

    @property
    def _for_sends(self) -> int:
        return len(self._loads) - self._copies - self._ahead

    def _load(self, entry: Entry, *, to_copy: bool) -> bool:
        retry = entry.retry
        assert retry is not None
        if not self._budget.may_load(retry):
            return False
        self._ask(Load(entry, to_copy=to_copy), entry, retry)
        return True

    def _load_followers(self, head: Entry) -> None:
        later = head.queue.later
        if later is None:
            return
        for entry in islice(later, FOLLOWERS):
            retry = entry.retry
            if retry is None or retry.history.failed or self._ahead >= FOLLOWERS_AT_MOST:
                return
            if entry.record is not None or entry.busy or entry in self._loads:
                continue
            if not self._budget.may_load_ahead(retry):
                return
            self._ask(Load(entry, to_copy=False, ahead=True), entry, retry)

    def _ask(self, load: Load, entry: Entry, retry: RetryRecord) -> None:
        """Request a payload, and count it from now on. `_forget` takes the count back."""
        self._budget.load(retry, retry.bytes)
        self._loads[entry] = load
        self._copies += load.to_copy
        self._ahead += load.ahead
        self._request(load)

    def loaded(self, load: Load, record: Record, now: int) -> None:
        """Hand over a payload that is here."""
        entry = load.entry
        if entry is None:
            return
        load.here = True
        if not load.ahead:
            entry.partition.loaded(entry, record, now)
        elif entry.busy or entry.record is not None or entry.queue.find(entry.origin) is not entry:
            self._forget(entry)  # it was carried, redriven or ended meanwhile
        else:
            assert entry.retry is not None
            entry.load(record)
            self._budget.load(entry.retry, entry.record_size())

    def gone(self, load: Load) -> Entry | None:
        """Forget a record that does not exist any more; return its entry if somebody waits for it, who then ends it."""
        entry = load.entry
        if entry is None:
            return None
        self._forget(entry)
        if not load.ahead:
            return entry
        assert entry.retry is not None
        self._budget.give(entry.retry)
        return None

    def started(self, entry: Entry) -> None:
        """Note that a queued entry came to its turn: its payload does not wait any more."""
        if entry in self._loads:
            self._forget(entry)
            if self.waiting and 2 * self._for_sends <= self._room():  # many are reloaded in one go
                self.fill()

    def recall(self, partition: Assignment, entries: Container[Entry]) -> list[Entry]:
        """Forget that these are to be reloaded for their send, unless they were requested; return them."""
        found = [*self._untried.recall(partition, entries), *self._tried.recall(partition, entries)]
        self.waiting -= len(found)
        return found

    def tidy(self) -> None:
        """Let go of what is here and was neither queued for a send nor copied after all. Called with each tick."""
        for entry, load in tuple(self._loads.items()):
            if load.here and entry.busy is not Busy.SENDING:
                head = entry.queue.head
                if load.ahead and head is not None and head.busy in _PROGRESS:
                    continue
                self._forget(entry)
                if entry.busy is Busy.NO:
                    entry.partition.rest(entry)

    def _forget(self, entry: Entry) -> None:
        load = self._loads.pop(entry)
        load.entry = None
        self._copies -= load.to_copy
        self._ahead -= load.ahead

    def drop(self, partition: Assignment) -> None:
        """Forget everything of a partition whose assignment has ended."""
        queued = len(self._to_copy)
        self._to_copy = deque(e for e in self._to_copy if e.partition is not partition)
        queued -= len(self._to_copy)
        self.waiting -= queued + self._untried.drop(partition) + self._tried.drop(partition)
        for entry in [e for e in self._loads if e.partition is partition]:
            self._forget(entry)
