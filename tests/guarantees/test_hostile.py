"""Whatever lies in the source topic: it ends in the dead-letter topic, and everybody else is served."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from itertools import islice

import pytest

from kafka_notify import DeadLetters
from kafka_notify.testing.guarantees import Letter
from tests.guarantees.fleet import Fleet
from tests.guarantees.hostile import Generator, Intruder

pytestmark = pytest.mark.kafka

COUNT = int(os.environ.get("KAFKA_NOTIFY_HOSTILE", "1000"))
SEED = int(os.environ.get("KAFKA_NOTIFY_HOSTILE_SEED", "20"))
PATIENCE = 60 + COUNT / 20
CHUNK = 20
USERS = [f"u{n}" for n in range(60)]


@pytest.mark.timeout(2 * PATIENCE + 120)
def test_hostile_input(fleet: Callable[..., Fleet]) -> None:
    """Among hostile records every valid notification is delivered, in order, and the group catches up; each
    hostile one becomes a letter, byte for byte, or without its value where no topic takes that."""
    f = fleet(partitions=4)
    f.alter_topic(f.source, "message.timestamp.after.max.ms", 2**63 - 1)
    hostile = Generator(SEED, USERS).records(COUNT)
    valid = iter(f.traffic(COUNT, users=len(USERS), seed=SEED, seconds=0.002))
    intruder = Intruder(f)
    with f.worker_here(attributes={"send_timeout": 1.0}) as worker:
        while records := list(islice(hostile, CHUNK)):
            f.produce(islice(valid, CHUNK))
            intruder.write(records)
        f.finish(PATIENCE)
        assert worker.health().ok
    letters = [seen for seen in f.final() if isinstance(seen, Letter)]
    found = Counter((letter.partition, letter.origin) for letter in letters)
    assert found.keys() >= intruder.written.keys()
    assert set(found.values()) == {1}
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
    assert sum(1 for _ in with_tool) == len(letters)
    f.verify()
    kinds = Counter(record.kind for record in intruder.written.values())
    sys.stdout.write(
        f"seed {SEED}: {len(intruder.written)} hostile records, {dict(kinds)}, {len(letters)} letters\n"
    )
