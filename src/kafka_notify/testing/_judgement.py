"""The judgement of a history: the answer of `kafka-notify check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from kafka_notify.testing.attempt_log import Accepted, Produced, Sampled, Skipped
from kafka_notify.testing.guarantees import (
    DuplicatesBounded,
    Guarantees,
    Isolation,
    Letter,
    Liveness,
    LogEnds,
    OneAtATime,
    OrderKept,
    SourceRecord,
    Violation,
)
from kafka_notify.testing.history import Header, HistoryFile

SHOWN: Final = 1_000
"""Violations that an answer lists; all of them are counted."""


def guarantees_of(header: Header) -> Guarantees:
    """Return the checkers of the promises that a header names."""
    held = Guarantees.all(
        max_attempts=header.max_attempts,
        isolation=Isolation(handover=header.handover, settle=header.settle),
        liveness=Liveness(handover=header.handover, settle=header.settle),
    )
    return held if header.order == "user" else held.without(OrderKept, OneAtATime)


def judged(history: HistoryFile) -> dict[str, Any]:
    """Judge a history, and return the answer of the command.

    Raises:
        HistoryError: The file cannot be read.
    """
    header = history.header
    held = guarantees_of(header)
    kinds: Counter[type] = Counter()
    ended: dict[type, set[str]] = {Accepted: set(), Skipped: set()}
    for seen in history:
        kinds[type(seen)] += 1
        if isinstance(seen, (Accepted, Skipped)):
            ended[type(seen)].add(seen.id)
        held.observe(seen)
    duplicates = held.checker(DuplicatesBounded)
    needs = {
        "order and overlaps (`order` is none)": header.order == "user",
        "times and memory (no samples)": bool(kinds[Sampled]),
        "dead letters (the topics were not read)": bool(kinds[SourceRecord]) or not kinds[Letter],
        "what is proved lost (the ends of the topics are missing)": bool(kinds[LogEnds]),
    }
    return {
        "format": "kafka-notify-check",
        "version": 1,
        "observations": kinds.total(),
        "notifications": kinds[Produced],
        "accepted": len(ended[Accepted]),
        "skipped": len(ended[Skipped]),
        "dead_letters": kinds[Letter],
        "duplicates": duplicates.duplicates,
        "duplicates_bound": duplicates.exposed,
        "not_judged": [what for what, is_judged in needs.items() if not is_judged],
        **_found(held.found()),
    }


def _found(found: Sequence[tuple[str, Violation]]) -> dict[str, Any]:
    return {
        "count": len(found),
        "anomalies": dict(Counter(violation.anomaly for _, violation in found).most_common()),
        "violations": [
            {
                "anomaly": violation.anomaly,
                "checker": checker,
                "lines": [number + 1 for number in violation.lines],  # the header is line 1
                "text": violation.text,
            }
            for checker, violation in found[:SHOWN]
        ],
    }
