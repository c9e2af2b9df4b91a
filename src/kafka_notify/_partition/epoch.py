"""What is known of an assignment when it begins."""

from __future__ import annotations

import attrs

from kafka_notify._partition.commit_metadata import Committed


@attrs.frozen
class Epoch:
    """One assignment of a partition to a worker."""

    number: int
    """The partition's number in both topics."""
    writer: str
    """Fresh and unique: marks the copies of this assignment."""
    serial: int = 0
    """Which assignment this is, for those who cannot compare objects."""
    topic_id: str = ""
    """Of the source topic; empty when it is not known."""
    knows_topics: bool = True
    """Whether the ids of both topics are known: see `RetryHalf`."""


@attrs.frozen
class Half:
    """The partition in one of the two topics, as the brokers knew it.

    The source's `end` is taken after that of the retry topic, or a copy of its newest record would pass for one of a
    topic that was created again.
    """

    committed: Committed
    """With the fence of the assignment before, in the retry topic."""
    start: int = 0
    """Where the log starts."""
    end: int = 0
    """Where it ends, read_uncommitted, taken after the assignment."""
