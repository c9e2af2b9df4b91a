"""A worker as a member of its group: the partitions that it owns, those that have started, and why it may not go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from confluent_kafka import KafkaError, TopicPartition

from kafka_notify._base.clock import boottime
from kafka_notify._fetch.channels import Channels

ByTopic = list[tuple[str, frozenset[int]]]
"""Topics, source first, with numbers of their partitions."""


class GroupMember:
    """The state of one worker's membership. Changed by the fetch thread alone, but for `fatal` and `abandoned`.

    Args:
        group: The consumer group.
        topics: Names of source and retry topic.
        channels: The consumer's channels.
        boottime: Returns seconds that go on in suspension.
    """

    def __init__(
        self,
        group: str,
        topics: tuple[str, str],
        channels: Channels,
        boottime: Callable[[], float] = boottime,
    ) -> None:
        self.group = group
        self.topics = topics
        self.channels = channels
        self.boottime = boottime
        self.assigned: tuple[set[int], set[int]] = (set(), set())
        """Assigned partitions of source and retry topic."""
        self.started: dict[int, int] = {}
        """Epochs of the pairs that were handed to the engine and not taken back."""
        self.topic_ids: dict[int, tuple[str, ...]] = {}
        """Ids of the topics that each pair's offsets belong to."""
        self.paused: set[int] = set()
        """Paused source partitions."""
        self.half_since: dict[int, float] = {}
        """Partitions of which only source or retry is assigned, with the `boottime` since when."""
        self.unassigned_since: float | None = None
        """`boottime` since when the group has not answered with an assignment; None when it has."""
        self.fenced = False
        """True once the broker refused our membership: no pair starts until a new assignment."""
        self.fatal: KafkaError | None = None
        """The error after which this consumer cannot go on."""
        self.abandoned = False
        """True once the worker has failed: nothing is committed any more."""

    def joins(self) -> None:
        """Begin as a new member, which has no partitions yet."""
        if self.unassigned_since is None:
            self.unassigned_since = self.boottime()
        for kept in (*self.assigned, self.started, self.paused, self.half_since):
            kept.clear()
        self.fenced = False

    def startable(self) -> set[int]:
        """Pairs of which both partitions are assigned and that have not started."""
        return (self.assigned[0] & self.assigned[1]) - self.started.keys()

    def places(self) -> frozenset[tuple[str, int]]:
        """All assigned partitions, as topic and number."""
        return frozenset(
            (topic, n) for topic, numbers in zip(self.topics, self.assigned, strict=True) for n in numbers
        )

    def gain(self, partitions: Iterable[TopicPartition]) -> ByTopic:
        """Add assigned partitions; return them by topic."""
        found = self._by_topic(partitions)
        for assigned, (_, numbers) in zip(self.assigned, found, strict=True):
            assigned |= numbers
        self._note_halves()
        return found

    def leave(self, partitions: Iterable[TopicPartition]) -> None:
        """Remove partitions that are not assigned any more."""
        for assigned, (_, numbers) in zip(self.assigned, self._by_topic(partitions), strict=True):
            assigned -= numbers
        self.paused &= self.assigned[0]
        self._note_halves()

    def take_back(self, numbers: Iterable[int]) -> None:
        """End the work on these pairs."""
        for n in numbers:
            self.started.pop(n, None)

    def _by_topic(self, partitions: Iterable[TopicPartition]) -> ByTopic:
        partitions = list(partitions)
        return [
            (topic, frozenset(tp.partition for tp in partitions if tp.topic == topic))
            for topic in self.topics
        ]

    def _note_halves(self) -> None:
        now = self.boottime()
        halves = self.assigned[0] ^ self.assigned[1]
        self.half_since = {n: self.half_since.get(n, now) for n in halves}
