"""What a partition leaves behind when its assignment ends."""

from __future__ import annotations

import gc
from collections.abc import Container, Iterator
from typing import Any

import pytest

from kafka_notify._partition import table
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.record import Packed
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.wide import Spill
from kafka_notify._send.ready import Ready
from kafka_notify.wire import History, Origin, RetryState

NOW = 1_000_000
ME = "me"
HEADERS = [("notif-id", b"1"), ("empty", b""), ("twice", b"a"), ("twice", b"b")] * 4


class Message:
    """A record, of which the payload counts."""

    def key(self) -> bytes:
        return b"u"

    def value(self) -> bytes:
        return bytes(1_000)

    def timestamp(self) -> tuple[int, int]:
        return 1, NOW

    def headers(self) -> list[tuple[str, bytes]]:
        return list(HEADERS)


class Asked:
    """Queues what may be sent, and lets everything else be under way for ever."""

    def __init__(self) -> None:
        self.ready = Ready()

    def send(self, entry: Entry, /) -> None:
        self.ready.add(entry)

    def park(self, entry: Entry, /) -> None: ...

    def load(self, entry: Entry, /, *, to_copy: bool = False) -> None: ...

    def recall(self, partition: Partition, entries: Container[Entry], /) -> list[Entry]:
        return []

    def identity(self, entry: Entry, /) -> tuple[str, int]:
        return str(entry.origin), 0

    def spill(self, partition: Partition, written: Spill, /) -> None: ...

    def dead_letter(self, entry: Entry, /) -> None: ...

    def wake(self, lane: UserQueue, at: int, /) -> None: ...


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def in_memory() -> int:
    """Entries and records that are not freed, whoever refers to them."""
    return sum(type(o) in (Entry, Message, UserQueue) for o in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("budget", [0, 10**9], ids=["evicted", "kept"])
@pytest.mark.invariant(n=19)
def test_closing_frees_everything(budget: int) -> None:
    """Whoever still holds the partition holds no notification of it, without waiting for the garbage collector: of
    those that are queued, wait, are copied, are parked behind one, or were redriven. Nothing is counted any more."""
    before = in_memory()
    asked, limits = Asked(), PayloadBudget(budget)
    p = Partition(Epoch(0, ME), Half(Committed(0)), Half(Committed(0)), effects=asked, budget=limits)
    source, _ = p.snapshot()
    p.confirmed(source, NOW)

    def read(offset: int, user: str) -> None:
        p.on_source(offset, user, Message(), None, 1_000, lambda: (f"id{offset}", 0), NOW)

    for offset in range(60):
        read(offset, f"u{offset % 20}")
    entry: Any = None
    while asked.ready:
        entry = asked.ready.pop()
        if entry.origin % 5 == 0:
            continue  # it is being sent
        p.copying(entry)
        if entry.origin % 5 != 1:  # of those the copy stays under way
            due = NOW + 10_000 * (entry.origin % 5 == 2)
            p.copied(entry, RetryRecord(100 + entry.origin, due, None, "", 0, History(1)), NOW)
    state = RetryState(Origin("s", 0, 1), History(0, 1), NOW, "redrive")
    p.on_retry(0, "u1", state, Message(), None, lambda: ("id1", 0, None, ""), NOW)
    for offset in range(60, 80):
        read(offset, f"new{offset}")
    assert {entry.busy for lane in p.queues.values() for entry in lane.entries} >= {
        Busy.NO,
        Busy.SENDING,
        Busy.COPYING,
    }
    assert in_memory() > before + 100

    del entry
    p.close()
    asked.ready.drop(p)

    assert in_memory() == before
    assert (limits.used, limits.loaded, limits.open, p.open, p.open_bytes) == (0, 0, 0, 0, 0)
    assert not asked.ready


def test_where_many_wait_their_payloads_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed payload is the same to whoever reads it, and counts as less: the first ones stay as they came."""
    monkeypatch.setattr(table, "PACKED_FROM", 2_000)
    asked, limits = Asked(), PayloadBudget(10**9)
    p = Partition(Epoch(0, ME), Half(Committed(0)), Half(Committed(0), 0, 9), effects=asked, budget=limits)
    for at in range(9):
        state = RetryState(Origin("s", 0, at), History(), NOW, "before")
        message = Message()
        p.on_retry(at, f"u{at}", state, message, None, lambda: ("id", 0, None, ""), NOW)
    kinds = [type(entry.record) for entry in p.pending.values()]
    assert kinds == [Message] * kinds.index(Packed) + [Packed] * (9 - kinds.index(Packed))
    for entry in p.pending.values():
        assert entry.record is not None
        assert (entry.key, entry.value, entry.timestamp) == (b"u", bytes(1_000), NOW)
        assert entry.headers == HEADERS
        assert entry.record_size() >= entry.pack()
