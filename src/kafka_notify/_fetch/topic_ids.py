"""Whether topics are still those whose offsets were committed: one that was deleted and created anew has another id.

Offsets of the old one mean nothing in the new one. A worker that goes on at the old position skips what the new one
holds below it, and when a retry topic went, the copies that its group's commits rest on went with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import TopicCollection

from kafka_notify._fetch.question import Question

LOOK: Final = 10.0
"""Seconds between two looks: what a worker that runs may skip in between, a reset of the offsets brings back."""
PATIENCE: Final = 2.0
"""Seconds that the first partitions wait for the first answer; then they start without."""


def changed(topics: tuple[str, ...], old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the topics have other ids than before; an id that is not known is no other one."""
    return tuple(
        topic for topic, was, now in zip(topics, old, new, strict=False) if was and now and was != now
    )


class TopicIds:
    """Asks for the ids of topics from time to time; needs no right that a reader does not have. Never blocks.

    Args:
        admin: An AdminClient of the cluster.
        topics: Their names.
    """

    def __init__(self, admin: Any, topics: tuple[str, ...]) -> None:
        self._topics = topics
        self._patient_until = time.monotonic() + PATIENCE
        self._question = Question(
            admin, self._ask, " or ".join(topics), "Describe topic", every=LOOK, first=0
        )
        self.known: tuple[str, ...] = ()
        """As last answered, in the order of the topics; a text is empty where brokers have no ids (before 2.8)."""

    def _ask(self, admin: Any) -> Mapping[str, Future[Any]]:
        asked: Mapping[str, Future[Any]] = admin.describe_topics(
            TopicCollection(list(self._topics)), request_timeout=LOOK
        )
        return asked

    def awaited(self) -> bool:
        """Whether the first answer is still to come, and worth waiting for."""
        return not self.known and self._question.refused is None and time.monotonic() < self._patient_until

    def look(self) -> bool:
        """Whether there is a new answer. Call it often."""
        answer = self._question.answer()
        if answer is None:
            return False
        ids = [answer[topic].topic_id for topic in self._topics]
        self.known = tuple(
            str(id) if id.get_most_significant_bits() or id.get_least_significant_bits() else "" for id in ids
        )
        return True
