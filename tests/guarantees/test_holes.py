"""What the model of the protocol takes for granted: topics that change under the group, offsets that somebody moves,
memory that is full, and a membership that has ended."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import pytest

from kafka_notify import Worker
from kafka_notify._fetch import backpressure, topic_ids
from kafka_notify._fetch.loop import FetchLoop
from kafka_notify._worker import report
from kafka_notify.testing.attempt_log import Accepted, Disturbed, Owned, Produced, Started
from kafka_notify.testing.guarantees import (
    Checker,
    CommitsOnlyGrow,
    DuplicatesBounded,
    Guarantees,
    NothingOpenCommitted,
)
from tests.guarantees.deployment import LANE, QUICK_RETRY
from tests.guarantees.fleet import QUICK, Fleet
from tests.guarantees.hostile import NEWS, SMS

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]
PROTOCOLS: Final[dict[str, Any]] = {
    "classic": {},
    "consumer": {"consumer_config": {"group.protocol": "consumer"}},
}
LATER: Final[Any] = {
    "retry": {"max_attempts": 4, "initial_delay": 3, "max_delay": 3, "jitter": 0},
    "breaker": None,
}
"""Retries that surely wait when the worker ends."""


def read_to_end(fetch: FetchLoop) -> bool:
    """Its source is paused, and the event loop has taken all that was polled."""
    return bool(fetch._member.paused) and fetch.flow._handed == fetch.flow.taken


def test_full_table(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose table of waiting retries is full reads no more of its source, also after a restart; in the end
    everything is sent, in order."""
    monkeypatch.setattr(backpressure, "MAX_WAITING_RETRIES", 40)
    f = fleet(partitions=1, attributes={"breaker": None})
    gate = f.directory / "open"
    f.produce(f.notification(f"u{n % 30}", n=n, plan=["throttle"], gate=str(gate)) for n in range(100))
    fresh: list[Produced] = []
    for _ in range(2):
        with f.worker_here() as ours:
            running = ours._running
            assert running is not None
            f.until(lambda w=ours: w.stats().waiting_retries == 100, "full table")  # type: ignore[misc]
            f.until(lambda r=running: read_to_end(r.fetch), "end of reading")  # type: ignore[misc]
            fresh += f.produce(f.notification(f"v{n % 30}", n=n) for n in range(50))
            sends = len(f.all(Started))
            f.until(lambda n=sends: len(f.all(Started)) > n + 90, "three rounds of retries")  # type: ignore[misc]
            assert not {p.id for p in fresh} & {line.id for line in f.all(Started)}
    gate.touch()
    with f.worker_here():
        f.finish()
    f.verify()


def test_half_of_a_pair(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions that only the source topic has, or only the retry topic, do not start, and health names them; they
    start once the other topic has them too."""
    monkeypatch.setattr(report, "HALF_ASSIGNED_LIMIT", 0.5)
    soon = {"topic.metadata.refresh.interval.ms": 200}  # 5 minutes otherwise
    f = fleet(
        partitions=1,
        consumer_config={**QUICK, **soon},
        producer_config=soon,
        attributes={"breaker": None},  # every first attempt fails
    )
    with f.worker_here() as ours:
        f.until(lambda: ours.stats().partitions, "partition")

        def alone(*numbers: int) -> bool:
            return any(f"partitions {list(numbers)} are assigned" in p for p in ours.health().problems)

        f.add_partitions(2, f.source)
        early = [f.produce_raw(b"u%d" % n, VALUE, [NEWS, SMS], 1) for n in range(20)]
        f.until(lambda: alone(1), "health that names the source's half")
        f.add_partitions(3, f.retry_topic)
        f.until(
            lambda: {0, 1} == set(ours.stats().partitions) and alone(2), "health that names the retry's half"
        )
        f.until(lambda: {p.id for p in early} <= f.terminal, "end of what waited")
        f.add_partitions(3, f.source)
        late = [f.produce_raw(b"u%d" % n, VALUE, [NEWS, SMS], 2) for n in range(20)]
        f.until(lambda: {p.id for p in late} <= f.terminal, "end of what waited")
        assert ours.health().ok
        f.finish()
    assert not f.strays()
    f.verify()


VALUE: Final = b'{"plan": ["transient", "ok"], "seconds": 0}'
"""Of a notification that takes two attempts."""


@pytest.mark.parametrize("topics", ["source", "both"])
def test_offsets_moved_back(fleet: Fleets, topics: str) -> None:
    """When an operator moves the group's offsets back, what lies behind them is sent again, in order; what waits for
    a retry is not sent beside its copy."""
    f = fleet(partitions=1, attributes=LATER)
    sent, waiting = half_done(f)
    f.reset_offset(f.source, 20)
    if topics == "both":
        f.reset_offset(f.retry_topic, 0)
    reset = len(f.lines)
    with f.worker_here():
        f.produce(f.notification(f"u{n % 10}", n=n) for n in range(20))
        f.finish()
    again = {p.id for p in sent if p.offset >= 20 and p not in waiting}
    if topics == "both":
        again.add(sent[0].id)  # whose copy is read again
    twice = {id for id, count in f.accepted().items() if count > 1}
    assert twice == again
    places = {p.id: (p.user, p.offset) for p in f.produced}
    second = [places[line.id] for line in f.lines[reset:] if isinstance(line, Accepted)]
    assert sorted(second, key=lambda place: place[0]) == sorted(second)  # of each user in order
    f.verify(without(DuplicatesBounded, CommitsOnlyGrow))


def test_offsets_moved_forward(fleet: Fleets) -> None:
    """When an operator moves the group's source offset forward, what it skips is skipped; copies that wait are
    sent."""
    f = fleet(partitions=1, attributes=LATER)
    _, waiting = half_done(f)
    skipped = f.produce(f.notification(f"u{n % 10}", n=n) for n in range(20))
    f.reset_offset(f.source, skipped[-1].offset + 1)
    forget(f, skipped)
    with f.worker_here():
        f.produce(f.notification(f"u{n % 10}", n=n) for n in range(20))
        f.finish()
    assert not {p.id for p in skipped} & {line.id for line in f.all(Started)}
    assert {p.id for p in waiting} <= set(f.accepted())
    f.verify()


@pytest.mark.parametrize("topic", ["source", "retry"])
def test_topic_shorter_than_committed(fleet: Fleets, topic: str) -> None:
    """A partition that ends before its committed offset is halted: nothing of it is sent and nothing committed,
    until an operator has reset the offset; then it goes on where that says."""
    f = fleet(partitions=1, attributes=LATER)
    half_done(f)
    name, right = (f.source, 40) if topic == "source" else (f.retry_topic, 0)
    f.reset_offset(name, 1_000)
    more = f.produce(f.notification(f"u{n % 10}", n=n) for n in range(20))
    with f.worker_here() as ours:
        f.until(lambda: halted(ours, "offset 1000 is committed, but"), "halt")
        assert name in ours.health().problems[0]
    assert not {p.id for p in more} & {line.id for line in f.all(Started)}
    f.reset_offset(name, right)
    with f.worker_here():
        f.finish()
    moved = {"source": (), "retry": (DuplicatesBounded,)}[topic]  # its finished copies are read again
    f.verify(without(NothingOpenCommitted, CommitsOnlyGrow, *moved))


@pytest.mark.parametrize("topic", ["source", "retry"])
def test_topic_created_anew(fleet: Fleets, topic: str) -> None:
    """When source or retry topic is deleted and created anew while retries wait and nobody is there, the next worker
    sends nothing of the partition and commits nothing, and says which topic it was; with the offsets reset, all
    that lies in the topics is sent."""
    f = fleet(partitions=1, attributes=LATER)
    _, waiting = half_done(f)
    f.recreate(f.source if topic == "source" else f.retry_topic)
    forget(f, f.produced if topic == "source" else waiting)
    new = raw(f, 60)
    with f.worker_here() as ours:
        f.until(
            lambda: halted(ours, f"{f.source if topic == 'source' else f.retry_topic} was deleted"), "halt"
        )
    assert not {p.id for p in new} & {line.id for line in f.all(Started)}
    f.reset_offset(f.source, new[0].offset)
    f.reset_offset(f.retry_topic, 3 if topic == "source" else 0)  # the old topic's copies are given up
    with f.worker_here():
        f.until_all_terminal()
        f.until_committed(new[-1].offset + 1)
    assert {p.id for p in new} <= set(f.accepted())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("topic", ["source", "retry"])
def test_topic_created_anew_under_a_worker(
    fleet: Fleets, monkeypatch: pytest.MonkeyPatch, topic: str, protocol: str
) -> None:
    """When source or retry topic is deleted and created anew while a worker reads it, and the new one is already longer
    than the old one was, the partition is halted, also for the next worker; with the offsets reset, nothing that
    lies in the topics is passed over."""
    monkeypatch.setattr(topic_ids, "LOOK", 0.5)
    f = fleet(partitions=1, attributes=LATER, **PROTOCOLS[protocol])
    name = f.source if topic == "source" else f.retry_topic
    with f.worker_here() as ours:
        f.produce(f.notification(f"u{n % 10}", n=n) for n in range(20))
        f.until_all_terminal()
        f.until_committed(20)
        f.recreate(name)
        if topic == "source":
            forget(f, f.produced)
        new = raw(f, 60)
        f.until(lambda: halted(ours, f"{name} was deleted and created again"), "halt")
    with f.worker_here() as ours:
        f.until(lambda: halted(ours, f"{name} was deleted and created again"), "halt of the next worker")
    f.reset_offset(f.source, new[0].offset)
    f.reset_offset(f.retry_topic, 0)
    with f.worker_here():
        f.until_all_terminal()
        f.until_committed(new[-1].offset + 1)
    assert {p.id for p in new} <= set(f.accepted())


def raw(f: Fleet, count: int) -> list[Produced]:
    """Notifications of ten users that no client has seen before."""
    return [
        f.produce_raw(b"u%d" % (n % 10), b"{}", [NEWS, SMS, ("notif-id", b"new-%d" % n)])
        for n in range(count)
    ]


@pytest.mark.invariant(n=12)
def test_expelled_member(fleet: Fleets, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that the group has expelled, and that learns it from a refused commit, starts nothing more for that
    epoch, joins again and goes on."""
    quiet = {"session.timeout.ms": 20_000, "heartbeat.interval.ms": 6_000}
    f = fleet(partitions=2, consumer_config=quiet, attributes={"send_timeout": 2.0})
    f.produce(f.traffic(600, users=20, seed=23, seconds=0.1))
    with f.worker_here() as ours:
        f.until_terminal(100)
        for _ in range(3):
            begun = len(f.all(Owned))
            [member] = f.members()
            leave(f, member)
            f.until(lambda n=begun: len(f.all(Owned)) >= n + 2, "both partitions anew")  # type: ignore[misc]
        f.finish()
        assert ours.health().ok
    assert "a commit failed: UNKNOWN_MEMBER_ID" in caplog.text
    assert len([line for line in f.all(Disturbed) if line.how == "fenced"]) >= 3
    assert not f.strays()
    f.verify()


def test_frozen_member(fleet: Fleets) -> None:
    """A worker that was frozen until the group had given its partitions away starts nothing of them when it is
    thawed, before it has been given them again."""
    f = fleet(partitions=2, attributes={"concurrency": 4, "send_timeout": 2.0})
    f.start("a")
    f.until_owned("a")
    f.produce(f.traffic(600, users=30, seed=24, seconds=0.05))
    f.until_terminal(50)
    f.pause("a")
    f.start("b")
    f.until_terminal(400)
    f.resume("a")
    f.until(lambda: any(line.how == "fenced" for line in f.all(Disturbed)), "end of a's epoch")
    f.until_all_terminal()
    f.stop("b")
    f.produce(f.traffic(100, users=30, seed=25))
    f.finish()
    assert not f.strays()
    f.verify()


def half_done(f: Fleet) -> tuple[list[Produced], list[Produced]]:
    """Forty notifications of ten users, which a worker has sent, the first of them at its second attempt; and those
    two of them that still wait for theirs."""

    def produce(numbers: Iterable[int]) -> list[Produced]:
        return f.produce(
            f.notification(f"u{n % 10}", n=n, plan=["transient", "ok"] if n in (0, 35, 36) else ["ok"])
            for n in numbers
        )

    with f.worker_here():
        sent = produce([0])
        f.until_all_terminal()
        sent += produce(range(1, 40))
        waiting = sent[35:37]
        f.until(lambda: {p.id for p in sent} - {p.id for p in waiting} <= f.terminal, "end of the others")
        f.until_committed(40)
    assert not {p.id for p in waiting} & f.terminal
    return sent, waiting


def forget(f: Fleet, produced: Sequence[Produced]) -> None:
    """Nobody is promised these any more."""
    f.look()
    ids = {p.id for p in produced}
    f.produced = [p for p in f.produced if p.id not in ids]
    f.lines = [line for line in f.lines if not (isinstance(line, Produced) and line.id in ids)]


def without(*kinds: type[Checker]) -> Guarantees:
    """All other promises."""
    return Guarantees.all(max_attempts=QUICK_RETRY.max_attempts).without(*kinds)


def halted(ours: Worker, reason: str) -> bool:
    """Whether the worker complains of a halt, and why."""
    return any("is halted" in problem and reason in problem for problem in ours.health().problems)


def leave(f: Fleet, member: str) -> None:
    """Make a member leave the group, without its knowing."""
    group = f.topology.group(LANE)
    host, _, port = f.bootstrap_servers.split(",")[0].rpartition(":")
    texts = b"".join(struct.pack(">h", len(text)) + text.encode() for text in (group, member))
    request = struct.pack(">hhih", 13, 1, 1, -1) + texts  # LeaveGroup, without a client id
    with socket.create_connection((host, int(port)), 10) as broker:
        broker.sendall(struct.pack(">i", len(request)) + request)
        answer = broker.makefile("rb").read(4 + 4 + 4 + 2)
    assert answer[-2:] == b"\0\0", answer
