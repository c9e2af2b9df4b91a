"""A trace as a table for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from kafka_notify._partition.commit_metadata import Committed
from tests.model.promises import RETRY, SOURCE, Copy, Stored

if TYPE_CHECKING:
    from tests.exhaustive.broker import Now
    from tests.exhaustive.owners import Call
    from tests.exhaustive.search import Report

HEAD: Final = ("step", "who", "what", "sent or written", "retry log", "committed: source", "retry")


def render(report: Report) -> str:
    """The shortest way to the broken promise, one step a line, with the retry log and the commits after each."""
    broken = report.broken
    assert broken is not None
    rows = [HEAD]
    for number, step in enumerate(broken.steps, 1):
        rows.append((str(number), str(step.who), step.what, said(step.calls), *step.shown))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    text = f"{broken.kind}: {broken.text}"
    title = f"{text}\n({report.scenario.name}: {len(broken.steps)} steps, after {broken.states:,} states)\n"
    return "\n".join([title, *(line.rstrip() for line in lines)])


def said(calls: Iterable[Call]) -> str:
    """What an owner does to the world."""
    return ", ".join(text for call in calls if (text := _said(*call)))


def _said(name: str, *args: Any) -> str:
    match name, args:
        case "check_start", (_, origin, _, int(attempts), _):
            return f"sends {origin}, attempt {attempts + 1}"
        case "accept", (origin,):
            return f"{origin} is accepted"
        case "write", (Copy() as copy,):
            return _copy(copy)
        case "letter", (origin, _, expired):
            return f"dead letter of {origin}" + (", expired" if expired else "")
        case "ask", (asked,):
            return f"source {_bits(asked.source)}, retry {_bits(asked.retry)}"
        case "skip", (origin,):
            return f"{origin} is superseded"
        case _:
            return ""


def _copy(copy: Copy) -> str:
    of = f"{copy.origin}" if not copy.redrives else f"{copy.origin} redriven"
    return f"{of}/{copy.attempt} by {copy.writer}"


def shown(now: Now) -> tuple[str, str, str]:
    """The retry log, and what is committed of each half."""
    log = "; ".join(_copy(copy) for copy in now.retry)
    source, retry = (
        Stored(where, *stored).get() for where, stored in zip((SOURCE, RETRY), now.stored, strict=True)
    )
    return log, _bits(source), _bits(retry) + (f" by {retry.fence.writer}" if retry.fence else "")


def _bits(committed: Committed) -> str:
    return f"{committed.frontier}" + (f" + {committed.gaps.decode()}" if committed.gaps else "")
