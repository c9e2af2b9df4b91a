"""The two sides of the conformance tests: the double, and Apache Kafka."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.simulation.kafka import Cluster, SimulatedAdmin, SimulatedConsumer, SimulatedProducer, VirtualTime

PATIENCE = 60.0


class Side(Protocol):
    """A cluster, and clients of it."""

    def topic(self, partitions: int = 1) -> str:
        """Make a topic, and return its name."""
        ...

    def consumer(self, group: str = "", **config: Any) -> Any:
        """A consumer. Properties are written with `_` for `.`."""
        ...

    def producer(self, **config: Any) -> Any:
        """A producer."""
        ...

    def admin(self) -> Any:
        """An AdminClient."""
        ...

    def group(self, group: str) -> str:
        """The name of a group in the cluster."""
        ...

    def delete_before(self, topic: str, offset: int) -> None:
        """Remove what partition 0 has before an offset."""

    def now(self) -> float:
        """Seconds."""
        ...

    def close(self) -> None:
        """Close what was opened."""


def _dotted(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", ".") if name != "error_cb" else name: value for name, value in config.items()}


class Double:
    """The double."""

    def __init__(self) -> None:
        self.cluster = Cluster(VirtualTime())
        self._hosts = 0

    def topic(self, partitions: int = 1) -> str:
        return self.cluster.create(f"t{len(self.cluster.topics)}", partitions).name

    def consumer(self, group: str = "", **config: Any) -> Any:
        self._hosts += 1
        given = {"auto.offset.reset": "earliest", **_dotted(config), "group.id": group or f"own{self._hosts}"}
        return SimulatedConsumer(self.cluster, given, f"host{self._hosts}")

    def producer(self, **config: Any) -> Any:
        return SimulatedProducer(self.cluster, _dotted(config))

    def admin(self) -> Any:
        return SimulatedAdmin(self.cluster, {})

    def group(self, group: str) -> str:
        return group

    def delete_before(self, topic: str, offset: int) -> None:
        self.cluster.log(topic).delete_before(offset)

    def now(self) -> float:
        return self.cluster.time.now

    def close(self) -> None:
        """Nothing is to be freed."""


class Real:
    """Apache Kafka, through librdkafka."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._config: dict[str, Any] = {"bootstrap.servers": bootstrap_servers, "log_level": 0}
        self._prefix = uuid.uuid4().hex[:8]
        self._topics = 0
        self._consumers: list[Consumer] = []

    def topic(self, partitions: int = 1) -> str:
        self._topics += 1
        name = f"{self._prefix}.{self._topics}"
        admin: Any = self.admin()
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while len(admin.list_topics(name, timeout=PATIENCE).topics[name].partitions) < partitions:
            assert time.monotonic() < deadline
        return name

    def consumer(self, group: str = "", **config: Any) -> Any:
        own: dict[str, Any] = {
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "fetch.wait.max.ms": 50,
            **_dotted(config),
            "group.id": self.group(group) if group else uuid.uuid4().hex,
        }
        consumer = Consumer(self._config | own)
        self._consumers.append(consumer)
        return consumer

    def producer(self, **config: Any) -> Any:
        return Producer(self._config | {"partitioner": "murmur2_random"} | _dotted(config))

    def admin(self) -> Any:
        return AdminClient({**self._config})

    def group(self, group: str) -> str:
        return f"{self._prefix}.{group}"

    def delete_before(self, topic: str, offset: int) -> None:
        admin: Any = self.admin()
        for future in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
            future.result(PATIENCE)

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        for consumer in self._consumers:
            try:
                consumer.close()
            except (KafkaException, RuntimeError):
                pass  # the test has closed it


def read(side: Side, consumer: Any, count: int) -> list[Any]:
    """So many records or errors."""
    found: list[Any] = []
    deadline = side.now() + PATIENCE
    while len(found) < count:
        message = consumer.poll(0.1)
        if message is not None:
            found.append(message)
        assert side.now() < deadline, f"{len(found)} of {count}: {found}"
    return found


def poll_until(side: Side, done: Callable[[], object], *consumers: Any) -> list[Message]:
    """Poll consumers in turns, until something is so; what they returned."""
    found: list[Message] = []
    deadline = side.now() + PATIENCE
    while not done():
        for consumer in consumers:
            message = consumer.poll(0.05)
            if message is not None:
                found.append(message)
        assert side.now() < deadline
    return found


def fill(side: Side, topic: str, count: int, partition: int = 0, first: int = 0) -> None:
    """Write records `first`, `first + 1`, … to a partition."""
    producer = side.producer()
    for n in range(first, first + count):
        producer.produce(topic, b"%d" % n, b"k%d" % n, partition=partition)
    assert producer.flush(PATIENCE) == 0
