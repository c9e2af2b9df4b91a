"""Apache Kafka on this machine, the topics of each piece of work, and backlogs to drain."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Final, TypeVar

from confluent_kafka.admin import AdminClient, NewTopic
from kafka_notify import Producer

from benchmarks.load import HIGH, LOW, PARTITIONS, Mix, marketing, topology

T = TypeVar("T")
SPAWN: Final = get_context("spawn")


def apart(function: Callable[..., T], *args: Any) -> T:
    """Call `function` in a fresh process of its own."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *args).result()


class Cluster:
    """Topics and backlogs on one Kafka cluster."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._backlogs: dict[tuple[str, Mix], int] = {}
        self._names = itertools.count()

    def backlog(self, records: int, mix: Mix = "even") -> str:
        """The prefix of topics whose low lane holds at least `records` notifications."""
        prefix = f"bench-{mix}"
        have = self._backlogs.get((prefix, mix))
        if have is None:
            self.create([t for lane in (LOW, HIGH) for t in (topology(prefix).source_topic(lane),)])
            self.create([topology(prefix).dlq_topic(LOW)])
            have = 0
        if have < records:
            apart(_fill, self.bootstrap, prefix, have, records, mix)
        self._backlogs[prefix, mix] = max(have, records)
        return prefix

    def consumer(self, prefix: str, lane: str = LOW) -> str:
        """A new consumer name: its group starts at the beginning, its retry topic is empty."""
        name = f"run{next(self._names)}"
        self.create([topology(prefix).retry_topic(lane, name)])
        return name

    def create(self, topics: Sequence[str]) -> None:
        """Create topics of 30 partitions and wait until they can be used."""
        for future in self._admin.create_topics([NewTopic(t, PARTITIONS, 1) for t in topics]).values():
            future.result()
        for topic in topics:
            while len(self._admin.list_topics(topic, timeout=10).topics[topic].partitions) < PARTITIONS:
                time.sleep(0.05)

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics, so that the broker does not carry them through the next measurement."""
        for future in self._admin.delete_topics(list(topics)).values():
            future.result()


def _fill(bootstrap: str, prefix: str, first: int, last: int, mix: Mix) -> None:
    with Producer({"bootstrap.servers": bootstrap}, topology=topology(prefix), max_block=60) as producer:
        for number in range(first, last):
            producer.send(marketing(number, mix))
        producer.flush(120)
