"""Far more wait in a partition than a commit can tell apart: short retries are sent meanwhile, and nothing is lost,
repeated or written again, whatever happens to the workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from kafka_notify import Notification
from kafka_notify._fetch import pair_start
from kafka_notify._fetch.spills import read_spills
from kafka_notify._kafka.config import consumer_config
from kafka_notify._partition.commit_metadata import WINDOW, Committed, decode_metadata
from kafka_notify.cli._backlog import Backlogs
from kafka_notify.testing.attempt_log import DeadLettered, Produced
from kafka_notify.testing.guarantees import DuplicatesBounded
from kafka_notify.wire import RetryState
from tests.guarantees.deployment import LANE
from tests.guarantees.fleet import Fleet
from tests.guarantees.worker_process import SMALL_WINDOW
from tests.model.released import released_decode
from tests.windows import DECIDING

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

Fleets = Callable[..., Fleet]
SMALL: Final[dict[str, Any]] = {
    "partitions": 1,
    "small": True,
    "consumer": "Choosy",
    "attributes": {
        "breaker": None,
        "retry": {"max_attempts": 4, "initial_delay": 0.3, "max_delay": 0.3, "jitter": 0},
    },
}


def committed(f: Fleet) -> Committed:
    """What the brokers hold of the retry partition: one look, once they answer."""
    group = f.topology.group(LANE)
    found: list[TopicPartition] = []

    def answered() -> bool:
        try:
            found[:] = consumer.committed([TopicPartition(f.retry_topic, 0)], timeout=10)
        except KafkaException:  # they stall, or the coordinator is elected
            return False
        return found[0].error is None

    consumer = Consumer({"bootstrap.servers": f.bootstrap_servers, "group.id": group})
    try:
        f.until(answered, "answer about the commit")
    finally:
        consumer.close()
    return decode_metadata(max(found[0].offset, 0), found[0].metadata, group, f.retry_topic, 0)


def is_narrow(f: Fleet) -> bool:
    """Whether a worker has committed the retry partition, and as an older version can read it."""
    seen = committed(f)
    return seen.wide is None and seen.fence is not None


def until_watched(f: Fleet) -> None:
    """Wait until the watch has read the copies and spills that there are, while nobody writes more."""
    (end,) = f._ends()
    f.until(lambda: f._watch._read[0] >= end.retry, "look of the watch at everything")


def spills(f: Fleet) -> int:
    """How many of them the watch has seen."""
    return len(f._watch._spills)


def names_a_spill(f: Fleet) -> bool:
    """Whether a commit was seen to do so."""
    return bool(f._watch.named)


def night(f: Fleet, user: str, seconds: float = 10.0) -> Notification[Any]:
    """One that waits until the night is over."""
    gate = str(f.directory / "morning")
    return f.notification(user, verdict="later", gate=gate, seconds_later=seconds)


def evening(f: Fleet, count: int, name: str = "u") -> list[Produced]:
    """Every second one waits for the morning, the others fail once or twice: what ends is scattered among them."""
    plans = ["transient", "ok"], ["transient", "transient", "ok"]
    return f.produce(
        night(f, f"{name}{n}") if n % 2 else f.notification(f"{name}{n}", plan=plans[n % 4 // 2])
        for n in range(count)
    )


def dawn(f: Fleet) -> None:
    (f.directory / "morning").touch()


def until_short_ones_end(f: Fleet, sent: list[Produced], share: float = 1.0) -> None:
    short = {p.id for n, p in enumerate(sent) if n % 2 == 0}
    f.until(
        lambda: len(short & f.terminal) >= share * len(short), f"end of {share:.0%} of those that do not wait"
    )


def widened(f: Fleet, count: int) -> list[Produced]:
    """Start a worker, and let its partition become so wide that a commit names a spill: what was produced for that."""
    f.start("a")
    f.until_owned("a")
    sent = evening(f, count)
    f.until(lambda: names_a_spill(f), "commit that names a spill")
    return sent


def test_short_retries_among_long_waits(fleet: Fleets) -> None:
    """With more waiting than the bitmap of a commit holds, a retry is sent when it is due, and costs one record."""
    f = fleet(partitions=1, consumer="Choosy", attributes={"breaker": None})
    count = WINDOW + 2_000
    with f.worker_here("Choosy") as worker:
        f.produce(night(f, f"u{n}", 3_600) for n in range(count))
        f.until(lambda: worker.stats().waiting_retries == count, "waiting ones")
        others = f.produce(f.notification(f"v{n}", plan=["transient", "ok"]) for n in range(60))
        f.until(lambda: {p.id for p in others} <= f.terminal, "end of the others")
        f.until(lambda: committed(f).wide, "commit that says so")
        seen = worker.stats()
    assert (seen.waiting_retries, seen.carried_window, seen.wide_partitions) == (count, 0, 1)
    (end,) = f._ends()
    assert end.retry == count + 60 + seen.spills, seen
    with f.worker_here("Choosy") as heir:
        f.until(lambda: heir.stats().waiting_retries == count, "waiting ones after a restart")
    assert set(f.accepted().values()) == {1}


def test_killed_while_wide(fleet: Fleets) -> None:
    """A worker that is killed while its partition is wide loses nothing, keeps the order, and what its heir repeats is
    what was under way."""
    f = fleet(**SMALL)
    sent = widened(f, 600)
    until_short_ones_end(f, sent, 0.7)
    f.kill("a")
    f.start("b")
    f.until_owned("b")
    more = evening(f, 200, "v")
    until_short_ones_end(f, sent)
    f.kill("b")
    f.start("c")
    until_short_ones_end(f, more)
    dawn(f)
    f.finish()
    f.verify()


def test_handed_over_while_wide(fleet: Fleets) -> None:
    """Workers that are stopped and replaced while their partition is wide send nothing twice."""
    f = fleet(**SMALL)
    sent = widened(f, 600)
    until_short_ones_end(f, sent, 0.6)
    f.stop("a")
    f.look()
    backlog = Backlogs({"bootstrap.servers": f.bootstrap_servers}, f.topology).group(LANE, "")
    assert backlog.open == 600 - len(f.terminal)
    f.start("b")
    f.until_owned("b")
    until_short_ones_end(f, sent)
    f.stop("b")
    dawn(f)
    f.start("c")
    f.finish()
    held = f.verify()
    assert held.checker(DuplicatesBounded).duplicates == 0


@pytest.mark.invariant(n=16)
def test_zombie_in_the_middle_of_a_spill(fleet: Fleets) -> None:
    """A worker that was frozen while it wrote spills does no harm when it wakes up and another one has taken over."""
    f = fleet(**SMALL)
    f.start("a")
    f.until_owned("a")
    sent = evening(f, 600)
    f.until(lambda: spills(f) > 1, "spills")
    f.pause("a")
    f.start("b")
    f.until_owned("b")
    f.resume("a")
    until_short_ones_end(f, sent)
    dawn(f)
    f.finish()
    f.verify()


def test_refused_spills(fleet: Fleets) -> None:
    """While the retry topic refuses all writes, new notifications are sent and committed all the same, and of those
    that wait a bounded number. Then everything goes on, and a worker that was killed meanwhile repeats no more."""
    f = fleet(**SMALL)
    sent = widened(f, 600)
    f.alter_topic(f.retry_topic, "min.insync.replicas", 2)  # of one
    fresh = f.produce(f.notification(f"w{n}") for n in range(100))
    f.until(lambda: {p.id for p in fresh} <= f.terminal, "end of the new ones")
    last = max(p.offset for p in fresh)

    def covered() -> bool:
        seen = f.committed()[0]
        return last < seen.source or seen.source_gaps[last - seen.source :][:1] == "1"

    f.until(covered, "commit of the new ones")
    f.kill("a")
    f.alter_topic(f.retry_topic, "min.insync.replicas", 1)
    f.start("b")
    until_short_ones_end(f, sent)
    dawn(f)
    f.finish()
    f.verify()


def test_back_to_narrow(fleet: Fleets) -> None:
    """A worker without wide retries makes a wide partition narrow again, so that an older version can go on; nothing is
    lost or sent twice."""
    f = fleet(**SMALL)
    sent = widened(f, 300)
    until_short_ones_end(f, sent)
    f.stop("a")
    seen = committed(f)
    assert seen.wide is not None
    assert seen.marked
    f.start("b", wide_retries=False)
    f.until(lambda: is_narrow(f), "narrow commit")
    assert not committed(f).marked
    dawn(f)
    f.finish()
    held = f.verify()
    assert held.checker(DuplicatesBounded).duplicates == 0


def test_an_older_version_halts(fleet: Fleets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of the version before, which cannot read a wide half, sends nothing of that partition and says why; once
    a newer one has made it narrow it goes on, and so does the newer one after it. Nothing is lost or sent twice."""
    f = fleet(**SMALL)
    sent = widened(f, 300)
    until_short_ones_end(f, sent)
    f.stop("a")

    def older(context: pytest.MonkeyPatch) -> None:
        until_watched(f)  # the watch runs in this process, too
        for module in DECIDING:  # as the workers beside it: they could not keep a bitmap of more
            context.setattr(module, "WINDOW", SMALL_WINDOW)
        context.setattr(pair_start, "decode_metadata", released_decode)
        context.setattr(RetryState, "is_spill", False)

    with monkeypatch.context() as context:
        older(context)
        with f.worker_here("Choosy") as worker:
            said = "was deleted and created again"
            f.until(lambda: any(said in problem for problem in worker.health().problems), "halt")
            assert worker.stats().sent == 0
    f.start("b", wide_retries=False)
    f.until(lambda: is_narrow(f), "narrow commit")
    f.stop("b")
    dawn(f)
    with monkeypatch.context() as context:
        older(context)
        with f.worker_here("Choosy", wide_retries=False) as worker:
            f.until(lambda: worker.stats().sent >= 20, "sends of the older version")
    f.start("c")
    f.finish()
    held = f.verify()
    assert held.checker(DuplicatesBounded).duplicates == 0


def test_waits_longer_than_retention(fleet: Fleets) -> None:
    """What waits is written again before its topic's retention can remove it, by the retention that the topic really
    has, keeps its attempts, and is there for the next worker when all that was written first is gone."""
    f = fleet(partitions=1, consumer="Choosy", attributes={"breaker": None})
    with f.worker_here("Choosy") as worker:
        (late,) = f.produce([night(f, "u", 3_600)])
        f.until(lambda: worker.stats().waiting_retries == 1, "copy")
    f.alter_topic(f.retry_topic, "retention.ms", 3_000)  # before, it would have been refused such a wait
    with f.worker_here("Choosy") as worker:
        f.until(lambda: worker.stats().carried_retention >= 3, "third carry")
        assert worker.stats().waiting_retries == 1
        assert {c.attempts for c in f.copies(late.id)} == {0}
    f.remove_before(f.retry_topic, 3)
    with f.worker_here("Choosy") as worker:
        f.until(lambda: worker.stats().waiting_retries == 1, "what waits, after a restart")
        assert worker.health().ok
    assert not f.all(DeadLettered)


def test_reading_spills(fleet: Fleets) -> None:
    """The record at an offset is found with its writer; what the log does not reach is known not to be there; and of a
    topic that cannot be read nothing is said."""
    f = fleet(partitions=1)
    for n in range(3):
        f.write_raw(f.retry_topic, b"k", b"value%d" % n, [("notif-writer", b"w%d" % n)])
    config = consumer_config({"bootstrap.servers": f.bootstrap_servers}, "latency", "spills")
    assert read_spills(config, f.retry_topic, {0: 1}, 30) == {0: ("w1", b"value1")}
    assert read_spills(config, f.retry_topic, {0: 3}, 1) == {0: ("", None)}
    with pytest.raises(KafkaException):
        read_spills(config, f.retry_topic, {0: 1, 7: 1}, 1)
