"""What only real Kafka can show of a producer."""

from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import murmur2

from kafka_notify import Category, Lane, Producer, Topology
from kafka_notify.admin import create_topics
from kafka_notify.testing import LocalKafka
from kafka_notify.testing.pytest_plugin import ExternalKafka
from tests.producer.conftest import new_topology, note
from tests.producer.records import ids, read_all

pytestmark = pytest.mark.kafka


def test_the_acknowledgement_holds_the_time_of_the_record(local_kafka: ExternalKafka) -> None:
    """The result's timestamp is the record's, aware and in UTC."""
    topology = new_topology()
    config = {"bootstrap.servers": local_kafka.bootstrap_servers}
    create_topics(topology, config)
    with Producer(config, topology=topology) as producer:
        producer.warm_up(["high"])
        metadata = producer.send(note()).result(20)
    (record,) = read_all(local_kafka.bootstrap_servers, topology.source_topic("high"))
    assert metadata.timestamp.utcoffset() == dt.timedelta(0)
    assert round(metadata.timestamp.timestamp() * 1000) == record.timestamp()[1]


def test_users_spread_over_many_partitions_as_java_spreads_them(local_kafka: ExternalKafka) -> None:
    """On a topic of 30 partitions every record lies where murmur2 of its key puts it."""
    topology = Topology(
        prefix=new_topology().prefix,
        lanes=[Lane("high", partitions=30)],
        categories=[Category("otp", "high")],
        channels=["sms"],
    )
    config = {"bootstrap.servers": local_kafka.bootstrap_servers}
    create_topics(topology, config)
    with Producer(config, topology=topology) as producer:
        for i in range(1_000):
            producer.send(note(f"ü{i}"))
    records = read_all(local_kafka.bootstrap_servers, topology.source_topic("high"))
    assert len(records) == 1_000
    assert all(record.partition() == murmur2(record.key() or b"", 30) for record in records)
    assert len({record.partition() for record in records}) == 30


def test_a_topic_that_brokers_do_not_know_yet_is_asked_for_again(local_kafka: ExternalKafka) -> None:
    """A broker learns of a new topic with a delay: warm_up does not call it missing at the first answer."""
    topology = new_topology()
    config = {"bootstrap.servers": local_kafka.bootstrap_servers}
    with Producer(config, topology=topology) as producer:
        handle = producer._lane_handle("high")
        ask, asked = handle._describe, threading.Event()

        def watched(topic: str, deadline: float) -> Any:
            try:
                return ask(topic, deadline)
            finally:
                asked.set()

        handle._describe = watched  # type: ignore[method-assign]
        with ThreadPoolExecutor(1) as pool:
            warm = pool.submit(producer.warm_up, ["high"])
            assert asked.wait(20)
            create_topics(topology, config)
            warm.result(60)


def test_a_brokers_death_costs_nothing(local_kafka_cluster: LocalKafka) -> None:
    """A broker is killed while a producer sends: everything is acknowledged, arrives once and in order."""
    kafka = local_kafka_cluster
    topology = new_topology()
    config = {"bootstrap.servers": kafka.bootstrap_servers}
    create_topics(topology, config)
    with Producer(
        config, topology=topology, max_block=60, lane_config={"high": {"linger.ms": 5}}
    ) as producer:
        try:
            pending = []
            for i in range(6_000):
                pending.append(producer.send(note(f"u{i % 50}", id=f"n{i}")))
                if i == 1_000:
                    pending[0].result(60)
                    kafka.kill(1)
            places = [(p.result(60).partition, p.result(60).offset) for p in pending]
        finally:
            kafka.start(1)
    records = read_all(kafka.bootstrap_servers, topology.source_topic("high"))
    assert sorted(ids(records)) == sorted(f"n{i}" for i in range(6_000))
    assert len(set(places)) == 6_000
    order: dict[bytes | None, list[int]] = {}
    for record, id in zip(records, ids(records), strict=True):
        order.setdefault(record.key(), []).append(int(id[1:]))
    assert all(seen == sorted(seen) for seen in order.values())
