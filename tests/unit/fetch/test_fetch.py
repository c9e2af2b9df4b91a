"""How far the thread that reads may be ahead of the event loop."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_END, TopicPartition

from kafka_notify import events
from kafka_notify._base.clock import Clock
from kafka_notify._fetch import flow, poll_loop
from kafka_notify._fetch.commits import Commits
from kafka_notify._fetch.exchange import CommitRequest, CommitResult, Start
from kafka_notify._fetch.flow import BATCH
from kafka_notify._fetch.loop import FetchLoop
from kafka_notify._fetch.pair_start import PairStarter
from kafka_notify._partition.commit_metadata import Committed

POLL = 0.001


class Reader:
    """A consumer that always has more records."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.polls = 0

    def poll(self, seconds: float) -> bytes:
        self.polls += 1
        return bytes(self.size)

    def consume(self, count: int, seconds: float) -> list[bytes]:
        return [bytes(self.size) for _ in range(count)]


class Loop:
    """The engine, when it does not get to what was read."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    def feed(self, batch: list[Any], size: int) -> None:
        self.batches.append((len(batch), size))


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> FetchLoop:
    monkeypatch.setattr(poll_loop, "POLL", POLL)
    config = {"bootstrap.servers": "", "test.mock.num.brokers": 1, "group.id": "g"}
    fetch = FetchLoop(config, "s", "r")
    fetch._receiver = cast(Any, Loop())
    return fetch


def turns(fetch: FetchLoop, reader: Reader, count: int = 20) -> list[tuple[int, int]]:
    """All that was handed over, after so many turns more."""
    polls = fetch._poll_loop()
    for _ in range(count):
        polls.turn(cast(Any, reader))
    return cast(Any, fetch._receiver).batches  # type: ignore[no-any-return]


def test_small_records_are_bounded_by_their_number(fetch: FetchLoop) -> None:
    """3,000 records and one batch, until the loop has taken some."""
    reader = Reader(100)
    assert turns(fetch, reader) == [(BATCH, BATCH * 100)] * 4
    fetch.flow.taken = 2 * BATCH
    assert len(turns(fetch, reader)) == 6


def test_large_records_are_bounded_by_their_bytes(fetch: FetchLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few batches of large records are too much, and when they are taken, more are read. One always passes."""
    monkeypatch.setattr(flow, "TRANSIT_BYTES", 1_000_000)
    fetch.flow.batch = 10
    reader = Reader(50_000)
    assert turns(fetch, reader) == [(10, 500_000)] * 3
    assert fetch.flow.transit_bytes == 1_500_000
    fetch.flow.taken = 20
    assert len(turns(fetch, reader)) == 5
    assert fetch.flow.transit_bytes == 1_500_000
    fetch.flow.taken = 50
    reader.size = 200_000
    assert turns(fetch, reader)[5:] == [(10, 2_000_000)]
    assert fetch.flow.transit_bytes == 2_000_000


def test_a_commit_that_a_revoke_overtook_is_no_failure(fetch: FetchLoop) -> None:
    """Asked for before the assignment ended and looked at after it, with all it says committed at the hand-over: it is
    answered, no failure is told of, and the next one may be asked for."""
    told: list[events.Event] = []
    asked: list[CommitRequest] = []
    lost: Any = type("Lost", (), {"active": True, "closing": False, "restored": True, "epoch": 1})()
    lost.snapshot = lambda: (Committed(1), Committed(1))
    partitions = {0: lost}
    commits = Commits(partitions, Clock(), asked.append, session_timeout=10.0, on_event=told.append)
    commits.tick()
    fetch.commit(asked.pop())
    partitions.clear()  # handed back, and perhaps another time ours since
    fetch._member.started, fetch._member.paused = {0: 2}, {0}
    cast(Any, fetch._receiver).committed = commits.answered
    turns(fetch, Reader(1), 1)
    assert (told, commits.error, commits.lease_until) == ([], None, 0.0)
    partitions[1] = lost
    commits.soon()
    assert asked

    refused = CommitResult(asked[0], frozenset(), 0.0, "REBALANCE_IN_PROGRESS")
    commits.answered(refused)
    assert [type(event) for event in told] == [events.CommitFailed]


class Growing:
    """Brokers whose logs grow after each question: somebody sends a notification, and an owner that does not know yet
    that it is one no more writes its retry copy."""

    def __init__(self) -> None:
        self.source = 0
        self.copies: list[int] = []
        self.seeks: list[str] = []

    def _grow(self) -> None:
        self.copies.append(self.source)
        self.source += 1

    def committed(self, pairs: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._grow()
        return pairs

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        ends = {"s": self.source, "r": len(self.copies)}
        for place in places:
            place.offset = ends[place.topic] if place.offset == OFFSET_END else 0
        self._grow()
        return places

    def seek(self, place: TopicPartition) -> None:
        self.seeks.append(place.topic)

    def resume(self, places: list[TopicPartition]) -> None: ...


def test_no_restored_copy_is_newer_than_the_known_end_of_the_source(fetch: FetchLoop) -> None:
    """Both ends are looked up while an earlier owner goes on: each copy below the end of the retry topic names a source
    record below the end of the source. One beyond it would count as another topic's, and would be sent beside it."""
    brokers = Growing()
    started: list[Start] = []
    receiver = cast(Any, fetch._receiver)
    receiver.started = started.append
    PairStarter({}, fetch._member, fetch._watch, receiver)._start(cast(Any, brokers), [0])
    [start] = started
    restored = brokers.copies[: start.retry_range[1]]
    assert restored
    assert max(restored) < start.source_range[1]
    assert sorted(brokers.seeks) == ["r", "s"]
