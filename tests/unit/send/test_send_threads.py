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
    begun, release, returned = threading.Event(), threading.Event(), asyncio.Event()

    def hang() -> None:
        begun.set()
        release.wait()

    stuck = threads.run(hang)
    await asyncio.to_thread(begun.wait)
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


async def test_what_no_thread_has_begun_is_not_run_once_it_was_given_up() -> None:
    """A job that waits for a thread, and is given up meanwhile, is not stuck, and never runs."""
    threads = SendThreads(1, asyncio.get_running_loop())
    begun, release = threading.Event(), threading.Event()
    ran: list[str] = []

    def hang() -> None:
        begun.set()
        release.wait()

    busy = threads.run(hang)
    await asyncio.to_thread(begun.wait)
    waiting = threads.run(ran.append, "late")
    threads.give_up(waiting, asyncio.current_task())

    assert threads.stuck == 0
    assert not threads.take_over(asyncio.current_task(), lambda: None)
    release.set()
    await busy
    await threads.run(ran.append, "next")
    assert ran == ["next"]
    threads.close()


async def test_hanging_threads_are_bounded() -> None:
    """When as many threads hang as may run at once, no more are started for others: what comes then waits."""
    threads = SendThreads(2, asyncio.get_running_loop())
    begun, release = threading.Semaphore(0), threading.Event()

    def hang() -> None:
        begun.release()
        release.wait()

    for _ in range(4):
        future = threads.run(hang)
        await asyncio.to_thread(begun.acquire)
        threads.give_up(future, None)
    assert threads.stuck == 4

    waiting = threads.run(lambda: "after all")
    assert threads._threads == 4
    release.set()
    assert await waiting == "after all"
    while threads.stuck:  # noqa: ASYNC110 - the others return in their own time
        await asyncio.sleep(0.001)
    threads.close()
