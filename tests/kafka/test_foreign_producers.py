"""What producers write that know nothing of this library but its three required fields: it is sent, and in order."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import murmur2

from kafka_notify.testing import LocalKafka
from kafka_notify.testing.attempt_log import Produced
from kafka_notify.testing.guarantees import Guarantees, OneAtATime
from kafka_notify.wire import identity
from tests.guarantees.deployment import QUICK_RETRY
from tests.guarantees.fleet import Fleet
from tests.kafka.foreign import (
    CATEGORY,
    CODECS,
    Mark,
    Open,
    Place,
    Record,
    Step,
    Write,
    by_java,
    by_librdkafka,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]
PARTITIONS: Final = 6
USERS: Final = ("u0", "u1", "u2", "Ünal", "u-4@example")


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Write:
    return by_java(tmp_path_factory.mktemp("java"))


@pytest.fixture(params=["librdkafka", "java"])
def write(request: pytest.FixtureRequest) -> Write:
    return by_librdkafka if request.param == "librdkafka" else request.getfixturevalue("java")


@pytest.fixture
def fleet(local_kafka: LocalKafka, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(local_kafka.bootstrap_servers, tmp_path, partitions=PARTITIONS) as fleet:
        yield fleet


def note(user: str, n: int, *, fails: bool = False) -> Record:
    """A record that names no id; the first attempt may fail."""
    plan = ["transient", "ok"] if fails else ["ok"]
    return Record(user, json.dumps({"n": n, "plan": plan, "seconds": 0}))


def written(f: Fleet, write: Write, steps: Sequence[Step]) -> list[Produced]:
    """Run a script, and tell the checkers what lies in the source topic now."""
    records = [step for step in steps if isinstance(step, Record)]
    places = write(f.bootstrap_servers, f.source, steps)
    assert len(places) == len(records)
    found: list[Produced] = []
    for record, (partition, offset) in zip(records, places, strict=True):
        pairs = [(name, text.encode()) for name, _, text in (h.partition("=") for h in record.headers)]
        id, _ = identity(pairs, f.source, partition, offset, 0)
        found.append(Produced(id, record.key, partition, offset))
        f.log.write(found[-1])
    f.produced += found
    return found


def by_user(produced: Sequence[Produced]) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = defaultdict(list)
    for p in produced:
        found[p.user].append((p.partition, p.offset))
    return dict(found)


def test_every_codec(fleet: Fleet, write: Write) -> None:
    """Whatever the records are compressed with, each user's are sent in order, through retries, in the partition that
    the producer's own partitioner chose. What a record lacks of the required headers is dead-lettered."""
    script: list[Step] = []
    for n, codec in enumerate(CODECS):
        script.append(Open(codec))
        for m in range(3):
            script += (note(user, 3 * n + m, fails=m == 0) for user in USERS)
        script += (Record(USERS[0], "{}", []), Record(USERS[1], "{}", [CATEGORY]))
    seen = written(fleet, write, script)
    for places in by_user(seen).values():
        assert len({partition for partition, _ in places}) == 1
        assert places == sorted(places)
    with fleet.worker_here():
        fleet.finish()
    assert [letter.reason for letter in fleet.letters().values()] == ["undecodable"] * 2 * len(CODECS)
    assert len(fleet.accepted()) == 3 * len(USERS) * len(CODECS)
    fleet.verify()


def test_java_chooses_our_partitions(fleet: Fleet, java: Write) -> None:
    """A user's notifications keep their order over Java's producer and ours: both choose the same partition."""
    first = written(fleet, java, [Open(), *(note(user, n, fails=True) for n in range(2) for user in USERS)])
    ours = fleet.produce(fleet.notification(user, n=2, plan=["ok"], seconds=0) for user in USERS)
    for user, places in by_user([*first, *ours]).items():
        assert {partition for partition, _ in places} == {murmur2(user.encode(), PARTITIONS)}
        assert len(places) == 3
        assert places == sorted(places)
    with fleet.worker_here():
        fleet.finish()
    fleet.verify()


def test_two_partitioners(fleet: Fleet) -> None:
    """Where librdkafka's default partitioner is used next to ours, a user has records in two partitions: all are sent,
    and each partition's in order and one at a time. Neither holds between the two partitions, as the documentation
    says."""
    theirs = written(
        fleet, by_librdkafka, [Open(), *(note(user, n, fails=True) for n in range(2) for user in USERS)]
    )
    ours = fleet.produce(fleet.notification(user, n=2, plan=["ok"], seconds=0) for user in USERS)
    partitions = {p.id: p.partition for p in (*theirs, *ours)}
    assert any(len({p for p, _ in places}) == 2 for places in by_user([*theirs, *ours]).values())
    with fleet.worker_here():
        fleet.finish()
    assert len(fleet.accepted()) == 3 * len(USERS)
    held = Guarantees.all(max_attempts=QUICK_RETRY.max_attempts)
    apart = OneAtATime(lambda started: (started.user, partitions[started.id]))
    fleet.verify(Guarantees(apart if isinstance(each, OneAtATime) else each for each in held.checkers))


def test_transactions(fleet: Fleet, write: Write) -> None:
    """Transactional records are sent in order, those of an aborted transaction too, as the documentation says; the
    markers of the transactions, which are no records, keep no partition from being committed to its end."""
    script: list[Step] = [Open("lz4", f"t-{uuid.uuid4().hex}")]
    for n, end in enumerate(("commit", "abort", "commit", "abort")):
        script += (Mark("begin"), *(note(user, n, fails=n < 2) for user in USERS), Mark(end))
    seen = written(fleet, write, script)
    assert any(b - a > 1 for places in by_user(seen).values() for (_, a), (_, b) in pairwise(places))
    with fleet.worker_here():
        fleet.finish()
    assert len(fleet.accepted()) == 4 * len(USERS)
    fleet.verify()
