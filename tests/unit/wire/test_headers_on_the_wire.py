"""The bytes of retry and dead-letter headers: workers of other versions read them, so that they never change."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import attrs
import pytest

from kafka_notify import (
    DeliveryError,
    Notification,
    PermanentError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
    wire,
)
from kafka_notify._base.clock import Clock
from kafka_notify._base.units import from_millis
from kafka_notify._decision.counts import Counts
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.entry import Busy, Entry
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.partition import Partition
from kafka_notify._redrive import copy_headers
from kafka_notify._send.outcomes import Outcomes
from kafka_notify._settle.copies import Copy
from kafka_notify._settle.publisher import CopyPublisher
from kafka_notify._wire.dead_letter import DeadLetter
from kafka_notify.codec import JsonCodec
from kafka_notify.outcome import Dead, Outcome, Retry
from kafka_notify.policy import deferred
from tests.model.promises import Bytes
from tests.unit.settle.publishing import NOW, publishing

TABLE: Final = Path(__file__).with_name("headers_on_the_wire.txt")
OWN: Final[wire.Headers] = [("notif-category", b"news"), ("notif-channel", b"sms"), ("team", b"x")]
NOTE: Final[Notification[Any]] = Notification(
    user_id="u", category="news", channel="sms", data={"a": 1}, id="n1", created_at=from_millis(NOW - 60_000)
)
NONE: Final = Committed(0)


class Way:
    """One notification on its way through retry and dead-letter topic, by the parts of a worker."""

    def __init__(self) -> None:
        self.now = NOW
        self.written: list[Copy] = []
        context = attrs.evolve(publishing(), clock=Clock(wall=lambda: self.now / 1000))
        self.publisher = CopyPublisher(context, cast(Any, self), None, lambda _: None)
        guard = SimpleNamespace(not_sent=lambda *of: (None, True))
        permits = cast(Any, SimpleNamespace(guard=guard, pace=None))
        hooks = cast(Any, SimpleNamespace(on_sent=None))
        self.outcomes = Outcomes(context, permits, self.publisher, hooks, Counts(), lambda _: None)
        effects = cast(Any, SimpleNamespace(send=lambda _: None, wake=lambda *of: None))
        self.partition = Partition(
            Epoch(0, "w1", topic_id="topic-1"), Half(NONE, 0, 100), Half(NONE), effects=effects,
            budget=PayloadBudget(1_000_000),
        )  # fmt: skip
        self.partition.on_source(7, b"u", Bytes(b"u", b"{}", NOW), list(OWN), 1, lambda: ("n1", 0), NOW)
        [queue] = self.partition.queues.values()
        assert queue.head is not None
        self.entry: Entry = queue.head

    def write(self, copy: Copy) -> None:
        """As a `CopyWriter`."""
        self.written.append(copy)

    def ended(self, outcome: Outcome) -> None:
        """An attempt has ended."""
        slot = cast(Any, SimpleNamespace(start=0.0))
        self.outcomes.settle(self.entry, NOTE, self.outcomes.judge(slot, self.entry, NOTE, outcome, 0.0))

    def restored(self, copy: Copy, writer: str = "w2") -> None:
        """Another worker reads the copy."""
        effects = cast(Any, SimpleNamespace(send=lambda _: None, wake=lambda *of: None))
        self.partition = p = Partition(
            Epoch(0, writer, topic_id="topic-1"), Half(NONE, 0, 100), Half(NONE, 0, 1), effects=effects,
            budget=PayloadBudget(1_000_000),
        )  # fmt: skip
        state = wire.read_retry(copy.headers, "source", 0)
        assert state is not None
        facts = ("n1", NOW, None, "")
        p.on_retry(0, b"u", state, Bytes(b"u", b"{}", self.now), list(copy.headers), lambda: facts, self.now)
        [self.entry] = p.pending.values()

    def redriven(self) -> Copy:
        """The copy that the redrive tool makes of the last dead letter."""
        copy = self.written[-1]
        letter = DeadLetter.from_record("dlq", 0, 5, b"u", b"{}", copy.headers, self.now, JsonCodec(), {})
        return Copy("retry", 0, b"u", b"{}", copy_headers.copy_headers(letter, "topic-1"))


def failed(error: DeliveryError | None, after: float = 2.0, *, counted: bool = True) -> Callable[[Way], None]:
    return lambda way: way.ended(Retry(after, counted, error))


def last(way: Way) -> None:
    way.outcomes.rules = attrs.evolve(way.outcomes.rules, max_attempts=1)
    way.ended(Retry(2.0, True, TransientError("http.504")))


def refused(way: Way) -> None:
    way.ended(Retry(2.0, True, TransientError("http.500", provider="third")))
    way.written[-1].too_large()


def shortened(way: Way) -> None:
    way.ended(Dead("permanent", PermanentError("http.413")))
    way.written[-1].too_large()


def paused(way: Way) -> None:
    way.entry.busy = Busy.COPYING  # by its partition, which has chosen it
    way.publisher.pause(way.entry, NOTE)


def carried(way: Way) -> None:
    way.entry.busy = Busy.COPYING  # by its partition, which has chosen it
    if way.entry.retry is None:
        way.publisher.park(way.entry, will_be_sent=lambda entry, now: True)
    else:
        way.publisher.carry(way.entry)


COPIES: Final[dict[str, Callable[[Way], None]]] = {
    "failed": failed(TransientError("http.503", provider="acme")),
    "failed-elsewhere": failed(TransientError("http.502")),
    "unsaid": failed(None),
    "unknown": failed(UnknownOutcomeError("timeout", provider="other")),
    "throttled": failed(ThrottledError("http.429", scope="recipient"), 60, counted=False),
    "deferred": failed(deferred("night"), 90, counted=False),
    "codec": lambda way: way.outcomes.wait_for_codec(way.entry, "codec_unavailable"),
    "paused": paused,
    "carried": carried,
}
DEAD: Final[dict[str, Callable[[Way], None]]] = {
    "permanent": lambda way: way.ended(Dead("permanent", PermanentError("http.400", provider="acme"))),
    "vetoed": lambda way: way.ended(Dead("invalid_recipient")),
    "last": last,
    "expired": lambda way: way.outcomes.expire(way.entry, NOTE),
    "undecodable": lambda way: way.outcomes.undecodable(way.entry, "undecodable", "bad_json"),
    "too-large": refused,
    "too-large-value": shortened,
}

REDRIVEN: Final = ("failed", "unknown", "throttled")
"""What differs in a redrive: the others are like these."""


def ways() -> Iterator[str]:
    """What each way writes: two hops and a redrive, half of them with a new worker in between."""
    for n, (first, do) in enumerate(COPIES.items()):
        for m, (second, do_next) in enumerate([*COPIES.items(), *DEAD.items()]):
            way = Way()
            do(way)
            if not m:
                yield line(first, way.written[-1])
            way.now += 10_000
            name = f"{first} {second}"
            if (n + m) % 2:
                way.restored(way.written[-1])
                name = f"{first} restored {second}"
            else:
                way.written[-1].acknowledged(0)
            way.now += 1_000
            do_next(way)
            yield line(name, way.written[-1])
            if second in DEAD and first in REDRIVEN:
                way.now += 5_000
                copy = way.redriven()
                way.restored(copy, "w3")
                yield line(f"{name} redriven", copy)
                way.now += 500
                COPIES["unsaid"](way)
                yield line(f"{name} redriven unsaid", way.written[-1])


def line(name: str, copy: Copy) -> str:
    """One record in short: what happened, where it was written, and the headers in their order."""
    added = [f"{header.removeprefix('notif-')}={raw.decode()}" for header, raw in copy.headers]
    return f"{name}: {copy.topic} {' '.join(added)}\n"


def test_every_hop_writes_the_bytes_that_it_always_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of hop after each other one, through restores and redrives. When a header is *added* on purpose, write
    the table again with `WRITE_HEADERS=1` and read its diff."""
    monkeypatch.setattr(copy_headers, "time", SimpleNamespace(time=lambda: (NOW + 20_000) / 1000))
    found = list(ways())
    if os.environ.get("WRITE_HEADERS"):
        TABLE.write_text("".join(found))
    known = TABLE.read_text().splitlines(keepends=True)
    assert not "".join(difflib.unified_diff(known, found, "before", "now", n=0))
