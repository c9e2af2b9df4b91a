"""Topic ids, by which a worker notices that a topic was deleted and created again: the new topic has another id.

Offsets of the old topic mean nothing in the new one. A worker that goes on at the old position skips the records that
the new topic holds below it. With a deleted retry topic go the copies that its group's commits rely on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import TopicCollection

from kafka_notify._base.runtime import SYSTEM
from kafka_notify._fetch.periodic_query import PeriodicQuery

LOOK: Final = 10.0
"""Seconds between two looks: a reset of the offsets brings back what a running worker skips in between."""
PATIENCE: Final = 2.0
"""Seconds that the first partitions wait for the first answer; then they start without ids."""


def changed(topics: tuple[str, ...], old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """The topics whose id has changed; an unknown id does not count as a change."""
    return tuple(
        topic for topic, was, now in zip(topics, old, new, strict=False) if was and now and was != now
    )


class TopicIds:
    """Asks for the ids of topics from time to time. Never blocks; the right to read a topic is enough.

    Args:
        admin: An AdminClient of the cluster.
        topics: Names of the topics.
        monotonic: Returns seconds.
    """

    def __init__(
        self, admin: Any, topics: tuple[str, ...], monotonic: Callable[[], float] = SYSTEM.monotonic
    ) -> None:
        self._topics = topics
        self._monotonic = monotonic
        self._patient_until = monotonic() + PATIENCE
        self._query = PeriodicQuery(
            admin, self._ask, " or ".join(topics), "Describe topic", every=LOOK, first=0, monotonic=monotonic
        )
        self.known: tuple[str, ...] = ()
        """The last answer, in the order of the topics; an id is empty where brokers have none (before 2.8)."""

    def _ask(self, admin: Any) -> Mapping[str, Future[Any]]:
        asked: Mapping[str, Future[Any]] = admin.describe_topics(
            TopicCollection(list(self._topics)), request_timeout=LOOK
        )
        return asked

    def awaited(self) -> bool:
        """Return True while the first answer is worth waiting for."""
        return not self.known and self._query.refused is None and self._monotonic() < self._patient_until

    def look(self) -> bool:
        """Take in an answer; True if there is a new one. Call it often."""
        answer = self._query.answer()
        if answer is None:
            return False
        ids = [answer[topic].topic_id for topic in self._topics]
        self.known = tuple(
            str(id) if id.get_most_significant_bits() or id.get_least_significant_bits() else "" for id in ids
        )
        return True
