"""`MockKafka`: a cluster inside the process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from confluent_kafka import Consumer, Message, Producer

from kafka_notify import Category, Config, Lane, Notification, Topology
from kafka_notify import Producer as NotifyProducer
from kafka_notify.testing import MockKafka


def produce(bootstrap_servers: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    delivered: list[object] = []
    producer.produce(topic, value, on_delivery=lambda error, message: delivered.append(error))
    assert producer.flush(10) == 0
    assert delivered == [None]


def consume_one(bootstrap_servers: str, topic: str) -> Message:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "g",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 5,
        }
    )
    consumer.subscribe([topic])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert message.error() is None
    return message


def test_round_trip(mock_kafka: MockKafka) -> None:
    """A record that was produced to the mock is consumed from it."""
    produce(mock_kafka.bootstrap_servers, "t", b"hello")

    assert consume_one(mock_kafka.bootstrap_servers, "t").value() == b"hello"


def test_other_process(mock_kafka: MockKafka) -> None:
    """Another process on this machine produces to the mock of this one."""
    code = (
        "import sys; from confluent_kafka import Producer\n"
        "producer = Producer({'bootstrap.servers': sys.argv[1]})\n"
        "producer.produce('t', b'from afar')\n"
        "sys.exit(producer.flush(10))"
    )
    subprocess.run([sys.executable, "-c", code, mock_kafka.bootstrap_servers], check=True, timeout=30)

    assert consume_one(mock_kafka.bootstrap_servers, "t").value() == b"from afar"


def test_every_topic_has_four_partitions(mock_kafka: MockKafka) -> None:
    """A topic comes into being when it is first used, with 4 partitions."""
    produce(mock_kafka.bootstrap_servers, "t", b"")

    metadata = Producer({"bootstrap.servers": mock_kafka.bootstrap_servers}).list_topics(timeout=10)
    assert len(metadata.topics["t"].partitions) == 4


def test_clusters_are_separate(mock_kafka: MockKafka) -> None:
    """Two mocks share nothing."""
    produce(mock_kafka.bootstrap_servers, "t", b"")

    with MockKafka() as other:
        topics = Producer({"bootstrap.servers": other.bootstrap_servers}).list_topics(timeout=10).topics
    assert "t" not in topics


def test_the_producer_of_the_readme() -> None:
    """The topics of the default topology are there, and those of another one with `create`: nothing else is set."""
    special = Topology(
        prefix="special",
        lanes=[Lane("fast", partitions=4)],
        categories=[Category("otp", "fast")],
        channels=["sms"],
    )
    otp = Notification(user_id="u", category="otp", channel="sms", data={"code": "1"})
    with MockKafka() as kafka:
        config: Config = {"bootstrap.servers": kafka.bootstrap_servers}
        with NotifyProducer(config) as producer:
            assert producer.send(otp).result(30).topic == "notif.high_priority"
        kafka.create(special)
        with NotifyProducer(config, topology=special) as producer:
            assert producer.send(otp).result(30).topic == "special.fast"


def test_several_brokers() -> None:
    """A mock of several brokers names all of them."""
    with MockKafka(brokers=3) as kafka:
        assert len(set(kafka.bootstrap_servers.split(","))) == 3


def test_only_inside_the_block() -> None:
    """Before and after its block a mock has no address, and says how to get one."""
    kafka = MockKafka()
    with pytest.raises(RuntimeError, match="with MockKafka"):
        _ = kafka.bootstrap_servers
    with kafka:
        assert kafka.bootstrap_servers in repr(kafka)
    with pytest.raises(RuntimeError, match="with MockKafka"):
        _ = kafka.bootstrap_servers


def test_no_broker_is_refused() -> None:
    """A cluster without a broker is refused at once."""
    with pytest.raises(ValueError, match="at least one broker"):
        MockKafka(brokers=0)
