"""Payloads are read again just before their send: so many, by so many bytes, the partitions in turns."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest

from kafka_notify._fetch.loader import COPIES, Load, Loader
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.retry_record import RetryRecord


@attrs.define(eq=False)
class Assignment:
    """Stands for a `Partition`: what is loaded is queued for a send at once, unless it must wait."""

    number: int
    budget: PayloadBudget
    queued: list[Entry] = attrs.field(factory=list[Entry])
    waits: bool = False

    def loaded(self, entry: Entry, record: Any, now: int) -> None:
        entry.load(record)
        assert entry.retry is not None
        self.budget.load(entry.retry, entry.retry.bytes)
        entry.busy = Busy.NO
        if not self.waits:
            entry.busy = Busy.SENDING
            self.queued.append(entry)

    def rest(self, entry: Entry) -> None:
        held = entry.retry
        assert held is not None
        if held.loaded and not self.budget.rest(held):
            self.budget.give(held)
            entry.evict()


class Bench:
    """A loader, and what it asks for."""

    def __init__(self, *, limit: int = 0, loads: int = 1_000, room: int = 10, partitions: int = 1) -> None:
        self.budget = PayloadBudget(limit, loads)
        self.room = room
        self.asked: list[Load] = []
        self.loader = Loader(self.budget, self.asked.append, lambda: self.room)
        self.partitions = [Assignment(n, self.budget) for n in range(partitions)]

    def add(self, count: int, size: int = 1, partition: int = 0, *, to_copy: bool = False) -> list[Entry]:
        """Due heads without their payload, each of another user."""
        found: list[Entry] = []
        for n in range(count):
            entry = Entry(UserQueue(cast(Any, self.partitions[partition]), n), n, cast(Any, None), None, 0)
            entry.retry = held = RetryRecord(n, 0, None, "", 0)
            held.bytes = size
            entry.busy = Busy.LOADING
            self.loader.add(entry, to_copy=to_copy)
            found.append(entry)
        return found

    def answer(self) -> list[Entry]:
        """Everything that was asked for is here; whose it is."""
        asked, found = self.asked[:], list[Entry]()
        self.asked.clear()
        for load in asked:
            if load.entry is not None:
                found.append(load.entry)
                self.loader.loaded(load, cast(Any, object()), 0)
        return found


def test_as_many_as_may_be_sent() -> None:
    """While no send could start nothing is read; then as much as is wanted ahead, and more as sends start."""
    b = Bench(room=0)
    entries = b.add(40)
    b.loader.fill()
    assert b.asked == []
    b.room = 10
    b.loader.fill()
    assert len(b.answer()) == 10
    b.loader.fill()
    assert b.asked == []
    for entry in entries[:5]:
        b.loader.started(entry)
    assert [load.entry for load in b.asked] == entries[10:15]


def test_within_the_budget() -> None:
    """Requests count as what they bring, together with what waiting retries keep; one record always passes."""
    b = Bench(limit=500, loads=1_000)
    kept = RetryRecord(0, 0, None, "", 0)
    assert b.budget.keep(kept, 500)
    entries = b.add(5, size=400)
    b.loader.fill()
    assert (len(b.asked), b.budget.used, b.budget.loaded) == (2, 1_300, 800)
    b.answer()
    b.loader.started(entries[0])
    b.loader.fill()
    assert b.asked == []
    held = entries[0].retry
    assert held is not None
    b.budget.give(held)  # its send has ended
    b.loader.fill()
    assert [load.entry for load in b.asked] == [entries[2]]

    huge = Bench(loads=10)
    huge.add(2, size=5_000)
    huge.loader.fill()
    assert len(huge.asked) == 1


def test_partitions_take_turns() -> None:
    """A partition with many waits no longer than the others."""
    b = Bench(partitions=3, room=6)
    b.add(20, partition=0)
    b.add(2, partition=1)
    b.add(2, partition=2)
    b.loader.fill()
    assert [load.number for load in b.asked] == [0, 1, 2, 0, 1, 2]


def test_what_is_not_sent_is_let_go() -> None:
    """What was read again and then had to wait is forgotten again when memory is short, and makes room for others."""
    b = Bench(limit=0, room=3)
    b.partitions[0].waits = True
    entries = b.add(6)
    b.loader.fill()
    b.answer()
    b.loader.tidy()
    assert [entry.record for entry in entries[:3]] == [None] * 3
    assert (b.budget.used, b.budget.loaded) == (0, 0)
    b.loader.fill()
    assert [load.entry for load in b.asked] == entries[3:]

    roomy = Bench(limit=100)
    roomy.partitions[0].waits = True
    [entry] = roomy.add(1)
    roomy.loader.fill()
    roomy.answer()
    roomy.loader.tidy()
    assert entry.record is not None
    assert (roomy.budget.used, roomy.budget.loaded) == (1, 0)


def test_copies_do_not_wait_for_the_provider() -> None:
    """What is only to be copied is read while no send could start, a bounded number at once."""
    b = Bench(room=0, loads=10**6)
    b.partitions[0].waits = True
    entries = b.add(COPIES + 50, to_copy=True)
    b.loader.fill()
    assert len(b.asked) == COPIES
    b.answer()
    for entry in entries[:COPIES]:
        entry.busy = Busy.COPYING
    b.loader.tidy()
    b.loader.fill()
    assert len(b.asked) == 50


@pytest.mark.parametrize("to_copy", [False, True])
def test_a_partition_that_was_given_away(to_copy: bool) -> None:
    """Nothing of it is asked for any more, its answers come to nothing, and the others go on."""
    b = Bench(partitions=2, room=4)
    gone, stays = b.add(10, partition=0, to_copy=to_copy), b.add(10, partition=1)
    b.loader.fill()
    requests = list(b.asked)
    for entry in gone:
        assert entry.retry is not None
        b.budget.give(entry.retry)  # as `Partition.close` does
    b.loader.drop(cast(Any, b.partitions[0]))
    assert {load.entry for load in requests} & set(gone) == set()
    b.answer()
    assert b.partitions[0].queued == []
    b.loader.fill()
    assert {load.number for load in b.asked} <= {1}
    b.answer()
    assert b.partitions[1].queued == stays[:4]
    assert b.loader.waiting == 6


def test_those_that_never_failed_take_turns_with_the_others() -> None:
    """A probe of the provider finds soon a notification that does not fail by itself, however many wait that did."""
    b = Bench(room=4)
    entries = b.add(10)
    tried = Entry(UserQueue(cast(Any, b.partitions[0]), "t"), 0, cast(Any, None), None, 0)
    tried.attempt, tried.retry = 1, RetryRecord(77, 0, None, "", 0)
    tried.retry.first_failed = 1
    b.loader.add(tried, to_copy=False)
    b.loader.fill()
    assert [load.at for load in b.asked] == [0, 77, 1, 2]
    assert b.asked[0].entry is entries[0]


def test_recalled_before_they_are_read() -> None:
    """What is recalled is not read for its send; what was asked for already, or is to be copied, is."""
    b = Bench(room=1)
    entries = b.add(3)
    b.loader.fill()
    copied = b.add(1, to_copy=True)
    assert b.loader.recall(cast(Any, b.partitions[0]), {*entries[:2], *copied}) == [entries[1]]
    assert b.loader.waiting == 2
    b.room = 10
    b.loader.fill()
    assert [load.entry for load in b.asked] == [entries[0], copied[0], entries[2]]
    assert b.loader.waiting == 0
    b.add(2)
    assert len(b.loader.recall(cast(Any, b.partitions[0]), set(b.add(2)))) == 2
