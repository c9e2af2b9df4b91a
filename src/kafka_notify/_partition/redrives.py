"""Redriven copies that wait for the generation before them, and generations that have ended in this assignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kafka_notify._partition.entry import Entry


class Redrives:
    """Redriven copies by origin. For each origin at most one copy waits, that of the newest generation."""

    __slots__ = ("ended", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[int, Entry] = {}
        """Copies that wait until the older generation has ended, by origin."""
        self.ended: dict[tuple[int, str, int], int] = {}
        """The newest generation that has ended, by origin and identity."""

    def has_ended(self, entry: Entry) -> bool:
        """Tell whether the generation of `entry`, or a newer one, has ended."""
        return self.ended.get(_notification(entry), -1) >= entry.history.redrives

    def end(self, entry: Entry) -> None:
        """Note that the generation of `entry` has ended."""
        self.ended[_notification(entry)] = entry.history.redrives

    def wait(self, entry: Entry) -> Entry | None:
        """Let `entry` wait. Return the copy of the same origin that does not count any more, if there is one."""
        waiting = self.waiting.get(entry.origin)
        if waiting is None:
            self.waiting[entry.origin] = entry
            return None
        if _generation(waiting) <= _generation(entry):
            self.waiting[entry.origin] = entry
            return waiting
        return entry

    def clear(self) -> None:
        """Forget everything."""
        self.waiting.clear()
        self.ended.clear()


def _generation(entry: Entry) -> tuple[int, int]:
    assert entry.retry is not None
    return entry.history.redrives, entry.retry.at


def _notification(entry: Entry) -> tuple[int, str, int]:
    retry = entry.retry
    assert retry is not None
    return retry.origin_of(entry), retry.id, retry.created
