"""What the library promises, as checkers that judge what happened: for suites and soak runs of your own.

Each checker is given everything that was observed (`observe`), in order, and then says what was wrong
(`violations`). Three sources feed them: the attempt log (`attempt_log`), which workers and the producing
side write; `kafka_watch`, which adds what the group committed and copied; and its final look at the topics.

    held = Guarantees.all(max_attempts=4)
    for line in LogTail("attempts.jsonl"):
        held.observe(line)
    for seen in watch.final():
        held.observe(seen)
    held.verify()

Order is the log's, not the clock's: a line stands after another when it was written after it. `OnTime`, `Isolation`
and `Liveness` judge recorded times too, as their promises are about time; the last two and `Memory` need the samples
of `kafka_notify.testing.worker_samples`. One log and one set of checkers judge one consumer group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from typing_extensions import Self

from kafka_notify.testing._checker import Checker, Letter, LogEnds, Observation, SourceRecord
from kafka_notify.testing._commit_checkers import (
    CaughtUp,
    CommitsOnlyGrow,
    DuplicatesBounded,
    NothingOpenCommitted,
)
from kafka_notify.testing._send_checkers import (
    AttemptsBounded,
    Conserved,
    LettersFaithful,
    NothingLost,
    OneAtATime,
    OnTime,
    OrderKept,
)
from kafka_notify.testing._time_checkers import Isolation, Liveness, Memory, Wait

__all__ = [
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
    "SourceRecord",
    "Wait",
]


class Guarantees:
    """Several checkers over the same observations.

    Args:
        checkers: Each is given every observation.
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
        """Every checker there is, for a consumer with `Ordering.USER`.

        Args:
            max_attempts: Of its retry policy.
            isolation: One with other arguments than its defaults; likewise `liveness` and `memory`.
        """
        return cls(
            [
                NothingLost(), OrderKept(), OneAtATime(), OnTime(), AttemptsBounded(max_attempts), Conserved(),
                NothingOpenCommitted(), CommitsOnlyGrow(), DuplicatesBounded(), LettersFaithful(), CaughtUp(),
                isolation or Isolation(), liveness or Liveness(), memory or Memory(),
            ]
        )  # fmt: skip

    def observe(self, seen: Observation, /) -> None:
        """Give an observation to every checker."""
        for checker in self.checkers:
            checker.observe(seen)

    def violations(self) -> Sequence[str]:
        """What every checker has to say, each with its name."""
        return [f"{type(c).__name__}: {text}" for c in self.checkers for text in c.violations()]

    def verify(self) -> None:
        """Raise an AssertionError that lists the violations, if there are any."""
        found = self.violations()
        if found:
            raise AssertionError(f"{len(found)} violations:\n" + "\n".join(found[:30]))
