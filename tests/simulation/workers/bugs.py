"""Bugs that the simulation must catch, each planted for as long as a `with` block lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from kafka_notify._fetch import partition_feed, rebalance
from kafka_notify._partition.offsets import OffsetTracker
from kafka_notify._partition.partition import Partition
from kafka_notify._settle import copies
from kafka_notify._settle.publisher import CopyPublisher
from tests.guarantees import bugs

TOUCHED: Final[tuple[Any, ...]] = (
    Partition, OffsetTracker, CopyPublisher, partition_feed, partition_feed.PartitionFeed,
    rebalance.Rebalance, copies.CopyWriter,
)  # fmt: skip


def forget_a_failed_copy() -> None:
    """A copy that could not be written is not written again, and counts as written."""

    def give_up(self: Any, copy: Any) -> None:
        if not copy.abandoned:
            copy.acknowledged(0)

    copies.CopyWriter._failed = give_up  # type: ignore[method-assign]


def hand_over_without_waiting() -> None:
    """Partitions are given back while their sends run."""

    def hasty(self: Any, consumer: Any, numbers: frozenset[int]) -> None:
        self._member.take_back(numbers)
        self._receiver.forget(numbers, lost=False)

    rebalance.Rebalance.hand_back = hasty  # type: ignore[method-assign]


BUGS: Final[Mapping[str, tuple[Callable[[], None], str, int]]] = {
    bug.__name__: (bug, checker, first)
    for bug, checker, first in (
        (bugs.commit_highest_polled, "NothingOpenCommitted", 0),
        (bugs.complete_before_acknowledgement, "NothingOpenCommitted", 1),
        (bugs.restart_attempts, "AttemptsBounded", 0),
        (bugs.overtake, "OrderKept", 0),
        (bugs.skip_restore, "NothingLost", 0),
        (bugs.forget_finished, "DuplicatesBounded", 0),
        (hand_over_without_waiting, "DuplicatesBounded", 6),
        (forget_a_failed_copy, "NothingLost", 0),
    )
}
"""Bugs, each with the checker that must find it in one of the first 30 seeds, and the seed to begin with."""


@contextmanager
def planted(bug: Callable[[], None]) -> Iterator[None]:
    """Break the library, and repair it at the end."""
    kept = [(holder, dict(vars(holder))) for holder in TOUCHED]
    try:
        bug()
        yield
    finally:
        for holder, before in kept:
            for name, value in vars(holder).copy().items():
                if name not in before:
                    delattr(holder, name)
                elif before[name] is not value:
                    setattr(holder, name, before[name])
