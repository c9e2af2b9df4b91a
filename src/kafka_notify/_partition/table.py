"""The entries of an assignment: each in its user's queue, and also by origin when it lives in the retry topic."""

from __future__ import annotations

import itertools
import operator
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from kafka_notify._partition.entry import Entry, UserQueue

if TYPE_CHECKING:
    from collections.abc import Hashable

    from kafka_notify._partition.budget import PayloadBudget

DEEP: Final = 8
"""Notifications of one user in memory from which on they are a backlog, which may be parked to make room for others."""
PACKED_FROM: Final = 16 * 2**20
"""Bytes of waiting payloads from which on payloads are packed. That costs 8 us a retry, and pays where many wait."""


class EntryTable:
    """The entries, their queues, and the memory that they count for.

    An entry that lives in the source alone counts in `open`; one that lives in the retry topic is in `pending`. A queue
    is in `queues` while it has an entry, or while a send of its user that outlived its deadline still runs.

    Args:
        budget: The payload budget that all partitions of a worker share.
    """

    __slots__ = ("backlogs", "budget", "open", "open_bytes", "paused", "pending", "queues")

    def __init__(self, budget: PayloadBudget) -> None:
        self.budget = budget
        self.queues: dict[Hashable, UserQueue] = {}
        self.pending: dict[int, Entry] = {}
        """Entries that live in the retry topic by origin, nearly in the order of their copies."""
        self.open = 0
        """Source records in memory that are not finished and have no copy yet."""
        self.open_bytes = 0
        """Bytes of the records that `open` counts."""
        self.backlogs: OrderedDict[UserQueue, None] = OrderedDict()
        """Queues that had `DEEP` entries behind their head when one was added."""
        self.paused: dict[UserQueue, None] = {}
        """Queues that wait for the end of a pause."""

    # -- entries that live in the source alone --------------------------------------------------------

    def append(self, queue: UserQueue, entry: Entry) -> None:
        """Put a source record that was read behind others of its user."""
        queue.add(entry)
        if (later := queue.later) is not None and later.count >= DEEP and not later.is_backlog:
            later.is_backlog = True
            self.backlogs[queue] = None

    def released(self, queue: UserQueue, entry: Entry) -> None:
        """Let an entry whose attempt did not start be parked again, unless it is the head."""
        if queue.head is not entry and queue.later is not None:
            queue.later.fresh.append(entry)  # an earlier entry came in front of it
            if queue.later.count >= DEEP:
                self.backlogs[queue] = None

    def leave_source(self, entry: Entry) -> None:
        """Stop counting an entry of the source, which has ended or has a copy now."""
        self.open -= 1
        self.open_bytes -= entry.size
        self.budget.open -= 1

    def find_source(self, key: Hashable, origin: int) -> Entry | None:
        """Return the entry of a user with this origin; None when there is none."""
        queue = self.queues.get(key)
        return queue.find(origin) if queue else None

    # -- entries that live in the retry topic ---------------------------------------------------------

    def hold(self, entry: Entry) -> None:
        """Take in an entry that was read from the retry topic."""
        queue = self.queues.setdefault(entry.queue.key, entry.queue)
        entry.queue = queue
        queue.add(entry)
        if (later := queue.later) is not None and later.count >= DEEP and later.fresh:
            self.backlogs[queue] = None  # the entry came in front of source records
        self.pending[entry.origin] = entry
        self.keep_payload(entry)

    def replace(self, old: Entry, new: Entry) -> None:
        """Put the newer copy of an origin in the place of the older one."""
        queue, retry = old.queue, old.retry
        assert retry is not None
        queue.replace(old, new)
        new.queue = queue
        if queue.paused is old:
            queue.paused = None
        del self.pending[
            new.origin
        ]  # the new copy goes to the end of the table, which is in the order of copies
        self.pending[new.origin] = new
        self.budget.give(retry)
        self.keep_payload(new)

    def keep_payload(self, entry: Entry) -> None:
        """Keep the payload of a waiting retry if it fits the budget; else evict it, unless the entry is busy."""
        retry = entry.retry
        assert retry is not None
        if entry.record is None or retry.size:
            return
        size = entry.record_size() if self.budget.used < PACKED_FROM else entry.pack()
        if not self.budget.keep(retry, size) and not entry.busy:
            entry.evict()

    def rest(self, entry: Entry) -> None:
        """Keep a payload that was read again and is not needed now if there is room; else evict it."""
        retry = entry.retry
        assert retry is not None
        if retry.loaded and not self.budget.rest(retry):
            self.budget.give(retry)
            entry.evict()

    def order(self) -> None:
        """Put `pending` in the order of the copies. It mostly is. Entries that were set apart went to its end, and so
        did redriven ones that were read after an own copy beyond them had been acknowledged."""
        places = [entry.retry.at for entry in self.pending.values()]  # type: ignore[union-attr]
        if any(map(operator.gt, places, itertools.islice(places, 1, None))):
            in_order = sorted(self.pending.items(), key=lambda item: item[1].retry.at)  # type: ignore[union-attr]
            self.pending.clear()  # changed in place, as the partition refers to it
            self.pending.update(in_order)

    # -- both -----------------------------------------------------------------------------------------

    def forget(self, entry: Entry) -> None:
        """Take an entry out of its queue and the table. The caller completes its offset."""
        queue = entry.queue
        if queue.later is None and queue.head is entry:
            queue.head = None
            if not queue.stuck:
                self.queues.pop(queue.key, None)
        else:
            queue.remove(entry)
            if queue.later is None and self.backlogs:
                self.backlogs.pop(queue, None)
        retry = entry.retry
        if retry is not None:
            self.pending.pop(entry.origin, None)
            self.budget.give(retry)
            if queue.paused is entry:
                self.unpause(queue)

    def pause(self, entry: Entry) -> None:
        """Let nothing of a user start while this entry is the head of their queue, until `unpause` or `resume`."""
        entry.queue.paused = entry
        self.paused[entry.queue] = None

    def unpause(self, queue: UserQueue) -> None:
        """Let a queue go on."""
        queue.paused = None
        self.paused.pop(queue, None)

    def resume(self) -> list[UserQueue]:
        """Let all queues go on; return those that were paused."""
        queues = list(self.paused)
        for queue in queues:
            queue.paused = None
        self.paused.clear()
        return queues

    def clear(self) -> None:
        """Forget all entries, and stop counting them."""
        for queue in self.queues.values():
            for entry in queue.entries:
                if entry.retry is None:
                    self.leave_source(entry)
                else:
                    self.budget.give(entry.retry)
                entry.evict()
            queue.head = queue.later = queue.paused = queue.blocked = None
        for table in (self.queues, self.pending, self.backlogs, self.paused):
            table.clear()
