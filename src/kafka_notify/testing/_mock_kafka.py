"""A Kafka cluster inside the process: librdkafka's own mock."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka import Producer
    from typing_extensions import Self

    from kafka_notify.topology import Topology


class MockKafka:
    """A mock Kafka cluster, ready in milliseconds, for first runs and small tests.

        with MockKafka() as kafka:
            producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})

    It is librdkafka's mock, not Kafka. Every topic has 4 partitions. The topics of `topology` exist from the start;
    `create` makes others, and so does any client that may create topics, which the clients of this library may not.
    Nothing can be altered or deleted. A partition keeps 5 MB and then drops its oldest records. The limits of a broker,
    such as that on commit metadata, are not enforced. A group's first member waits 3 seconds for its partitions.
    Fetching is quicker with `fetch.wait.max.ms=5`. Use `LocalKafka` for everything that must hold on real Kafka.

    The brokers listen on the loopback interface, so other processes can use them too. They end with the block, or with
    the process that entered it.

    Args:
        brokers: Number of brokers.
        topology: The topology whose topics exist from the start; `Topology.default()` by default.
        consumers: Names of the consumers that need retry topics; "" is the unnamed one, the default.

    Raises:
        ValueError: `brokers` is not positive.
    """

    def __init__(
        self, brokers: int = 1, *, topology: Topology | None = None, consumers: Iterable[str] = ("",)
    ) -> None:
        if brokers < 1:
            raise ValueError(f"a mock cluster needs at least one broker, not {brokers}")
        self._brokers = brokers
        self._topology = topology
        self._consumers = tuple(consumers)
        self._owner: Producer | None = None
        self._bootstrap_servers: str | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The brokers' addresses, comma-separated, for `bootstrap.servers`."""
        if self._bootstrap_servers is None:
            raise RuntimeError("this MockKafka is not running: use `with MockKafka() as kafka:`")
        return self._bootstrap_servers

    def __enter__(self) -> Self:
        from confluent_kafka import Producer

        # The cluster lives as long as this handle, which produces nothing.
        owner = Producer({"test.mock.num.brokers": self._brokers, "log_level": 0})
        brokers = owner.list_topics(timeout=10).brokers.values()
        self._bootstrap_servers = ",".join(sorted(f"{broker.host}:{broker.port}" for broker in brokers))
        self._owner = owner
        self.create(self._topology, consumers=self._consumers)
        return self

    def create(self, topology: Topology | None = None, *, consumers: Iterable[str] = ("",)) -> None:
        """Create the topics of a topology.

        Args:
            topology: The topology; `Topology.default()` by default.
            consumers: Names of the consumers that need retry topics; "" is the unnamed one.

        Raises:
            RuntimeError: The cluster is not running.
        """
        from kafka_notify._admin.wanted import wanted_topics
        from kafka_notify.topology import Topology

        if self._owner is None:
            raise RuntimeError("this MockKafka is not running: use `with MockKafka() as kafka:`")
        for topic in wanted_topics(topology or Topology.default(), sorted(consumers)):
            self._owner.list_topics(topic, timeout=10)  # the mock creates each topic that it is asked about

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self._owner = self._bootstrap_servers = None

    def __repr__(self) -> str:
        return f"<MockKafka brokers={self._brokers} {self._bootstrap_servers or 'not running'}>"
