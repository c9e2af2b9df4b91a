"""An asyncio event loop whose time is a `VirtualTime`."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

from tests.simulation.kafka.virtual_time import INF, VirtualTime

Ready = list[tuple[selectors.SelectorKey, int]]


class _Selector(selectors.SelectSelector):
    """Waits in virtual time. All that it can be woken by is the loop's own pipe: there is no I/O."""

    def __init__(self, time: VirtualTime, host: str) -> None:
        super().__init__()
        self._time = time
        self._host = host

    def select(self, timeout: float | None = None) -> Ready:
        if timeout is None or timeout > 0:
            peek = super().select
            self._time.wait(lambda: bool(peek(0)), INF if timeout is None else timeout, self._host)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that shows virtual time, on whatever thread it runs.

    Args:
        time: The time.
        host: Whose threads stop together.
    """

    def __init__(self, time: VirtualTime, host: str = "") -> None:
        self._virtual = time
        super().__init__(_Selector(time, host))

    def time(self) -> float:
        """Monotonic seconds."""
        return self._virtual.now

    def __repr__(self) -> str:
        return f"<VirtualLoop at {self._virtual.now:g}>"


def loop_factory(time: VirtualTime, host: str = "") -> Any:
    """Makes such loops."""
    return lambda: VirtualLoop(time, host)
