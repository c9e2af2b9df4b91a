"""An asyncio event loop whose time is a `VirtualTime`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tests.simulation.kafka.virtual_time import INF, Turn, VirtualTime


class _Selector:
    """Waits in virtual time. There is no I/O: only the loop's own wake-ups end a wait."""

    def __init__(self, time: VirtualTime, host: str) -> None:
        self._time = time
        self._host = host
        self._woken = False
        self._waiter: Turn | None = None

    def wake(self) -> None:
        """End a wait, from any thread."""
        self._woken = True
        if self._waiter is not None:
            self._time.wake(self._waiter)

    def select(self, timeout: float | None = None) -> list[Any]:
        """Wait for a wake-up, for so many seconds."""
        if self._woken or (timeout is not None and timeout <= 0):
            self._time.give_way(self._host)
        else:
            self._waiter = self._time.running
            try:
                self._time.wait(None, INF if timeout is None else timeout, self._host)
            finally:
                self._waiter = None
        self._woken = False
        return []

    def close(self) -> None:
        """Nothing is open."""

    def get_map(self) -> dict[Any, Any]:
        """Nothing is registered."""
        return {}


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop that shows virtual time, on whatever thread it runs.

    Args:
        time: The time.
        host: Whose threads stop together.
    """

    def __init__(self, time: VirtualTime, host: str = "") -> None:
        super().__init__()
        self._virtual = time
        self._host = host
        self._selector = _Selector(time, host)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Monotonic seconds."""
        return self._virtual.now

    def _write_to_self(self) -> None:
        self._selector.wake()

    def call_exception_handler(self, context: Any) -> None:
        """Tell of an error, unless the host was killed: nobody ends its tasks."""
        if self._host not in self._virtual.killed:
            super().call_exception_handler(context)

    def _process_events(self, events: Any) -> None:
        """There are none."""

    def run_in_executor(self, executor: Any, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Call a function on a thread of the simulation."""
        made: Future[Any] = self._virtual.begin(functools.partial(call, *args), self._host)
        return asyncio.wrap_future(made, loop=self)

    def __del__(self, _warn: Any = None) -> None:
        """Nothing is open, so that one need not be closed: that of a killed host."""

    def __repr__(self) -> str:
        return f"<VirtualLoop at {self._virtual.now:g}>"


def loop_factory(time: VirtualTime, host: str = "") -> Any:
    """Makes such loops."""
    return lambda: VirtualLoop(time, host)
