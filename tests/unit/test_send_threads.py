"""Plain functions run on threads of our own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable

import pytest

from kafka_notify._send.threads import SendThreads


async def test_returns_what_the_function_returns() -> None:
    """Results come back in the order of their futures, whatever the threads' order was."""
    threads = SendThreads(8, asyncio.get_running_loop())

    results = await asyncio.gather(*(threads.run(lambda n=n: n * n) for n in range(500)))

    assert results == [n * n for n in range(500)]
    threads.close()


@pytest.mark.parametrize("error", [ValueError("x"), StopIteration(), SystemExit(3)])
async def test_raises_what_the_function_raises(error: BaseException) -> None:
    """Every exception is the caller's, also those that asyncio itself could not carry."""
    threads = SendThreads(1, asyncio.get_running_loop())

    def fail() -> None:
        raise error

    with pytest.raises((type(error), RuntimeError)):
        await threads.run(fail)
    assert await threads.run(lambda: "goes on") == "goes on"
    threads.close()


async def test_runs_with_the_callers_context() -> None:
    """Context variables of the caller are visible in the thread, and changes there do not leak back."""
    user = contextvars.ContextVar("user", default="nobody")
    user.set("ada")
    threads = SendThreads(1, asyncio.get_running_loop())

    def look() -> str:
        before = user.get()
        user.set("thread")
        return before

    assert await threads.run(look) == "ada"
    assert user.get() == "ada"
    threads.close()


async def test_never_runs_more_at_once_than_its_size() -> None:
    """At most `size` functions run at the same time."""
    threads = SendThreads(4, asyncio.get_running_loop())
    lock, running, most = threading.Lock(), 0, 0
    full = threading.Barrier(4)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait(10)  # each four run together, and no fifth
        with lock:
            running -= 1

    await asyncio.gather(*(threads.run(work) for _ in range(40)))

    assert most == 4
    threads.close()


async def test_a_thread_that_was_given_up_is_replaced() -> None:
    """A function that never returns does not keep the others from running, and is noticed when it returns."""
    threads = SendThreads(1, asyncio.get_running_loop())
    release, returned = threading.Event(), asyncio.Event()
    stuck = threads.run(release.wait)
    task: asyncio.Task[object] | None = asyncio.current_task()
    threads.give_up(stuck, task)
    stuck.cancel()
    late: Callable[[], object] = returned.set

    assert threads.take_over(task, late)
    assert threads.stuck == 1
    assert await threads.run(lambda: "goes on") == "goes on"
    release.set()
    await asyncio.wait_for(returned.wait(), 10)
    assert threads.stuck == 0
    threads.close()
