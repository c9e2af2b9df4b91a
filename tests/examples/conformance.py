"""What the tests of the example senders share."""

from __future__ import annotations

from typing import Any

from kafka_notify import Consumer, DeliveryError, Notification
from kafka_notify.outcome import Dead, Outcome, Retry
from kafka_notify.testing import deliver


def told(outcome: Outcome) -> tuple[object, ...]:
    """What it is, and what its error says."""
    assert isinstance(outcome, (Retry, Dead)), outcome
    assert outcome.error is not None
    return type(outcome), type(outcome.error), outcome.error.code


def error_of(outcome: Outcome) -> DeliveryError:
    """The error of an outcome that is none of acceptance."""
    assert isinstance(outcome, (Retry, Dead)), outcome
    assert outcome.error is not None
    return outcome.error


async def one(consumer: Consumer, notification: Notification[Any], **options: Any) -> Outcome:
    """One attempt of a consumer that is set up for it alone."""
    await consumer.setup()  # type: ignore[misc]  # those of the examples are async
    try:
        return await deliver(consumer, notification, **options)
    finally:
        await consumer.teardown()  # type: ignore[misc]
