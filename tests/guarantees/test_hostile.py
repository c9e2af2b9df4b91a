"""Whatever lies in the source topic: it ends in the dead-letter topic, and everybody else is served."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from typing import Any

import pytest

from kafka_notify._wire.headers import HOP_HEADERS
from kafka_notify.deadletters import DeadLetters
from kafka_notify.testing.attempt_log import DeadLettered, Owned
from kafka_notify.testing.guarantees import Letter
from tests.guarantees.fleet import Fleet
from tests.guarantees.hostile import NEWS, SMS, Generator, Intruder, write_header_name
from tests.guarantees.memory import given_away, holders

pytestmark = pytest.mark.kafka

COUNT = int(os.environ.get("KAFKA_NOTIFY_TEST_HOSTILE", "1000"))
SEED = int(os.environ.get("KAFKA_NOTIFY_TEST_HOSTILE_SEED", "20"))
PATIENCE = 60 + COUNT / 20
CHUNK = 20
USERS = [f"u{n}" for n in range(60)]


@pytest.mark.timeout(2 * PATIENCE + 120)
def test_hostile_input(fleet: Callable[..., Fleet]) -> None:
    """Among hostile records every valid notification is delivered, in order, and the group catches up; each
    hostile one becomes a letter, byte for byte, or without its value where no topic takes that; it becomes a
    second one only when its partition was begun a second time."""
    f = fleet(partitions=4)
    f.alter_topic(f.source, "message.timestamp.after.max.ms", 2**63 - 1)
    hostile = Generator(SEED, USERS).records(COUNT)
    valid = iter(f.traffic(COUNT, users=len(USERS), seed=SEED, seconds=0.002))
    intruder = Intruder(f)
    with f.worker_here(attributes={"send_timeout": 1.0}) as worker:
        running = worker._running
        assert running is not None
        while records := list(islice(hostile, CHUNK)):
            f.produce(islice(valid, CHUNK))
            intruder.write(records)
        f.finish(PATIENCE)
        f.until(lambda: worker.health().ok, "good health")
    left = given_away(running.engine)
    assert not left, holders(left)
    letters = [seen for seen in f.final() if isinstance(seen, Letter)]
    found = Counter((letter.partition, letter.origin) for letter in letters)
    assert found.keys() >= intruder.written.keys()
    begun = Counter(
        line.partition for line in f.all(Owned)
    )  # a machine that stalls costs a worker its membership
    assert [place for place, count in found.items() if count > begun[place[0]]] == []
    for letter in letters:
        record = intruder.written.get((letter.partition, letter.origin))
        if record is None:
            assert letter.reason in ("permanent", "max_attempts")  # a valid one that its provider refused
            continue
        assert letter.reason in record.reasons, record.kind
        assert letter.redacted == record.redacted, record.kind
        if record.code:
            assert dict(letter.headers)["notif-last-error-code"] == record.code.encode(), record.kind
    with_tool = DeadLetters({"bootstrap.servers": f.bootstrap_servers}, topology=f.topology).find()
    assert sum(1 for _ in with_tool) == len(found)
    f.verify()
    kinds = Counter(record.kind for record in intruder.written.values())
    sys.stdout.write(
        f"seed {SEED}: {len(intruder.written)} hostile records, {dict(kinds)}, {len(letters)} letters\n"
    )


@pytest.mark.timeout(2 * PATIENCE + 120)
def test_hostile_input_through_crashes(fleet: Callable[..., Fleet]) -> None:
    """Hostile records, and copies of them, that a killed worker leaves behind halt no partition of the next one:
    every valid notification is delivered, and each hostile one becomes a letter."""
    f = fleet(partitions=2, attributes={"send_timeout": 1.0})
    f.alter_topic(f.source, "message.timestamp.after.max.ms", 2**63 - 1)
    hostile = Generator(SEED + 1, USERS[:20]).records(300)
    valid = iter(f.traffic(300, users=20, seed=SEED + 1, seconds=0.002))
    intruder, rng = Intruder(f), random.Random(SEED)
    f.start("a")
    while records := list(islice(hostile, CHUNK)):
        f.produce(islice(valid, CHUNK))
        intruder.write(records)
        if rng.random() < 0.4:
            f.until_owned("a")
            f.until_terminal(len(f.terminal) + rng.randrange(CHUNK))
            f.kill("a")
            f.start("a")
    f.finish(PATIENCE)
    buried = {(seen.partition, seen.origin) for seen in f.final() if isinstance(seen, Letter)}
    assert buried >= intruder.written.keys()
    f.verify()


@pytest.mark.parametrize("alive", [False, True], ids=["found at the start", "read later"])
def test_junk_in_retry_topic(fleet: Callable[..., Fleet], alive: bool) -> None:
    """A record of the retry topic that names no origin of its own becomes a letter, byte for byte, which says
    where it lay; it keeps nobody waiting."""
    f = fleet(partitions=1)
    with ExitStack() as stack:
        if alive:
            stack.enter_context(f.worker_here())
            f.until(lambda: f.all(Owned), "assignment")
        junk = {f.write_raw(f.retry_topic, *record)[0]: record for record in junk_of(f)}
        f.produce(f.notification(user) for user in ("u", "v"))
        if not alive:
            stack.enter_context(f.worker_here())
        f.until(lambda: len(f.all(DeadLettered)) == len(junk), "letter for each")
        f.finish()
    found = DeadLetters({"bootstrap.servers": f.bootstrap_servers}, topology=f.topology).find()
    letters = {letter.state.origin.offset: letter for letter in found}
    assert letters.keys() == junk.keys()
    for offset, (key, value, headers) in junk.items():
        letter = letters[offset]
        own = [header for header in headers if header[0] not in HOP_HEADERS]
        assert (letter.key, letter.raw, list(letter.headers[: len(own)])) == (key, value, own)
        assert (letter.state.origin.topic, letter.reason) == (f.retry_topic, "undecodable")
        assert letter.error_code == "bad_retry_headers"
    assert len(f.accepted()) == 2


def test_header_name_that_is_no_text(fleet: Callable[..., Fleet]) -> None:
    """A header name that is no UTF-8 costs a record its headers, which the client cannot give: it becomes a letter
    with its key and value, and stops neither a worker nor the tools for dead letters."""
    f = fleet(partitions=1)
    dlq = f.topology.dlq_topic("l")
    # once it is warm, the interpreter makes calls in another way
    f.produce(f.notification(f"v{n}") for n in range(100))
    for topic in (f.source, f.retry_topic, dlq):
        write_header_name(f, topic, b"u", b"{}", b"\xff\xfe")
    f.produce([f.notification("u")])
    with f.worker_here():
        f.until(lambda: len(f.all(DeadLettered)) == 2, "letters of both")
        f.finish()
    tool = DeadLetters({"bootstrap.servers": f.bootstrap_servers}, topology=f.topology)
    letters = list(tool.find())
    assert tool.redrive(letters).redriven == 0
    assert {letter.state.origin.topic for letter in letters} == {f.source, f.retry_topic}
    assert {(letter.key, letter.raw, letter.reason) for letter in letters} == {(b"u", b"{}", "undecodable")}
    assert len(f.accepted()) == 101


def junk_of(f: Fleet) -> list[tuple[bytes | None, bytes | None, Any]]:
    """Records that somebody else wrote into a retry topic."""
    good = {
        "notif-origin-topic": f.source.encode(), "notif-origin-partition": b"0", "notif-origin-offset": b"0",
        "notif-attempt": b"1", "notif-next-retry-at": b"0", "notif-writer": b"w",
    }  # fmt: skip
    bad: list[dict[str, bytes | None]] = [
        {"notif-origin-topic": b"elsewhere"},
        {"notif-origin-partition": b"1"},
        {"notif-origin-offset": b"-1"},
        {"notif-origin-offset": None},
        {"notif-attempt": b"99999999999"},
        {"notif-next-retry-at": b"soon"},
        {"notif-writer": b"\xff"},
        {"notif-writer": b""},
    ]
    forged = [(b"u", b"{}", [NEWS, SMS, *{**good, **change}.items()]) for change in bad]
    return [
        (None, None, []),
        (b"\xff", b"\xff", [("x", None), ("", b"\xff")]),
        (b"u", b"{}", [NEWS, SMS]),
        *forged,
    ]
