"""New notifications and due retries take turns."""

from __future__ import annotations

from typing import Any, cast

from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._send.ready import Ready


def partition(number: int = 0) -> Partition:
    made = Partition(
        Epoch(number, "me"),
        Half(Committed(0)),
        Half(Committed(0)),
        effects=cast(Any, None),
        budget=PayloadBudget(0),
    )
    made.active = True
    return made


def entry(origin: int, of: Partition, *, retry: bool = False) -> Entry:
    made = Entry(UserQueue(of, origin), origin, cast(Any, None), None, 0)
    made.busy, made.queue.head = Busy.SENDING, made
    if retry:
        made.retry = RetryRecord(0, 0, None, f"id{origin}", 0)
        made.retry.foreign = True  # no commit has to cover its origin
    return made


def test_due_retry_does_not_wait_behind_new_ones() -> None:
    """A retry that is due is the next to start, however many new notifications are queued."""
    ready, p = Ready(), partition()
    for origin in range(1_000):
        ready.add(entry(origin, p))
    ready.add(entry(7_000, p, retry=True))
    assert [ready.pop().origin for _ in range(3)] == [7_000, 0, 1]


def test_many_retries_leave_every_second_turn() -> None:
    """However many retries are due, every second send is a new notification; each kind keeps its order."""
    ready, p = Ready(), partition()
    for origin in range(3):
        ready.add(entry(origin, p))
    for origin in range(100, 110):
        ready.add(entry(origin, p, retry=True))
    assert len(ready) == 13
    assert [ready.pop().origin for _ in range(13)] == [100, 0, 101, 1, 102, 2, *range(103, 110)]
    assert not ready


def test_partitions_take_turns() -> None:
    """What one partition has queued does not stand in front of another one's first."""
    ready, busy, quiet = Ready(), partition(0), partition(1)
    for origin in range(1_000):
        ready.add(entry(origin, busy))
    for origin in range(5_000, 5_002):
        ready.add(entry(origin, quiet))
    assert [ready.pop().origin for _ in range(6)] == [0, 5_000, 1, 5_001, 2, 3]


def test_nothing_stays_of_a_partition_that_ended() -> None:
    """Its attempts are gone, and the others' turns go on."""
    ready, ended, other = Ready(), partition(0), partition(1)
    for origin in range(3):
        ready.add(entry(origin, ended))
        ready.add(entry(origin + 10, other))
        ready.add(entry(origin + 20, ended, retry=True))
    ready.drop(ended)
    assert [ready.pop().origin for _ in range(len(ready))] == [10, 11, 12]
    assert not ready


def test_queued_attempts_are_counted_no_further_than_asked() -> None:
    """How many there are, or that there are enough, of both kinds and all partitions together."""
    ready, some, more = Ready(), partition(0), partition(1)
    for origin in range(3):
        ready.add(entry(origin, some))
        ready.add(entry(origin, more, retry=True))
    assert [ready.up_to(most) for most in (0, 2, 6, 7, 100)] == [0, 2, 6, 6, 6]


def test_retries_are_taken_out_of_their_queues() -> None:
    """What is recalled is not popped; what is left keeps its order, and its partition its turn."""
    ready, one, other = Ready(), partition(0), partition(1)
    retries = [entry(origin, one, retry=True) for origin in range(4)]
    last = entry(9, other, retry=True)
    for each in (*retries, last):
        ready.add(each)
    assert ready.recall(one, {retries[0], retries[2], last}) == [retries[0], retries[2]]
    assert [ready.pop() for _ in range(3)] == [retries[1], last, retries[3]]
    ready.add(retries[0])
    assert ready.recall(one, {retries[0]}) == [retries[0]]
    assert not ready
    assert ready.recall(one, {retries[0]}) == []
