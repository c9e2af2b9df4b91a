"""The brokers of the simulation: topics, groups, what fails, and a journal of all that happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Uuid

from tests.simulation.kafka.faults import Faults
from tests.simulation.kafka.group import Group
from tests.simulation.kafka.log import PartitionLog, Place, Record, Topic
from tests.simulation.kafka.virtual_time import VirtualTime

if TYPE_CHECKING:
    from tests.simulation.kafka.consumer import SimulatedConsumer
    from tests.simulation.kafka.producer import SimulatedProducer


class Cluster:
    """A Kafka cluster in memory.

    Args:
        time: Its time; one with seed 0 by default.
    """

    def __init__(self, time: VirtualTime | None = None) -> None:
        self.time = time or VirtualTime()
        self.faults = Faults(self.time.monotonic)
        self.topics: dict[str, Topic] = {}
        self.groups: dict[str, Group] = {}
        self.frozen = False
        """The brokers answer nothing, until this is False again."""
        self.cut: set[str] = set()
        """Hosts that reach no broker."""
        self.gone: set[str] = set()
        """Hosts of which each request fails at once: as `cut`, for the end of a test."""
        self.latency = 0.0
        """Seconds from `produce` until the broker has the record."""
        self.delay: Callable[[str], float] = lambda call: 0.0
        """Seconds that a request takes, by the name of its call."""
        self.leaderless: set[Place] = set()
        """Partitions that nobody can write to or read from, as during an election."""
        self.journal: list[tuple[Any, ...]] = []
        """What happened, in its order: the moment, and what it was. Runs of equal seeds have equal journals."""
        self.consumers: list[SimulatedConsumer] = []
        """All that were opened, closed ones as well; likewise `producers`."""
        self.producers: list[SimulatedProducer] = []
        self._topics_made = 0

    def note(self, *what: Any) -> None:
        """Write a line of the journal."""
        self.time.touch()
        self.journal.append((round(self.time.now, 6), *what))

    # -- topics ---------------------------------------------------------------------------------------

    def create(self, name: str, partitions: int = 1, settings: Mapping[str, str] | None = None) -> Topic:
        """Make a topic; of one that exists, an empty one with another id."""
        self._topics_made += 1
        topic = Topic(name, Uuid(1, self._topics_made), [PartitionLog() for _ in range(partitions)])
        topic.settings.update(settings or {})
        self.topics[name] = topic
        for group in self.groups.values():
            if any(name in member.topics for member in group.members.values()):
                group.rebalance()
        return topic

    def delete(self, name: str) -> None:
        """Delete a topic, and what groups have committed of it."""
        del self.topics[name]
        for group in self.groups.values():
            group.offsets = {place: kept for place, kept in group.offsets.items() if place[0] != name}

    def log(self, topic: str, partition: int = 0) -> PartitionLog:
        """The log of a partition."""
        return self.topics[topic].partitions[partition]

    def find(self, place: Place) -> PartitionLog | None:
        """The log of a partition, if there is one."""
        topic = self.topics.get(place[0])
        return topic.partitions[place[1]] if topic is not None and place[1] < len(topic.partitions) else None

    def counts(self) -> dict[str, int]:
        """How many partitions each topic has."""
        return {name: len(topic.partitions) for name, topic in self.topics.items()}

    def append(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        headers: Iterable[tuple[str, bytes | None]] = (),
        partition: int = 0,
        timestamp: int | None = None,
    ) -> Record:
        """Write a record without a producer."""
        at = int(self.time.wall() * 1000) if timestamp is None else timestamp
        return self.log(topic, partition).append(key, value, tuple(headers), at)

    def records(self, topic: str) -> Sequence[Record]:
        """All records of a topic, partition by partition."""
        return [record for log in self.topics[topic].partitions for record in log]

    # -- groups ---------------------------------------------------------------------------------------

    def group(self, name: str) -> Group:
        """A group, which comes into being with its first use."""
        if name not in self.groups:
            self.groups[name] = Group(name, self.counts, lambda *what: self.note(name, *what))
        return self.groups[name]

    def expel(self, host: str) -> None:
        """Let the sessions of a host's members expire: their partitions go to others."""
        for group in self.groups.values():
            for member in [m for m in group.members.values() if m.name == host]:
                group.expel(member)

    # -- requests -------------------------------------------------------------------------------------

    def reachable(self, host: str) -> bool:
        """Whether a broker answers to this host now."""
        return not self.frozen and host not in self.cut and host not in self.gone

    def ask(self, call: str, host: str, timeout: float) -> None:
        """Put a request that has no further fault than its own.

        Raises:
            KafkaException: It fails on demand, or no broker answers within `timeout` virtual seconds.
        """
        self.time.enter(host)
        if host in self.gone:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        if seconds := self.delay(call):
            self.time.sleep_of(host, seconds)
            self.time.touch()
        if not self.reachable(host) and not self.time.wait(lambda: self.reachable(host), timeout, host):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        error = self.faults.take(call, host)
        if error is not None:
            self.note(host, call, error.name())
            raise KafkaException(error)
