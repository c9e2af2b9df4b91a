"""Which channels a group's commits are of: a worker passes over the channels that it does not send, and commits that.

While a consumer is given another channel, workers of both versions share its group. One of the old version would pass
over what its newer neighbours send. So each commit says which channels its writer sends, and a worker that sends fewer
halts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import attrs
from confluent_kafka import ConsumerGroupTopicPartitions

from kafka_notify._fetch.offsets import decode_metadata
from kafka_notify._fetch.question import Question

ALL: Final = "*"
MAX_CHANNELS: Final = 32
"""Of more, commits say nothing: they must fit beside the bits and fences."""
LOOK: Final = 5.0
"""Seconds between two looks at what the neighbours send: that long an old worker may go on passing over."""
PATIENCE: Final = 2.0
"""Seconds that the first partitions wait for the first answer; then they start without."""


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
    """Asks from time to time what the group has committed of all its partitions; never blocks.

    Needs no right that a member does not have.

    Args:
        admin: An AdminClient of the cluster.
        group: The consumer group.
        topic: The source topic.
    """

    def __init__(self, admin: Any, group: str, topic: str) -> None:
        self._admin = admin
        self._group = group
        self._topic = topic
        self._question = Question(self._ask, f"what {group} has committed", every=LOOK, first=0)
        self._patient_until = time.monotonic() + PATIENCE
        self._answered = False

    def _ask(self) -> Mapping[str, Future[Any]]:
        asked: Mapping[str, Future[Any]] = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(self._group)], request_timeout=LOOK * 2
        )
        return asked

    def awaited(self) -> bool:
        """Whether the first answer is still to come, and worth waiting for."""
        waits = not self._answered and self._question.refused is None
        return waits and time.monotonic() < self._patient_until

    def look(self) -> Sequence[tuple[str, ...]] | None:
        """The channels of the commits of all partitions, each combination once; None without a new answer."""
        answer = self._question.answer()
        if answer is None:
            return None
        self._answered = True
        return tuple(
            {
                found.channels: None
                for tp in answer[self._group].topic_partitions
                if tp.topic == self._topic and tp.offset >= 0 and tp.error is None
                for found in [decode_metadata(tp.offset, tp.metadata, self._group, tp.topic, tp.partition)]
                if found.channels
            }
        )
