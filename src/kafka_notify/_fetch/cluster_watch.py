"""Facts about the cluster that change under a running worker: topic ids, retention, the neighbours' channels."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer

from kafka_notify._fetch.channels import Neighbours
from kafka_notify._fetch.exchange import Receiver
from kafka_notify._fetch.group_member import GroupMember
from kafka_notify._fetch.retention import RetentionWatch
from kafka_notify._fetch.topic_ids import TopicIds, changed
from kafka_notify._kafka.clients import LIBRDKAFKA, Clients
from kafka_notify._kafka.config import Config


class ClusterWatch:
    """Asks from time to time, on the fetch thread. Only the look at the neighbours blocks, for a round trip.

    Args:
        config: A complete consumer configuration.
        member: The worker in its group.
        clients: Clients of the cluster, for all that the thread opens, and its runtime.
    """

    def __init__(self, config: Config, member: GroupMember, clients: Clients = LIBRDKAFKA) -> None:
        self.clients = clients
        self._member = member
        topics = member.topics
        admin: Any = clients.admin(config)
        monotonic = clients.runtime.monotonic
        self._topic_ids = TopicIds(admin, topics, monotonic)
        self._retention = RetentionWatch(
            admin, topics, lambda: [(t, n) for n in member.started for t in topics], monotonic
        )
        self._neighbours = Neighbours(member.group, topics[0], monotonic) if member.channels.sent else None

    @property
    def topic_ids(self) -> tuple[str, ...]:
        """Ids of source and retry topic; empty when they are not known."""
        return self._topic_ids.known

    def awaited(self) -> bool:
        """Return True while the first answers are worth waiting for before a partition starts."""
        return self._topic_ids.awaited() or self._retention.awaited()

    def look_at_neighbours_soon(self) -> None:
        """Make the next `look` ask for the neighbours' channels: partitions were assigned."""
        if self._neighbours is not None:
            self._neighbours.soon()

    def look(self, consumer: Consumer, receiver: Receiver) -> None:
        """Tell `receiver` of new answers. Call it often."""
        member = self._member
        if (settings := self._retention.settings()) is not None:
            receiver.retention(settings)
        if (starts := self._retention.starts()) is not None:
            receiver.log_starts(starts)
        if (
            self._neighbours is not None
            and member.assigned[0]
            and (found := self._neighbours.look(consumer)) is not None
        ):
            receiver.neighbours(found)
        if not self._topic_ids.look():
            return
        now, known = self._topic_ids.known, member.topic_ids
        for topic in {t for n in member.started for t in changed(member.topics, known[n], now)}:
            receiver.recreated(topic)
        for n in member.started:
            known[n] = known[n] or now
