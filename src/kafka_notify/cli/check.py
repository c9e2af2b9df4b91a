"""`check`: what is wrong in the history of a run, found again from its file alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

import click

from kafka_notify.cli._site import Answers

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
    from kafka_notify.testing._judgement import SHOWN, judged
    from kafka_notify.testing.history import HistoryError, HistoryFile

    answers = Answers(as_json)
    try:
        answer = judged(HistoryFile(history, max_bytes=max_size * MEBIBYTE))
    except HistoryError as e:
        answers.answer({"error": str(e), "line": e.line})
        click.echo(f"kafka-notify: {e}", err=True)
        return UNREADABLE
    answers.say(
        f"{answer['observations']:,} observations of {answer['notifications']:,} notifications: "
        f"{answer['accepted']:,} accepted, {answer['skipped']:,} skipped, {answer['dead_letters']:,} dead letters; "
        f"{answer['duplicates']:,} duplicates, of at most {answer['duplicates_bound']:,} that faults explain"
    )
    if answer["not_judged"]:
        answers.say(f"not judged: {', '.join(answer['not_judged'])}")
    shown: Counter[str] = Counter()
    for found in answer["violations"]:
        if shown[found["anomaly"]] < OF_EACH:
            shown[found["anomaly"]] += 1
            lines = ", ".join(map(str, found["lines"]))
            where = f"{found['checker']}, line {lines}" if lines else found["checker"]
            answers.say(f"{found['anomaly']} ({where}): {found['text']}")
    if left := answer["count"] - shown.total():
        answers.say(f"… and {left:,} more; --json lists the first {SHOWN:,}")
    anomalies = ", ".join(f"{count:,} {name}" for name, count in answer["anomalies"].items())
    answers.say(f"violations: {anomalies}" if anomalies else "no violations")
    answers.answer(answer)
    return 1 if answer["count"] else 0
