"""What is explored: the notifications in the source, and which faults there are how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from tests.model.owner import Owner
from tests.model.promises import Record
from tests.model.world import World

FAULTS: Final = frozenset(
    ("crash", "zombies", "drain", "timeouts", "partial", "unknown", "redrive", "pause", "expiry")
)
"""The owner dies, goes on without its assignment, or hands over; a produce fails, whether written or not; a commit is
stored in part, or its answer is lost; the provider accepts, and its answer is lost; the operator redrives a dead
letter; odd notifications are paused; even ones expire."""
START: Final = 100
EXPIRY: Final = 1_000_000
"""When everything begins, and when what expires is over."""


@attrs.frozen
class Scenario:
    """The bounds of one search."""

    users: str
    """The user of each record of the source, which are all there from the start: `aab`."""
    faults: int
    """Faults at most, of any kinds and at any moment."""
    kinds: frozenset[str] = FAULTS
    takeovers: int = 2
    """Assignments that follow the first one, at most."""
    attempts: int = 2
    """Attempts of a notification, at most."""
    collapse: bool = False
    """Whether the notifications of a user supersede each other."""
    new_owner: Callable[[World], Owner] = Owner

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.users}, {self.faults} fault{'s' * (self.faults != 1)}"

    def source(self) -> list[Record | None]:
        """The records."""
        return [
            Record(
                f"u{user}", EXPIRY if "expiry" in self.kinds and at % 2 == 0 else None, "k" * self.collapse
            )
            for at, user in enumerate(self.users)
        ]


def orders(notifications: int, users: int = 2) -> list[str]:
    """All orders in which the users' notifications may lie in the source. Users are alike, so the first one is `a`, and
    a later one has its letter by its first notification."""
    found = [""]
    for _ in range(notifications):
        found = [
            order + chr(ord("a") + user) for order in found for user in range(min(users, len(set(order)) + 1))
        ]
    return found


def plan(notifications: int, users: int, faults: int, takeovers: int) -> list[Scenario]:
    """The worlds within these bounds, the small ones first. Each holds all smaller ones with fewer faults."""
    return [
        Scenario(order, most, takeovers=takeovers)
        for most in range(faults + 1)
        for size in range(1, notifications + 1)
        for order in orders(size, users)
    ]
