"""The channels behind a group's commits: a worker passes over records of other channels and commits them as finished.

While a consumer gets another channel, workers of both versions share its group. One of the old version would pass over
what its newer neighbours send. So each commit says which channels its writer sends, and a worker that sends fewer
halts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Final

import attrs
from confluent_kafka import Consumer, KafkaException, TopicPartition

from kafka_notify._base.runtime import SYSTEM
from kafka_notify._partition.commit_metadata import decode_metadata

ALL: Final = "*"
MAX_CHANNELS: Final = 32
"""Commits of a consumer with more channels name none: the names share the metadata with gap bits and fences."""
LOOK: Final = 5.0
"""Seconds between two looks at the neighbours' channels, and so how long an old worker may go on passing over them."""
TIMEOUT: Final = 1.0
"""Seconds that each request of a look may take."""
COUNT_AGAIN: Final = 60
"""Looks after which the partitions are counted again."""


def digest(channel: str) -> str:
    """Four hexadecimal digits that stand for a channel in a commit."""
    return hashlib.blake2b(channel.encode(), digest_size=2).hexdigest()


@attrs.frozen
class Channels:
    """The channels of a consumer.

    Args:
        sent: Names of the channels that it sends; empty means all.
        dropped: Names of channels that it sent once and now passes over on purpose.
    """

    sent: frozenset[str]
    dropped: frozenset[str] = frozenset()

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests that its commits name; empty when there are too many channels."""
        if not self.sent:
            return (ALL,)
        return tuple(sorted(map(digest, self.sent))) if len(self.sent) <= MAX_CHANNELS else ()

    def missing(self, committed: Collection[str], known: Collection[str]) -> tuple[str, ...]:
        """Channels that the writer of a commit sends and this consumer would pass over.

        Args:
            committed: Digests in the commit.
            known: Channels of the topology, by which digests are turned back into names.
        """
        if not self.sent:
            return ()
        names = {digest(name): name for name in {*known, *self.sent, *self.dropped}}
        ours = set(map(digest, self.sent | self.dropped))
        if ALL in committed:
            return tuple(sorted(set(names.values()) - self.sent - self.dropped))
        return tuple(sorted(names.get(each, f"#{each}") for each in set(committed) - ours))

    def added(self, committed: Collection[str], known: Collection[str]) -> tuple[str, ...]:
        """Channels that the writer of a commit passed over and this consumer sends."""
        if not committed or ALL in committed:
            return ()
        return tuple(sorted(name for name in self.sent or known if digest(name) not in committed))


class Neighbours:
    """The channels named in the commits of a group's other partitions. For the thread that owns the Consumer.

    The Consumer itself is asked: librdkafka 2.16's AdminClient.list_consumer_group_offsets ends the process with a
    segmentation fault when the coordinator moves meanwhile.

    Args:
        group: The consumer group.
        topic: The source topic.
        monotonic: Returns seconds.
    """

    def __init__(self, group: str, topic: str, monotonic: Callable[[], float] = SYSTEM.monotonic) -> None:
        self._group = group
        self._topic = topic
        self._monotonic = monotonic
        self._next = 0.0
        self._partitions = 0
        self._looks = 0

    def look(self, consumer: Consumer) -> Sequence[tuple[str, ...]] | None:
        """Return the channels that the commits of all partitions name, each combination once.

        Blocks for a round trip every 5 s, for at most a second per request. None between two looks, and when the
        brokers do not answer.
        """
        now = self._monotonic()
        if now < self._next:
            return None
        self._next = now + LOOK
        try:
            if self._looks % COUNT_AGAIN == 0:
                topic = consumer.list_topics(self._topic, timeout=TIMEOUT).topics[self._topic]
                self._partitions = len(topic.partitions)
            self._looks += 1
            places = [TopicPartition(self._topic, n) for n in range(self._partitions)]
            answer = consumer.committed(places, timeout=TIMEOUT) if places else []
        except KafkaException:
            return None
        found: dict[tuple[str, ...], None] = {}
        for tp in answer:
            if tp.error is None and tp.offset >= 0:
                state = decode_metadata(tp.offset, tp.metadata, self._group, tp.topic, tp.partition)
                if state.channels:
                    found[state.channels] = None
        return tuple(found)

    def soon(self) -> None:
        """Make the next `look` ask: partitions were assigned."""
        self._next = 0.0
