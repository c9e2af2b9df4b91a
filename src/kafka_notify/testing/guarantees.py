"""The promises of the library as checkers that judge what happened, for your own suites and soak runs.

Each checker is given every observation in order (`observe`), and then lists what was wrong (`violations`). There are
three sources of observations: the attempt log (`attempt_log`), which workers and the producing side write; lines of
`kafka_watch` about the group's commits and copies; and its final look at the topics.

    held = Guarantees.all(max_attempts=4)
    for line in LogTail("attempts.jsonl"):
        held.observe(line)
    for seen in watch.final():
        held.observe(seen)
    held.verify()

The order is that of the log, not of the clock: a line comes after another when it was written after it. `OnTime`,
`Isolation` and `Liveness` judge recorded times too, as their promises are about time. `Isolation`, `Liveness` and
`Memory` need the samples of `kafka_notify.testing.worker_samples`. One log and one set of checkers judge one consumer
group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from typing_extensions import Self

from kafka_notify.testing._checker import (
    Anomaly,
    Checker,
    Letter,
    LogEnds,
    Observation,
    SourceRecord,
    Violation,
)
from kafka_notify.testing._commit_checkers import (
    CaughtUp,
    CommitsOnlyGrow,
    DuplicatesBounded,
    NothingOpenCommitted,
)
from kafka_notify.testing._isolation_checker import Isolation, Wait
from kafka_notify.testing._liveness_checker import Liveness
from kafka_notify.testing._loss_checker import NothingLost
from kafka_notify.testing._memory_checker import Memory
from kafka_notify.testing._origin_checkers import Conserved, LettersFaithful
from kafka_notify.testing._send_checkers import (
    AttemptsBounded,
    OneAtATime,
    OnTime,
    OrderKept,
    SendsMonotonic,
)

__all__ = [
    "Anomaly",
    "AttemptsBounded",
    "CaughtUp",
    "Checker",
    "CommitsOnlyGrow",
    "Conserved",
    "DuplicatesBounded",
    "Guarantees",
    "Isolation",
    "Letter",
    "LettersFaithful",
    "Liveness",
    "LogEnds",
    "Memory",
    "NothingLost",
    "NothingOpenCommitted",
    "Observation",
    "OnTime",
    "OneAtATime",
    "OrderKept",
    "SendsMonotonic",
    "SourceRecord",
    "Violation",
    "Wait",
]


C = TypeVar("C", bound=Checker)


class Guarantees:
    """Several checkers over the same observations.

    Args:
        checkers: The checkers. Each is given every observation.
    """

    def __init__(self, checkers: Iterable[Checker]) -> None:
        self.checkers: tuple[Checker, ...] = tuple(checkers)

    @classmethod
    def all(
        cls,
        *,
        max_attempts: int,
        isolation: Isolation | None = None,
        liveness: Liveness | None = None,
        memory: Memory | None = None,
    ) -> Self:
        """Return all checkers, for a consumer with `Ordering.USER`.

        Args:
            max_attempts: The limit of the consumer's retry policy.
            isolation: The checker of isolation, if not the default one; likewise `liveness` and `memory`.
        """
        return cls(
            [
                NothingLost(), SendsMonotonic(), OrderKept(), OneAtATime(), OnTime(), AttemptsBounded(max_attempts),
                Conserved(), NothingOpenCommitted(), CommitsOnlyGrow(), DuplicatesBounded(), LettersFaithful(),
                CaughtUp(), isolation or Isolation(), liveness or Liveness(), memory or Memory(),
            ]
        )  # fmt: skip

    def without(self, *kinds: type[Checker]) -> Self:
        """Return the other checkers.

        Args:
            kinds: Classes of checkers.
        """
        return type(self)(checker for checker in self.checkers if not isinstance(checker, kinds))

    def checker(self, kind: type[C]) -> C:
        """Return the checker of a class; there must be one."""
        return next(checker for checker in self.checkers if isinstance(checker, kind))

    def observe(self, seen: Observation, /) -> None:
        """Give an observation to every checker."""
        for checker in self.checkers:
            checker.observe(seen)

    def found(self) -> Sequence[tuple[str, Violation]]:
        """Return the violations of all checkers, each after its checker's name."""
        return [(type(c).__name__, violation) for c in self.checkers for violation in c.violations()]

    def violations(self) -> Sequence[str]:
        """Return the violations of all checkers as sentences, each with the checker's name and the anomaly's."""
        return [f"{checker}: {violation}" for checker, violation in self.found()]

    def verify(self) -> None:
        """Raise an AssertionError that lists the violations, if there are any."""
        found = self.violations()
        if found:
            raise AssertionError(f"{len(found)} violations:\n" + "\n".join(found[:30]))
