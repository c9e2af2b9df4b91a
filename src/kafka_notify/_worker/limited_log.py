"""Warnings that a fault repeats with every record, written once a minute each."""

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
        now = self._clock()
        at, left_out = self._texts.get(text, (-EVERY, 0))
        if now - at < EVERY:
            self._texts[text] = at, left_out + 1
            return
        self._texts.pop(text, None)
        if len(self._texts) >= MAX_TEXTS:
            del self._texts[next(iter(self._texts))]
        self._texts[text] = now, 0
        if left_out:
            self._log.warning("%s (and %d times more in the last %.0f s)", text, left_out, now - at)
        else:
            self._log.warning("%s", text)
