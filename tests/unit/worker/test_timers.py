"""Wake-ups of lanes: one heap that stays as small as the number of lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import attrs

from kafka_notify._base.clock import Clock
from kafka_notify._partition.entry import Entry, UserQueue
from kafka_notify._worker.timers import SPARE, Timers


@attrs.define(eq=False)
class Assignment:
    """Stands for a `Partition`."""

    alive: bool = True
    stepped: list[Any] = attrs.field(factory=list[Any])

    def step(self, lane: UserQueue, now: int) -> None:
        self.stepped.append(lane.key)


class FixedClock(Clock):
    """Shows the time it is set to."""

    ms = 0

    def now(self) -> int:
        return self.ms


class Loop:
    """Keeps the last call instead of making it."""

    call: Callable[[], object] | None = None
    delay = 0.0

    def call_later(self, delay: float, guarded: Callable[..., object], due: Callable[[], object]) -> Loop:
        self.call, self.delay = due, delay
        return self

    def cancel(self) -> None:
        self.call = None


class Bench:
    """Timers whose time is set by hand."""

    def __init__(self) -> None:
        self.clock, self.loop = FixedClock(), Loop()
        self.timers = Timers(
            cast(asyncio.AbstractEventLoop, self.loop), self.clock, lambda: None, lambda call: call()
        )
        self.assignment = Assignment()

    def lane(self, key: object, assignment: Assignment | None = None) -> UserQueue:
        """With one entry."""
        lane = UserQueue(cast(Any, assignment or self.assignment), key)
        lane.head = Entry(lane, 0, cast(Any, None), None, 0)
        return lane

    def wake(self, lane: UserQueue, at: int) -> None:
        """Ask as a partition does."""
        lane.timer = at
        self.timers.add(lane, at)

    def at(self, ms: int) -> None:
        """It is that late now. On a loaded machine one turn may end before all that is due was looked at."""
        self.clock.ms = ms
        due = True
        while due and self.loop.call is not None:
            call, self.loop.call = self.loop.call, None
            call()
            due = not self.loop.delay


def test_each_lane_is_looked_at_when_it_is_due() -> None:
    """In the order of the times, each once."""
    b = Bench()
    for at in (30, 10, 20):
        b.wake(b.lane(at), at)
    b.at(5)
    assert b.assignment.stepped == []
    b.at(25)
    assert b.assignment.stepped == [10, 20]
    b.at(30)
    assert b.assignment.stepped == [10, 20, 30]


def test_a_replaced_wake_up_does_nothing() -> None:
    """Only the one that the lane waits for counts, and it is made once although it was asked for twice."""
    b = Bench()
    lane = b.lane("u")
    for at in (10, 20, 10, 30):
        b.wake(lane, at)
    b.at(20)
    assert b.assignment.stepped == []
    b.at(30)
    assert (b.assignment.stepped, lane.timer) == (["u"], 0)


def test_replaced_wake_ups_do_not_add_up() -> None:
    """However often lanes change their minds, the heap is bounded by their number."""
    b = Bench()
    lanes = [b.lane(n) for n in range(100)]
    most = 0
    for at in range(1, 200):
        for lane in lanes:
            b.wake(lane, 10_000 + at)
            most = max(most, len(b.timers))
    assert most <= 2 * len(lanes) + SPARE
    b.at(20_000)
    assert sorted(b.assignment.stepped) == list(range(100))


def test_lanes_given_away_or_empty_are_forgotten() -> None:
    """What belongs to an assignment that has ended goes at once; the others stay."""
    b = Bench()
    ended = Assignment()
    empty = b.lane("empty")
    for lane in (b.lane("a"), b.lane("b", ended), empty):
        b.wake(lane, 10)
    empty.head, ended.alive = None, False
    b.timers.clean()
    assert len(b.timers) == 1
    b.at(10)
    assert (b.assignment.stepped, ended.stepped) == (["a"], [])
