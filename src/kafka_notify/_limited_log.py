"""Lines that a fault would repeat with every record, written once a minute each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

EVERY: Final = 60.0
"""Seconds between two lines of the same text."""
MAX_TEXTS: Final = 100
"""Texts remembered; beyond that the oldest is forgotten, and may be written again earlier."""


class LimitedLog:
    """Writes a text once, then at most once a minute with how often it was left out.

    Args:
        log: Where to.
        clock: Monotonic seconds.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._texts: dict[str, tuple[float, int]] = {}

    def warning(self, text: str) -> None:
        """Write it as a warning, unless it was written within the last minute. The text holds no personal value."""
        self._write(logging.WARNING, text, "")

    def error(self, text: str, detail: str) -> None:
        """The same as an error, with what is another thing each time: the detail of the first is written."""
        self._write(logging.ERROR, text, detail)

    def _write(self, level: int, text: str, detail: str) -> None:
        now = self._clock()
        at, left_out = self._texts.get(text, (-EVERY, 0))
        if now - at < EVERY:
            self._texts[text] = at, left_out + 1
            return
        self._texts.pop(text, None)
        if len(self._texts) >= MAX_TEXTS:
            del self._texts[next(iter(self._texts))]
        self._texts[text] = now, 0
        line = f"{text}: {detail}" if detail else text
        if left_out:
            self._log.log(level, "%s (and %d times more in the last %.0f s)", line, left_out, now - at)
        else:
            self._log.log(level, "%s", line)
