"""`create_topics` and `check_topics` on real Kafka: every fault that is made is found, with the way to mend it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer as RawConsumer
from confluent_kafka import Producer as RawProducer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from kafka_notify import (
    Attempt,
    Category,
    Consumer,
    Lane,
    Notification,
    NotifyError,
    Receipt,
    RetryPolicy,
    Topology,
)
from kafka_notify.admin import Finding, check_topics, create_topics
from kafka_notify.testing import LocalKafka
from kafka_notify.testing.pytest_plugin import ExternalKafka

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000
WARNED_OF_ONE_REPLICA = re.compile(r"has one replica")


class Cluster:
    """A topology of the test's own, and somebody who changes its topics behind our back."""

    def __init__(self, bootstrap_servers: str, **topology: Any) -> None:
        self.config: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap_servers}
        self.admin: Any = AdminClient(self.config)
        self.topology = Topology(
            prefix=f"t-{uuid.uuid4().hex[:12]}",
            lanes=topology.get(
                "lanes", [Lane("high", partitions=3), Lane("low", partitions=5, profile="throughput")]
            ),
            categories=[Category("otp", "high")],
            channels=["sms", "email"],
        )
        self.high = self.topology.source_topic("high")
        self.retry = self.topology.retry_topic("high", "sms")

    def create(self, *consumers: str, **options: Any) -> None:
        create_topics(self.topology, self.config, consumers=consumers, **options)

    def check(self, *consumers: str) -> list[Finding]:
        """All findings but the one that is true of every cluster with one broker."""
        findings = check_topics(self.topology, self.config, consumers=consumers)
        return [finding for finding in findings if not WARNED_OF_ONE_REPLICA.search(finding.text)]

    def partitions(self) -> dict[str, int]:
        topics = self.admin.list_topics(timeout=20).topics
        return {n: len(t.partitions) for n, t in topics.items() if n.startswith(f"{self.topology.prefix}.")}

    def settings(self, topic: str) -> dict[str, str]:
        (future,) = self.admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
        return {name: entry.value for name, entry in future.result(20).items()}

    def set(self, topic: str, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        change = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        (future,) = self.admin.incremental_alter_configs([change]).values()
        future.result(20)

    def unset(self, topic: str, name: str) -> None:
        entry = ConfigEntry(name, None, incremental_operation=AlterConfigOpType.DELETE)
        change = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        (future,) = self.admin.incremental_alter_configs([change]).values()
        future.result(20)

    def grow(self, topic: str, partitions: int) -> None:
        (future,) = self.admin.create_partitions([NewPartitions(topic, partitions)]).values()
        future.result(20)

    def write(self, topic: str, codec: str, sizes: list[int]) -> frozenset[str]:
        """Write one batch of zeros; what became of its records. `flush` ends the linger."""
        settings = {"compression.type": codec, "linger.ms": 60_000, "batch.size": 100_000_000}
        limits = {"message.max.bytes": 100_000_000, "queue.buffering.max.kbytes": 1_000_000}
        producer = RawProducer({**self.config, **settings, **limits})
        told: list[str] = []
        for size in sizes:
            producer.produce(
                topic,
                b"\0" * size,
                partition=0,
                on_delivery=lambda e, _: told.append(str(e.name()) if e else "ok"),
            )
        assert producer.flush(60) == 0
        return frozenset(told)

    def await_that(self, true: Callable[[], bool]) -> None:
        """Changes reach the broker's metadata a moment after they were accepted."""
        for _ in range(1_000):
            if true():
                return
            self.admin.poll(0.02)
        raise AssertionError("the change never showed")


@pytest.fixture
def cluster(local_kafka: ExternalKafka) -> Cluster:
    """The session's Kafka."""
    return Cluster(local_kafka.bootstrap_servers)


def test_create_makes_every_topic_and_check_is_content(cluster: Cluster) -> None:
    """create makes source, retry (one per consumer) and dead-letter topics; then check finds nothing."""
    cluster.create("sms", "email")
    prefix = cluster.topology.prefix
    assert cluster.partitions() == {
        f"{prefix}.high": 3,
        f"{prefix}.retry.high.sms": 3,
        f"{prefix}.retry.high.email": 3,
        f"{prefix}.low": 5,
        f"{prefix}.retry.low.sms": 5,
        f"{prefix}.retry.low.email": 5,
        f"{prefix}.dlq": 5,
        f"{prefix}.control": 1,
    }
    assert cluster.check("sms", "email") == []
    assert cluster.check() == []


def test_create_sets_what_keeps_notifications(cluster: Cluster) -> None:
    """Retention, clean-up policy, record sizes and timestamps are set, and copies fit where their records did."""
    cluster.create("sms")
    source, retry, dlq = map(
        cluster.settings, (cluster.high, cluster.retry, cluster.topology.dlq_topic("high"))
    )
    for settings in (source, retry, dlq):
        assert settings["cleanup.policy"] == "delete"
        assert settings["retention.bytes"] == "-1"
        assert settings["message.timestamp.type"] == "CreateTime"
        assert settings["unclean.leader.election.enable"] == "false"
        assert settings["min.insync.replicas"] == "1"
    assert [int(s["retention.ms"]) // DAY_MS for s in (source, retry, dlq)] == [7, 9, 14]
    assert int(retry["max.message.bytes"]) == int(dlq["max.message.bytes"]) > int(source["max.message.bytes"])


def test_long_delays_need_long_retention(local_kafka: ExternalKafka) -> None:
    """The retry topic of a lane whose retries wait for days keeps records for twice that and a week."""
    slow = RetryPolicy(initial_delay=3_600, max_delay=3 * 86_400, jitter=0)
    cluster = Cluster(local_kafka.bootstrap_servers, lanes=[Lane("high", partitions=1, retry=slow)])
    cluster.create()
    assert int(cluster.settings(cluster.topology.retry_topic("high"))["retention.ms"]) == 13 * DAY_MS


@pytest.mark.parametrize("sizes", [[30_000_000], [900_000] * 33], ids=["one record", "many records"])
@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_no_small_batch_becomes_a_large_one(cluster: Cluster, codec: str, sizes: list[int]) -> None:
    """A batch that unpacks to far more than `max.message.bytes` is refused by topics that were made for that, and taken
    where compression is left to the producer."""
    cluster.create("sms", compression="uncompressed")
    assert cluster.check("sms") == []
    for topic in (cluster.high, cluster.retry):
        assert cluster.write(topic, codec, sizes) == {"MSG_SIZE_TOO_LARGE"}
        assert cluster.write(topic, codec, [400_000, 400_000]) == {"ok"}
    cluster.set(cluster.high, "compression.type", "producer")
    cluster.await_that(lambda: cluster.settings(cluster.high)["compression.type"] == "producer")
    assert cluster.write(cluster.high, codec, sizes) == {"ok"}
    assert cluster.check("sms") == []


def test_somebody_decides_about_compression(cluster: Cluster) -> None:
    """create leaves it to producers, and says so on source and retry topics; check warns of one that says nothing."""
    cluster.create("sms")
    chosen = {topic: cluster.settings(topic)["compression.type"] for topic in (cluster.high, cluster.retry)}
    assert chosen == dict.fromkeys(chosen, "producer")
    assert cluster.check("sms") == []
    cluster.unset(cluster.high, "compression.type")
    cluster.await_that(lambda: len(cluster.check("sms")) == 1)
    (finding,) = cluster.check("sms")
    assert finding.severity == "warning"
    assert finding.text.startswith(f"{cluster.high} does not say whether brokers unpack what arrives")
    assert f"--entity-name {cluster.high} --add-config compression.type=uncompressed" in finding.text


def test_create_leaves_what_exists_alone_and_adds_the_rest(cluster: Cluster) -> None:
    """A second create changes nothing that is there, and makes the topics of a new consumer."""
    cluster.create("sms")
    cluster.set(cluster.high, "retention.ms", str(30 * DAY_MS))
    cluster.create("sms", "email")
    assert cluster.settings(cluster.high)["retention.ms"] == str(30 * DAY_MS)
    assert cluster.partitions()[cluster.topology.retry_topic("high", "email")] == 3


def test_a_refused_topic_is_named(cluster: Cluster) -> None:
    """When the cluster refuses, the error names the topics and the cluster's reason."""
    with pytest.raises(
        NotifyError, match=rf"refused to create topics: .*{cluster.high}: INVALID_REPLICATION_FACTOR"
    ):
        cluster.create(replication_factor=77)


def test_check_names_every_missing_topic_with_the_command(cluster: Cluster) -> None:
    """Before create, each missing topic is an error with the kafka-topics.sh command that makes it."""
    *findings, control = cluster.check("sms")
    assert control.severity == "warning"  # nothing but the kill switch is missing without it
    assert f"--topic {cluster.topology.control_topic} --partitions 1" in control.text
    assert "cleanup.policy=compact" in control.text
    assert {finding.severity for finding in findings} == {"error"}
    assert len(findings) == 5
    (text,) = [finding.text for finding in findings if finding.text.startswith(f"{cluster.retry} is missing")]
    assert re.search(
        rf"kafka-topics\.sh --bootstrap-server \S+ --create --topic {cluster.retry} --partitions 3 ", text
    )


def test_source_and_retry_topics_that_differ_are_an_error(cluster: Cluster) -> None:
    """A source topic grown alone is reported with what breaks and the commands, the retry topic's first."""
    cluster.create("sms")
    cluster.grow(cluster.high, 6)
    cluster.await_that(lambda: cluster.partitions()[cluster.high] == 6)
    (finding,) = cluster.check("sms")
    assert finding.severity == "error"
    assert f"the topology says 3, {cluster.retry} has 3, {cluster.high} has 6" in finding.text
    assert "their order is not kept across the change" in finding.text
    assert f"--alter --topic {cluster.retry} --partitions 6; write Lane('high', partitions=6)" in finding.text


def test_a_lane_smaller_than_its_topology_is_an_error(cluster: Cluster) -> None:
    """Topics with fewer partitions than the topology says: both are to be altered, the retry topic first."""
    cluster.create("sms")
    grown = Topology(
        prefix=cluster.topology.prefix,
        lanes=[Lane("high", partitions=4), cluster.topology.lane("low")],
        categories=cluster.topology.categories.values(),
        channels=cluster.topology.channels,
    )
    errors = [f.text for f in check_topics(grown, cluster.config, consumers=["sms"]) if f.severity == "error"]
    assert len(errors) == 1
    first = errors[0].index(f"--alter --topic {cluster.retry} --partitions 4")
    assert first < errors[0].index(f"--alter --topic {cluster.high} --partitions 4")


@pytest.mark.parametrize(
    ("which", "name", "value", "severity", "says"),
    [
        ("retry", "retention.ms", "3600000", "error", "notifications that wait for their retry are deleted"),
        ("retry", "retention.bytes", "1000000", "error", "deletes records by size"),
        ("retry", "max.message.bytes", "1048588", "error", "may not fit"),
        ("retry", "cleanup.policy", "compact", "error", "only the newest notification of each user survives"),
        (
            "high",
            "cleanup.policy",
            "compact,delete",
            "error",
            "only the newest notification of each user survives",
        ),
        ("high", "retention.ms", "3600000", "warning", "an outage may outlast it"),
        ("high", "unclean.leader.election.enable", "true", "error", "lacks acknowledged records"),
        ("control", "cleanup.policy", "delete", "error", "forgets what is paused"),
    ],
)
def test_a_setting_that_loses_notifications_is_found(
    cluster: Cluster, which: str, name: str, value: str, severity: str, says: str
) -> None:
    """A dangerous setting is reported with its topic, what it does, and the kafka-configs.sh command."""
    cluster.create("sms")
    topics = {"retry": cluster.retry, "high": cluster.high, "control": cluster.topology.control_topic}
    topic = topics[which]
    cluster.set(topic, name, value)
    cluster.await_that(lambda: cluster.settings(topic)[name] == value)
    (finding,) = cluster.check("sms")
    assert (finding.severity, finding.text.startswith(topic)) == (severity, True)
    assert says in finding.text
    assert re.search(rf"kafka-configs\.sh .+ --entity-name {topic} --add-config {name}=", finding.text)


def test_the_command_that_check_gives_mends_the_fault(cluster: Cluster) -> None:
    """Setting what the finding says makes the finding go away."""
    cluster.create("sms")
    cluster.set(cluster.retry, "retention.ms", "1000")
    cluster.await_that(lambda: len(cluster.check("sms")) == 1)
    (finding,) = cluster.check("sms")
    match = re.search(r"--entity-name (\S+) --add-config ([^=]+)=(\S+)", finding.text)
    assert match is not None
    cluster.set(*match.groups())
    cluster.await_that(lambda: cluster.check("sms") == [])


def test_a_retry_policy_that_waits_for_longer_than_the_topic_keeps(cluster: Cluster) -> None:
    """A consumer's own backoff beyond what its retry topics keep is an error when their retention is too short for its
    copies to be written again in time, and the command mends it."""

    class Patient(Sms):
        retry = RetryPolicy(10, initial_delay=3600, multiplier=10, max_delay=20 * 86_400)

    def findings() -> list[Finding]:
        found = check_topics(cluster.topology, cluster.config, consumers=[Patient])
        return [f for f in found if "RetryPolicy" in f.text]

    cluster.create("sms")
    assert findings() == []
    short = [cluster.retry, cluster.topology.retry_topic("low", "sms")]
    for topic in short:
        cluster.set(topic, "retention.ms", str(DAY_MS))
    cluster.await_that(lambda: len(findings()) == 2)
    assert {f.severity for f in findings()} == {"error"}
    assert [f.text.split()[0] for f in findings()] == short
    for finding in findings():
        match = re.search(r"--entity-name (\S+) --add-config ([^=]+)=(\S+)", finding.text)
        assert match is not None
        cluster.set(*match.groups())
    cluster.await_that(lambda: findings() == [])


def test_offsets_that_expire_before_the_records_are_found(cluster: Cluster) -> None:
    """Brokers that forget a group's offsets while its source still keeps records are a warning."""
    cluster.create("sms")
    cluster.set(cluster.high, "retention.ms", str(8 * DAY_MS))
    cluster.await_that(lambda: len(cluster.check("sms")) == 1)
    (finding,) = cluster.check("sms")
    assert finding.severity == "warning"
    assert "after 7 days" in finding.text
    assert f"offsets.retention.minutes={8 * 1440}" in finding.text


def test_retry_topics_and_groups_of_a_renamed_consumer_are_found(cluster: Cluster) -> None:
    """What a renamed consumer left behind is a warning; without names nothing can be called left behind."""
    cluster.create("sms", "old-name")
    old = cluster.topology.group("high", "old-name")
    consumer = RawConsumer({**cluster.config, "group.id": old, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(cluster.high, 0, 0)], asynchronous=False)
    consumer.close()
    texts = [finding.text for finding in cluster.check("sms")]
    assert [finding.severity for finding in cluster.check("sms")] == ["warning"] * 3
    for lane in ("high", "low"):
        topic = cluster.topology.retry_topic(lane, "old-name")
        assert any(text.startswith(topic) and f"--delete --topic {topic}" in text for text in texts)
    assert any(f"the group {old} belongs to no consumer" in text for text in texts)
    assert cluster.check("sms", "old-name") == []
    assert cluster.check() == []


class Sms(Consumer):
    """Sends one of the two channels."""

    name, channels = "sms", frozenset({"sms"})

    def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        return Receipt("test")


class Everything(Consumer):
    """Sends whatever there is."""

    def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        return Receipt("test")


def test_channels_without_a_consumer_or_with_two_are_found(cluster: Cluster) -> None:
    """Given consumers instead of names, check knows the channels that nobody sends and those sent twice."""
    cluster.create("sms", "")

    def texts(*consumers: type[Consumer]) -> list[str]:
        findings = check_topics(cluster.topology, cluster.config, consumers=consumers)
        return [f.text for f in findings if "channel" in f.text]

    assert [text[:40] for text in texts(Sms)] == ["no consumer sends the channel 'email': i"]
    assert [text[:39] for text in texts(Sms, Everything)] == ["the channel 'sms' has 2 consumers (sms,"]
    assert texts(Everything) == []


def test_an_unreachable_cluster_is_said(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """create and check say that no broker answered and what to look at."""
    monkeypatch.setattr("kafka_notify.admin._TIMEOUT", 0.2)
    for call in (create_topics, check_topics):
        with pytest.raises(NotifyError, match=r"no broker answered within 0\.2 s.+ bootstrap\.servers"):
            call(cluster.topology, {"bootstrap.servers": "127.0.0.1:1"})


@pytest.fixture
def replicated(local_kafka_cluster: LocalKafka) -> Cluster:
    """A cluster of three brokers."""
    cluster = Cluster(local_kafka_cluster.bootstrap_servers, lanes=[Lane("high", partitions=1)])
    cluster.create("sms")
    return cluster


def test_with_three_brokers_two_copies_are_acknowledged(replicated: Cluster) -> None:
    """On three brokers topics have three replicas of which two must be in sync, and check is content."""

    def replicas() -> set[int]:
        topics = replicated.admin.list_topics(timeout=20).topics
        return {len(p.replicas) for n in replicated.partitions() for p in topics[n].partitions.values()}

    replicated.await_that(lambda: replicas() == {3})  # the broker that is asked may not know of them yet
    assert {replicated.settings(topic)["min.insync.replicas"] for topic in replicated.partitions()} == {"2"}
    assert check_topics(replicated.topology, replicated.config, consumers=["sms"]) == []


@pytest.mark.parametrize(
    ("in_sync", "says"), [("1", "acknowledges what a single replica holds"), ("3", "nothing can be written")]
)
def test_too_few_and_too_many_replicas_in_sync_are_warnings(
    replicated: Cluster, in_sync: str, says: str
) -> None:
    """min.insync.replicas of 1 risks loss, one of all replicas stops with the first broker: both are warned of."""
    replicated.set(replicated.high, "min.insync.replicas", in_sync)
    replicated.await_that(lambda: replicated.settings(replicated.high)["min.insync.replicas"] == in_sync)
    (finding,) = replicated.check("sms")
    assert finding.severity == "warning"
    assert says in finding.text
    assert finding.text.endswith(f"--entity-name {replicated.high} --add-config min.insync.replicas=2")


def test_one_replica_is_a_warning(replicated: Cluster) -> None:
    """A topic with one replica is reported, with how to raise it."""
    topic = replicated.topology.retry_topic("high", "push")
    (future,) = replicated.admin.create_topics(
        [
            NewTopic(
                topic,
                1,
                1,
                config={
                    "compression.type": "producer",
                    "max.message.bytes": "2097152",
                    "retention.ms": "-1",
                },
            )
        ]
    ).values()
    future.result(20)
    replicated.await_that(lambda: topic in replicated.partitions())
    findings = check_topics(replicated.topology, replicated.config, consumers=["sms", "push"])
    assert [f.severity for f in findings] == ["warning"]
    assert findings[0].text.startswith(f"{topic} has one replica")
