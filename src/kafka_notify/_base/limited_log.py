"""Lines that a fault would repeat with every record or every second: told at once, then ever more seldom."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Hashable
from typing import Final

import attrs

EVERY: Final = 60.0
"""Seconds between the first two lines of one kind; each further wait is twice as long."""
SELDOM: Final = 600.0
"""Seconds between two lines of one kind at most, while it goes on."""
MAX_TEXTS: Final = 100
"""Kinds remembered; beyond that the oldest is forgotten, and may be written again earlier."""


@attrs.define
class _Seen:
    at: float
    every: float
    taken: int = 1
    left_out: int = 0


class Repeats:
    """What to tell of things that repeat. Threads that race may let a few more pass.

    Args:
        burst: Of one kind within `every` seconds.
        every: Seconds.
        longest: While a kind goes on, `every` doubles each time, up to this.
    """

    def __init__(self, burst: int = 1, every: float = EVERY, longest: float = SELDOM) -> None:
        self._burst = burst
        self._every = every
        self._longest = longest
        self._seen: dict[Hashable, _Seen] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def take(self, kind: Hashable, now: float) -> tuple[int, float] | None:
        """Whether one more of a kind is told at `now`, in monotonic seconds.

        Returns:
            How many were left out before it, and in how many seconds; None when it is left out itself.
        """
        seen = self._seen.get(kind)
        if seen is None:
            if len(self._seen) >= MAX_TEXTS:
                del self._seen[next(iter(self._seen))]
            self._seen[kind] = _Seen(now, self._every)
            return 0, 0.0
        passed = now - seen.at
        if passed >= seen.every:
            goes_on = seen.left_out and passed < 2 * seen.every + 1
            seen.every = min(2 * seen.every, self._longest) if goes_on else self._every
            seen.at = now
            seen.taken = 0
            self._seen[kind] = self._seen.pop(kind)  # the newest
        seen.taken += 1
        if seen.taken > self._burst:
            seen.left_out += 1
            return None
        left_out, seen.left_out = seen.left_out, 0
        return left_out, passed


class LimitedLog:
    """Writes a text once, then after a minute, two, four, up to ten, with how often it was left out.

    Args:
        log: Where to.
        clock: Monotonic seconds.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._repeats = Repeats()

    def __len__(self) -> int:
        return len(self._repeats)

    def warning(self, text: str, detail: str = "") -> None:
        """Write it as a warning, unless it was written lately. Neither part holds a personal value.

        Args:
            text: What happened; the same kind has the same text.
            detail: What may differ each time: only that of a written one is seen.
        """
        self._write(logging.WARNING, text, detail)

    def error(self, text: str, detail: str = "") -> None:
        """The same as an error."""
        self._write(logging.ERROR, text, detail)

    def _write(self, level: int, text: str, detail: str) -> None:
        taken = self._repeats.take(text, self._clock())
        if taken is not None:
            # A handler whose stream is closed prints what is being handled just now, which may not want to be read.
            with contextlib.suppress(Exception):
                self._log.log(
                    level, "%s", f"{text}: {detail}{more(*taken)}" if detail else text + more(*taken)
                )


class Calm(logging.Filter):
    """Lets through of each kind of a logger's lines what `Repeats` says. Lines are of one kind when they differ only in
    words that hold a digit (names of clients and threads, addresses, durations). DEBUG passes.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._repeats = Repeats()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written; its text then says how many were not."""
        if record.levelno <= logging.DEBUG:
            return True
        text = record.getMessage()
        taken = self._repeats.take(_DIFFERS.sub("#", text), self._clock())
        if taken is None:
            return False
        record.msg, record.args = "%s", (text + more(*taken),)
        return True


_DIFFERS: Final = re.compile(r"\[[^]]*\]|\S*\d\S*")


def more(left_out: int, seconds: float) -> str:
    """How many were left out."""
    return f" (and {left_out} times more in the last {seconds:.0f} s)" if left_out else ""
