"""Runs the consumer's hooks around sends. A failed hook is reported and never repeats a send."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kafka_notify import events
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._base.where import detail, name_of, origin
from kafka_notify._send.attempt import AttemptRunner
from kafka_notify.consumer import Consumer
from kafka_notify.notification import Notification, Receipt

if TYPE_CHECKING:
    from kafka_notify._partition.entry import Assignment
    from kafka_notify._wire.dead_letter import DeadLetter

log = logging.getLogger("kafka_notify.send")

GRACE: Final = 5.0
"""Seconds that a hook may go on after it was cancelled before it counts as stuck."""


class Hooks:
    """Calls the hooks that a team's consumer overrides, each with a time limit.

    Args:
        consumer: The team's consumer.
        runner: Calls hooks on the event loop or on a thread.
        timeout: Seconds for one hook.
        on_event: Told of hooks that failed; None when nobody listens.
    """

    def __init__(
        self, consumer: Consumer, runner: AttemptRunner, timeout: float, on_event: events.OnEvent | None
    ) -> None:
        self._consumer = consumer
        self._runner = runner
        self._timeout = timeout
        self._on_event = on_event
        self._failures = LimitedLog(log)
        self._left: set[asyncio.Task[str]] = set()
        defined = consumer._overridden
        self.on_sent = consumer.on_sent if "on_sent" in defined else None
        self.on_dead_letter = consumer.on_dead_letter if "on_dead_letter" in defined else None

    @property
    def stuck(self) -> int:
        """Async hooks that ignored their cancellation and still run."""
        return len(self._left)

    async def setup(self) -> None:
        """Run `setup`; whatever it raises stops the worker."""
        await self._runner.call(self._consumer.setup)

    async def teardown(self) -> None:
        """Run `teardown`."""
        await self._run("teardown", None, self._consumer.teardown)

    async def sent(self, notification: Notification[Any], receipt: Receipt, partition: Assignment) -> None:
        """Run `on_sent`; a hand-over of `partition` waits for it."""
        partition.outstanding += 1
        try:
            await self._run("on_sent", notification.id, self._consumer.on_sent, notification, receipt)
        finally:
            partition.outstanding -= 1

    async def dead_letter(self, letter: DeadLetter) -> None:
        """Run `on_dead_letter`."""
        await self._run("on_dead_letter", letter.id, self._consumer.on_dead_letter, letter)

    async def _run(self, name: str, id: str | None, hook: Callable[..., Any], *args: Any) -> None:
        await absorb(asyncio.current_task())
        task = asyncio.get_running_loop().create_task(self._outcome(name, id, hook, args))
        try:
            await asyncio.wait({task}, timeout=self._timeout)
            error = task.result() if task.done() else "TimeoutError"
            if not task.done():
                self._failures.error(
                    f"{name} did not return within {self._timeout:g} s", f"notification {id}"
                )
        finally:
            task.cancel()  # also when the caller is cancelled: the hook must not outlive the worker
        if not task.done():
            await asyncio.wait({task}, timeout=GRACE)
        if not task.done():
            self._left.add(task)
            task.add_done_callback(self._left.discard)
        if error and self._on_event:
            self._on_event(events.HookFailed(name, id, error))

    async def _outcome(
        self, name: str, id: str | None, hook: Callable[..., Any], args: tuple[Any, ...]
    ) -> str:
        """Run a hook; return the class of the exception that it raised, else ''. So its task never fails."""
        try:
            await self._runner.call(hook, *args)
        except BaseException as e:
            if not issubclass(type(e), asyncio.CancelledError):
                self._failures.error(f"{name} raised {origin(e)}", f"for notification {id}")
                detail(log, e)
            return name_of(e)
        return ""


async def absorb(task: asyncio.Task[Any] | None) -> None:
    """Swallow a cancellation that user code requested of its own task: it would be raised at the next `await`."""
    known: Any = task
    # new in Python 3.11; before that the task ends, and another takes its place
    while getattr(known, "cancelling", int)():
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass
        known.uncancel()  # else `asyncio.timeout` in a later send goes wrong
