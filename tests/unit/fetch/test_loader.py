"""Payloads are read again just before their send: so many, by so many bytes, the partitions in turns."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest

from kafka_notify._fetch.loader import COPIES, FOLLOWERS, FOLLOWERS_AT_MOST, Load, Loader
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify.wire import History


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


class Record:
    """Stands for what the broker sent."""

    def key(self) -> None: ...
    def value(self) -> None: ...
    def headers(self) -> None: ...


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
                self.loader.loaded(load, cast(Any, Record()), 0)
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
    tried.retry = RetryRecord(77, 0, None, "", 0, History(1, first_failed_ms=1))
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


# -- followers of a head ------------------------------------------------------------------------------


def user_with(b: Bench, count: int, size: int = 1) -> list[Entry]:
    """One user's entries, all evicted; the head waits for its payload."""
    queue = UserQueue(cast(Any, b.partitions[0]), "user")
    for n in range(count):
        entry = Entry(queue, n, cast(Any, None), None, 0)
        entry.retry = RetryRecord(n, 0, None, "", 0)
        entry.retry.bytes = size
        queue.add(entry)
    entries = queue.entries
    entries[0].busy = Busy.LOADING
    b.loader.add(entries[0], to_copy=False)
    return entries


def end(b: Bench, entry: Entry) -> None:
    """Its send was accepted; the next head is sent, or waits for its payload."""
    b.loader.started(entry)
    assert entry.retry is not None
    b.budget.give(entry.retry)
    queue = entry.queue
    queue.remove(entry)
    entry.busy = Busy.NO
    head = queue.head
    if head is not None and not head.busy:
        head.busy = Busy.SENDING if head.record is not None else Busy.LOADING
        if head.record is None:
            b.loader.add(head, to_copy=False)
            b.loader.fill()


def test_a_users_followers_are_reloaded_with_the_head() -> None:
    """A user's notifications are sent one after the other; the reloads that they wait for are few."""
    b = Bench()
    entries = user_with(b, 10 * (FOLLOWERS + 1))
    b.loader.fill()
    reloads = 0
    for entry in entries:
        while entry.record is None:
            assert b.answer() != []
            reloads += 1
        end(b, entry)
    assert reloads == 10
    assert (b.budget.used, b.budget.loaded) == (0, 0)


def test_followers_leave_memory_when_their_user_makes_no_progress() -> None:
    """The head's send failed, and its retry is due later."""
    b = Bench()
    entries = user_with(b, 5)
    b.loader.fill()
    b.answer()
    b.loader.tidy()
    assert all(entry.record is not None for entry in entries)
    b.loader.started(entries[0])
    entries[0].busy = Busy.COPYING
    b.loader.tidy()
    assert [entry.record for entry in entries[1:]] == [None] * 4
    assert b.budget.loaded == 1


def test_a_turn_that_comes_before_the_payload() -> None:
    """The payload is not asked for twice, and is sent when it comes."""
    b = Bench()
    first, second = user_with(b, 2)
    b.loader.fill()
    ahead = b.asked.pop()
    assert ahead.entry is second
    b.answer()
    end(b, first)
    assert second.busy is Busy.LOADING
    assert b.asked == []
    b.loader.loaded(ahead, cast(Any, Record()), 0)
    assert b.partitions[0].queued == [first, second]


def test_a_follower_that_is_copied_meanwhile_is_asked_for_again() -> None:
    """What was asked for ahead comes to nothing; its copy is written from the second answer."""
    b = Bench()
    _, second = user_with(b, 2)
    b.loader.fill()
    ahead = b.asked[-1]
    second.busy = Busy.LOADING
    b.loader.add(second, to_copy=True)
    b.loader.fill()
    assert ahead.entry is None
    assert b.asked[-1].entry is second
    assert b.asked[-1].to_copy


def test_followers_that_are_gone_or_replaced() -> None:
    """Whoever removed or replaced one has given its bytes back; one that retention removed is ended at its turn."""
    b = Bench()
    _, gone, replaced = user_with(b, 3)
    b.loader.fill()
    _, of_gone, of_replaced = b.asked
    assert b.budget.used == 3
    assert b.loader.gone(of_gone) is None
    assert replaced.retry is not None
    replaced.queue.replace(replaced, Entry(replaced.queue, replaced.origin, cast(Any, None), None, 0))
    b.budget.give(replaced.retry)
    b.loader.loaded(of_replaced, cast(Any, Record()), 0)
    assert replaced.record is gone.record is None
    assert b.budget.used == 1


def test_followers_leave_room_for_heads() -> None:
    """They use half of the memory for loads, and a bounded number of them is reloaded over all users."""
    b = Bench(loads=1_000)
    user_with(b, 20, size=100)
    b.loader.fill()
    assert len(b.asked) == 5

    many = Bench(loads=10**6, room=100)
    for _ in range(20):
        user_with(many, FOLLOWERS + 1)
    many.loader.fill()
    assert len(many.asked) == 20 + FOLLOWERS_AT_MOST


def test_followers_that_failed_are_not_reloaded_ahead() -> None:
    """Their due time is their own."""
    b = Bench()
    _, failed, _ = user_with(b, 3)
    assert failed.retry is not None
    failed.retry.history = History(1, first_failed_ms=1)
    b.loader.fill()
    assert len(b.asked) == 1
