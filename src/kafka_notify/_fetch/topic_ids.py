"""Whether topics are still those whose offsets were committed: one that was deleted and created anew has another id.

Offsets of the old one mean nothing in the new one. A worker that goes on at the old position skips what the new one
holds below it, and when a retry topic went, the copies that its group's commits rest on went with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from kafka_notify._config import Config, client_config, opened

log = logging.getLogger("kafka_notify.fetch")

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
        config: Of any client of the cluster.
        topics: Their names.
    """

    def __init__(self, config: Config, topics: tuple[str, ...]) -> None:
        self._admin: Any = opened(AdminClient, client_config(config))
        self._topics = topics
        self._next = time.monotonic()
        self._patient_until = self._next + PATIENCE
        self._asked: Mapping[str, Future[Any]] | None = None
        self._refused: int | None = None
        """Code of the last answer if that was an error, which is told once."""
        self.known: tuple[str, ...] = ()
        """As last answered, in the order of the topics; a text is empty where brokers have no ids (before 2.8)."""

    def awaited(self) -> bool:
        """Whether the first answer is still to come, and worth waiting for."""
        return not self.known and self._refused is None and time.monotonic() < self._patient_until

    def look(self) -> bool:
        """Whether there is a new answer. Call it often."""
        if self._asked is None:
            if time.monotonic() >= self._next:
                self._asked = self._admin.describe_topics(
                    TopicCollection(list(self._topics)), request_timeout=LOOK
                )
            return False
        if not all(future.done() for future in self._asked.values()):
            return False
        asked, self._asked = self._asked, None
        self._next = time.monotonic() + LOOK
        try:
            ids = [asked[topic].result().topic_id for topic in self._topics]
        except KafkaException as e:
            if e.args[0].code() != self._refused:
                self._refused = e.args[0].code()
                log.warning("%s cannot be described: %s", " or ".join(self._topics), e.args[0].name())
            return False
        self._refused = None
        self.known = tuple(
            str(id) if id.get_most_significant_bits() or id.get_least_significant_bits() else "" for id in ids
        )
        return True
