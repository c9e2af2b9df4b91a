"""How records are taken from a consumer, whoever owns it."""

from __future__ import annotations

from confluent_kafka import Consumer, Message


def poll_batch(consumer: Consumer, seconds: float, size: int) -> list[Message]:
    """The next records, at most `size`; waits up to `seconds` for the first one, and for no other.

    `consume(size, seconds)` alone would wait all that time for a full batch.
    """
    first = consumer.poll(seconds)
    return [] if first is None else [first, *consumer.consume(size - 1, 0)]
