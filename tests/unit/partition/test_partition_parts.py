"""Each part of a partition by itself: its own state, and what must hold of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kafka_notify._partition import parking, waiting
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import WINDOW, Committed, Fence
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.own_copies import OwnCopies
from kafka_notify._partition.parking import Parking
from kafka_notify._partition.redrives import Redrives
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.scheduler import Action, Scheduler
from kafka_notify._partition.source_offsets import READ_WINDOW, SourceOffsets
from kafka_notify._partition.spill import MAX_WINDOW
from kafka_notify._partition.strangers import OTHER_TOPIC, Origins
from kafka_notify._partition.table import EntryTable
from kafka_notify._partition.waiting import Waiting
from kafka_notify._partition.wide import LongWaits, RetryHalf, RetryTracker
from kafka_notify._partition.writers import Whose, Writers
from kafka_notify.wire import History
from tests.model.promises import Bytes

NOW = 1_000


class Assigned:
    """What a queue asks of its partition."""

    active = True
    closing = False


class Asked:
    """Effects that are noted."""

    def __init__(self) -> None:
        self.done: list[tuple[str, object]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda what, *more: self.done.append((name, more[0] if more else what.origin))


def queue(user: str = "u") -> UserQueue:
    return UserQueue(cast(Any, Assigned()), user)


def entry(origin: int, where: UserQueue | None = None, held: RetryRecord | None = None) -> Entry:
    made = Entry(where or queue(), origin, Bytes(b"u", b"value"), None, 10)
    made.retry = held
    return made


def held(
    at: int = 0, due: int = 0, *, redrives: int = 0, topic: str = "", expires: int | None = None
) -> RetryRecord:
    made = RetryRecord(at, due, expires, "id", 7, History(redrives=redrives))
    made.topic = topic
    return made


# -- writers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "writer", "whose"),
    [
        (3, "before", Whose.RESTORED),
        (3, "older", Whose.ZOMBIE),
        (3, "redrive", Whose.RESTORED),
        (9, "me", Whose.OWN),
        (9, "before", Whose.ZOMBIE),
        (9, "redrive", Whose.REDRIVE),
    ],
)
@pytest.mark.invariant(n=9)
def test_whose_a_copy_is(offset: int, writer: str, whose: Whose) -> None:
    """By its writer, and by whether it lies before the end of the restore."""
    writers = Writers("me", 5, Fence(2, "before"))
    assert writers.whose(offset, writer) is whose


def test_without_a_fence_every_restored_copy_counts() -> None:
    """The first assignment ever has nobody to keep out."""
    assert Writers("me", 5, None).whose(4, "anybody") is Whose.RESTORED


def test_older_fences_are_said_while_the_bits_cannot_say_it() -> None:
    """A fence is kept until the bitmap reaches the end of the restore."""
    before = Fence(2, "before")
    writers = Writers("me", WINDOW + 5, before)
    assert writers.fence(4) == Fence(WINDOW + 5, "me", before)
    assert writers.fence(5) == Fence(WINDOW + 5, "me")


# -- own copies, redrives ----------------------------------------------------------------------------------


def test_what_was_seen_before_its_answer_is_told_apart_by_it() -> None:
    """Of the copies that were read while a produce was outstanding, the answer keeps one."""
    own = OwnCopies()
    own.begin(entry(4))
    for offset in (7, 8, 9):
        own.saw(4, offset)
    own.saw(5, 3)
    assert sorted(own.settle(4, keep=8)) == [7, 9]
    assert own.settle(4, keep=-1) == []
    assert own.seen == {5: {3}}


def test_only_first_copies_count_as_moving() -> None:
    """An entry that lives in the retry topic already pins nothing of the source."""
    own = OwnCopies()
    own.begin(entry(4, held=held()))
    assert not own.moving


def test_what_was_seen_moves_with_its_entry() -> None:
    """A stranger takes along what was read for it."""
    own = OwnCopies()
    own.saw(4, 7)
    own.move(4, -9)
    own.move(5, -8)
    assert own.seen == {-9: {7}}


@pytest.mark.parametrize("newer_first", [False, True])
@pytest.mark.invariant(n=18)
def test_of_two_redrives_the_newer_generation_waits(newer_first: bool) -> None:
    """Whichever is read first; the other one is given back."""
    redrives = Redrives()
    older, newer = entry(4, held=held(1, redrives=1)), entry(4, held=held(2, redrives=2))
    first, second = (newer, older) if newer_first else (older, newer)
    assert redrives.wait(first) is None
    assert redrives.wait(second) is older
    assert redrives.waiting == {4: newer}


def test_a_redrive_that_has_ended_is_known_by_its_notification() -> None:
    """An older generation of it has ended, too; one of another notification with that origin has not."""
    redrives = Redrives()
    redrives.end(entry(4, held=held(redrives=2)))
    other = held(redrives=1)
    other.id = "another"
    assert [redrives.has_ended(entry(4, held=held(redrives=n))) for n in (1, 2, 3)] == [True, True, False]
    assert not redrives.has_ended(entry(4, held=other))


# -- strangers ---------------------------------------------------------------------------------------------


def test_which_topic_an_origin_is_in() -> None:
    """By the topic's id, or because the source ends before it."""
    origins = Origins("new", source_end=5, restore_end=3)
    assert [origins.is_elsewhere(held(topic=topic)) for topic in ("new", "", "old", OTHER_TOPIC)] == [
        False,
        False,
        True,
        True,
    ]
    assert origins.is_stranger(held(at=2), 5)
    assert not origins.is_stranger(held(at=2), 4)
    assert not origins.is_stranger(held(at=3), 5)  # read after the restore: a zombie knew more of the source


def test_who_has_an_origin_of_two() -> None:
    """The one of the present topic, else the one that was not redriven, else the later one."""
    origins = Origins("new", 5, 3)
    assert origins.outranks(held(1, topic="new", redrives=1), held(2))
    assert origins.outranks(held(1), held(2, redrives=1))
    assert origins.outranks(held(2), held(1))


def test_a_stranger_comes_first_and_keeps_its_origin() -> None:
    """Its place is before everything of the present topic; its origin is what its headers say."""
    stranger = entry(4, held=held())
    Origins("new", 5, 3).place_apart(stranger, surely=True)
    assert stranger.origin < -(1 << 100)
    assert stranger.retry is not None
    assert stranger.retry.origin_of(stranger) == 4
    assert (stranger.retry.foreign, stranger.retry.topic) == (True, OTHER_TOPIC)


# -- source offsets ----------------------------------------------------------------------------------------


def test_how_far_the_source_is_read() -> None:
    """Up to the window, and up to what the restore brought."""
    source = SourceOffsets(Committed(10), 0, 50)
    assert (source.has_window, source.must_read, source.at_end) == (True, False, False)
    source.farthest = 10
    assert source.must_read
    source.observe(10)
    assert not source.must_read
    source.skip_to(11 + READ_WINDOW)
    source.end_seen = source.position
    assert source.at_end
    source.complete(10)
    assert source.advance() == source.position


def test_a_closed_tracker_remembers_its_frontier_alone() -> None:
    """Whatever is completed later is nobody's."""
    source = SourceOffsets(Committed(10, b"01"), 0, 50)
    source.observe(10)
    source.close()
    assert (source.frontier, source.position, source.gaps(), source.confirmed) == (10, 10, b"", Committed(0))


# -- the table ---------------------------------------------------------------------------------------------


def test_a_queue_is_there_while_it_has_an_entry_or_is_stuck() -> None:
    """Of users who have nothing open nothing is kept."""
    table = EntryTable(PayloadBudget(10**6))
    one, two = entry(1, queue("a"), held(0)), entry(2, queue("b"), held(1))
    table.hold(one)
    table.hold(two)
    two.queue.stuck = True
    table.forget(one)
    table.forget(two)
    assert (list(table.queues), table.pending, table.budget.used) == (["b"], {}, 0)


def test_the_table_comes_into_the_order_of_the_copies() -> None:
    """In place, as others refer to it."""
    table = EntryTable(PayloadBudget(10**6))
    pending = table.pending
    for origin, at in ((1, 5), (2, 3), (3, 4)):
        table.hold(entry(origin, queue(str(origin)), held(at)))
    table.order()
    assert table.pending is pending
    assert list(pending) == [2, 3, 1]


def test_what_is_cleared_is_not_counted_any_more() -> None:
    """Source records and payloads alike."""
    table = EntryTable(PayloadBudget(10**6))
    table.hold(entry(5, queue("a"), held(0)))
    table.queues["b"] = behind = queue("b")
    behind.add(entry(6, behind))
    table.open, table.open_bytes, table.budget.open = 1, 10, 1
    table.clear()
    assert (table.open, table.open_bytes, table.budget.open, table.budget.used) == (0, 0, 0, 0)
    assert (table.queues, table.pending) == ({}, {})


def test_a_pause_ends_with_its_entry_too() -> None:
    """A resume looks at no queue whose paused entry has left."""
    table = EntryTable(PayloadBudget(10**6))
    one, two = entry(1, queue("a"), held(0)), entry(2, queue("b"), held(1))
    for each in (one, two):
        table.hold(each)
        table.pause(each)
    table.forget(one)
    assert table.resume() == [two.queue]
    assert two.queue.paused is None


# -- who waits ---------------------------------------------------------------------------------------------


def test_an_event_frees_those_whose_offset_has_come() -> None:
    """No others, and each once."""
    waits = Waiting()
    near, far = queue("near"), queue("far")
    for each, offset in ((far, 9), (near, 3)):
        each.blocked = entry(offset, each)
        waits.wait(waits.unreached, offset, each)
    assert not waits.free(source=3, retry=99, sayable=99)
    assert not waits.agenda
    assert not waits.free(source=4, retry=0, sayable=0)
    assert (list(waits.agenda), near.blocked, far.blocked is None) == ([near], None, False)


def test_an_event_looks_at_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest waits for the next one."""
    monkeypatch.setattr(waiting, "STEP_AT_ONCE", 2)
    waits = Waiting()
    for offset in range(3):
        waits.wait(waits.beyond, offset, queue(str(offset)))
    assert waits.free(0, 0, sayable=9)
    assert len(waits.agenda) == 2
    waits.agenda.clear()
    assert not waits.free(0, 0, sayable=9)
    assert len(waits.agenda) == 1


# -- parking -----------------------------------------------------------------------------------------------


def test_parking_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the front, as many as may be on their way at once."""
    monkeypatch.setattr(parking, "PARK_AT_ONCE", 2)
    asked, own = Asked(), OwnCopies()
    parts = Parking(EntryTable(PayloadBudget(10**6)), own, cast(Any, asked))
    users = queue()
    for origin in range(5):
        users.add(entry(origin, users))
    parts.park_followers(users)
    assert asked.done == [("park", 1), ("park", 2)]
    assert list(parts.unparked) == [users]
    own.moving.clear()
    parts.unparked.clear()
    parts.park_followers(users)
    assert asked.done[2:] == [("park", 3), ("park", 4)]
    assert not parts.unparked


# -- decisions ---------------------------------------------------------------------------------------------


class Bench:
    """A scheduler whose source was read up to 10 and committed up to 9, and the retry partition read up to 20."""

    def __init__(self) -> None:
        self.asked = Asked()
        source = SourceOffsets(Committed(9), 0, 50)
        source.observe(9)
        tracker = RetryTracker(Committed(0))
        tracker.skip_to(20)
        own, waits = OwnCopies(), Waiting()
        self.waits = waits
        effects = cast(Any, self.asked)
        parts = Parking(EntryTable(PayloadBudget(10**6)), own, effects)
        self.half = RetryHalf(Committed(0), tracker, LongWaits(True))
        self.scheduler = Scheduler(source, self.half, waits, parts, effects)

    def decide(self, head: Entry) -> Action:
        head.queue.head = head
        assert head.retry is not None
        return self.scheduler._decide(head.queue, head, head.retry, NOW)


def _paused() -> Entry:
    made = entry(1, held=held(5))
    made.queue.paused = made
    return made


def _overtaken() -> Entry:
    made = entry(1, held=held(5))
    after = entry(2, made.queue)
    made.queue.add(made)
    made.queue.add(after)
    after.busy = Busy.SENDING
    assert made.queue.later is not None
    made.queue.later.overtaken = after
    return made


def _evicted() -> Entry:
    made = entry(1, held=held(5))
    made.evict()
    return made


def _foreign() -> Entry:
    made = entry(99, held=held(5))
    assert made.retry is not None
    made.retry.foreign = True
    return made


def _tainted() -> Entry:
    made = entry(1, held=held(20))
    assert made.retry is not None
    made.retry.tainted = True
    return made


@pytest.mark.parametrize(
    ("head", "action"),
    [
        (entry(1, held=held(5)), Action.SEND),
        (_evicted(), Action.LOAD),
        (entry(1, held=held(5, due=NOW + 1)), Action.WAIT_UNTIL_DUE),
        (entry(1, held=held(5, due=NOW + 9, expires=NOW)), Action.SEND),
        (_paused(), Action.WAIT_FOR_PAUSE),
        (_overtaken(), Action.NOTHING),
        (entry(10, held=held(5)), Action.WAIT_UNTIL_REACHED),
        (entry(9, held=held(5)), Action.WAIT_UNTIL_COVERED),
        (_foreign(), Action.SEND),
        (_tainted(), Action.WAIT_FOR_ORPHANS),
        (entry(1, held=held(MAX_WINDOW)), Action.WAIT_FOR_WINDOW),
    ],
    ids=[
        *("due", "evicted", "not due", "expired", "paused", "overtook a send", "not reached", "not covered"),
        *("a stranger", "tainted", "too far"),
    ],
)
@pytest.mark.invariant(n=7)
def test_what_a_head_may_do(head: Entry, action: Action) -> None:
    """One decision from state alone, before anything is done."""
    b = Bench()
    assert b.decide(head) is action
    assert b.asked.done == []


@pytest.mark.invariant(n=6)
def test_a_decision_is_carried_out_once() -> None:
    """A head that is busy, waits for the same offset, or for the same time, is not asked for again."""
    b = Bench()
    sent, waits = entry(1, queue("a"), held(5)), entry(10, queue("b"), held(6))
    late = entry(3, queue("c"), held(7, due=NOW + 5))
    for each in (sent, waits, late):
        each.queue.add(each)
        for _ in range(2):
            b.scheduler.step(each.queue, NOW)
    assert b.asked.done == [("send", 1), ("wake", NOW + 5)]
    assert sent.busy is Busy.SENDING
    assert [each[2] for each in b.waits.unreached] == [waits.queue]


@pytest.mark.invariant(n=8)
def test_nothing_starts_of_an_assignment_that_is_handed_over() -> None:
    """Nor of a user of whom a send still runs."""
    b = Bench()
    stuck, closing = entry(1, queue("a"), held(5)), entry(2, queue("b"), held(6))
    stuck.queue.stuck = True
    cast(Any, closing.queue.partition).closing = True
    for each in (stuck, closing):
        each.queue.add(each)
        b.scheduler.step(each.queue, NOW)
    assert b.asked.done == []
