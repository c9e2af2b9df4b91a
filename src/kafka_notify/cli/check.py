"""`check`: what is wrong in the history of a run, found again from its file alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from kafka_notify.cli._site import Site
from kafka_notify.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kafka_notify.testing.guarantees import Violation
    from kafka_notify.testing.history import HistoryFile

SHOWN: Final = 1_000
"""Violations that an answer in JSON lists; all of them are counted."""
OF_EACH: Final = 10
"""Violations of each kind that a person is shown."""
MEBIBYTE: Final = 1 << 20
UNREADABLE: Final = 2


@click.command()
@click.argument("history", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option(
    "--max-size",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    metavar="MIB",
    help="Refuse a larger file: checking one takes about five times its size in memory.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def check(history: Path, max_size: int, as_json: bool) -> int:
    """Check the HISTORY of a run: what was lost, sent twice, out of order, committed ahead of done.

    The file is described in docs/testing.md. No cluster is needed. Exit codes: 0 clean, 1 violations, 2 the file cannot
    be read (the line is named).
    """
    from kafka_notify.testing.history import HistoryError, HistoryFile

    site = Site({}, Topology.default(), as_json)
    try:
        answer = judged(HistoryFile(history, max_bytes=max_size * MEBIBYTE))
    except HistoryError as e:
        site.answer({"error": str(e), "line": e.line})
        click.echo(f"kafka-notify: {e}", err=True)
        return UNREADABLE
    site.say(
        f"{answer['observations']:,} observations of {answer['notifications']:,} notifications: "
        f"{answer['accepted']:,} accepted, {answer['skipped']:,} skipped, {answer['dead_letters']:,} dead letters; "
        f"{answer['duplicates']:,} duplicates, of at most {answer['duplicates_bound']:,} that faults explain"
    )
    if answer["not_judged"]:
        site.say(f"not judged: {', '.join(answer['not_judged'])}")
    shown: Counter[str] = Counter()
    for found in answer["violations"]:
        if shown[found["anomaly"]] < OF_EACH:
            shown[found["anomaly"]] += 1
            lines = ", ".join(map(str, found["lines"]))
            where = f"{found['checker']}, line {lines}" if lines else found["checker"]
            site.say(f"{found['anomaly']} ({where}): {found['text']}")
    if left := answer["count"] - shown.total():
        site.say(f"… and {left:,} more; --json lists the first {SHOWN:,}")
    anomalies = ", ".join(f"{count:,} {name}" for name, count in answer["anomalies"].items())
    site.say(f"violations: {anomalies}" if anomalies else "no violations")
    site.answer(answer)
    return 1 if answer["count"] else 0


def judged(history: HistoryFile) -> dict[str, Any]:
    """Return the answer of the command.

    Raises:
        HistoryError: The file cannot be read.
    """
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
    )

    header = history.header
    held = Guarantees.all(
        max_attempts=header.max_attempts,
        isolation=Isolation(handover=header.handover, settle=header.settle),
        liveness=Liveness(handover=header.handover, settle=header.settle),
    )
    if header.order == "none":
        held = Guarantees(c for c in held.checkers if not isinstance(c, (OrderKept, OneAtATime)))
    kinds: Counter[type] = Counter()
    ended: dict[type, set[str]] = {Accepted: set(), Skipped: set()}
    for seen in history:
        kinds[type(seen)] += 1
        if isinstance(seen, (Accepted, Skipped)):
            ended[type(seen)].add(seen.id)
        held.observe(seen)
    duplicates = next(c for c in held.checkers if isinstance(c, DuplicatesBounded))
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
        "not_judged": [what for what, judged in needs.items() if not judged],
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
