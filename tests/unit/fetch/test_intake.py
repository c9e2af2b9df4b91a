"""What was read goes into its partition; each partition gets its share of the room, each user his part of it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import Any

import attrs
import pytest
from confluent_kafka import KafkaError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_notify._base.clock import Clock
from kafka_notify._fetch import backpressure, intake
from kafka_notify._fetch.backpressure import BUSY_PATIENCE, PATIENCE, PAUSE_AT
from kafka_notify._fetch.flow import BATCH, Flow
from kafka_notify._fetch.intake import CHUNK, Intake
from kafka_notify._fetch.settings import IntakeCallbacks, IntakeSettings
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.entry import Entry, UserQueue
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.parking import PARK_AT_ONCE, PARKING
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.source_offsets import READ_WINDOW
from kafka_notify._partition.wide import Spill
from kafka_notify._wire.pause import Paused
from kafka_notify.policy import Ordering
from kafka_notify.wire import History, Origin, RetryState, retry_copy

SOURCE, RETRY = "notif.low", "notif.retry.low"
CONCURRENCY = 500
HIGH, LOW = 4_000, 2_000
"""Records that all partitions together may have in memory, and below which nobody is limited."""


class CountedWakes(Flow):
    """Counts how often the fetch thread was to be woken."""

    def __init__(self) -> None:
        super().__init__()
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1


class Engine:
    """An intake of some partitions, all of them at work; sends end when they are told to."""

    def __init__(self, partitions: int, **how: Any) -> None:
        self.seconds = 0.0
        self.flow = CountedWakes()
        self.passed_over = 0
        self.later: list[Callable[[], object]] = []
        self.queued: deque[Entry] = deque()
        self.parked: list[Entry] = []
        self.halted: dict[int, str] = {}
        self.errors: list[KafkaError] = []
        self.copies = itertools.count()
        self.budget = PayloadBudget(1 << 20)
        self.partitions: dict[int, Partition] = {}
        self.intake = Intake(
            self.partitions,
            self.budget,
            self.flow,
            IntakeSettings(
                source=SOURCE,
                channels=how.get("channels", frozenset()),
                ordering=how.get("ordering", Ordering.USER),
                concurrency=CONCURRENCY,
                paused=how.get("paused", Paused("l", "")),
                clock=Clock(lambda: self.seconds, lambda: self.seconds),
                facts=lambda headers, number, origin, timestamp: (f"id{origin}", 0, None, ""),
            ),
            IntakeCallbacks(
                passed_over=self._pass_over,
                halt=self._halt,
                kafka_error=lambda error, topic: self.errors.append(error),
                fed=self._fed,
                soon=self.later.append,
            ),
        )
        for number in range(partitions):
            self.start(number)
        self.intake.look(idle=False)

    def start(self, number: int, retry_end: int = 0) -> Partition:
        partition = self.partitions[number] = Partition(
            Epoch(number, "me"),
            Half(Committed(0), 0, 1_000_000),
            Half(Committed(0), 0, retry_end),
            effects=self,
            budget=self.budget,
        )
        if not retry_end:
            partition.confirmed(partition.snapshot()[0], 0)
        self.intake.publish_wanted()
        return partition

    # the engine's callbacks
    def _fed(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            partition.step_blocked(0)

    def _pass_over(self) -> None:
        self.passed_over += 1

    def _halt(self, partition: Partition, reason: str) -> None:
        partition.close()
        del self.partitions[partition.number]
        self.intake.forget(partition.number)
        self.halted[partition.number] = reason

    # effects
    def send(self, entry: Entry, /) -> None:
        self.queued.append(entry)
        (entry.partition.new if entry.retry is None else entry.partition.due).append(entry)

    def park(self, entry: Entry, /) -> None:
        self.parked.append(entry)

    def load(self, entry: Entry, /, *, to_copy: bool = False) -> None: ...

    def recall(self, partition: Partition, entries: Container[Entry], /) -> list[Entry]:
        return []

    def dead_letter(self, entry: Entry, /) -> None: ...
    def wake(self, lane: UserQueue, at: int, /) -> None: ...
    def spill(self, partition: Partition, spill: Spill, /) -> None: ...
    def identity(self, entry: Entry, /) -> tuple[str, int]: ...  # type: ignore[empty-body]

    # what the tests do
    def finish(self, entry: Entry) -> None:
        self.queued.remove(entry)
        partition = entry.partition
        (partition.new if entry.retry is None else partition.due).remove(entry)
        if partition.alive:
            partition.finish(entry, accepted=True, now=0)
            self.intake.on_room(partition)

    def finish_all(self) -> list[tuple[int, int]]:
        """Send everything, and what comes after it; partition and offset of each, in the order of the sends."""
        sent: list[tuple[int, int]] = []
        while self.queued:
            entry = self.queued[0]
            sent.append((entry.partition.number, entry.origin))
            self.finish(entry)
        return sent

    def turns(self) -> None:
        """The turns of the loop that work asked for."""
        while self.later:
            self.later.pop(0)()

    def commit(self) -> None:
        """The broker has stored what was finished."""
        for partition in self.partitions.values():
            partition.confirmed(partition.snapshot()[0], 0)

    @property
    def copies_made(self) -> int:
        return sum(
            partition.retry.position + len(partition.own.acknowledged)
            for partition in self.partitions.values()
        )

    def copied(self) -> None:
        """The broker has acknowledged the copies."""
        parked, self.parked = self.parked, []
        for entry in parked:
            held = RetryRecord(next(self.copies), 0, None, f"id{entry.origin}", 0)
            entry.partition.copied(entry, held, 0)


def records(
    number: int, offsets: Iterable[int], *, users: int = 1_000_000, headers: Any = (), topic: str = SOURCE
) -> list[Message]:
    return [
        Message(
            topic=topic, partition=number, offset=offset, key=b"u%d" % (offset % users), value=b"{}",
            headers=list(headers), timestamp=(1, 0),
        )
        for offset in offsets
    ]  # fmt: skip


def read_in_batches(e: Engine, messages: list[Message]) -> None:
    for first in range(0, len(messages), BATCH):
        e.intake.feed(messages[first : first + BATCH])


def end(number: int, offset: int, topic: str = SOURCE) -> Message:
    return Message(topic=topic, partition=number, offset=offset, error=KafkaError(KafkaError._PARTITION_EOF))


def test_one_partition_leaves_room_for_the_others() -> None:
    """A flood of one partition's records does not keep those of another out of memory."""
    e = Engine(2)
    e.intake.feed(records(0, range(10_000)))
    assert e.partitions[0].open < 10_000

    e.intake.feed(records(1, range(10)))

    assert e.partitions[1].open == 10


@pytest.mark.invariant(n=19)
def test_memory_is_bounded_by_all_shares() -> None:
    """However the records come, what is in the lanes stays below the limits of all partitions together."""
    e = Engine(20)
    for number in range(20):
        e.intake.feed(records(number, range(5_000)))
        assert e.budget.open <= LOW + HIGH
    assert e.intake.buffered == 100_000


def test_a_paused_consumer_reads_nothing() -> None:
    """While all of its work is paused no source partition is wanted; afterwards all are again."""
    paused = Paused("l", "")
    e = Engine(2, paused=paused)
    assert e.flow.wanted == {0, 1}

    paused.learn(b"consumer/workers", b'{"at": 0}')
    paused.apply(0)
    e.intake.publish_wanted()
    assert e.flow.wanted == frozenset()

    paused.learn(b"consumer/workers", None)
    paused.apply(0)
    e.intake.publish_wanted()
    assert e.flow.wanted == {0, 1}


def test_what_waited_is_sent_in_order() -> None:
    """Records that waited for room come in order, each once, without another batch being read."""
    e = Engine(2)
    e.intake.feed(records(0, range(7_000)))
    e.intake.feed([*records(1, range(3_000)), end(1, 3_000)])

    sent = e.finish_all()

    assert [offset for number, offset in sent if number == 0] == list(range(7_000))
    assert [offset for number, offset in sent if number == 1] == list(range(3_000))
    assert e.intake.buffered == 0
    assert e.partitions[1].at_end
    assert not e.partitions[0].at_end


def test_end_of_partition_waits_behind_its_records() -> None:
    """The end of a partition counts as reached when the records before it were taken in, not earlier."""
    e = Engine(2)
    e.intake.feed([*records(1, range(3_000)), *records(0, range(5_000)), end(0, 5_001)])

    assert e.partitions[0].source.position <= 3_000
    e.finish_all()
    assert e.partitions[0].source.position == 5_001


def test_forgotten_partition_takes_its_waiting_records_along() -> None:
    """What waited of a partition that was handed over is gone, and counts no more."""
    e = Engine(2)
    e.intake.feed(records(0, range(10_000)))
    before = e.partitions.pop(0)
    before.close()
    e.intake.forget(0)
    assert e.intake.buffered == 0

    e.queued.clear()
    e.start(0)
    e.intake.feed(records(0, range(3)))
    assert [entry.origin for entry in e.queued] == [0, 1, 2]


@pytest.mark.invariant(n=4)
def test_rewound_partition_is_halted_alone() -> None:
    """A partition that goes back in time is stopped, with what waited of it; the others go on."""
    e = Engine(2)
    e.intake.feed(records(0, [*range(5_000), *range(10)]))
    e.finish_all()

    assert list(e.halted) == [0]
    assert e.intake.buffered == 0
    e.intake.feed(records(1, range(5)))
    assert e.partitions[1].open == 5


def test_only_the_partition_that_has_too_much_is_paused() -> None:
    """When much waits of one partition it alone is paused, and read on when a quarter waits; the others are read."""
    e = Engine(3)
    e.intake.feed(records(0, range(LOW + 2_000 + PAUSE_AT)))
    e.seconds += BUSY_PATIENCE
    e.intake.look(idle=False)
    assert e.flow.wanted == {1, 2}
    assert not e.flow.polling_suspended

    while e.flow.wanted == {1, 2}:
        e.finish(e.queued[0])
        e.intake.look(idle=False)

    assert e.flow.wanted == {0, 1, 2}
    assert 0 < e.intake.buffered - e.budget.open <= PAUSE_AT // 4


def test_polls_are_held_while_the_prefetch_turns_over() -> None:
    """When much waits the polls are held for a moment, which keeps what is prefetched, and go on when less does."""
    e = Engine(2)
    e.intake.feed([*records(0, range(5_000)), *records(1, range(5_000))])
    assert e.flow.polling_suspended
    assert e.flow.wanted == {0, 1}  # held, not paused

    while e.flow.polling_suspended:
        e.finish(e.queued[0])
    assert e.intake.buffered - e.budget.open >= LOW // 2 - CHUNK
    assert e.flow.wakes > 1


@pytest.mark.parametrize(("idle", "patience"), [(True, PATIENCE), (False, BUSY_PATIENCE)])
def test_a_long_hold_ends(*, idle: bool, patience: float) -> None:
    """A hold that lasts keeps quiet partitions from being fetched: polls go on, whoever has too much is paused. Sooner
    when there are free senders for what is not fetched."""
    e = Engine(2)
    e.intake.feed([*records(0, range(10_000)), *records(1, range(8_000))])
    e.seconds += patience / 2
    e.intake.look(idle=idle)
    assert e.flow.polling_suspended

    e.seconds += patience
    e.intake.look(idle=idle)

    assert not e.flow.polling_suspended
    e.finish_all()
    e.intake.look(idle=False)
    assert e.flow.wanted == {0, 1}


@pytest.mark.parametrize("partitions", [1, 2, 30, 200])
def test_a_partition_with_little_in_memory_is_always_read(partitions: int) -> None:
    """However much the others have, one that has less than its even share of the room is wanted."""
    e = Engine(partitions)
    for number in range(1, partitions):
        e.intake.feed(records(number, range(3_000), users=1))
    for _ in range(3):
        e.seconds += BUSY_PATIENCE
        e.intake.look(idle=False)
    assert 0 in e.flow.wanted
    assert not e.flow.polling_suspended


def test_large_headers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers count against the limit of bytes, though few records are measured."""
    monkeypatch.setattr(backpressure, "BUFFER_BYTES", 1 << 20)
    monkeypatch.setattr(backpressure, "CHECK_AFTER", 1 << 18)
    e = Engine(1)
    e.intake.feed(records(0, range(100), headers=[("x-large", b"x" * (1 << 15))]))
    assert e.flow.polling_suspended
    e.finish_all()
    e.intake.look(idle=False)
    assert not e.flow.polling_suspended


def test_who_is_behind_a_busy_user_is_read_past_them() -> None:
    """What one user has behind their first one is read past, and not written: it is not ready to be sent anyway."""
    e = Engine(1)
    e.intake.feed([*records(0, range(10_000), users=1), *records(0, range(10_000, 10_100))])
    e.intake.look(idle=True)
    assert len(e.queued) == 1 + 100
    assert not e.parked


def test_followers_count_while_enough_is_ready() -> None:
    """A partition with enough to send lets in no more, although most of what it has waits behind another one."""
    e = Engine(2)
    for number in range(2):
        read_in_batches(e, records(number, range(15_000), users=500))
    e.intake.look(idle=False)
    for partition in e.partitions.values():
        assert len(partition.new) == 500
        assert partition.open <= HIGH


def test_less_is_read_ahead_of_busy_senders() -> None:
    """The room for a partition's records is smaller while all senders are busy; once some are free it is read on."""
    e = Engine(2)
    for number in range(2):
        read_in_batches(e, records(number, range(15_000), users=1))
    for idle in (True, False, True):
        e.seconds += PATIENCE
        e.intake.look(idle=idle)
        assert e.flow.wanted == ({0, 1} if idle else frozenset())


def test_a_busy_user_who_fills_the_window_is_parked_until_others_are_read() -> None:
    """When one user's notifications fill the window of the commit, so many are parked that others come in."""
    e = Engine(1)
    first = READ_WINDOW + 3_000
    read_in_batches(e, [*records(0, range(first), users=1), *records(0, range(first, first + 100))])
    others = set(range(first, first + 100))
    sent: set[int] = set()
    looks = 0
    while not others <= sent:
        assert len(e.queued) <= 1 + len(others)
        sent |= {entry.origin for entry in e.queued}
        for entry in tuple(e.queued):
            e.finish(entry)
        e.intake.look(idle=True)
        e.copied()
        e.commit()
        looks += 1
    assert 3_000 <= e.copies_made <= 3_000 + 3 * PARKING
    assert looks < 3_000 / PARK_AT_ONCE


def test_parking_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """When as many retries wait as one partition may have for others, nobody is parked any more."""
    monkeypatch.setattr(intake, "MAX_PARKED", 500)
    e = Engine(1)
    read_in_batches(e, records(0, range(READ_WINDOW + 3_000), users=1))
    for _ in range(200):
        e.intake.look(idle=True)
        e.copied()
    assert len(e.partitions[0].pending) <= 500 + 2 * PARKING


def test_many_users_are_not_parked() -> None:
    """Who has few notifications keeps nobody out: a copy of each would be waste."""
    e = Engine(1)
    e.intake.feed(records(0, range(HIGH + 3_000), users=HIGH // 4))
    e.intake.look(idle=True)
    assert not e.parked


def test_nobody_is_parked_while_sends_wait() -> None:
    """While there is more to send than can be sent, nobody is parked: it would help no one."""
    e = Engine(1)
    e.intake.feed([*records(0, range(HIGH + 100), users=1), *records(0, range(HIGH + 100, HIGH + 200))])
    e.intake.look(idle=False)
    assert not e.parked


def test_parked_crowd_keeps_its_order() -> None:
    """A user whose notifications were parked for others gets them in order all the same."""
    e = Engine(1)
    e.intake.feed([*records(0, range(HIGH + 100), users=1), *records(0, range(HIGH + 100, HIGH + 200))])
    sent: list[tuple[int, int]] = []
    for _ in range(10_000):
        if not (e.queued or e.parked or e.intake.buffered or e.partitions[0].pending):
            break
        e.intake.look(idle=not e.queued)
        e.copied()
        partition = e.partitions[0]
        partition.confirmed(partition.snapshot()[0], 0)
        if e.queued:
            entry = e.queued[0]
            sent.append((0, entry.origin))
            e.finish(entry)
    assert [offset for _, offset in sent if offset < HIGH + 100] == list(range(HIGH + 100))
    assert len(sent) == HIGH + 200


def test_restored_origin_is_reached_without_room() -> None:
    """A waiting retry whose place in the source was not read yet gets there, however full the memory is."""
    e = Engine(1)
    e.start(1, retry_end=1)
    state = RetryState(Origin(SOURCE, 1, 9_000), History(1), 0, "me")
    headers = retry_copy([], state, "id9000", 0)
    e.intake.feed(records(1, [0], headers=headers, topic=RETRY))
    e.partitions[1].confirmed(e.partitions[1].snapshot()[0], 0)
    e.intake.feed(records(0, range(8_000)))

    e.intake.feed(records(1, range(9_000)))
    for _ in range(100):
        e.intake.look(idle=False)

    assert e.partitions[1].source.position == 9_000
    assert 1 in e.flow.wanted


@pytest.mark.invariant(n=14)
def test_window_is_kept() -> None:
    """No more is taken in than the commit metadata can describe, even when there is room."""
    e = Engine(1)
    first = 0
    while first < 3 * READ_WINDOW:
        e.intake.feed(records(0, range(first, first + 1_000)))
        first += 1_000
        while len(e.queued) > 1:  # all but the very first
            e.partitions[0].finish(e.queued.pop(), accepted=True, now=0)
    e.intake.look(idle=False)
    partition = e.partitions[0]
    assert partition.source.advance() == 0
    assert partition.source.position == READ_WINDOW


def test_other_channels_are_passed_over() -> None:
    """What another consumer sends is finished at once, unless its channel cannot be told."""
    e = Engine(1, channels=frozenset({"sms"}))
    for offset, channel in enumerate([b"sms", b"email", None]):
        e.intake.feed(records(0, [offset], headers=[("notif-channel", channel)] if channel else []))
    assert [entry.origin for entry in e.queued] == [0, 2]
    assert e.passed_over == 1


def test_errors_among_the_records_are_told() -> None:
    """What librdkafka reports is handed on, also of a partition that is not ours any more."""
    e = Engine(1)
    for number in (0, 7):
        e.intake.feed(
            [
                Message(
                    topic=SOURCE, partition=number, offset=0, error=KafkaError(KafkaError._ALL_BROKERS_DOWN)
                )
            ]
        )
    assert [error.code() for error in e.errors] == [KafkaError._ALL_BROKERS_DOWN] * 2
    e.intake.feed([end(7, 0)])
    assert len(e.errors) == 2


@attrs.define
class Feed:
    number: int
    count: int


moves = st.lists(
    st.builds(Feed, st.integers(0, 3), st.integers(1, 2_000)) | st.sampled_from(["finish", "look", "drain"]),
    max_size=30,
)


@given(moves=moves, users=st.sampled_from([1, 7, 1_000_000]))
@settings(max_examples=40, deadline=None)
@pytest.mark.invariant(n=4)
def test_nothing_is_lost_or_doubled(moves: list[Feed | str], users: int) -> None:
    """Whatever is read and finished, in whatever turns: every record is sent once, users' in order, nothing stays."""
    e = Engine(4)
    fed = [0] * 4
    sent: list[tuple[int, int]] = []
    for move in moves:
        if isinstance(move, Feed):
            first = fed[move.number]
            fed[move.number] += move.count
            e.intake.feed(records(move.number, range(first, first + move.count), users=users))
        elif move == "look":
            e.intake.look(idle=False)
        elif move == "drain":
            sent += e.finish_all()
        elif e.queued:
            sent.append((e.queued[0].partition.number, e.queued[0].origin))
            e.finish(e.queued[0])
    while e.intake.buffered:
        sent += e.finish_all()
        e.intake.look(idle=False)

    assert sorted(sent) == [(number, offset) for number in range(4) for offset in range(fed[number])]
    for number, user in itertools.product(range(4), range(min(users, 7))):
        mine = [offset for n, offset in sent if n == number and offset % users == user]
        assert mine == sorted(mine)
    assert (e.budget.open, sum(p.open_bytes for p in e.partitions.values())) == (0, 0)
    assert not e.flow.polling_suspended
