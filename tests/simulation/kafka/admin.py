"""A double of `confluent_kafka.admin.AdminClient`: the questions that a worker puts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException, Node, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    ConfigEntry,
    ConsumerGroupDescription,
    ListOffsetsResultInfo,
    MemberAssignment,
    MemberDescription,
    ResourceType,
    TopicDescription,
)

from tests.simulation.kafka.answers import futures, list_topics, offset_for, place_of
from tests.simulation.kafka.cluster import Cluster

GROUP_SETTINGS: Final = {
    "consumer.session.timeout.ms": "45000",
    "consumer.heartbeat.interval.ms": "5000",
}
"""What brokers answer of a group that nobody configured."""


class SimulatedAdmin:
    """An AdminClient of a `Cluster`. Its futures are resolved when they are returned.

    Args:
        cluster: The brokers.
        config: As for `AdminClient`.
        host: Whose client it is: what is cut off or stopped together.
    """

    def __init__(self, cluster: Cluster, config: Mapping[str, Any], host: str = "") -> None:
        self.config = dict(config)
        self.host = host
        self._cluster = cluster

    def _asked(self, call: str, wanted: Mapping[Any, Callable[[], Any]]) -> dict[Any, Future[Any]]:
        self._cluster.time.enter(self.host)
        error = (
            self._cluster.faults.take(call, self.host)
            if self._cluster.reachable(self.host)
            else KafkaError(KafkaError._TIMED_OUT)
        )
        if error is None:
            return futures(wanted)

        def fail() -> Any:
            raise KafkaException(error)

        return futures(dict.fromkeys(wanted, fail))

    def describe_topics(self, topics: Any, **_: Any) -> dict[str, Future[Any]]:
        """Their ids and partitions."""

        def of(name: str) -> TopicDescription:
            topic = self._cluster.topics.get(name)
            if topic is None:
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
            return TopicDescription(name, topic.id, False, [])

        return self._asked(
            "describe_topics", {name: functools.partial(of, name) for name in topics.topic_names}
        )

    def describe_configs(self, resources: Iterable[Any], **_: Any) -> dict[Any, Future[Any]]:
        """Settings of topics and groups."""

        def of(resource: Any) -> dict[str, ConfigEntry]:
            settings: Mapping[str, str] = GROUP_SETTINGS
            if resource.restype == ResourceType.TOPIC:
                if resource.name not in self._cluster.topics:
                    raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
                settings = self._cluster.topics[resource.name].settings
            return {name: ConfigEntry(name, value) for name, value in settings.items()}

        return self._asked("describe_configs", {each: functools.partial(of, each) for each in resources})

    def list_offsets(self, wanted: Mapping[TopicPartition, Any], **_: Any) -> dict[Any, Future[Any]]:
        """Where partitions begin and end."""

        def of(tp: TopicPartition, spec: Any) -> ListOffsetsResultInfo:
            if self._cluster.find(place_of(tp)) is None:
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
            return ListOffsetsResultInfo(offset_for(self._cluster, place_of(tp), spec._value), -1, -1)

        return self._asked(
            "list_offsets", {tp: functools.partial(of, tp, spec) for tp, spec in wanted.items()}
        )

    def describe_consumer_groups(self, groups: Iterable[str], **_: Any) -> dict[str, Future[Any]]:
        """Their members, and what the coordinator has assigned to them."""

        def of(name: str) -> ConsumerGroupDescription:
            members = [
                MemberDescription(
                    member.id,
                    member.name,
                    "",
                    MemberAssignment([TopicPartition(*place) for place in sorted(member.owned)]),
                    member.instance,
                )
                for member in self._cluster.group(name).members.values()
            ]
            return ConsumerGroupDescription(
                name, False, members, "range", ConsumerGroupState.STABLE, Node(1, "simulated", 9092)
            )

        return self._asked("describe_consumer_groups", {name: functools.partial(of, name) for name in groups})

    def list_topics(self, topic: str | None = None, timeout: float = 60.0) -> Any:
        """The topics, and their partitions."""
        return list_topics(self._cluster, self.host, topic, timeout)

    def poll(self, timeout: float = 0) -> int:
        """Nothing: there are no callbacks."""
        self._cluster.time.enter(self.host)
        return 0
