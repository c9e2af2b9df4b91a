"""A user's queue: what an event costs does not depend on how much waits. Steps are counted, no time is measured."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_notify._partition import followers as laters
from kafka_notify._partition import partition as partitions
from kafka_notify._partition import parts
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.followers import PIECE, ByOrigin, Followers
from kafka_notify._partition.parking import Parking
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.wide import Spill
from kafka_notify._wire.undecoded import collapse_of
from kafka_notify.wire import Headers, History, Origin, RetryState
from tests.model.promises import Bytes

FEW, MANY = 1_000, 6_000
NOW = 1_000_000


# -- a lane beside a plain sorted list ------------------------------------------------------------------------


def labels(key: str) -> Headers:
    return [("notif-collapse-key", key.encode()), ("notif-channel", b"sms")] if key else []


def made(lane: UserQueue, origin: int, key: str = "") -> Entry:
    return Entry(lane, origin, Bytes(b"u", b""), labels(key), 0)


moves = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "head", "replace"]), st.integers(0, 40), st.sampled_from("ab ")
    ),
    max_size=60,
)


@given(moves)
@settings(max_examples=300, deadline=None)
@pytest.mark.invariant(n=5)
def test_a_lane_is_a_sorted_list(moves: list[tuple[str, int, str]]) -> None:
    """Whatever comes and goes, wherever: the order, what is found, and the newest of each collapse key are those of a
    plain list."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laters, "PIECE", 2)
        lane, plain = UserQueue(cast(Any, None), "u"), dict[int, Entry]()
        for what, origin, key in moves:
            there = plain.get(origin)
            if what == "add" and there is None:
                plain[origin] = made(lane, origin, key.strip())
                lane.add(plain[origin])
            elif what == "remove" and there is not None:
                lane.remove(plain.pop(origin))
            elif what == "replace" and there is not None:
                plain[origin] = made(lane, origin, key.strip())
                plain[origin].retry = held = RetryRecord(0, 0, None, "", 0)
                held.collapse = collapse_of(labels(key.strip()))
                lane.replace(there, plain[origin])
            elif what == "head" and plain:
                lane.remove(plain.pop(min(plain)))
            inside = [plain[n] for n in sorted(plain)]
            assert lane.entries == inside
            assert lane.find(origin) is plain.get(origin)
            if lane.later is not None:
                assert lane.later.count == len(inside) - 1
                assert {e for e in inside[1:] if e.retry is None} <= set(lane.later.fresh)
                for name in "ab":
                    same = [
                        e
                        for e in inside[1:]
                        if e.collapse == f"sms{chr(0)}{name}" or e.collapse.endswith(name)
                    ]
                    assert lane.later.newest(same[-1].collapse if same else name) is (
                        same[-1] if same else None
                    )


def test_what_is_not_there_cannot_be_removed() -> None:
    """A mistake of the caller is not hidden."""
    lane = UserQueue(cast(Any, None), "u")
    for origin in range(3):
        lane.add(made(lane, origin))
    with pytest.raises(ValueError, match="not in its queue"):
        lane.remove(made(lane, 1))


# -- steps ---------------------------------------------------------------------------------------------------


class Counted(Entry):
    """Counts how often its place is asked for, in Python or in C: what a search, a sort or a scan cannot do without."""

    __slots__ = ("place",)
    looks = 0

    @property
    def origin(self) -> int:
        Counted.looks += 1
        return self.place

    @origin.setter
    def origin(self, value: int) -> None:
        self.place = value

    def __eq__(self, other: object) -> bool:
        Counted.looks += 1
        return self is other

    __hash__ = object.__hash__


class Walks(Parking):
    """Looks at all that wait whenever it parks."""

    def park_followers(self, lane: UserQueue) -> None:
        for entry in lane.entries:
            if entry.retry is None and not entry.busy:
                self._park(entry)


class Asked:
    """Effects that answer nothing by themselves."""

    def __init__(self) -> None:
        self.sends: list[Entry] = []
        self.parks: list[Entry] = []
        self.wakes: list[UserQueue] = []

    def send(self, entry: Entry, /) -> None:
        self.sends.append(entry)

    def park(self, entry: Entry, /) -> None:
        self.parks.append(entry)

    def load(self, entry: Entry, /, *, to_copy: bool = False) -> None: ...

    def recall(self, partition: Partition, entries: Container[Entry], /) -> list[Entry]:
        return []

    def dead_letter(self, entry: Entry, /) -> None: ...

    def wake(self, lane: UserQueue, at: int, /) -> None:
        self.wakes.append(lane)

    def spill(self, partition: Partition, spill: Spill, /) -> None: ...

    def identity(self, entry: Entry, /) -> tuple[str, int]:
        return f"id{entry.origin}", 0


class Bench:
    """A partition with one user's notifications."""

    def __init__(self, retry_end: int = 0, source_end: int = 10**9) -> None:
        self.asked = Asked()
        self.at = retry_end
        self.partition = Partition(
            Epoch(0, "me"), Half(Committed(0), 0, source_end), Half(Committed(0), 0, retry_end),
            effects=self.asked, budget=PayloadBudget(10**9),
        )  # fmt: skip
        if not retry_end:
            self.commit()

    def commit(self) -> None:
        p = self.partition
        p.confirmed(p.snapshot()[0], NOW)
        while p.step_blocked(NOW):
            pass

    def read(self, offset: int, key: str = "") -> None:
        seen, identity = Bytes(b"u", b""), (f"id{offset}", 0)
        self.partition.on_source(offset, "u", seen, labels(key), 1, lambda: identity, NOW)

    def restore(self, offset: int, origin: int, attempt: int = 0, due: int = 0) -> None:
        state = RetryState(Origin("source", 0, origin), History(attempt), due, "before")
        facts = (f"id{origin}", 0, None, "")
        self.partition.on_retry(offset, "u", state, Bytes(b"u", b""), [], lambda: facts, NOW)

    def copied(self, entry: Entry, due: int = 0, collapse: str = "") -> None:
        held = RetryRecord(self.at, due, None, f"id{entry.origin}", 0)
        held.collapse = collapse
        self.at += 1
        self.partition.copied(entry, held, NOW)

    def fail(self, entry: Entry, due: int) -> None:
        self.partition.copying(entry)
        self.copied(entry, due)

    def acknowledge(self) -> Iterator[None]:
        """Each of the copies, and of those that follow from it."""
        while self.asked.parks:
            parks, self.asked.parks = self.asked.parks, []
            for entry in parks:
                self.copied(entry)
                yield


def one_by_one(b: Bench, count: int) -> Iterator[None]:
    """Read, and each accepted."""
    for offset in range(count):
        b.read(offset)
        yield
    for _ in range(count):
        b.partition.finish(b.asked.sends.pop(), accepted=True, now=NOW)
        yield


def first_fails(b: Bench, count: int) -> Iterator[None]:
    """The first fails, all others are parked, and more are read meanwhile."""
    for offset in range(count // 2):
        b.read(offset)
        yield
    b.fail(b.asked.sends.pop(), due=NOW + 1_000)
    yield
    yield from b.acknowledge()
    for offset in range(count // 2, count):
        b.read(offset)
        yield
        yield from b.acknowledge()


def parked_and_sent(b: Bench, count: int) -> Iterator[None]:
    """All are parked, and then sent from their copies."""
    for offset in range(count):
        b.read(offset)
        yield
    b.fail(b.asked.sends.pop(), due=0)
    yield
    yield from b.acknowledge()
    for n in range(count):
        if not n % 100:
            b.partition.retry.advance()
            b.commit()
            yield
        b.partition.finish(b.asked.sends.pop(), accepted=True, now=NOW)
        yield


def makes_room(b: Bench, count: int) -> Iterator[None]:
    """A backlog is parked for others, while the first is being sent."""
    for offset in range(count):
        b.read(offset)
        yield
    b.partition.makes_room = True
    b.partition.park_more(NOW)
    yield
    yield from b.acknowledge()


def restored_forwards(b: Bench, count: int) -> Iterator[None]:
    """Copies come in the order of their origins."""
    for n in range(count):
        b.restore(n, n)
        yield


def restored_backwards(b: Bench, count: int) -> Iterator[None]:
    """Copies come against the order of their origins."""
    for n in range(count):
        b.restore(n, count - n)
        yield


def restored_twice(b: Bench, count: int) -> Iterator[None]:
    """Each was carried, or failed, once more."""
    for n in range(count):
        b.restore(n, n)
        yield
    for n in range(count):
        b.restore(count + n, n * 7 % count, attempt=1)
        yield


def read_before_restored(b: Bench, count: int) -> Iterator[None]:
    """Source records come in front of copies with later origins."""
    for n in range(count):
        b.restore(n, count + n, due=NOW + 1_000)
        yield
    b.commit()
    yield
    for n in range(count // 2):
        b.read(n)
        yield


def collapse_keys(b: Bench, count: int, keys: int) -> Iterator[None]:
    """Each asks whether a newer one has its key, and is accepted or skipped."""
    for offset in range(count):
        b.read(2 * offset, f"key{offset % keys}")
        yield
        if not offset:
            b.read(1, "another")
            yield
            b.partition.superseded(b.asked.sends[0], NOW)
            yield
    for _ in range(count):
        entry = b.asked.sends.pop()
        b.partition.superseded(entry, NOW)
        b.partition.finish(entry, accepted=True, now=NOW)
        yield


def different_keys(b: Bench, count: int) -> Iterator[None]:
    """No two share a collapse key."""
    return collapse_keys(b, count, count)


def same_key(b: Bench, count: int) -> Iterator[None]:
    """All share their collapse key."""
    return collapse_keys(b, count, 1)


def expired_followers(b: Bench, count: int) -> Iterator[None]:
    """All that could supersede the head are expired, or dying."""
    for offset in range(count):
        b.read(offset, "key")
        yield
    lane = b.asked.sends[0].queue
    for entry in lane.entries[1:]:
        entry.busy = Busy.DEAD_LETTERING
    for _ in range(count // 2):
        b.partition.superseded(lane.entries[0] if lane.head is None else lane.head, NOW)
        yield


def paused(b: Bench, count: int) -> Iterator[None]:
    """The first is paused, the others are parked, and all go on."""
    for offset in range(count):
        b.read(offset)
        yield
    entry = b.asked.sends.pop()
    b.partition.pause(entry, NOW)
    yield
    b.copied(entry)
    yield
    yield from b.acknowledge()
    b.partition.resume()
    yield
    b.commit()
    yield


METHODS: list[tuple[Callable[[Bench, int], Iterator[None]], bool]] = [
    (one_by_one, False),
    (first_fails, False),
    (parked_and_sent, False),
    (makes_room, False),
    (restored_forwards, True),
    (restored_backwards, True),
    (restored_twice, True),
    (read_before_restored, True),
    (different_keys, False),
    (same_key, False),
    (expired_followers, False),
    (paused, False),
]


def steps(method: Callable[[Bench, int], Iterator[None]], count: int, restores: bool) -> tuple[float, int]:
    """Looks at entries and lines of the library that ran: per event, and of the most expensive one."""
    lines = 0
    ours = str(Path(partitions.__file__).parent)
    named = {Walks.park_followers.__code__}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(ours) and frame.f_code not in named:
            return None
        lines += 1
        return trace

    b = Bench(2 * count if restores else 0)
    Counted.looks = 0
    before, most, events = 0, 0, 0
    sys.settrace(trace)
    try:
        for _ in method(b, count):
            now = lines + Counted.looks
            most, before, events = max(most, now - before), now, events + 1
    finally:
        sys.settrace(None)
    return (lines + Counted.looks) / events, most


@pytest.mark.parametrize(("method", "restores"), METHODS, ids=[method.__name__ for method, _ in METHODS])
def test_steps_do_not_grow_with_the_queue(
    method: Callable[[Bench, int], Iterator[None]], restores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With six times as many in the queue of one user an event takes as many steps, but for a logarithm."""
    monkeypatch.setattr(partitions, "Entry", Counted)
    few, most_of_few = steps(method, FEW, restores)
    many, most_of_many = steps(method, MANY, restores)
    assert many <= few * 1.5 + 20
    if method is not expired_followers:  # which are passed over at once, each for good
        assert most_of_many <= most_of_few * 1.5 + 20


def test_a_walk_through_the_queue_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of steps notices a loop over what waits, per acknowledged copy."""
    monkeypatch.setattr(parts, "Parking", Walks)
    few, _ = steps(first_fails, 100, restores=False)
    many, _ = steps(first_fails, 1_000, restores=False)
    assert many > 5 * few


def test_pieces_stay_small() -> None:
    """Wherever entries come in, none of the lists that are moved by it grows beyond two pieces."""
    lane, order = UserQueue(cast(Any, None), "u"), ByOrigin[Entry]()
    origins = list(range(5_000))
    random.Random(1).shuffle(origins)
    for origin in origins:
        order.add(made(lane, origin))
    assert max(map(len, order._pieces)) <= 2 * PIECE
    assert [entry.origin for entry in order] == sorted(origins)
    assert isinstance(Followers(made(lane, 0)), ByOrigin)
