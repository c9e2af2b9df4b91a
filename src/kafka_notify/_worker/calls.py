"""Callbacks on a worker's event loop: the first that raises ends the worker, and none runs after that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from kafka_notify._worker.life import Life


class Calls:
    """Runs the callbacks of one worker.

    asyncio would log what a callback raises and go on; half-changed state must not go on.

    Args:
        loop: The event loop that runs the callbacks.
        life: The worker's state: no callback runs once it has an error.
        fail: Called with the exception that a callback raised.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, life: Life, fail: Callable[[BaseException], object]
    ) -> None:
        self._loop = loop
        self._life = life
        self.fail = fail
        """End the worker."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, call: Callable[..., object], *args: Any) -> None:
        """Run `call` now; on the loop."""
        if self._life.error is not None:
            return
        try:
            call(*args)
        except BaseException as e:
            self.fail(e)  # logs it without its text, which asyncio would log

    def soon(self, call: Callable[[], object]) -> None:
        """Run `call` in the next turn of the loop; on the loop."""
        self._loop.call_soon(self.run, call)

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Run `call` on the loop, from any thread, in the order of the posts."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended
            self._loop.call_soon_threadsafe(self.run, call, *args)

    def post_last(self, call: Callable[[], object]) -> None:
        """Run `call` as `post` does, and also after a failure."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task, and keep it alive; on the loop."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
        return task
