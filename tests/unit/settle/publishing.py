"""What a publisher of copies is told, where no worker runs."""

from __future__ import annotations

from typing import Any, Final, cast

from kafka_notify import Category, RetryPolicy
from kafka_notify._base.clock import Clock
from kafka_notify._decision.context import Context
from kafka_notify.codec import JsonCodec
from kafka_notify.events import OnEvent

NOW: Final = 1_800_000_000_000


def publishing(retry: RetryPolicy | None = None, on_event: OnEvent | None = None) -> Context:
    """The context of a worker whose clock stands at `NOW`."""
    return Context(
        loop=cast(Any, None),
        clock=Clock(wall=lambda: NOW / 1000),
        source="source",
        retry_topic="retry",
        dead_letter_topic="dlq",
        group="group",
        categories={"news": Category("news", "l")},
        codec=JsonCodec(),
        retry=retry or RetryPolicy(4),
        send_timeout=30.0,
        concurrency=1,
        unknown="retry",
        on_event=on_event,
    )
