"""Which attempt is a probe while the lane is held."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from kafka_notify._send.ready import Ready


def partition() -> Any:
    """The queues of one."""
    return SimpleNamespace(new=deque(), due=deque(), failed=deque())


def entry(name: str, where: Any, kind: str = "new") -> Any:
    """New, due (parked or deferred), or failed before."""
    held = None if kind == "new" else object()
    return SimpleNamespace(
        name=name,
        queue=SimpleNamespace(partition=where),
        retry=held,
        history=SimpleNamespace(failed=kind == "failed"),
    )


def filled(*kinds: str) -> Ready:
    """Entries of these kinds, in two partitions by turns."""
    ready, both = Ready(), (partition(), partition())
    for n, kind in enumerate(kinds):
        ready.add(entry(f"{kind}{n}", both[n % 2], kind))
    return ready


def probe(ready: Ready) -> str:
    """The next one."""
    ready.choose_probe()
    return ready.pop(probe=True).name  # type: ignore[attr-defined, no-any-return]


def names(ready: Ready) -> list[str]:
    """All, in the order in which they are taken."""
    return [probe(ready) for _ in range(len(ready))]


def test_what_never_failed_is_probed_first() -> None:
    """New ones, then copies that never failed, then the others."""
    ready = filled("failed", "failed", "due", "new", "failed", "due", "new")

    assert [name[:-1] for name in names(ready)] == ["new"] * 2 + ["due"] * 2 + ["failed"] * 3
    assert not ready


def test_an_untroubled_one_is_the_next_probe() -> None:
    """Whenever it arrives."""
    ready, where = Ready(), partition()
    for n in range(100):
        ready.add(entry(f"failed{n}", where, "failed"))
    probe(ready)
    ready.add(entry("good", where))

    assert probe(ready) == "good"


@pytest.mark.parametrize("kind", ["new", "due"])
def test_probes_that_fail_are_followed_by_what_came_last(kind: str) -> None:
    """The second probe of a hold, and each fourth one that follows only failed ones; else the one that waits for
    longest. What is queued behind them keeps its order."""
    ready, where = Ready(), partition()
    for n in range(10):
        ready.add(entry(str(n), where, kind))
    taken = []
    for _ in range(7):
        taken.append(probe(ready))
        ready.row += 1
    ready.row = 0
    taken.append(probe(ready))

    assert taken == ["0", "9", "1", "2", "3", "8", "4", "5"]
    assert [ready.pop().name for _ in range(2)] == ["6", "7"]  # type: ignore[attr-defined]


def test_failed_ones_are_probed_from_both_ends() -> None:
    """The one that is due longest and the one that became due last, by turns: nobody is left out."""
    ready, where = Ready(), partition()
    for n in range(6):
        ready.add(entry(str(n), where, "failed"))

    assert sorted(names(ready)[:2]) == ["0", "5"]
    for n in range(6):
        ready.add(entry(str(n), where, "failed"))
    assert sorted(names(ready)) == [str(n) for n in range(6)]


def test_one_that_came_last_and_may_not_start_is_followed_by_those_in_front() -> None:
    """Its destination is held: the others are looked at in their order, so that the last ones are kept in memory."""
    ready, where = Ready(), partition()
    for n in range(5):
        ready.add(entry(str(n), where))
    ready.row = 2

    assert names(ready) == ["4", "0", "1", "2", "3"]


def test_otherwise_all_kinds_take_turns() -> None:
    """Half of the turns are new ones', the rest is shared by those that failed and those that did not."""
    ready, where = Ready(), partition()
    for n in range(40):
        ready.add(entry(f"new{n}", where))
        ready.add(entry(f"due{n}", where, "due"))
        ready.add(entry(f"failed{n}", where, "failed"))
    first = [ready.pop().name.rstrip("0123456789") for _ in range(40)]  # type: ignore[attr-defined]

    assert {kind: first.count(kind) for kind in set(first)} == {"new": 20, "due": 10, "failed": 10}
    where_ready = len(ready)
    ready.drop(where)
    assert (where_ready, len(ready)) == (80, 0)
