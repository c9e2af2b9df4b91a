"""Threads for plain (not async) senders and hooks, with batched hand-over to and from the event loop.

A job costs one queue put and a share of one loop wake-up; `ThreadPoolExecutor.submit` costs 10 us.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
from collections import deque
from collections.abc import Callable
from typing import Any

from kafka_notify._base.runtime import SYSTEM, Runtime
from kafka_notify._base.supervised import supervised


class _Job:
    __slots__ = ("args", "call", "context", "error", "future", "late", "result", "started", "stuck", "task")

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...], future: asyncio.Future[Any]) -> None:
        self.call = call
        self.args = args
        self.context = contextvars.copy_context()
        self.future = future
        self.started = False
        self.stuck = False
        self.task: asyncio.Task[Any] | None = None
        """The task on whose behalf it was given up, until `take_over`."""
        self.late: Callable[[], object] | None = None
        self.result: Any = None
        self.error: BaseException | None = None


class SendThreads:
    """Up to `size` busy threads, started as they are needed. All methods run on the event loop.

    A thread cannot be killed. A thread whose caller gave up is replaced, so that hanging sends do not starve the
    others; `stuck` counts them. There are at most twice `size` threads: when all of them hang, nothing more runs until
    one returns.

    Args:
        size: Busy threads, without those that are stuck.
        loop: The event loop on which results are handed back.
        ended: Called with the exception that ended a thread.
        runtime: Makes the threads and their queue.
    """

    def __init__(
        self,
        size: int,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[BaseException], object] = lambda error: None,
        runtime: Runtime = SYSTEM,
    ) -> None:
        self._size = size
        self._loop = loop
        self._ended = ended
        self._runtime = runtime
        self._jobs: queue.SimpleQueue[_Job | None] = runtime.queue()
        self._finished: deque[_Job] = deque()
        self._woken = False
        self._threads = 0
        self._open = 0
        self._running: dict[asyncio.Future[Any], _Job] = {}
        self._given_up: dict[asyncio.Task[Any] | None, _Job] = {}
        self.stuck = 0
        """Threads whose caller gave up and that have not returned."""

    def run(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Call a function on a thread, with the caller's context variables. Return a future of its result."""
        future = self._loop.create_future()
        job = _Job(call, args, future)
        self._running[future] = job
        self._open += 1
        if self._open > self._threads and self._threads < self._size + min(self.stuck, self._size):
            self._threads += 1
            supervised(self._work, f"kafka-notify send {self._threads}", self._ended, self._runtime).start()
        self._jobs.put(job)
        return future

    def give_up(self, future: asyncio.Future[Any], task: asyncio.Task[Any] | None) -> None:
        """Stop waiting for a job, on behalf of `task`. Its thread runs on, as a thread cannot be stopped."""
        job = self._running.get(future)
        if job is None:
            return
        future.cancel()
        if job.started:  # else no thread has taken it, and none will run it
            self.stuck += 1
            job.stuck = True
            job.task = task
            self._given_up[task] = job

    def take_over(self, task: asyncio.Task[Any] | None, late: Callable[[], object]) -> bool:
        """Have `late` called on the loop when the thread that `task` gave up returns; False when there is none."""
        job = self._given_up.pop(task, None)
        if job is None:
            return False
        job.task = None
        job.late = late
        return True

    def close(self) -> None:
        """Let idle threads end. Busy ones end with their job; they are daemon threads."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.started = (
                True  # before the check: either `give_up` sees this, or the check sees its cancellation
            )
            try:
                if not job.future.cancelled():
                    job.result = job.context.run(job.call, *job.args)
            except (
                BaseException
            ) as e:  # anything that user code raises is the send's outcome, SystemExit included
                job.error = e
            self._finished.append(job)
            del job  # it refers to the notification, and the wait for the next job may be long
            if not self._woken:
                self._woken = True
                try:
                    self._loop.call_soon_threadsafe(self._take)
                except RuntimeError:  # the loop is closed, so nothing waits for results
                    return

    def _take(self) -> None:
        self._woken = False
        finished = self._finished
        while finished:
            job = finished.popleft()
            self._open -= 1
            self._running.pop(job.future, None)
            if job.stuck:
                self.stuck -= 1
                job.stuck = False
                if job.task is not None and self._given_up.get(job.task) is job:
                    del self._given_up[job.task]
            if job.late is not None:
                job.late()
            if job.future.done():
                continue
            if job.error is None:
                job.future.set_result(job.result)
            elif issubclass(type(job.error), (StopIteration, GeneratorExit)):  # no future can carry these
                job.future.set_exception(RuntimeError(f"{type(job.error).__name__} raised in a thread"))
            else:
                job.future.set_exception(job.error)
