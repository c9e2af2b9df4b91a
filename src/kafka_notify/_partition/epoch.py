"""The facts of an assignment when it begins."""

from __future__ import annotations

import attrs

from kafka_notify._partition.commit_metadata import Committed


@attrs.frozen
class Epoch:
    """One assignment of a partition to a worker."""

    number: int
    """The partition's number in both topics."""
    writer: str
    """A fresh, unique id that marks the copies of this assignment."""
    serial: int = 0
    """Number of the assignment, for code on other threads that cannot compare objects."""
    topic_id: str = ""
    """ID of the source topic; empty when it is not known."""
    knows_topics: bool = True
    """True when the ids of both topics are known: see `RetryHalf`."""


@attrs.frozen
class Half:
    """The partition in one of the two topics, as the brokers knew it.

    The source's `end` is taken after that of the retry topic. Otherwise a copy of the source's newest record would seem
    to come from a topic that was created again.
    """

    committed: Committed
    """The last commit; in the retry topic with the fence of the assignment before."""
    start: int = 0
    """Start of the log."""
    end: int = 0
    """End of the log (`read_uncommitted`), taken after the assignment."""
