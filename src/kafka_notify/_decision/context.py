"""The context of a worker: settings and services that all its parts share, as one frozen value."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import attrs

from kafka_notify._base.clock import Clock
from kafka_notify._base.runtime import SYSTEM, Runtime
from kafka_notify._wire.headers import Headers
from kafka_notify._wire.undecoded import collapse_of, expiry, identity
from kafka_notify.codec import Codec
from kafka_notify.events import OnEvent
from kafka_notify.notification import Category
from kafka_notify.policy import RetryPolicy, UnknownOutcome


@attrs.frozen
class Context:
    """Settings and services that all parts of one worker share.

    Args:
        loop: Event loop of everything but the fetch thread and the senders' threads.
        clock: Tells epoch milliseconds and monotonic seconds.
        source: Name of the source topic; likewise `retry_topic` and `dead_letter_topic`.
        group: Name of the consumer group.
        categories: The topology's categories, with their ttl and dead-letter policy.
        codec: Turns value bytes into data.
        retry: Retry policy of the consumer, else of the lane.
        send_timeout: Seconds for one send.
        concurrency: Sends under way, at most.
        unknown: What follows an unknown outcome.
        on_event: Called with each event, and never raises; None when nobody listens.
        runtime: Threads, waits and ids.
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
    runtime: Runtime = SYSTEM

    def facts(
        self, headers: Headers, partition: int, origin: int, timestamp: int
    ) -> tuple[str, int, int | None, str]:
        """ID, creation and expiry (epoch ms) and collapse key of a notification, without decoding its data."""
        id, created = identity(headers, self.source, partition, origin, timestamp)
        return id, created, expiry(headers, created, self.categories), collapse_of(headers)
