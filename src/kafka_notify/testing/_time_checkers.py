"""Checkers of how long things take and how much they take: isolation of users, liveness of lanes, memory.

They judge recorded times, which is what their promises are about, by samples that a `WorkerSampler` writes: without
samples there is nothing to judge.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from kafka_notify.testing._checker import Call, Checker, Observation
from kafka_notify.testing._spans import FOREVER, Spans
from kafka_notify.testing._timeline import DEFERRAL, Story, Timeline
from kafka_notify.testing.attempt_log import (
    Copied,
    DeadLettered,
    Ended,
    Sampled,
    Skipped,
    Started,
)

MEGABYTE: Final = 2**20
FIRST_WAIT: Final = 1.0
"""Seconds that an error which asks the whole lane to wait explains, if it names no time: until the first probe."""


@attrs.frozen
class Wait:
    """The wait of an untroubled user's notification for its first attempt."""

    seconds: float
    """Counted: while its worker could have started it."""
    id: str
    user: str
    partition: int


class Isolation(Timeline):
    """No untroubled user waits longer than the bound while senders are free.

    A user is *untroubled* while no attempt of theirs has failed or is stuck, and nothing of theirs waits for a retry
    or for a time of its own. A notification waits from when it was produced, or from when the one before it in the
    queue of its user was settled, until its first attempt, or until it is settled without one. The *bound* is one
    send (the median of those accepted) + 1 second + `grace`.

    Counted is only the time in which the worker that owns the partition had a free sender, as its samples say: not
    while it is killed, frozen, restoring or handing over, while a broker is missing, while the lane is held, while
    something is paused, or while the rate limit decides. A user whose destination fails is not judged meanwhile.

    Args:
        grace: Seconds beyond the promise: other processes use the machine too. On two loaded cores waits of 1 s were
            measured.
        handover: Seconds that running sends get before a rebalance: the worker's `drain_timeout`.
        settle: Seconds after a broker is back, or after a lane is released, that are not counted.
    """

    def __init__(self, *, grace: float = 4.0, handover: float = 20.0, settle: float = 10.0) -> None:
        super().__init__(handover=handover, settle=settle)
        self._grace = grace
        self._seconds: list[float] = []

    def _on_end(self, call: Call, seen: Ended) -> None:
        super()._on_end(call, seen)
        if seen.outcome == "accepted":
            self._seconds.append((seen.at - call.started.at) / 1000)

    @property
    def bound(self) -> float:
        """Seconds that an untroubled user may wait."""
        return (statistics.median(self._seconds) if self._seconds else 0.0) + 1.0 + self._grace

    def waits(self) -> list[Wait]:
        """The counted waits of all untroubled users, longest first."""
        counted = self._counted()
        found = [wait for queue in self.queues() for wait in self._waits_of(queue, counted)]
        return sorted(found, key=lambda wait: -wait.seconds)

    @property
    def longest(self) -> float:
        """Seconds of the longest wait of an untroubled user."""
        waits = self.waits()
        return waits[0].seconds if waits else 0.0

    def violations(self) -> Sequence[str]:
        return [
            f"{wait.id} of {wait.user}, who had no trouble, waited {wait.seconds:.1f} s in partition {wait.partition} "
            f"while senders were free; {self.bound:.1f} s are allowed"
            for wait in self.waits()
            if wait.seconds > self.bound
        ]

    def _counted(self) -> dict[int, Spans]:
        """When each partition's owner could have started a send."""
        found: dict[int, Spans] = {}
        for worker in self.workers:
            held = Spans((begin, end + self._settle) for begin, end, _ in self.holds(worker))
            able = Spans(self.free[worker]) - self.cluster_away - held - self.failing()
            for partition, owned in self.owned_by(worker).items():
                found[partition] = found.get(partition, Spans()) | (owned & able)
        return found

    def _waits_of(self, queue: list[Story], counted: dict[int, Spans]) -> Iterator[Wait]:
        head = 0
        trouble = 0  # until when something of the user is open that has failed or waits
        for story in queue:
            produced = story.produced
            assert produced is not None
            since, until = max(head, produced.at), self._first_look(story)
            if (
                until is not None
                and head < FOREVER
                and trouble <= produced.at
                and not self.failing(destination=produced.destination).length(since, until)
                and not self.failing(user=produced.user).length(since, until)
                and produced.partition in counted
            ):
                seconds = counted[produced.partition].length(since, until) / 1000
                yield Wait(seconds, produced.id, produced.user, produced.partition)
            head = max(head, story.settled)
            if story.failed:
                trouble = max(trouble, story.settled)

    def _first_look(self, story: Story) -> int | None:
        """When its first attempt began, or it was settled without one; None when it has to wait by itself."""
        for line in story.lines:
            match line:
                case Started() | Skipped() | DeadLettered():
                    return line.at
                case Copied() if line.attempts or line.due > line.at + DEFERRAL:
                    return None
                case _:
                    pass
        return self.end


class Liveness(Timeline):
    """A lane or a destination is held only while its provider really fails, and something is attempted whenever
    something is due.

    What the provider really does is known from `Failing` lines, and from errors that ask the whole lane to wait: those
    of a user or destination that is said to be failing ask in vain. Three rules:

    - While something is due for a user and a destination that the provider serves, a lane is held for at most `release`
      seconds at a time although the provider works; likewise a destination, while something of its own is due. So a
      hold that begins wrongly ends within that time, and one that was right ends that soon after the recovery. While
      nothing but known failures is due, nobody is harmed by a hold, and nobody could tell them from an outage.
    - Such time is at most `share` of all time in which the provider works (and one `release` more).
    - While something is due, no worker is without a call of `send` for longer than `stall` seconds, or `probe`
      seconds while its lane is rightly held.

    Not counted is the time in which a worker is killed, frozen, restoring or handing over, in which a broker is
    missing, something is paused, or the rate limit decides.

    Args:
        release: Seconds; the longest wait between two probes and the answers that it takes have to fit in.
        share: 0 to 1.
        stall: Seconds.
        probe: Seconds.
        handover: Seconds that running sends get before a rebalance: the worker's `drain_timeout`.
        settle: Seconds after a broker is back that are not counted.
    """

    def __init__(
        self,
        *,
        release: float = 6.0,
        share: float = 0.1,
        stall: float = 6.0,
        probe: float = 40.0,
        handover: float = 20.0,
        settle: float = 10.0,
    ) -> None:
        super().__init__(handover=handover, settle=settle)
        self._release = release
        self._share = share
        self._stall = stall
        self._probe = probe
        self._asked: list[tuple[Call, Ended]] = []

    def _on_end(self, call: Call, seen: Ended) -> None:
        super()._on_end(call, seen)
        if seen.asks is not None:
            self._asked.append((call, seen))

    @property
    def wrongly_held(self) -> float:
        """Seconds in which lanes were held although the provider worked and something was due that it serves."""
        fails, due = self._fails(), self._due(served=True)
        return sum(seconds for worker in self.workers for *_, seconds in self._wrong(worker, fails, due))

    def violations(self) -> Sequence[str]:
        fails, due, served = self._fails(), self._due(), self._due(served=True)
        found: list[str] = []
        healthy = wrong = 0.0
        for worker in self.workers:
            healthy += (self._counted(worker) - fails).length() / 1000
            for begin, reason, seconds in self._wrong(worker, fails, served):
                wrong += seconds
                if seconds > self._release:
                    found.append(
                        f"{worker} held its lane from {begin} on ({reason}), {seconds:.1f} s of it with something due "
                        f"and a provider that works; {self._release:g} s are allowed"
                    )
            for begin, name, seconds in self._wrong_destinations(worker):
                if seconds > self._release:
                    found.append(
                        f"{worker} held the destination {name} from {begin} on, {seconds:.1f} s of it with something "
                        f"due for it and a provider that works; {self._release:g} s are allowed"
                    )
            found += self._stalls(worker, fails, due)
        if wrong > self._share * healthy + self._release:
            found.append(
                f"lanes were held for {wrong:.1f} s of {healthy:.1f} s in which the provider worked; {self._share:.0%} "
                f"and {self._release:g} s are allowed"
            )
        return found

    def _fails(self, destination: str = "") -> Spans:
        """When the provider fails for everybody, or has asked everybody to wait; or those of one destination."""
        asked: list[tuple[int, int]] = []
        for call, end in self._asked:
            story = self.stories[end.id]
            if story.goes_to(destination) and not self._refused(story).length(call.started.at, end.at + 1):
                wait = min(max(end.asks or 0.0, FIRST_WAIT), 1e9)
                asked.append((call.started.at, end.at + round(wait * 1000)))
        return self.failing() | Spans(asked)

    def _refused(self, story: Story) -> Spans:
        """When the provider is said to fail for its user or destination."""
        produced = story.produced
        if produced is None:
            return Spans()
        own = self.failing(user=produced.user) if produced.user else Spans()
        for name in (produced.destination, produced.channel):
            own = own | self.failing(destination=name) if name else own
        return own

    def _due(self, *, served: bool = False, destination: str = "") -> dict[int, Spans]:
        """When something of each partition, or what goes to one destination of it, could have been attempted; `served`:
        and accepted."""
        stretches: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for queue in self.queues():
            head = 0
            for story in queue:
                assert story.produced is not None
                if head >= FOREVER:
                    break
                if not story.goes_to(destination):
                    head = max(head, story.settled)
                    continue
                could = Spans(story.startable(max(head, story.produced.at), self.end))
                stretches[story.produced.partition] += could - self._refused(story) if served else could
                head = max(head, story.settled)
        return {partition: Spans(found) for partition, found in stretches.items()}

    def _counted(self, worker: str) -> Spans:
        return Spans(self.willing[worker]) - self.cluster_away

    def _due_for(self, worker: str, due: dict[int, Spans]) -> Spans:
        """When something was due that this worker was to attempt."""
        owned = self.owned_by(worker)
        parts = (span for n, spans in owned.items() for span in spans & due.get(n, Spans()))
        return Spans(parts) & self._counted(worker)

    def _wrong(self, worker: str, fails: Spans, due: dict[int, Spans]) -> Iterator[tuple[int, str, float]]:
        """Begin and reason of each hold, and its seconds with something due and a provider that works."""
        blamed = self._due_for(worker, due) - fails
        for begin, end, line in self.holds(worker):
            yield begin, line.reason, blamed.length(begin, end) / 1000

    def _wrong_destinations(self, worker: str) -> Iterator[tuple[int, str, float]]:
        """Begin and name of each hold of a destination, and its seconds in which that works and something is due for
        it."""
        for name, held in self.destinations_held[worker].items():
            due = self._due_for(worker, self._due(served=True, destination=name))
            blamed = due - self._fails(name) - self.failing(destination=name)
            for begin, end in Spans(held):
                yield begin, name, blamed.length(begin, end) / 1000

    def _rightly(self, worker: str, fails: Spans) -> Spans:
        """When the lane was held while its provider failed, or a destination while it did."""
        found = Spans((begin, end) for begin, end, _ in self.holds(worker)) & fails
        for name, held in self.destinations_held[worker].items():
            found |= Spans(held) & (self._fails(name) | self.failing(destination=name))
        return found

    def _stalls(self, worker: str, fails: Spans, due: dict[int, Spans]) -> Iterator[str]:
        waiting = self._due_for(worker, due)
        blamed = waiting - self._rightly(worker, fails)
        for begin, end in Spans(self.sampled[worker]) - self.under_way(worker):
            idle, in_all = blamed.length(begin, end) / 1000, waiting.length(begin, end) / 1000
            if idle > self._stall or in_all > self._probe:
                yield (
                    f"{worker} attempted nothing for {max(idle, in_all):.1f} s from {begin} on although something was "
                    f"due; {self._stall:g} s are allowed, {self._probe:g} s while its lane is rightly held"
                )


class Memory(Checker):
    """The resident memory of a worker's process is what its budgets say.

    The process may have what it had before the worker was started, `slack`, `per_record` for each notification that it
    knew at its busiest, and of each budget what was in use at most, but never more than the budget allows, and a
    `tolerance` of that. An allocator returns memory late, so the highest use so far counts, not the present one. And
    no budget is exceeded by more than `tolerance` and `slack`. And nothing of a partition that was given away stays
    queued for a send: not in two samples in a row.

    Args:
        tolerance: Share of what the budgets say.
        per_record: Bytes that a notification takes besides its key, value and headers.
        slack: Bytes for code, client library, prefetch, queued copies and threads.
    """

    def __init__(
        self, *, tolerance: float = 0.2, per_record: int = 3_000, slack: int = 100 * MEGABYTE
    ) -> None:
        super().__init__()
        self._tolerance = tolerance
        self._per_record = per_record
        self._slack = slack
        self._base: dict[str, int] = {}
        self._records: defaultdict[str, int] = defaultdict(int)
        self._used: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._worst: dict[str, tuple[float, Sampled, int]] = {}
        self._over: dict[tuple[str, str], str] = {}
        self._given_away: dict[str, int] = {}

    @property
    def peak(self) -> tuple[int, int]:
        """Resident bytes at their highest, compared with what was allowed then, and what was allowed."""
        worst = max(self._worst.values(), key=lambda found: found[0], default=None)
        return (0, 0) if worst is None else (worst[1].rss, worst[2])

    def _observe(self, seen: Observation, /) -> None:
        if not isinstance(seen, Sampled):
            return
        worker = seen.worker
        before, self._given_away[worker] = self._given_away.get(worker, 0), seen.given_away
        if before and seen.given_away:
            self._over.setdefault(
                (worker, "given away"),
                f"{worker} had {seen.given_away} notifications queued for a send whose partitions it had given away",
            )
        if not seen.rss:
            return
        base = self._base.setdefault(worker, seen.rss)
        self._records[worker] = max(seen.records, self._records[worker])
        peaks = self._used[worker]
        for name, (used, limit) in seen.budgets.items():
            peaks[name] = max(peaks.get(name, 0), min(used, limit))
            if used > limit * (1 + self._tolerance) + self._slack:
                self._over.setdefault(
                    (worker, name), f"{worker} had {_mb(used)} of {name} in memory; {_mb(limit)} are allowed"
                )
        allowed = base + self._slack + self._per_record * self._records[worker]
        allowed += round((1 + self._tolerance) * sum(peaks.values()))
        share = seen.rss / allowed
        if worker not in self._worst or share > self._worst[worker][0]:
            self._worst[worker] = share, seen, allowed

    def violations(self) -> Sequence[str]:
        return [*self._over.values()] + [
            f"{worker} took {_mb(seen.rss)} of memory where its budgets allow {_mb(allowed)}: {seen.budgets}"
            for worker, (share, seen, allowed) in self._worst.items()
            if share > 1
        ]


def _mb(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MiB"
