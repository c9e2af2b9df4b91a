"""The progress display of the demo: bars on a terminal, a line per second elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, TextIO

import attrs

BAR: Final = 20  # a line must fit into 80 columns: one that wraps cannot be overwritten


@attrs.frozen
class LaneProgress:
    """The progress of a lane."""

    name: str
    total: int
    produced: int
    sent: int
    waiting: int
    """Notifications that failed and will be retried."""
    dead: int


class Screen:
    """Writes progress to a stream."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self._moves = self._out.isatty()
        self._drawn = 0
        self._told_at = float("-inf")

    def show(self, lanes: Sequence[LaneProgress], seconds: float, *, last: bool = False) -> None:
        """Update the display; `seconds` is the time since the start. Without a terminal at most once a second."""
        if self._moves:
            lines = [_bar(lane) for lane in lanes]
            up = f"\x1b[{self._drawn}F" if self._drawn else ""
            self._out.write(up + "".join(f"\x1b[K{line}\n" for line in lines))
            self._drawn = len(lines)
        elif last or seconds - self._told_at >= 1:
            self._told_at = seconds
            told = "   ".join(f"{lane.name} {lane.sent + lane.dead:,}/{lane.total:,}" for lane in lanes)
            self._out.write(f"{seconds:5.0f} s   {told}\n")
        self._out.flush()


def _bar(lane: LaneProgress) -> str:
    done = lane.sent + lane.dead
    full = BAR * done // max(lane.total, 1)
    queued = BAR * lane.produced // max(lane.total, 1) - full
    bar = "█" * full + "▒" * queued + "·" * (BAR - full - queued)
    return f"  {lane.name:<14}{bar} {done:>6,} of {lane.total:<6,} {lane.waiting:>4,} waiting {lane.dead:>4,} dead"
