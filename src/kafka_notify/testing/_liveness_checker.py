"""The checker of liveness: lanes and destinations are held only while their provider fails, and due work is done.

It judges recorded times, by samples that a `WorkerSampler` writes; without samples there is nothing to judge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from kafka_notify.testing._checker import Call, Violation
from kafka_notify.testing._spans import FOREVER, Spans
from kafka_notify.testing._timeline import Story, Timeline
from kafka_notify.testing.attempt_log import Ended

FIRST_WAIT: Final = 1.0
"""Seconds of a hold, until the first probe, that an error explains which asks the whole lane to wait and names no
time."""


class Liveness(Timeline):
    """A lane or a destination is held only while its provider fails, and whenever a notification is due, something is
    attempted.

    `Failing` lines say when the provider fails, and so do errors that ask the whole lane to wait, but for those of a
    user or destination that is known to be failing. There are three rules:

    - While a notification is due for a user and a destination that the provider serves, a lane is held for at most
      `release` seconds at a time although the provider works. The same holds for a destination while one of its own
      notifications is due. So a wrong hold ends within that time, and a right one within that time after the recovery.
      While only known failures are due, a hold harms nobody, and nothing could tell these failures from an outage.
    - Such time is at most `share` of all time in which the provider works, and one `release` more.
    - While a notification is due, no worker is without a call of `send` for longer than `stall` seconds, or for longer
      than `probe` seconds while its lane is rightly held.

    The time does not count while a worker is killed, frozen, restoring or handing over, while a broker is missing,
    while something is paused, or while the rate limit decides.

    Args:
        release: Seconds for which a lane may be held wrongly at a time. The longest wait between two probes and the
            answers that a release takes have to fit in.
        share: Share of the time in which lanes may be held wrongly, 0 to 1.
        stall: Seconds without a call of `send`.
        probe: Seconds without a call of `send` while the lane is rightly held.
        handover: Seconds that running sends get before a rebalance, the worker's `drain_timeout`.
        settle: Seconds after a broker is back that do not count.
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
        """Seconds in which lanes were held although the provider worked and a notification that it serves was due."""
        fails, due = self._fails(), self._due(served=True)
        return sum(seconds for worker in self.workers for *_, seconds in self._wrong(worker, fails, due))

    def violations(self) -> Sequence[Violation]:
        fails, due, served = self._fails(), self._due(), self._due(served=True)
        held = [Violation("held-wrongly", text) for text in self._held_wrongly(fails, served)]
        stalled = [
            Violation("stalled", text) for worker in self.workers for text in self._stalls(worker, fails, due)
        ]
        return [*held, *stalled]

    def _held_wrongly(self, fails: Spans, served: dict[int, Spans]) -> Iterator[str]:
        healthy = wrong = 0.0
        for worker in self.workers:
            healthy += (self._counted(worker) - fails).length() / 1000
            for begin, reason, seconds in self._wrong(worker, fails, served):
                wrong += seconds
                if seconds > self._release:
                    yield (
                        f"{worker} held its lane from {begin} on ({reason}), {seconds:.1f} s of it with something due "
                        f"and a provider that works; {self._release:g} s are allowed"
                    )
            for begin, name, seconds in self._wrong_destinations(worker):
                if seconds > self._release:
                    yield (
                        f"{worker} held the destination {name} from {begin} on, {seconds:.1f} s of it with something "
                        f"due for it and a provider that works; {self._release:g} s are allowed"
                    )
        if wrong > self._share * healthy + self._release:
            yield (
                f"lanes were held for {wrong:.1f} s of {healthy:.1f} s in which the provider worked; {self._share:.0%} "
                f"and {self._release:g} s are allowed"
            )

    def _fails(self, destination: str = "") -> Spans:
        """Return when the provider fails for everybody or has asked everybody to wait, or all sends of one
        destination."""
        asked: list[tuple[int, int]] = []
        for call, end in self._asked:
            story = self.stories[end.id]
            if story.goes_to(destination) and not self._refused(story).length(call.started.at, end.at + 1):
                wait = min(max(end.asks or 0.0, FIRST_WAIT), 1e9)
                asked.append((call.started.at, end.at + round(wait * 1000)))
        return self.failing() | Spans(asked)

    def _refused(self, story: Story) -> Spans:
        """Return when the provider is known to fail for a notification's user or destination."""
        produced = story.produced
        if produced is None:
            return Spans()
        own = self.failing(user=produced.user) if produced.user else Spans()
        for name in (produced.destination, produced.channel):
            own = own | self.failing(destination=name) if name else own
        return own

    def _due(self, *, served: bool = False, destination: str = "") -> dict[int, Spans]:
        """Return when a notification of each partition could have been attempted.

        Args:
            served: True for the time in which the provider would have accepted it, too.
            destination: The only destination to look at; empty for all.
        """
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
        """Return when a notification was due that this worker had to attempt."""
        owned = self.owned_by(worker)
        parts = (span for n, spans in owned.items() for span in spans & due.get(n, Spans()))
        return Spans(parts) & self._counted(worker)

    def _wrong(self, worker: str, fails: Spans, due: dict[int, Spans]) -> Iterator[tuple[int, str, float]]:
        """Yield begin and reason of each hold, and its seconds in which the provider worked and a notification was
        due."""
        blamed = self._due_for(worker, due) - fails
        for begin, end, line in self.holds(worker):
            yield begin, line.reason, blamed.length(begin, end) / 1000

    def _wrong_destinations(self, worker: str) -> Iterator[tuple[int, str, float]]:
        """Yield begin and name of each hold of a destination, and its seconds in which the destination worked and one
        of its notifications was due."""
        for name, held in self.destinations_held[worker].items():
            due = self._due_for(worker, self._due(served=True, destination=name))
            blamed = due - self._fails(name) - self.failing(destination=name)
            for begin, end in Spans(held):
                yield begin, name, blamed.length(begin, end) / 1000

    def _rightly(self, worker: str, fails: Spans) -> Spans:
        """Return when the lane was held while its provider failed, or a destination while that failed."""
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
