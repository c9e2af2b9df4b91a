"""The sends that are under way: how many may be, what is cancelled, and whom a send that hangs blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kafka_notify._send.slots import CANCEL_GRACE, FOREVER, Slot, Slots


class Threads:
    """Threads of plain senders."""

    def __init__(self) -> None:
        self.stuck = 0
        self.late: Callable[[], object] | None = None
        self.gave_up = False

    def take_over(self, task: object, late: Callable[[], object]) -> bool:
        self.late = late
        return self.gave_up


class Task:
    """Counts cancellations."""

    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


class Partition:
    """An assignment."""

    def __init__(self, number: int = 0) -> None:
        self.number, self.alive, self.outstanding = number, True, 1
        self.unstuck: list[Any] = []

    def stick(self, key: object) -> Any:
        return SimpleNamespace(partition=self, key=key, stuck=True)

    def unstick(self, lane: object, now: int) -> None:
        self.unstuck.append(lane)


class World:
    """Slots, and what they asked for."""

    def __init__(self, concurrency: int = 2) -> None:
        self.now = 100.0
        self.kicks = 0
        self.threads, self.hooks = Threads(), SimpleNamespace(stuck=0)
        clock = SimpleNamespace(monotonic=lambda: self.now, now=lambda: 1)
        context: Any = SimpleNamespace(clock=clock, concurrency=concurrency)
        self.slots = Slots(context, cast(Any, self.threads), cast(Any, self.hooks), self.kick)

    def kick(self) -> None:
        self.kicks += 1

    def send(self, partition: Partition, user: str = "u", deadline: float = FOREVER) -> Slot:
        """A send that is under way."""
        slot, lane = Slot(), SimpleNamespace(partition=partition, key=user, stuck=False)
        slot.entry = cast(Any, SimpleNamespace(queue=lane, partition=partition))
        slot.task, slot.deadline = cast(Any, Task()), deadline
        self.slots.running.add(slot)
        return slot


def cancellations(slot: Slot) -> int:
    task: Any = slot.task
    return int(task.cancelled)


@pytest.mark.parametrize(
    ("threads", "lost", "hooks", "allowed"),
    [(0, 0, 0, 4), (4, 0, 0, 4), (5, 0, 0, 3), (2, 2, 2, 2), (8, 0, 0, 0), (9, 9, 9, 0)],
)
def test_how_many_may_be_under_way(threads: int, lost: int, hooks: int, allowed: int) -> None:
    """As many may hang beside them; those beyond that take their places."""
    world = World(concurrency=4)
    world.threads.stuck, world.hooks.stuck = threads, hooks
    world.slots.lost = {Slot() for _ in range(lost)}

    assert world.slots.stuck() == threads + lost + hooks
    assert world.slots.allowed() == allowed


def test_a_deadline_cancels_once_and_then_gives_up() -> None:
    """Between both the send has its grace to end."""
    world = World()
    slot, other = world.send(Partition(), deadline=100.0), world.send(Partition())
    assert world.slots.overdue() == []
    assert cancellations(slot) == 0

    world.now = 100.5
    assert world.slots.overdue() == []
    assert (slot.reason, cancellations(slot), cancellations(other)) == ("deadline", 1, 0)

    world.now += CANCEL_GRACE - 0.1
    assert world.slots.overdue() == []
    world.now += 0.2
    assert world.slots.overdue() == [slot]
    assert cancellations(slot) == 1


def test_a_hand_over_cancels_what_is_handed_over() -> None:
    """Once, also when the deadline did before; its user is blocked here until it has ended."""
    world = World()
    given, kept = Partition(0), Partition(1)
    slot, late, other = world.send(given), world.send(given, "late", 99.0), world.send(kept)
    world.slots.overdue()
    world.slots.cancel(lambda p: p.number == 0)

    assert [cancellations(s) for s in (slot, late, other)] == [1, 1, 0]
    assert [s.reason for s in (slot, late, other)] == ["handover", "handover", ""]
    assert slot.deadline == late.deadline == 100.0 + CANCEL_GRACE

    back = Partition(0)
    world.slots.keep_blocked(cast(Any, back))
    assert slot.entry is not None
    world.slots.cancelled(slot, slot.entry)
    assert (slot.reason, [lane.key for lane in back.unstuck], world.kicks) == ("", ["u"], 1)


def test_a_send_that_is_left_behind_is_replaced() -> None:
    """It counts as stuck, its user waits, and its partition does not wait for it."""
    world = World()
    partition = Partition()
    slot = world.send(partition)
    world.slots.leave_behind(slot)

    assert (world.slots.in_flight(), world.slots.stuck(), world.slots.strays()) == (0, 1, 0)
    assert (partition.outstanding, slot.ends, slot.entry) == (0, True, None)
    assert not world.slots.running

    world.slots.ended(slot)
    assert (world.slots.stuck(), len(partition.unstuck)) == (0, 1)
    assert world.kicks


def test_a_thread_that_was_given_up_blocks_its_user() -> None:
    """Until it returns. Whoever was its sender ends when there are too many."""
    world = World(concurrency=1)
    partition = Partition()
    slot = world.send(partition)
    assert slot.entry is not None
    world.threads.gave_up = True
    world.slots.cancelled(slot, slot.entry)
    assert slot.entry.queue.stuck
    assert not slot.ends

    world.threads.stuck = 2
    world.slots.cancelled(slot, slot.entry)
    assert slot.ends
    assert world.threads.late is not None
    world.threads.late()
    assert len(partition.unstuck) == 1


def test_nothing_is_woken_of_an_assignment_that_has_ended() -> None:
    """The next owner has its users."""
    world = World()
    partition = Partition()
    slot = world.send(partition)
    world.slots.leave_behind(slot)
    partition.alive = False
    world.slots.ended(slot)

    assert partition.unstuck == []


async def test_closing_ends_all_tasks() -> None:
    """Those that were left behind, too."""
    world = World()

    async def hangs() -> None:
        await asyncio.get_running_loop().create_future()

    slots = [world.send(Partition()) for _ in range(2)]
    for slot in slots:
        slot.task = asyncio.ensure_future(hangs())
    await asyncio.sleep(0)
    world.slots.leave_behind(slots[0])
    await world.slots.close()

    assert all(slot.ends and slot.task is not None and slot.task.cancelled() for slot in slots)
