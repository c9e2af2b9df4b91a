"""Which channels a group's commits are of: a worker passes over the channels that it does not send, and commits that.

While a consumer is given another channel, workers of both versions share its group. One of the old version would pass
over what its newer neighbours send. So each commit says which channels its writer sends, and a worker that sends fewer
halts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Sequence
from typing import Final

import attrs
from confluent_kafka import Consumer, KafkaException, TopicPartition

from kafka_notify._partition.commit_metadata import decode_metadata

ALL: Final = "*"
MAX_CHANNELS: Final = 32
"""Of more, commits say nothing: they must fit beside the bits and fences."""
LOOK: Final = 5.0
"""Seconds between two looks at what the neighbours send: that long an old worker may go on passing over."""
TIMEOUT: Final = 1.0
"""Seconds that a look may take."""
COUNT_AGAIN: Final = 60
"""Looks after which the partitions are counted again."""


def digest(channel: str) -> str:
    """Four hexadecimal digits that stand for a channel in a commit."""
    return hashlib.blake2b(channel.encode(), digest_size=2).hexdigest()


@attrs.frozen
class Channels:
    """What a consumer sends.

    Args:
        sent: Names of its channels; empty is all.
        dropped: Those that it sent once, and passes over on purpose now.
    """

    sent: frozenset[str]
    dropped: frozenset[str] = frozenset()

    @property
    def digests(self) -> tuple[str, ...]:
        """What its commits say; empty when they are too many."""
        if not self.sent:
            return (ALL,)
        return tuple(sorted(map(digest, self.sent))) if len(self.sent) <= MAX_CHANNELS else ()

    def missing(self, committed: Collection[str], known: Collection[str]) -> tuple[str, ...]:
        """The channels that were sent by the writer of a commit, and would be passed over here.

        Args:
            committed: Digests of the commit.
            known: Channels of the topology, which give the digests their names back.
        """
        if not self.sent:
            return ()
        names = {digest(name): name for name in {*known, *self.sent, *self.dropped}}
        ours = set(map(digest, self.sent | self.dropped))
        if ALL in committed:
            return tuple(sorted(set(names.values()) - self.sent - self.dropped))
        return tuple(sorted(names.get(each, f"#{each}") for each in set(committed) - ours))

    def added(self, committed: Collection[str], known: Collection[str]) -> tuple[str, ...]:
        """The channels that the writer of a commit passed over, and that are sent here."""
        if not committed or ALL in committed:
            return ()
        return tuple(sorted(name for name in self.sent or known if digest(name) not in committed))


class Neighbours:
    """What the other partitions of a group were committed with. For the thread that owns the Consumer.

    By the Consumer itself: librdkafka 2.16's AdminClient.list_consumer_group_offsets ends the process with a
    segmentation fault when the coordinator moves meanwhile.

    Args:
        group: The consumer group.
        topic: The source topic.
    """

    def __init__(self, group: str, topic: str) -> None:
        self._group = group
        self._topic = topic
        self._next = 0.0
        self._partitions = 0
        self._looks = 0

    def look(self, consumer: Consumer) -> Sequence[tuple[str, ...]] | None:
        """The channels of the commits of all partitions, each combination once; None while it is not time, or when
        the brokers do not answer. Blocks for a round trip every 5 s, for a second at most."""
        now = time.monotonic()
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
        """Look again at once: partitions were assigned."""
        self._next = 0.0
