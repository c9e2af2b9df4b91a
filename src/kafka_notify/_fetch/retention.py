"""Queries for how long the topics keep records and how far retention has come.

Nothing else shows a shortened setting, or records that were removed unread: a consumer whose position was removed goes
on at the first remaining record without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from kafka_notify._base.runtime import SYSTEM
from kafka_notify._fetch.periodic_query import PeriodicQuery

SETTINGS_LOOK: Final = 300.0
"""Seconds between two looks at the topics' settings."""
PATIENCE: Final = 2.0
"""Seconds that the first partitions wait for the first answer about settings: before it, a retry that waits longer than
the default retention is dead-lettered, as the topic may not keep it."""
STARTS_LOOK: Final = 30.0
"""Seconds between two looks at the partitions' first offsets."""
_TIMEOUT: Final = 10.0
_SPEC: Final[Any] = OffsetSpec  # its methods are untyped

Starts = Mapping[tuple[str, int], int]


class RetentionWatch:
    """Asks for `retention.ms` of topics, and for the log starts of this worker's partitions. Never blocks.

    The settings need the right to DescribeConfigs on the topics. If it is missing, that is logged once and the settings
    stay unknown.

    Args:
        admin: An AdminClient of the cluster.
        topics: Names of the topics.
        owned: Returns the partitions whose log starts are wanted, as topic and number.
        monotonic: Returns seconds.
    """

    def __init__(
        self,
        admin: Any,
        topics: tuple[str, ...],
        owned: Callable[[], Iterable[tuple[str, int]]],
        monotonic: Callable[[], float] = SYSTEM.monotonic,
    ) -> None:
        self._topics = topics
        self._owned = owned
        self._monotonic = monotonic
        self._patient_until = monotonic() + PATIENCE
        self._known = False
        self._settings = PeriodicQuery(
            admin,
            self._ask_settings,
            f"retention.ms of {' and '.join(topics)} (taken to be the default)",
            "DescribeConfigs topic",
            every=SETTINGS_LOOK,
            first=0,
            monotonic=monotonic,
        )
        self._starts = PeriodicQuery(
            admin,
            self._ask_starts,
            "where the partitions begin",
            "Describe topic",
            every=STARTS_LOOK,
            first=STARTS_LOOK,
            monotonic=monotonic,
        )

    def _ask_settings(self, admin: Any) -> Mapping[str, Future[Any]]:
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in self._topics]
        asked = admin.describe_configs(resources, request_timeout=_TIMEOUT)
        return {resource.name: future for resource, future in asked.items()}

    def _ask_starts(self, admin: Any) -> Mapping[tuple[str, int], Future[Any]]:
        wanted = {TopicPartition(*place): _SPEC.earliest() for place in self._owned()}
        if not wanted:
            return {}
        asked = admin.list_offsets(wanted, request_timeout=_TIMEOUT)
        return {(tp.topic, tp.partition): future for tp, future in asked.items()}

    def settings(self) -> Mapping[str, int] | None:
        """`retention.ms` of each topic, -1 for no limit; None without a new answer. Call it often."""
        answer = self._settings.answer()
        if answer is None:
            return None
        self._known = True
        return {topic: int(found["retention.ms"].value) for topic, found in answer.items()}

    def awaited(self) -> bool:
        """Return True while the first answer about settings is worth waiting for."""
        return not self._known and self._settings.refused is None and self._monotonic() < self._patient_until

    def starts(self) -> Starts | None:
        """The first offset of each partition; None without a new answer. Call it often."""
        answer = self._starts.answer()
        return None if answer is None else {place: found.offset for place, found in answer.items()}
