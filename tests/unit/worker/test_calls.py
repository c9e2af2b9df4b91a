"""Callbacks of a worker's loop: what raises ends the worker, and nothing runs on half-changed state."""

from __future__ import annotations

import asyncio
import gc

from kafka_notify._worker.calls import Calls
from kafka_notify._worker.life import Life, State


class World:
    """Calls, and what they failed with."""

    def __init__(self) -> None:
        self.life = Life()
        assert self.life.to(State.STARTING)
        self.loop = asyncio.get_running_loop()
        self.failed: list[BaseException] = []
        self.calls = Calls(self.loop, self.life, self.fail)
        self.ran: list[str] = []

    def fail(self, error: BaseException) -> None:
        self.failed.append(error)
        self.life.fail(error)

    def raises(self) -> None:
        raise SystemExit(3)


async def test_the_first_that_raises_is_the_last_that_runs() -> None:
    """Those that were queued before it have run; those behind it do not, however they came in."""
    world = World()
    world.calls.post(world.ran.append, "before")
    world.calls.post(world.raises)
    world.calls.post(world.ran.append, "posted")
    world.calls.soon(lambda: world.ran.append("soon"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.calls.run(world.ran.append, "now")

    assert world.ran == ["before"]
    assert [type(error) for error in world.failed] == [SystemExit]


async def test_what_a_failure_needs_runs_after_it() -> None:
    """A worker that has failed still frees its partitions."""
    world = World()
    world.calls.run(world.raises)
    done = asyncio.Event()
    world.calls.post_last(done.set)

    await done.wait()


async def test_a_task_is_kept_alive() -> None:
    """The loop itself keeps only a weak reference."""
    world = World()
    release: asyncio.Future[None] = world.loop.create_future()
    ended = asyncio.Event()

    async def waits() -> None:
        await release
        ended.set()

    assert not world.calls.spawn(waits()).done()
    await asyncio.sleep(0)
    gc.collect()
    release.set_result(None)

    await ended.wait()


def test_a_closed_loop_takes_nothing() -> None:
    """A thread may post to a worker that has ended."""
    loop = asyncio.new_event_loop()
    loop.close()
    calls = Calls(loop, Life(), lambda error: None)

    calls.post(lambda: None)
    calls.post_last(lambda: None)
