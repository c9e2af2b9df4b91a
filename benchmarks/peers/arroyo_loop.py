"""sentry-arroyo: a chain of strategies that ends in CommitOffsets; threads when a send takes time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from arroyo.backends.kafka import KafkaConsumer  # type: ignore[import-not-found]
from arroyo.backends.kafka.configuration import (  # type: ignore[import-not-found]
    build_kafka_consumer_configuration,
)
from arroyo.commit import ONCE_PER_SECOND  # type: ignore[import-not-found]
from arroyo.processing.processor import StreamProcessor  # type: ignore[import-not-found]
from arroyo.processing.strategies import CommitOffsets, RunTask, RunTaskInThreads  # type: ignore[import-not-found]
from arroyo.types import Topic  # type: ignore[import-not-found]

from benchmarks.peers.measure import Measure

measure = Measure()


def send(message: Any) -> Any:
    """The sender."""
    number = measure.begin(message.payload.value)
    if measure.latency:
        time.sleep(measure.latency)
    measure.end(number)
    return message.payload


class Factory:
    """Creates the chain for each assignment."""

    def create_with_partitions(self, commit: Any, partitions: Mapping[Any, int]) -> Any:
        """Send, then commit."""
        if not measure.latency:
            return RunTask(send, CommitOffsets(commit))
        waiting = 4 * measure.concurrency
        return RunTaskInThreads(send, measure.concurrency, waiting, CommitOffsets(commit))

    def shutdown(self) -> None:
        """Nothing is held."""


consumer = KafkaConsumer(
    build_kafka_consumer_configuration(
        {}, bootstrap_servers=[measure.bootstrap], group_id=measure.group, auto_offset_reset="earliest"
    )
)
StreamProcessor(consumer, Topic(measure.topic), Factory(), ONCE_PER_SECOND).run()
