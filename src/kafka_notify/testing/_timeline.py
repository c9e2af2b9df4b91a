"""The observations of a run as stretches of time: ownership, free senders, startable notifications, disturbances."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from kafka_notify.testing._checker import Call, CallChecker, Observation
from kafka_notify.testing._spans import FOREVER, Spans
from kafka_notify.testing.attempt_log import (
    Accepted,
    Copied,
    DeadLettered,
    Disturbed,
    Ended,
    Failing,
    LaneHeld,
    Line,
    Owned,
    Produced,
    Released,
    Sampled,
    Skipped,
    Started,
)

SAMPLE_GAP: Final = 1_500
"""Milliseconds between two samples beyond which the time does not count: the process was frozen or had no processor."""
BUSY: Final = 0.9
"""Share of running senders from which on all count as busy, as between two sends a sender is free for a moment."""
DEFERRAL: Final = 50
"""Milliseconds from which on the due time of a copy means that its notification waits: a parked one is due at once."""


@attrs.define(eq=False)
class Story:
    """All observations of one notification, in the order of the log."""

    produced: Produced | None = None
    lines: list[Line] = attrs.field(factory=list[Line])
    accepted: bool = False
    failed: bool = False
    """True when an attempt ended without an acceptance, or the notification had to wait for a retry or until a time of
    its own."""
    settled: int = FOREVER
    """When a worker knew that the notification was terminal; the last time if there are several."""

    def add(self, line: Line) -> None:
        """Take the next line."""
        self.lines.append(line)
        match line:
            case Accepted():
                self.accepted = True
            case Ended():
                self.failed |= line.outcome != "accepted"
                if self.accepted:
                    self.settled = line.at
            case Copied():
                self.failed |= line.attempts > 0 or line.due > line.at + DEFERRAL
            case Skipped() | DeadLettered():
                self.settled = line.at
            case _:
                pass

    def goes_to(self, destination: str) -> bool:
        """True when this server or channel receives the notification. An empty name stands for all."""
        produced = self.produced
        return not destination or (
            produced is not None and destination == (produced.destination or produced.channel)
        )

    def startable(self, head: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches in which an attempt could have been started.

        Args:
            head: When the notification became the first of its user, in epoch milliseconds.
            end: End of the log, in epoch milliseconds.
        """
        since: int | None = head
        running = False
        for line in self.lines:
            match line:
                case Started() | Skipped() | DeadLettered():
                    if since is not None:
                        yield since, line.at
                    since, running = None, isinstance(line, Started)
                case Ended():
                    running = False
                    if line.outcome == "cancelled":  # by a hand-over, so that the next owner sends it
                        since = line.at
                case Copied() if self.settled > line.at and not running:  # else the watch saw it late
                    if since is not None:
                        yield since, line.at
                    since = max(line.due, line.at, head)
                case _:
                    pass
        if since is not None and self.settled == FOREVER:
            yield since, end


class Timeline(CallChecker):
    """Base of checkers that judge by recorded times.

    Args:
        handover: Seconds before a rebalance took partitions in which their worker may have waited for its sends to end.
        settle: Seconds after a broker is back in which clients may still be reconnecting.
    """

    def __init__(self, *, handover: float, settle: float) -> None:
        super().__init__()
        self._handover = round(handover * 1000)
        self._settle = round(settle * 1000)
        self.end: int = 0
        """Epoch milliseconds of the last line."""
        self.stories: defaultdict[str, Story] = defaultdict(Story)
        self.owned: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        """The stretches of ownership, by worker and partition."""
        self.sampled: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        """When a worker's process is known to have run."""
        self.free: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        """When a worker could have started one more send."""
        self.willing: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        """When neither an operator nor the rate limit kept a worker from sends."""
        self.running: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        """When at least one call of `send` was under way."""
        self.destinations_held: defaultdict[str, dict[str, list[tuple[int, int]]]] = defaultdict(dict)
        """When two samples in a row found a destination held, by worker and name."""
        self._owners: dict[int, tuple[str, int]] = {}
        self._holds: defaultdict[str, list[tuple[int, int, LaneHeld]]] = defaultdict(list)
        self._held: dict[str, LaneHeld] = {}
        self._failing: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        self._away: list[tuple[int, int]] = []
        self._last: dict[str, Sampled] = {}
        self._calls: defaultdict[str, int] = defaultdict(int)
        self._peak: defaultdict[str, int] = defaultdict(int)
        self._since: dict[str, int] = {}
        """When the first of a worker's calls now under way began."""

    def _observe(self, seen: Observation, /) -> None:
        if isinstance(seen, Line):
            self.end = max(self.end, seen.at)
        super()._observe(seen)
        match seen:
            case Produced():
                self.stories[seen.id].produced = seen
            case Started() | Accepted() | Ended() | Skipped() | DeadLettered() | Copied():
                self.stories[seen.id].add(seen)
            case Disturbed():
                self._disturb(seen)
            case _:
                pass

    # -- senders --------------------------------------------------------------------------------------

    def _on_start(self, call: Call) -> None:
        worker = call.started.worker
        if not self._calls[worker]:
            self._since[worker] = call.started.at
        self._calls[worker] += 1
        self._peak[worker] = max(self._peak[worker], self._calls[worker])

    def _on_end(self, call: Call, seen: Ended) -> None:
        worker = seen.worker
        self._calls[worker] -= 1
        if not self._calls[worker]:
            self.running[worker].append((self._since.pop(worker), seen.at))

    def _on_other(self, seen: Observation) -> None:
        match seen:
            case Owned():
                self._disown(seen.partition, seen.at)
                self._owners[seen.partition] = seen.worker, seen.at
            case Released():
                for partition in seen.partitions:
                    self._disown(partition, seen.at - self._handover, seen.worker)
            case LaneHeld():
                self._hold(seen)
            case Failing():
                stretches = self._failing[seen.user, seen.destination]
                if seen.failing:
                    stretches.append((seen.at, FOREVER))
                elif stretches and stretches[-1][1] == FOREVER:
                    stretches[-1] = stretches[-1][0], seen.at
            case Sampled():
                self._sample(seen)
            case _:
                pass

    def _sample(self, seen: Sampled) -> None:
        worker = seen.worker
        before, peak = self._last.get(worker), self._peak[worker]
        self._last[worker], self._peak[worker] = seen, self._calls[worker]
        if before is None:
            return
        stretch, both = (before.at, seen.at), (before, seen)
        for name in {*before.destinations} & {
            *seen.destinations
        }:  # also across a gap in the samples: it is one hold
            self.destinations_held[worker].setdefault(name, []).append(stretch)
        if seen.at - before.at > SAMPLE_GAP:
            return
        self.sampled[worker].append(stretch)
        if any(s.paused or s.limited for s in both):
            return
        self.willing[worker].append(stretch)
        limit = BUSY * min(s.concurrency for s in both)
        if max(peak, *(s.in_flight for s in both)) < limit and not any(s.held for s in both):
            self.free[worker].append(stretch)

    # -- ownership and disturbances -------------------------------------------------------------------

    def _disown(self, partition: int, at: int, worker: str = "") -> None:
        owner, since = self._owners.get(partition, ("", 0))
        if owner and worker in ("", owner):
            del self._owners[partition]
            self.owned[owner, partition].append((since, at))

    def _disturb(self, seen: Disturbed) -> None:
        match seen.how:
            case "broker":
                self._away.append((seen.at, FOREVER))
            case "broker back" if self._away:
                self._away[-1] = self._away[-1][0], seen.at + self._settle
            case "killed" | "stopped" | "fenced":
                patience = self._handover if seen.how == "fenced" else 0
                for partition in tuple(self._owners):
                    self._disown(partition, seen.at - patience, seen.worker)
                if seen.how == "killed":
                    self._end_calls(seen)
            case _:
                pass

    def _end_calls(self, seen: Disturbed) -> None:
        if self._calls.pop(seen.worker, 0):
            self.running[seen.worker].append((self._since.pop(seen.worker), seen.at))
        for key in [key for key in self._running if key[0] == seen.worker]:
            del self._running[key]

    def _hold(self, seen: LaneHeld) -> None:
        begun = self._held.pop(seen.worker, None)
        if begun is not None:
            self._holds[seen.worker].append((begun.at, seen.at, begun))
        if seen.held:
            self._held[seen.worker] = seen if begun is None else begun

    # -- answers --------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[str]:
        """The workers that were sampled at least once."""
        return list(self._last)

    def owned_by(self, worker: str) -> dict[int, Spans]:
        """Return when a worker owned each of its partitions."""
        now = {n: [(since, self.end)] for n, (owner, since) in self._owners.items() if owner == worker}
        past = {n: stretches for (owner, n), stretches in self.owned.items() if owner == worker}
        return {n: Spans([*past.get(n, ()), *now.get(n, ())]) for n in {*past, *now}}

    def holds(self, worker: str) -> list[tuple[int, int, LaneHeld]]:
        """Return begin, end and first line of each hold of a worker's lane."""
        open_ = self._held.get(worker)
        return [*self._holds[worker], *([(open_.at, self._last[worker].at, open_)] if open_ else [])]

    def under_way(self, worker: str) -> Spans:
        """Return when at least one call of `send` was under way."""
        since = self._since.get(worker)
        return Spans([*self.running[worker], *([] if since is None else [(since, self.end)])])

    def failing(self, user: str = "", destination: str = "") -> Spans:
        """Return when the provider failed for everybody, for a user, or for a destination."""
        return Spans(self._failing[user, destination])

    @property
    def cluster_away(self) -> Spans:
        """When a broker was missing, or had just come back."""
        return Spans(self._away)

    def queues(self) -> Iterable[list[Story]]:
        """Yield the notifications of each user and partition, in their order."""
        queues: defaultdict[tuple[int, str], list[Story]] = defaultdict(list)
        for story in self.stories.values():
            if story.produced is not None:
                queues[story.produced.partition, story.produced.user].append(story)
        for queue in queues.values():
            yield sorted(queue, key=lambda story: story.produced.offset if story.produced else 0)
