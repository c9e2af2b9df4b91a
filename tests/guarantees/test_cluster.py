"""Three brokers, of which one is missing now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from kafka_notify.testing import LocalKafka
from kafka_notify.testing._judgement import judged
from kafka_notify.testing.history import HistoryFile
from tests.guarantees.chaos import SPEC, Chaos, Protocol, variant
from tests.guarantees.fleet import Fleet

pytestmark = pytest.mark.kafka

Fleets = Callable[..., Fleet]


def test_too_few_replicas(cluster_fleet: Fleets, local_kafka_cluster: LocalKafka) -> None:
    """While a retry topic has too few replicas in sync, failed notifications wait and lose nothing, and everyone
    else is served; when they are back, the retries go on."""
    f = cluster_fleet(partitions=1, **SPEC)
    f.alter_topic(f.retry_topic, "min.insync.replicas", 3)
    f.start("a")
    f.until_owned("a")
    local_kafka_cluster.kill(2)
    try:
        poor, behind, *others = f.produce(
            [
                f.notification("u", plan=["transient", "ok"]),
                f.notification("u"),
                *(f.notification(f"v{n}") for n in range(20)),
            ]
        )
        f.until(lambda: {p.id for p in others} <= f.terminal, "end of the others' notifications")
        assert f.copies(poor.id) == []
        assert f.starts(behind.id) == []
        f.until(lambda: 0 in f.committed(), "the group's coordinator, which may have been the killed broker")
        assert f.committed()[0].source <= poor.offset
    finally:
        local_kafka_cluster.start(2)
    f.finish()
    assert [line.attempt for line in f.starts(poor.id)] == [1, 2]
    f.verify()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_chaos(cluster_fleet: Fleets, local_kafka_cluster: LocalKafka, protocol: Protocol) -> None:
    """Workers and brokers killed, frozen, stopped and started at random break no guarantee."""
    f = cluster_fleet(**variant(20, protocol))
    history = f.directory / "history.jsonl"
    report = Chaos(f, local_kafka_cluster, seed=20).run(actions=10, rate=60, history=history)
    sys.stdout.write(f"seed {report.seed}: {report}\n")
    assert report.violations == ()
    again = judged(HistoryFile(history))
    assert again["violations"] == again["not_judged"] == []
    assert (again["notifications"], again["duplicates"]) == (report.notifications, report.duplicates)
