"""The senders: how many work, what each takes next, and when it may start."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kafka_notify._base.clock import boottime
from kafka_notify._partition.entry import Entry, UserQueue
from kafka_notify._send import pool
from kafka_notify._send.permits import Permits
from kafka_notify._send.pool import SenderPool
from kafka_notify._send.ready import Ready
from kafka_notify._send.slots import Slot, Slots


class World:
    """A pool whose deliveries the test makes."""

    def __init__(self, concurrency: int = 4, *, pace: Any = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.started: list[int] = []
        self.running = self.most = 0
        self.failed: list[BaseException] = []
        self.lease_until, self.told = float("inf"), 0
        self.gated = self.held = False
        self.may_start = concurrency
        self.release: asyncio.Event | None = asyncio.Event()
        """What sends wait for; None when they do not suspend."""
        self.paused = SimpleNamespace(whole=None)
        self.ends: Callable[[Slot], object] = lambda slot: None
        self.held_up = 0.0
        """Seconds for which sends held the event loop."""
        here: Any = self

        begin = boottime()

        def now() -> float:  # how busy the machine is must not end a turn of the loop
            return begin + self.held_up

        clock = SimpleNamespace(monotonic=self.loop.time, boottime=now, now=lambda: 1)
        context: Any = SimpleNamespace(loop=self.loop, clock=clock, concurrency=concurrency)
        self.guard = SimpleNamespace(
            lane=self, room=lambda running: self.may_start - running, start=self.start, give_up=lambda slot: None,
            close=lambda: None,
        )  # fmt: skip
        self.ready = Ready()
        nothing = cast(Any, SimpleNamespace(stuck=0))
        self.slots = Slots(context, nothing, nothing, self.kick)
        loader: Any = SimpleNamespace(waiting=0)
        permits = Permits(cast(Any, self.guard), pace, cast(Any, self.paused), here, now)
        self.pool = SenderPool(context, self.ready, loader, self.slots, permits, here, self.failed.append)
        self.partition = SimpleNamespace(new=deque[Entry]())
        self.queued = 0

    def kick(self) -> None:
        self.pool.kick()

    def tell_lease(self) -> None:
        self.told += 1

    def start(self, slot: Slot, running: int) -> bool:
        return running < self.may_start

    def add(self, count: int) -> None:
        """Queue so many, and wake the senders."""
        for _ in range(count):
            lane = UserQueue(cast(Any, self.partition), b"u")
            self.ready.add(Entry(lane, self.queued, cast(Any, None), None, 1))
            self.queued += 1
        self.pool.kick()

    async def run(self, slot: Slot, entry: Entry) -> None:
        """One delivery."""
        self.started.append(entry.origin)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.release is not None:
                await self.release.wait()
            self.ends(slot)
        finally:
            self.running -= 1

    async def until(self, condition: Callable[[], bool]) -> None:
        """Turn the loop until a condition holds."""
        for _ in range(10_000):
            if condition():
                return
            await asyncio.sleep(0)
        raise AssertionError(self.started)


async def test_as_many_work_as_may() -> None:
    """Each takes the next when it is done."""
    world = World(concurrency=4)
    world.add(10)
    await world.until(lambda: world.running == 4)
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.started == [0, 1, 2, 3]

    assert world.release is not None
    world.release.set()
    await world.until(lambda: len(world.started) == 10 and world.running == 0)
    assert (world.most, len(world.slots.running)) == (4, 4)
    await world.pool.close()


async def test_sends_that_do_not_suspend_take_one_sender() -> None:
    """Waking the others would be waste."""
    world = World(concurrency=100)
    world.release = None
    world.add(50)
    await world.until(lambda: len(world.started) == 50)

    assert world.started == list(range(50))
    assert len(world.slots.running) == 1
    await world.pool.close()


async def test_idle_senders_are_used_again() -> None:
    """No task per send."""
    world = World(concurrency=4)
    world.release = None
    for n in range(1, 6):
        world.add(1)
        await world.until(lambda n=n: len(world.started) == n)  # type: ignore[misc]

    assert len(world.slots.running) == 1
    await world.pool.close()


async def test_nothing_starts_while_all_is_paused_or_the_lease_is_over() -> None:
    """A resume and a confirmed commit wake the senders."""
    world = World()
    world.paused.whole = object()
    world.add(2)
    assert not world.slots.running
    assert (world.pool.loads_wanted(), world.pool.idle) == (0, False)

    world.paused.whole, world.lease_until = None, 0.0
    world.kick()
    await asyncio.sleep(0)
    assert not world.started
    assert world.pool.loads_wanted() == 0

    world.lease_until = float("inf")
    world.kick()
    await world.until(lambda: len(world.started) == 2)
    await world.pool.close()


@pytest.mark.invariant(n=11)
async def test_a_lease_that_ends_stops_those_that_work() -> None:
    """What runs may end, and nothing follows it; it is said."""
    world = World(concurrency=1)
    world.add(2)
    await world.until(lambda: world.running == 1)
    world.lease_until = 0.0
    assert world.release is not None
    world.release.set()
    await world.until(lambda: world.running == 0)
    await asyncio.sleep(0)

    assert (world.started, world.told) == ([0], 1)
    await world.pool.close()


async def test_a_held_lane_lets_its_probes_start_alone() -> None:
    """The circuit says how many."""
    world = World(concurrency=4)
    world.gated = world.held = True
    world.may_start = 1
    world.add(5)
    await world.until(lambda: world.running == 1)
    world.kick()
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.started == [0]
    assert not world.pool.idle
    await world.pool.close()


async def test_a_rate_limit_says_how_many_start() -> None:
    """What it lets start is noted, so that it can be given back."""

    class Two:
        left = 2

        def room(self, wanted: int) -> int:
            return min(self.left, wanted)

        def take(self, wanted: int) -> float:
            if not self.left:
                return 0.0
            self.left -= 1
            return 5.0

    pace, starts = Two(), list[float]()
    world = World(pace=pace)
    world.release = None
    world.ends = lambda slot: starts.append(slot.start)
    world.add(5)
    await world.until(lambda: len(world.started) == 2)
    assert starts == [5.0, 5.0]

    pace.left = 3
    world.kick()
    await world.until(lambda: len(world.started) == 5)
    await world.pool.close()


async def test_no_sender_is_woken_for_what_a_rate_limit_does_not_let_start() -> None:
    """It would only ask, and wait again."""
    pace = SimpleNamespace(room=lambda wanted: 1, take=lambda wanted: 5.0)
    world = World(pace=pace)
    world.add(1)
    await world.until(lambda: world.running == 1)
    pace.room = lambda wanted: 0
    world.add(5)
    for _ in range(20):
        await asyncio.sleep(0)

    assert len(world.slots.running) == 1
    await world.pool.close()


async def test_what_ends_a_sender_ends_the_worker() -> None:
    """No delivery raises, whatever user code does; if one does, its sender does not end unnoticed."""

    def broken(slot: Slot) -> None:
        slots.append(slot)
        raise SystemError

    slots: list[Slot] = []

    world = World()
    world.release = None
    world.ends = broken
    world.add(1)
    await world.until(lambda: bool(world.failed))

    assert not world.slots.running
    assert slots[0].task is not None
    assert world.failed == [slots[0].task.exception()]


SECONDS = 0.02
"""For which each send of the next tests holds the event loop."""


def slow(world: World) -> None:
    """Let each delivery hold the event loop before it ends."""

    def hold(_: Slot) -> None:
        world.held_up += SECONDS

    world.ends = hold


async def most_in_a_turn(world: World, count: int) -> int:
    """Turn the loop until `count` have started; return how many started in one turn at most."""
    most = 0
    while (before := len(world.started)) < count:
        await asyncio.sleep(0)
        most = max(most, len(world.started) - before)
    return most


async def test_sends_that_hold_the_event_loop_leave_it_after_each() -> None:
    """Heartbeats and commits wait for one of them, not for a hundred."""
    world = World(concurrency=100)
    world.release = None
    slow(world)
    world.add(300)

    assert await most_in_a_turn(world, 300) <= 2
    assert world.started == list(range(300))
    await world.pool.close()


async def test_few_begin_in_a_long_turn() -> None:
    """Not even of those whose last send has suspended: they have their turn later."""
    world = World(concurrency=100)
    slow(world)
    world.add(300)
    await world.until(lambda: world.running == 100)
    assert world.release is not None
    world.release.set()

    assert await most_in_a_turn(world, 300) <= pool.LONGEST / SECONDS + 2
    await world.until(lambda: world.running == 0)
    assert sorted(world.started) == list(range(300))
    await world.pool.close()


async def test_nothing_begins_after_the_close() -> None:
    """Not even what would have had its turn next."""
    world = World(concurrency=4)
    world.release = None
    slow(world)
    world.add(20)
    await world.until(lambda: bool(world.started))

    await world.pool.close()
    before = len(world.started)
    for _ in range(20):
        await asyncio.sleep(0)

    assert len(world.started) == before < 20
    assert all(slot.task is None or slot.task.done() for slot in world.slots.running)
