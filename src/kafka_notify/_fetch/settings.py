"""The settings of intake and the callbacks that it makes: values that never change."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
from confluent_kafka import KafkaError

from kafka_notify._base.clock import Clock
from kafka_notify._partition.partition import Partition
from kafka_notify._wire.pause import Paused
from kafka_notify.policy import Ordering
from kafka_notify.wire import Headers


@attrs.frozen(eq=False)
class IntakeSettings:
    """The settings of one worker's intake.

    Args:
        source: Name of the source topic.
        channels: Channels that the consumer sends; empty means all.
        ordering: The consumer's ordering.
        concurrency: Sends under way at most.
        paused: The pauses that apply now: while everything is paused, nothing is read.
        clock: Epoch milliseconds, and monotonic seconds.
        facts: Returns id, creation, expiry and collapse key of the notification in a retry record, given (headers,
            partition, origin, timestamp).
    """

    source: str
    channels: frozenset[str]
    ordering: Ordering
    concurrency: int
    paused: Paused
    clock: Clock
    facts: Callable[[Headers, int, int, int], tuple[str, int, int | None, str]]

    @property
    def records_in_queues(self) -> int:
        """Source records in users' queues, of all partitions together, from which on each keeps to its share."""
        # 8 x: among 2 x as many as may be sent at once too few belong to different users (measured)
        return min(max(8 * self.concurrency, 4_000), 40_000)


@attrs.frozen(eq=False)
class IntakeCallbacks:
    """The callbacks of intake, all on the event loop.

    Args:
        passed_over: Called for each record that another consumer sends.
        halt: Stops a partition, and says so.
        kafka_error: Takes the errors that librdkafka reports among the records, with their topic.
        fed: Called after records of these partitions were taken in.
        soon: Calls its argument in the next turn of the event loop.
    """

    passed_over: Callable[[], object]
    halt: Callable[[Partition, str], object]
    kafka_error: Callable[[KafkaError, str], object]
    fed: Callable[[Iterable[Partition]], object]
    soon: Callable[[Callable[[], object]], object]
