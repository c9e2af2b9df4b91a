"""New notifications and due retries take turns."""

from __future__ import annotations

from typing import Any, cast

from kafka_notify._lanes.entry import Entry, Held
from kafka_notify._send.ready import Ready


def entry(origin: int, *, retry: bool = False) -> Entry:
    made = Entry(cast(Any, None), origin, cast(Any, None), None, 0)
    if retry:
        made.held = Held(0, 0, None, f"id{origin}", 0)
    return made


def test_due_retry_does_not_wait_behind_new_ones() -> None:
    """A retry that is due is the next to start, however many new notifications are queued."""
    ready = Ready()
    for origin in range(1_000):
        ready.add(entry(origin))
    ready.add(entry(7_000, retry=True))
    assert [ready.pop().origin for _ in range(3)] == [7_000, 0, 1]


def test_many_retries_leave_every_second_turn() -> None:
    """However many retries are due, every second send is a new notification; each kind keeps its order."""
    ready = Ready()
    for origin in range(3):
        ready.add(entry(origin))
    for origin in range(100, 110):
        ready.add(entry(origin, retry=True))
    assert len(ready) == 13
    assert [ready.pop().origin for _ in range(13)] == [100, 0, 101, 1, 102, 2, *range(103, 110)]
    assert not ready


def test_put_back_is_the_next_of_its_kind() -> None:
    """What could not start is not sent to the end of the queue."""
    ready = Ready()
    for origin in range(3):
        ready.add(entry(origin))
    first = ready.pop()
    ready.put_back(first)
    assert [ready.pop().origin for _ in range(3)] == [0, 1, 2]
