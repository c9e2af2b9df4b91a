"""Log lines that a fault repeats with every record or every second: written at once, then at growing intervals."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Hashable
from typing import Final

import attrs

EVERY: Final = 60.0
"""Seconds between the first two lines of one kind; each further interval is twice as long."""
SELDOM: Final = 600.0
"""The longest interval between two lines of one kind, in seconds, while the fault continues."""
MAX_TEXTS: Final = 100
"""Kinds remembered; beyond that the oldest is forgotten, and its next line may come early."""


@attrs.define
class _Seen:
    at: float
    every: float
    taken: int = 1
    left_out: int = 0


class Repeats:
    """Decides which repetitions are written. Threads that race may let a few more pass.

    Args:
        burst: Lines of one kind within `every` seconds.
        every: Seconds.
        longest: Seconds up to which `every` doubles each time, while a kind continues.
    """

    def __init__(self, burst: int = 1, every: float = EVERY, longest: float = SELDOM) -> None:
        self._burst = burst
        self._every = every
        self._longest = longest
        self._seen: dict[Hashable, _Seen] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def take(self, kind: Hashable, now: float) -> tuple[int, float] | None:
        """Decide whether one more line of a kind is written at `now`, in monotonic seconds.

        Returns:
            How many lines were left out before this one, and in how many seconds; None to leave this one out.
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
    """Writes a text once, then again after one, two, four, up to ten minutes, with the number of lines left out.

    Args:
        log: The logger.
        clock: Returns monotonic seconds.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._repeats = Repeats()

    def __len__(self) -> int:
        return len(self._repeats)

    def warning(self, text: str, detail: str = "") -> None:
        """Write a warning, unless the same text was written recently. Neither part may contain a personal value.

        Args:
            text: What happened; the same text for the same kind.
            detail: What may differ each time; written with the text.
        """
        self._write(logging.WARNING, text, detail)

    def error(self, text: str, detail: str = "") -> None:
        """Write an error, with the same limits as `warning`."""
        self._write(logging.ERROR, text, detail)

    def _write(self, level: int, text: str, detail: str) -> None:
        taken = self._repeats.take(text, self._clock())
        if taken is not None:
            # A handler whose stream is closed prints the exception being handled; one of user code may raise then.
            with contextlib.suppress(Exception):
                self._log.log(
                    level, "%s", f"{text}: {detail}{more(*taken)}" if detail else text + more(*taken)
                )


class Calm(logging.Filter):
    """A logging filter that limits the lines of each kind as `Repeats` decides.

    Lines are of one kind when they differ only in words that contain a digit (names of clients and threads, addresses,
    durations). DEBUG passes.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._repeats = Repeats()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write the record, and add the number of lines left out to its text."""
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
    """The end of a line that says how many were left out; empty for none."""
    return f" (and {left_out} more times in the last {seconds:.0f} s)" if left_out else ""
