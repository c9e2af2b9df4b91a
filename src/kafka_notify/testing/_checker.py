"""The observations that the checkers of guarantees judge, and the base classes of the checkers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, Literal

import attrs

from kafka_notify.testing.attempt_log import Disturbed, Ended, Line, Started

NEVER: Final = 1 << 62
"""A line that is never reached."""


@attrs.frozen
class SourceRecord:
    """A record of the source topic, as the producer wrote it."""

    partition: int
    offset: int
    key: bytes | None = attrs.field(repr=False)
    value: bytes | None = attrs.field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = attrs.field(repr=False)
    id: str = ""
    """ID of its notification; empty if unknown."""


@attrs.frozen
class Letter:
    """A record of the dead-letter topic that this group wrote."""

    partition: int
    """Source partition of `origin`."""
    origin: int
    reason: str
    redacted: bool
    redrives: int
    key: bytes | None = attrs.field(repr=False)
    value: bytes | None = attrs.field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = attrs.field(repr=False)


@attrs.frozen
class LogEnds:
    """The ends of a source partition and its retry partition when nothing was under way any more."""

    partition: int
    source: int
    retry: int


Observation = Line | SourceRecord | Letter | LogEnds

Anomaly = Literal[
    "lost-write", "unseen", "duplicate", "poll-skip", "nonmonotonic-poll", "nonmonotonic-send", "inconsistent-offsets",
    "committed-ahead-of-done", "commit-went-back", "sent-after-commit", "overlap", "early", "expired",
    "attempts-exceeded", "attempt-forgotten", "invented", "dead-letter-missing", "dead-letter-altered", "lag",
    "user-delayed", "held-wrongly", "stalled", "memory",
]  # fmt: skip
"""The names of what can be wrong. Those of the first line are Jepsen's, of its workload for Kafka; docs/testing.md
defines all of them."""


@attrs.frozen
class Violation:
    """One violation of a promise."""

    anomaly: Anomaly
    text: str
    """One sentence: ids, offsets and workers, never a payload or a recipient."""
    lines: tuple[int, ...] = ()
    """Numbers of the observations that show it, from 1."""

    def __str__(self) -> str:
        return f"{self.anomaly}: {self.text}"


class Checker:
    """Judges one promise. `violations` may be called at any time, and more than once."""

    def __init__(self) -> None:
        self.line: int = 0
        """Number of the observation being looked at."""

    def observe(self, seen: Observation, /) -> None:
        """Take the next observation, in order."""
        self.line += 1
        self._observe(seen)

    def _observe(self, seen: Observation, /) -> None:
        raise NotImplementedError

    def violations(self) -> Sequence[Violation]:
        """Return the violations of the promise; empty when it held."""
        raise NotImplementedError


@attrs.define
class Call:
    """One call of `send`."""

    started: Started
    line: int
    thawed: bool = False
    """True for the first call after its worker was frozen: it may have been decided before, and only logged after."""
    ended: int = NEVER
    end: Ended | None = None

    @property
    def known(self) -> bool:
        """True when the worker could learn that the provider had accepted."""
        seconds = (self.end.at - self.started.at) / 1000 if self.end else 0.0
        return (self.end is None or self.end.outcome == "accepted") and seconds < self.started.timeout


class CallChecker(Checker):
    """Base of checkers that look at calls of `send` and at what was done to workers."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[tuple[str, str], Call] = {}
        """The calls under way, by worker and id."""
        self._thawed: set[str] = set()
        """Workers that have started no call since they were frozen."""
        self._disturbances: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Started():
                call = Call(seen, self.line, seen.worker in self._thawed)
                self._thawed.discard(seen.worker)
                self._running[seen.worker, seen.id] = call
                self._on_start(call)
            case Ended():
                ended = self._running.pop((seen.worker, seen.id), None)
                if ended is not None:
                    ended.ended, ended.end = self.line, seen
                    self._on_end(ended, seen)
            case Disturbed():
                self._disturbances[seen.worker].append((self.line, seen.how))
                if seen.how == "resumed":
                    self._thawed.add(seen.worker)
            case _:
                self._on_other(seen)

    def _on_start(self, call: Call) -> None: ...

    def _on_end(self, call: Call, seen: Ended) -> None: ...

    def _on_other(self, seen: Observation) -> None: ...

    def disturbed(
        self, worker: str, after: int, before: int, *, cluster: bool = False, but: Sequence[str] = ()
    ) -> bool:
        """True when `worker` was disturbed between two lines; with `cluster` also when a broker was missing."""
        if cluster and self._broker_away(after, before):
            return True
        return any(after < line < before and how not in but for line, how in self._disturbances[worker])

    def _broker_away(self, after: int, before: int) -> bool:
        away = 0
        for line, how in self._disturbances[""]:
            if line >= before:
                break
            if line > after:
                return True
            away += 1 if how == "broker" else -1
        return away > 0
