"""The values that fetch thread and event loop exchange, and the engine as the fetch thread sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs
from confluent_kafka import KafkaError, Message

from kafka_notify._partition.commit_metadata import Committed


@attrs.frozen
class Start:
    """The committed state and the log ranges of a partition pair that is to start."""

    number: int
    epoch: int
    """Number of the start: a commit for another epoch of the same partition must not be carried out."""
    source: Committed
    retry: Committed
    source_range: tuple[int, int]
    retry_range: tuple[int, int]
    topic_ids: tuple[str, ...] = ()
    """Ids of source and retry topic; empty when they are not known."""
    uncommitted: tuple[bool, bool] = (False, False)
    """For the source and the retry partition: True if the group has no committed offset."""


@attrs.frozen
class CommitRequest:
    """Snapshots of partition pairs: source and retry of a pair always travel in one request."""

    pairs: Mapping[int, tuple[Committed, Committed]]
    epochs: Mapping[int, int]
    """Epoch of each partition in which its snapshot was made."""


@attrs.frozen
class CommitResult:
    """The outcome of a commit request."""

    request: CommitRequest
    confirmed: frozenset[int]
    sent_at: float
    """`boottime` just before the commit was sent: the lease counts from there."""
    error: str | None = None
    epoch_ended: bool = False


class Receiver(Protocol):
    """The engine, as the fetch thread sees it. Each call is safe from that thread; all but `drain` return at once."""

    def feed(self, batch: list[Message], size: int, /) -> None:
        """Take records and end-of-partition marks, in order; `size` is the bytes of their values."""

    def started(self, start: Start, /) -> None:
        """Restore a partition pair; its records follow."""

    def committed(self, result: CommitResult, /) -> None:
        """Take the answer to `FetchLoop.commit`."""

    def drain(self, numbers: frozenset[int], /) -> CommitRequest:
        """Let the running sends of these partitions end, within the drain timeout, and return the commit of them."""
        ...

    def recreated(self, topic: str, /) -> None:
        """A topic was deleted and created again since its partitions started."""

    def retention(self, settings: Mapping[str, int], /) -> None:
        """Take the topics' `retention.ms`."""

    def log_starts(self, starts: Mapping[tuple[str, int], int], /) -> None:
        """Take the partitions' first offsets: retention may have removed unread records."""

    def neighbours(self, channels: Sequence[tuple[str, ...]], /) -> None:
        """Take the channels that the workers of the group send, by their commits."""

    def forget(self, numbers: frozenset[int], /, *, lost: bool) -> None:
        """Drop these partitions: they do not belong to this worker any more."""

    def assigned(self, topic: str, numbers: frozenset[int], /) -> None:
        """A rebalance gave partitions to this worker."""

    def fail(self, error: BaseException, /) -> None:
        """The fetch thread cannot go on."""

    def kafka_error(self, error: KafkaError, topic: str = "", /) -> None:
        """librdkafka reported an error, about one topic or in general."""
