"""What all parts of a worker need to know: one value that never changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import attrs

from kafka_notify._base.clock import Clock
from kafka_notify._wire.headers import Headers
from kafka_notify._wire.undecoded import collapse_of, expiry, identity
from kafka_notify.codec import Codec
from kafka_notify.events import OnEvent
from kafka_notify.notification import Category
from kafka_notify.policy import RetryPolicy, UnknownOutcome


@attrs.frozen
class Context:
    """One worker's surroundings.

    Args:
        loop: Runs everything but the fetch thread and the senders' threads.
        clock: Epoch milliseconds, and monotonic seconds.
        source: Name of the source topic; likewise `retry_topic` and `dead_letter_topic`.
        group: The consumer group.
        categories: Of the topology: their ttl and dead-letter policy.
        codec: Value bytes to data.
        retry: The policy of the consumer, or of the lane.
        send_timeout: Seconds for one send.
        concurrency: Sends under way at most.
        unknown: What follows an unknown outcome.
        on_event: Told of each event, never raises; None when nobody listens.
    """

    loop: asyncio.AbstractEventLoop
    clock: Clock
    source: str
    retry_topic: str
    dead_letter_topic: str
    group: str
    categories: Mapping[str, Category[Any]]
    codec: Codec
    retry: RetryPolicy
    send_timeout: float
    concurrency: int
    unknown: UnknownOutcome
    on_event: OnEvent | None

    def facts(
        self, headers: Headers, partition: int, origin: int, timestamp: int
    ) -> tuple[str, int, int | None, str]:
        """Id, creation and expiry (epoch ms) of a notification, and what it collapses with, without decoding it."""
        id, created = identity(headers, self.source, partition, origin, timestamp)
        return id, created, expiry(headers, created, self.categories), collapse_of(headers)
