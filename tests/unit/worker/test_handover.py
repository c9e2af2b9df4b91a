"""What a hand-over waits for, and what may be committed after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from kafka_notify._base.runtime import SYSTEM
from kafka_notify._worker.calls import Calls
from kafka_notify._worker.handover import HandOver
from kafka_notify._worker.life import Life, State


class Ticking:
    """A clock that goes on by the time that each look at it takes: nobody waits."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        self.at += 0.1
        return self.at


class Pair:
    """A partition, as a hand-over sees it."""

    def __init__(self, number: int, *, outstanding: int = 0, spilling: bool = False) -> None:
        self.number, self.epoch = number, 7
        self.outstanding, self.spilling = outstanding, spilling
        self.alive, self.active, self.restored, self.closing = True, True, False, False
        self.snapshots = 0

    def snapshot(self) -> tuple[str, int]:
        self.snapshots += 1
        return "finished", self.snapshots


class World:
    """A hand-over of some partitions, and what it asked for."""

    def __init__(
        self, *pairs: Pair, timeout: float = 5.0, looks: Callable[[], object] = lambda: None
    ) -> None:
        self.life = Life()
        assert self.life.to(State.STARTING)
        self.failed: list[BaseException] = []
        self.cancelled: list[Pair] = []
        self.unread = 0
        self.pairs = {pair.number: pair for pair in pairs}
        self.looks = looks
        calls = Calls(asyncio.get_running_loop(), self.life, self.failed.append)
        here = cast(Any, self)
        self.clock = Ticking()
        context: Any = SimpleNamespace(clock=self, runtime=SYSTEM)
        self.handover = HandOver(context, cast(Any, self.pairs), here, here, calls, self.life, timeout)

    def monotonic(self) -> float:
        self.looks()
        return self.clock.monotonic()

    def publish_wanted(self) -> None:
        self.unread += 1

    def cancel(self, which: Callable[[Any], bool]) -> None:
        self.cancelled += [pair for pair in self.pairs.values() if which(pair)]

    async def drain(self, *numbers: int) -> Any:
        """As the fetch thread does."""
        return await asyncio.to_thread(self.handover.drain, frozenset(numbers))


async def test_nothing_is_waited_for_when_nothing_runs() -> None:
    """What is handed over starts nothing any more, is not read, and is committed with its epoch."""
    world = World(Pair(0), Pair(1))
    request = await world.drain(0, 5)

    assert request.pairs == {0: ("finished", 2)}
    assert request.epochs == {0: 7}
    assert (world.pairs[0].closing, world.pairs[1].closing) == (True, False)
    assert world.unread == 1
    assert world.cancelled == []


async def test_what_runs_may_end() -> None:
    """It is waited for, and not cancelled."""
    pair = Pair(0, outstanding=3)

    def ends() -> None:
        pair.outstanding = max(pair.outstanding - 1, 0)

    world = World(pair, looks=ends)
    request = await world.drain(0)

    assert list(request.pairs) == [0]
    assert world.cancelled == []


async def test_what_does_not_end_in_time_is_cancelled() -> None:
    """Of what is handed over alone."""
    world = World(Pair(0, outstanding=1), Pair(1, outstanding=1))
    await world.drain(0)

    assert world.cancelled == [world.pairs[0]]
    assert world.clock.at >= 5.0


async def test_a_hand_over_may_be_told_to_hurry() -> None:
    """A second signal ends what it waits for."""
    world = World(Pair(0, outstanding=1), timeout=1e9, looks=lambda: world.handover.hurry(0.0))
    await world.drain(0)

    assert world.cancelled == [world.pairs[0]]
    assert world.clock.at < 5.0


async def test_after_a_failure_nothing_is_committed() -> None:
    """Neither when it came before, nor when it comes while something is waited for."""
    before = World(Pair(0))
    before.life.fail(RuntimeError())
    assert (await before.drain(0)).pairs == {}
    assert before.unread == 0

    meanwhile = World(Pair(0, outstanding=1), timeout=1e9, looks=lambda: meanwhile.life.fail(RuntimeError()))
    assert (await meanwhile.drain(0)).pairs == {}


async def test_what_raises_ends_the_worker() -> None:
    """And the fetch thread gets its answer all the same."""

    class Broken(Pair):
        def snapshot(self) -> tuple[str, int]:
            raise RuntimeError

    world = World(Broken(0))
    assert (await world.drain(0)).pairs == {}
    assert [type(error) for error in world.failed] == [RuntimeError]


async def test_a_spill_is_waited_for() -> None:
    """What has ended and does not fit into the metadata, the next owner must know."""
    pair = Pair(0, spilling=True)
    looks = 0

    def acknowledged() -> None:
        nonlocal looks
        looks += 1
        pair.spilling = looks < 6

    world = World(pair, looks=acknowledged)
    request = await world.drain(0)

    assert list(request.pairs) == [0]
    assert not pair.spilling
    assert pair.snapshots == 3  # before, once more after the spill, and what is committed


async def test_a_spill_is_not_waited_for_in_a_hurry() -> None:
    """What it would have said is repeated by the next owner: the operator has decided."""
    looks = 0

    def hurries() -> None:
        nonlocal looks
        looks += 1
        if looks == 6:
            world.handover.hurry(0.0)

    world = World(Pair(0, spilling=True), timeout=1e9, looks=hurries)
    request = await world.drain(0)

    assert list(request.pairs) == [0]
    assert world.clock.at < 5.0
