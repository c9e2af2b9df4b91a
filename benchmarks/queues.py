"""Rows about the pure classes, without Kafka: microseconds per event with 1,000 to 200,000 in one user's queue."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Container, Iterator
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.report import Row
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.entry import Entry, UserQueue
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.wide import Spill
from kafka_notify.wire import Headers, History, Origin, RetryState

SIZES: Final = (1_000, 10_000, 50_000, 200_000)
NOW: Final = 1_000_000


class _Record:
    """The part of a Kafka record that a queue reads."""

    def key(self) -> bytes:
        return b"u"

    def value(self) -> bytes:
        return b"{}"

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return (1, 0)


_RECORD: Final = _Record()


class _Queue:
    """A partition with one user's notifications; copies are acknowledged on request."""

    def __init__(self, restores: int = 0) -> None:
        self.sends: list[Entry] = []
        self.parks: list[Entry] = []
        self.at = restores
        self.partition = Partition(
            Epoch(0, "me"), Half(Committed(0), 0, 1 << 40), Half(Committed(0), 0, restores),
            effects=self, budget=PayloadBudget(1 << 40),
        )  # fmt: skip
        if not restores:
            self.commit()

    def send(self, entry: Entry, /) -> None:
        self.sends.append(entry)

    def park(self, entry: Entry, /) -> None:
        self.parks.append(entry)

    def load(self, entry: Entry, /, *, to_copy: bool = False) -> None: ...

    def recall(self, partition: Partition, entries: Container[Entry], /) -> list[Entry]:
        return []

    def dead_letter(self, entry: Entry, /) -> None: ...
    def wake(self, lane: UserQueue, at: int, /) -> None: ...

    def identity(self, entry: Entry, /) -> tuple[str, int]:
        return f"id{entry.origin}", 0

    def spill(self, partition: Partition, written: Spill, /) -> None: ...

    def commit(self) -> None:
        self.partition.confirmed(self.partition.snapshot()[0], NOW)

    def read(self, count: int, key: Callable[[int], str] | None = None) -> None:
        for offset in range(count):
            headers: Headers = []
            if key is not None:
                headers = [("notif-channel", b"sms"), ("notif-collapse-key", key(offset).encode())]
            self.partition.on_source(offset, "u", _RECORD, headers, 1, _unasked, NOW)

    def restore(self, offset: int, origin: int, attempt: int = 0) -> None:
        state = RetryState(Origin("s", 0, origin), History(attempt), 0, "before")
        facts: Any = (f"id{origin}", 0, None, "")
        self.partition.on_retry(offset, "u", state, _RECORD, [], lambda: facts, NOW)

    def copied(self, entry: Entry, due: int = 0) -> None:
        held = RetryRecord(self.at, due, None, "", 0)
        self.at += 1
        self.partition.copied(entry, held, NOW)

    def fail_first(self, due: int = 0) -> None:
        entry = self.sends.pop()
        self.partition.copying(entry)
        self.copied(entry, due)

    def park_all(self) -> None:
        while self.parks:
            parks, self.parks = self.parks, []
            for entry in parks:
                self.copied(entry)

    def finish_all(self, *, superseded: bool = False) -> None:
        finished = 0
        while self.sends:
            entry = self.sends.pop()
            if superseded:
                self.partition.superseded(entry, NOW)
            self.partition.finish(entry, accepted=True, now=NOW)
            finished += 1
            if not finished % 1_000:
                self.partition.retry.advance()
                self.commit()


def _unasked() -> tuple[str, int]:
    raise AssertionError("no copies wait")


def _accepted(count: int) -> float:
    queue = _Queue()
    return _timed(lambda: queue.read(count), queue.finish_all)


def _parked(count: int) -> float:
    queue = _Queue()
    queue.read(count)
    return _timed(lambda: queue.fail_first(NOW + 1), queue.park_all)


def _retried(count: int) -> float:
    queue = _Queue()
    queue.read(count)
    queue.fail_first()
    queue.park_all()
    queue.commit()
    return _timed(queue.finish_all)


def _restored(count: int) -> float:
    queue = _Queue(2 * count)

    def work() -> None:
        for n in range(count):
            queue.restore(n, count - n)
        for n in range(count):
            queue.restore(count + n, 1 + n * 7 % count, 1)

    return _timed(work) / 2


def _keys(count: int) -> float:
    queue = _Queue()
    return _timed(lambda: queue.read(count, str), lambda: queue.finish_all(superseded=True))


def _one_key(count: int) -> float:
    queue = _Queue()
    return _timed(lambda: queue.read(count, lambda _: "key"), lambda: queue.finish_all(superseded=True))


def _timed(*works: Callable[[], None]) -> float:
    gc.collect()
    gc.disable()  # its cost grows with the number of live objects; workers set their own thresholds
    try:
        began = time.perf_counter()
        for work in works:
            work()
        return time.perf_counter() - began
    finally:
        gc.enable()


METHODS: Final[dict[str, Callable[[int], float]]] = {
    "accepted": _accepted,
    "parked": _parked,
    "retried": _retried,
    "restored": _restored,
    "different-keys": _keys,
    "one-key": _one_key,
}


def queues(bench: Bench) -> Iterator[Row]:
    """Measure microseconds per notification in a user's queue of 1,000 to 200,000: they should be equal in a row."""
    for name, method in METHODS.items():
        facts: dict[str, float] = {}
        for size in SIZES:
            best = min(method(size) for _ in range(max(bench.repeat, 1)))
            facts[f"µs at {size:,}"] = best / size * 1e6
        yield Row(
            f"queue-{name}", "× at 200,000", [facts["µs at 200,000"] / facts["µs at 1,000"]], facts=facts
        )
