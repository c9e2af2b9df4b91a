"""Discrete-event simulation of a worker around its real circuits, in virtual time. A run depends on its seed alone.

One worker takes notifications in each user's order, retries failures and dead-letters after four counted attempts. The
circuits decide what may start and what counts, as in `Sends`.
"""

from __future__ import annotations

import heapq
import random
import re
from collections import deque
from typing import Any, Final

from kafka_notify import CircuitBreaker
from kafka_notify._decision.destinations import Circuits, Destination, Destinations
from kafka_notify._decision.evidence import Kind, Try, Verdict, least_wait
from tests.simulation.worlds import INF, Answer, World

ATTEMPTS: Final = 4
ARRIVE, DONE, DUE, WAKE = range(4)
KINDS: Final = {Answer.FAIL: Kind.FAILURE, Answer.ACCOUNT: Kind.ACCOUNT, Answer.THROTTLE: Kind.THROTTLE}

FIGURES: Final = tuple(
    "served p50 p99 dead burnt calls peak opened reopened bad_dead bad_p50 holds probes sick".split()
)
"""Good users: per cent served, seconds until then, dead letters, attempts counted although the provider failed. Calls
during the phases, and refused per second at most. Seconds until held, until resumed. Bad ones: per cent dead-lettered
of those tried, seconds since their first failure. Holds of the lane, and probes that failed in them. Calls of
destinations that fail, once they do."""


class Note:
    """A notification."""

    __slots__ = ("attempts", "bad", "born", "dest", "failed_at", "heals", "tried", "user")

    def __init__(self, user: int, born: float, bad: bool, dest: int, heals: int = 0) -> None:
        self.user, self.born, self.bad, self.dest, self.heals = user, born, bad, dest, heals
        self.attempts, self.tried = 0, False
        self.failed_at = born


class Provider:
    """Answers calls as its world says."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.tokens, self.at = world.capacity, 0.0
        self.last = max((p.end for p in world.phases), default=0.0)

    def answer(self, note: Note, now: float, running: int) -> tuple[float, Answer, float | None, bool]:
        """Latency, outcome, Retry-After, and whether the provider caused a failure."""
        world, chance = self.world, self.rng.random
        latency = world.latency * (0.5 + chance())
        for phase in world.phases:
            if phase.start <= now < phase.end and phase.dest in (None, note.dest):
                latency *= phase.slow
                if chance() < phase.share:
                    return phase.hang or latency, phase.kind, phase.retry_after, True
        if world.fragile and self.last <= now < self.last + 60 and running > world.fragile:
            return latency, Answer.FAIL, None, True
        if world.capacity:
            self.tokens = min(world.capacity, self.tokens + (now - self.at) * world.capacity)
            self.at = now
            if self.tokens < 1:
                return latency, Answer.THROTTLE, None, True
            self.tokens -= 1
        failed = note.bad or note.attempts < note.heals or chance() < world.transient
        return latency, Answer.FAIL if failed else Answer.OK, None, False


class Simulation:
    """One run.

    Args:
        world: Load and provider.
        seed: Of everything random.
        breaker: Of the consumer.
    """

    probes_prefer_fresh = True
    probes_from_both_ends = True

    def __init__(self, world: World, seed: int, breaker: CircuitBreaker | None = None) -> None:
        self.world, self.seed = world, seed
        self.rng, self.jitter = random.Random(seed), random.Random(seed + 1)
        self.provider = Provider(world, self.rng)
        breaker = breaker or CircuitBreaker(patience=world.patience)
        self.destinations: Destinations[Note] | None = None
        if world.dests and world.named:
            self.destinations = Destinations(breaker, world.concurrency, None, named=True)
        self.circuits = Circuits(breaker, 0.0, world.concurrency, self.destinations)
        self.heap: list[tuple[Any, ...]] = []
        self.fresh: deque[Note] = deque()
        self.tried: deque[Note] = deque()
        self.queues: dict[int, deque[Note]] = {}
        self.turn = self.newest = False
        self.row = 1
        self.serial = self.running = self.wake = self.accepted = self.probes_failed = 0
        self.holds: list[list[float]] = []

    def push(self, at: float, kind: int, *more: object) -> None:
        """Let something happen at a time."""
        self.serial += 1
        heapq.heappush(self.heap, (at, self.serial, kind, *more))

    def ready(self, note: Note) -> None:
        """It is its user's turn, and due."""
        (self.tried if note.tried else self.fresh).append(note)

    def pick(self) -> Note:
        """As `Ready`."""
        fresh, tried = self.fresh, self.tried
        if self.circuits.lane.held:
            if not self.probes_prefer_fresh:
                return (tried or fresh).popleft()
            if fresh:
                newest = self.row % 5 == 2 and self.probes_from_both_ends
                self.row += newest
                return fresh.pop() if newest else fresh.popleft()
            self.newest = not self.newest
            return tried.pop() if self.newest else tried.popleft()
        self.turn = not self.turn
        return tried.popleft() if tried and (self.turn or not fresh) else fresh.popleft()

    def arrive(self, user: int, now: float, *, bad: bool, heals: int = 0) -> Note:
        """A notification was written."""
        note = Note(user, now, bad, user % self.world.dests if self.world.dests else 0, heals)
        self.queues.setdefault(user, deque()).append(note)
        return note

    def finish(self, note: Note) -> None:
        """It is terminal."""
        queue = self.queues[note.user]
        queue.popleft()
        if queue:
            self.ready(queue[0])
        else:
            del self.queues[note.user]

    def note_holds(self, now: float) -> None:
        """See whether the lane was held or released."""
        lane, holds = self.circuits.lane, self.holds
        if lane.held and (not holds or holds[-1][1] < INF):
            holds.append([now, INF])
        elif not lane.held and holds and holds[-1][1] == INF:
            holds[-1][1] = now
            self.probes_failed += lane.probes_failed

    def release(self, of: Destination[Note], now: float) -> None:
        """What waits for a destination may start."""
        assert self.destinations is not None
        self.destinations.release(of, now, self.set_off)

    def set_off(self, note: Note) -> bool:
        """It may start."""
        self.ready(note)
        return True

    def failed(self, sent: Try, kind: Kind, now: float, asked: float | None, of: Any, token: int) -> Verdict:
        """What the circuits say of a failure."""
        verdict, dropped = self.circuits.failed(
            sent, kind, "x", now, asked=asked, accepted=self.accepted, of=of, of_token=token
        )
        assert dropped is None
        return verdict

    def run(self) -> dict[str, float]:
        """What users and operators see."""
        world, rng, circuits = self.world, self.rng, self.circuits
        notes: list[Note] = []
        delays: list[float] = []
        dead_after: list[float] = []
        refused: deque[float] = deque(maxlen=500)
        calls = peak = served = dead = burnt = sick_calls = 0
        first, last = min((p.start for p in world.phases), default=INF), self.provider.last
        end = world.seconds + world.drain
        sick = {p.dest for p in world.phases if p.dest is not None}
        for i in range(world.waiting):
            note = self.arrive(-1 - i, 0.0, bad=i < world.waiting * world.waiting_bad)
            note.attempts, note.failed_at, note.tried = 1 + i % 2, -10.0, True
            if world.waiting_last:
                note.attempts = 1 if i % 2 else ATTEMPTS - 1
            if world.waiting_once:
                note.attempts, note.heals = 1, 2
            if world.waiting_untold:
                note.attempts, note.failed_at, note.tried = 0, 0.0, False
            notes.append(note)
            self.ready(note)
        for at in [rng.expovariate(world.rate) if world.rate else INF] + [30.0] * world.burst:
            self.push(at, ARRIVE, at != 30.0)
        self.push(0.0, WAKE, 0)
        while self.heap and self.heap[0][0] <= end:
            now, _, kind, *more = heapq.heappop(self.heap)
            if kind == ARRIVE:
                user = rng.randrange(world.users)
                bad = (user * 2654435761 + self.seed * 97) % 10_000 < world.bad * 10_000
                heals = 2 if world.twice and rng.random() < world.twice else 0
                note = self.arrive(user, now, bad=bad, heals=heals)
                notes.append(note)
                if len(self.queues[user]) == 1:
                    self.ready(note)
                if more[0] and now < world.seconds:
                    self.push(now + rng.expovariate(world.rate), ARRIVE, True)
            elif kind == DUE:
                self.ready(more[0])
            elif kind == DONE:
                note, sent, of, token, (_, outcome, retry_after, caused) = more
                self.running -= 1
                if of is not None:
                    of.busy -= 1
                sent = sent._replace(age=max(0.0, now - note.failed_at) if note.tried else 0.0)
                if outcome is Answer.OK:
                    if of is not None:
                        of.accepted += 1
                    circuits.accepted(sent, now, of, token)
                    self.row = 0 if circuits.lane.held else 1
                    self.accepted += 1
                    if not note.bad and note.dest not in sick:
                        served += 1
                        delays.append(now - note.born)
                    self.finish(note)
                else:
                    if not note.tried:
                        note.failed_at = now
                    self.row += sent.token != 0
                    counted, wait = self.failed(sent, KINDS[outcome], now, retry_after, of, token)
                    note.tried = True
                    note.attempts += counted
                    burnt += counted and caused and not note.bad
                    if note.attempts >= ATTEMPTS:
                        dead += not note.bad
                        dead_after += [now - max(note.failed_at, 0.0)] * note.bad
                        self.finish(note)
                    else:
                        if not counted:
                            wait += min(wait / 4, 5.0) * self.jitter.random()
                        policy_wait = world.waits[min(max(note.attempts, 1), len(world.waits)) - 1]
                        if outcome is Answer.FAIL:
                            wait = max(wait, policy_wait * (0.9 + 0.2 * rng.random()))
                        self.push(now + max(wait, least_wait(0.0, 0.0)), DUE, note)
                self.note_holds(now)
                if of is not None:
                    self.release(of, now)
                    assert self.destinations is not None
                    self.destinations.forget(of)
            elif more[0] != self.wake:
                continue
            elif self.destinations is not None:
                for of in self.destinations.waiting():
                    self.release(of, now)
            while (self.fresh or self.tried) and self.running < world.concurrency:
                if circuits.lane.room(now, self.running) <= 0:
                    break
                note = self.pick()
                of, token = None, 0
                if self.destinations is not None:
                    of = self.destinations.get(str(note.dest))
                    if self.destinations.room(of, now) <= 0:
                        self.destinations.put_aside(of, note, tried=note.tried, waits=bool)
                        continue
                    token = self.destinations.start(of, now)
                sent = Try(
                    note.user, now, circuits.lane.start(now), note.attempts, note.tried,
                    last=note.attempts == ATTEMPTS - 1,
                )  # fmt: skip
                self.running += 1
                calls += first <= now < last
                sick_calls += note.dest in sick and now >= first
                answer = self.provider.answer(note, now, self.running)
                if answer[3]:
                    refused.append(now)
                    peak = max(peak, sum(at > now - 1 for at in refused))
                self.push(now + answer[0], DONE, note, sent, of, token, answer)
            again = circuits.lane.ask_again(now) if self.fresh or self.tried else INF
            if self.destinations is not None:
                again = min(
                    [again, *(self.destinations.ask_again(of, now) for of in self.destinations.waiting())]
                )
            if again < INF:
                self.wake += 1
                self.push(max(again, now + 0.001), WAKE, self.wake)
        good = sum(not n.bad and n.dest not in sick for n in notes)
        bad_tried = sum(n.bad and n.tried and n.failed_at < end - 1.2 * sum(world.waits) for n in notes)
        delays.sort()
        dead_after.sort()
        delays += [INF] * (good - served)
        opened = next((start for start, stop in self.holds if stop > first), INF) if first < INF else 0.0
        reopened = next((stop for start, stop in self.holds if start < last <= stop), last)
        if circuits.lane.held:
            self.probes_failed += circuits.lane.probes_failed
        figures = (
            100 * served / good if good else 100.0,
            delays[len(delays) // 2] if delays else 0.0,
            delays[int(len(delays) * 0.99)] if delays else 0.0,
            dead, burnt, calls, peak, max(0.0, opened - first), reopened - last if last < INF else 0.0,
            min(100.0, 100 * len(dead_after) / bad_tried) if bad_tried else 100.0,
            dead_after[len(dead_after) // 2] if dead_after else INF if bad_tried else 0.0,
            len(self.holds), self.probes_failed, sick_calls,
        )  # fmt: skip
        return dict(zip(FIGURES, figures, strict=True))


def missed(goals: str, runs: list[dict[str, float]]) -> list[str]:
    """Goals that some run missed, with its value."""
    found = []
    for name, sign, text in re.findall(r"(\w+)([<>])=(\S+)", goals):
        worst, bound = (min if sign == ">" else max)(r[name] for r in runs), float(text)
        if worst < bound if sign == ">" else worst > bound:
            found.append(f"{name}={worst:.4g}, not {sign}={text}")
    return found
