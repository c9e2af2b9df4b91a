"""Polling of records in batches, for any consumer."""

from __future__ import annotations

from confluent_kafka import Consumer, Message


def poll_batch(consumer: Consumer, seconds: float, size: int) -> list[Message]:
    """Return the next records, at most `size`; wait up to `seconds` for the first record only.

    `consume(size, seconds)` alone would wait for a full batch.
    """
    first = consumer.poll(seconds)
    return [] if first is None else [first, *consumer.consume(size - 1, 0)]
