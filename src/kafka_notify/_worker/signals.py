"""The signals that end a process, taken while its workers run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals(on_signal: Callable[[int], None]) -> Generator[Callable[[], bool]]:
    """Call `on_signal` with the number of signals so far at each SIGTERM and SIGINT; yields what says that one came.

    Python runs signal handlers in the main thread alone: in another one nothing is taken.
    """
    count = 0

    def asked() -> bool:
        return count > 0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal count
        count += 1
        on_signal(count)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
