"""The checks of the demo, from the produced notifications, the workers' attempts and the dead letters. Pure, apart from
`Journal`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import attrs


@attrs.frozen
class Produced:
    """A notification that was produced."""

    id: str
    user_id: str
    lane: str
    at: float
    """Epoch seconds, like all times here."""


@attrs.frozen
class Tried:
    """One call of the provider."""

    id: str
    number: int
    started: float
    ended: float
    accepted: bool


@attrs.frozen
class LaneResult:
    """One row of the table at the end; times are seconds from produce to accepted."""

    sent: int
    retries: int
    dead: int
    p50: float
    p99: float


class Journal:
    """The contents of the workers' files, read as they grow."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._files: list[TextIO] = []
        self._rests: list[str] = []
        self.attempts: list[Tried] = []
        self.accepted: set[str] = set()
        self.dead: set[str] = set()

    def __enter__(self) -> Journal:
        for path in self._paths:
            path.touch()
            self._files.append(path.open(encoding="utf-8"))
            self._rests.append("")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def read(self) -> None:
        """Read what was written since the last call; an incomplete line waits for its rest."""
        for n, file in enumerate(self._files):
            *lines, self._rests[n] = (self._rests[n] + file.read()).split("\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, entry: dict[str, object]) -> None:
        match entry:
            case {"id": str(id), "dead": str()}:
                self.dead.add(id)
            case {
                "id": str(id),
                "number": int(number),
                "started": float(started),
                "ended": float(ended),
                "status": int(status),
            }:
                self.attempts.append(Tried(id, number, started, ended, status == 200))
                if status == 200:
                    self.accepted.add(id)
            case _:
                raise ValueError(f"not an entry of an attempt log: {sorted(entry)}")


def lost(produced: Sequence[Produced], attempts: Sequence[Tried], dead: Mapping[str, float]) -> list[str]:
    """Ids of notifications that were neither accepted nor dead-lettered."""
    accepted = {tried.id for tried in attempts if tried.accepted}
    return [made.id for made in produced if made.id not in accepted and made.id not in dead]


def sent_twice(attempts: Sequence[Tried]) -> list[str]:
    """Ids of notifications that the provider accepted more than once."""
    times = Counter(tried.id for tried in attempts if tried.accepted)
    return sorted(id for id, count in times.items() if count > 1)


def out_of_order(
    produced: Sequence[Produced], attempts: Sequence[Tried], dead: Mapping[str, float]
) -> list[str]:
    """Ids of notifications tried before an earlier one of their user and lane was accepted or dead.

    Args:
        produced: In the order of sending.
        attempts: In any order.
        dead: The time when each dead letter was written.
    """
    first: dict[str, float] = {}
    settled = dict(dead)
    for tried in attempts:
        first[tried.id] = min(first.get(tried.id, tried.started), tried.started)
        if tried.accepted:
            settled[tried.id] = min(settled.get(tried.id, tried.ended), tried.ended)
    never = float("inf")
    free_from: dict[tuple[str, str], float] = {}
    early: list[str] = []
    for made in produced:
        lane = (made.lane, made.user_id)
        if first.get(made.id, never) < free_from.get(lane, 0.0):
            early.append(made.id)
        free_from[lane] = max(free_from.get(lane, 0.0), settled.get(made.id, never))
    return early


def result(
    produced: Sequence[Produced], attempts: Sequence[Tried], dead: Mapping[str, float], lane: str
) -> LaneResult:
    """The table's row of a lane."""
    made = {each.id: each.at for each in produced if each.lane == lane}
    own = [tried for tried in attempts if tried.id in made]
    times = [tried.ended - made[tried.id] for tried in own if tried.accepted]
    return LaneResult(
        sent=len({tried.id for tried in own if tried.accepted}),
        retries=sum(tried.number > 1 for tried in own),
        dead=len(made.keys() & dead.keys()),
        p50=percentile(times, 50),
        p99=percentile(times, 99),
    )


def to_provider(produced: Sequence[Produced], attempts: Sequence[Tried], lane: str) -> list[float]:
    """Seconds from produce to the first attempt: what other traffic could make longer."""
    made = {each.id: each.at for each in produced if each.lane == lane}
    return [tried.started - made[tried.id] for tried in attempts if tried.id in made and tried.number == 1]


def percentile(values: Sequence[float], share: int) -> float:
    """The percentile by nearest rank; 0 without values."""
    return sorted(values)[max(0, -(-len(values) * share // 100) - 1)] if values else 0.0
