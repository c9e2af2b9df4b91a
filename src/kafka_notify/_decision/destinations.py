"""The circuits of a lane and of a consumer's destinations, shares of the concurrency, and what waits for one. Pure.

A destination is known while something of it is under way, waits, or fails. The caller keeps the order per user: what
waits here is the head of its user's queue.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

import attrs

from kafka_notify._decision.circuit import Circuit
from kafka_notify._decision.evidence import Kind, Try, Verdict
from kafka_notify._decision.reserve import Reserve
from kafka_notify.limits import CircuitBreaker

MOST: Final = 1_000
"""Circuits kept; beyond, the oldest one is dropped."""
FAILURES: Final = 5
"""Score that holds a destination that a consumer names: many have few users."""
FIRST_WAIT: Final = 0.25
"""Seconds until its first probe, at most: it has few notifications, and if several users in a row always fail, each
costs the others a wait. Doubled up to `CircuitBreaker.max_wait`."""
SHARE: Final = 0.25
"""Of the concurrency that such a destination may take."""
LOOK_AGAIN: Final = 1.0
"""Seconds after which a destination with room is looked at again: what was released may have ended without a send."""
SWEEP: Final = 1_000
LONGEST_LOOK: Final = 30.0
"""Seconds after which any other one is, whatever else happens."""
NAME: Final = 255
"""Characters of a name that are told apart."""

T = TypeVar("T", bound=Hashable)


class Destination(Generic[T]):
    """One of them."""

    __slots__ = ("accepted", "busy", "circuit", "fresh", "name", "sweep_at", "tried")

    def __init__(self, name: str, busy: int) -> None:
        self.name = name
        self.busy = busy
        """Sends under way."""
        self.accepted = 0
        """Sends, since it is known."""
        self.circuit: Circuit | None = None
        self.fresh: dict[T, None] = {}
        """What waits for it and never failed, in order."""
        self.tried: dict[T, None] = {}
        """What waits for it and failed before."""
        self.sweep_at = SWEEP
        """How many may wait before those that do not any more are looked for."""

    @property
    def held(self) -> bool:
        """Whether it is held."""
        return self.circuit is not None and self.circuit.held


class Destinations(Generic[T]):
    """Those of one worker.

    Args:
        breaker: Of the consumer; None when failures never hold one.
        concurrency: Sends at once, of all.
        share: Of the concurrency that one may take; None is no limit.
        named: Whether the consumer names them: there may be many, and each is one user for the lane. Otherwise they are
            its channels.
    """

    def __init__(
        self, breaker: CircuitBreaker | None, concurrency: int, share: float | None, *, named: bool
    ) -> None:
        if named and share is None:
            share = SHARE
        if named and breaker is not None:
            failures = min(breaker.failures, FAILURES)
            breaker = attrs.evolve(
                breaker,
                failures=failures,
                accepted=min(breaker.accepted, failures),
                initial_wait=min(breaker.initial_wait, FIRST_WAIT),
            )
        self._breaker = breaker
        self._limit = concurrency if share is None else max(1, int(concurrency * share))
        self.counted = named or share is not None
        """Whether the sends of each have to be counted, as a share of the concurrency limits them."""
        self.named = named
        self.known: dict[str, Destination[T]] = {}
        self.reserve: Reserve[Destination[T], T] = Reserve()
        """Of what waits for held ones: those that are in memory, without a copy."""
        self._failing: dict[str, Destination[T]] = {}
        """Those with a circuit, the oldest first."""

    def get(self, name: str, busy: int = 0) -> Destination[T]:
        """The destination of this name.

        Args:
            name: Only its first characters count.
            busy: Its sends under way, when it was not known.
        """
        name = name[:NAME]
        known = self.known.get(name)
        if known is None:
            known = self.known[name] = Destination(name, busy)
        return known

    def room(self, of: Destination[T], now: float) -> int:
        """How many sends to it may start now."""
        free = self._limit - of.busy
        return free if of.circuit is None or free <= 0 else min(free, of.circuit.room(now, of.busy))

    def start(self, of: Destination[T], now: float) -> int:
        """A send starts: its token for `Try`."""
        of.busy += 1
        return 0 if of.circuit is None else of.circuit.start(now)

    def accepted(self, of: Destination[T], sent: Try, now: float, *, seen: bool = True) -> bool:
        """As `Circuit.accepted`."""
        circuit = of.circuit
        if circuit is None:
            return False
        doubted = circuit.accepted(sent, now, seen=seen)
        if self.named and not circuit.gated and circuit.score <= 0:
            of.circuit = None
            del self._failing[of.name]
        return doubted

    def failed(
        self, of: Destination[T], sent: Try, kind: Kind, code: str, now: float, asked: float | None
    ) -> tuple[Verdict, Destination[T] | None]:
        """As `Circuit.failed`; and a destination whose circuit was dropped, whose waiting is to be released."""
        dropped = None
        if of.circuit is None:
            of.circuit = Circuit(self._breaker, now, self._limit)
            self._failing[of.name] = of
            if len(self._failing) > MOST:
                dropped = self._failing.pop(next(iter(self._failing)))
                dropped.circuit = None
        verdict = of.circuit.failed(sent, kind, code, now, asked=asked, accepted=of.accepted)
        return verdict, dropped

    def forget(self, of: Destination[T]) -> None:
        """It may have nothing under way, nothing waiting and nothing failing."""
        if not of.busy and of.circuit is None and not of.fresh and not of.tried:
            self.known.pop(of.name, None)

    # -- what waits -----------------------------------------------------------------------------------

    def put_aside(self, of: Destination[T], item: T, *, tried: bool, waits: Callable[[T], bool]) -> None:
        """Let something wait for a destination.

        Args:
            of: The destination.
            item: What waits; twice is once.
            tried: Whether it failed before.
            waits: Whether something still waits: what does not is forgotten when twice as many came.
        """
        (of.tried if tried else of.fresh)[item] = None
        if len(of.fresh) + len(of.tried) > of.sweep_at:
            self._sweep(of, waits)

    def keep(
        self, of: Destination[T], item: T, partition: int, size: int, now: float, copied: Callable[[T], bool]
    ) -> list[T]:
        """Leave what was put aside for a held destination in memory, as its next probe; what is to be copied now: see
        `Reserve`."""
        self.reserve.keep(of, partition, item, size, now)
        return [item for of, item in self.reserve.to_copy(copied, partition) if of.held]

    def push_out(self, now: float, too_far: Callable[[T], bool], copied: Callable[[T], bool]) -> list[T]:
        """What was in memory for long enough and is to be copied now: see `Reserve`."""
        self.reserve.push_out(now, too_far)
        return [item for of, item in self.reserve.to_copy(copied) if of.held]

    def sweep(self, waits: Callable[[T], bool]) -> None:
        """Forget what does not wait any more."""
        for of in self.waiting():
            self._sweep(of, waits)
            self.forget(of)
        self.reserve.sweep(waits)

    def _sweep(self, of: Destination[T], waits: Callable[[T], bool]) -> None:
        for item in of.fresh:
            if not waits(item):
                self.reserve.drop(item)
        of.fresh = {item: None for item in of.fresh if waits(item)}
        of.tried = {item: None for item in of.tried if waits(item)}
        of.sweep_at = 2 * (len(of.fresh) + len(of.tried)) + SWEEP

    def release(self, of: Destination[T], now: float, set_off: Callable[[T], bool]) -> None:
        """Let start what may: what never failed first, then the others in rotation. A probe is what came last, of those
        in memory if there is one: what has waited for long may all be of users who always fail, and somebody else shows
        that it works.

        Args:
            of: The destination.
            now: Monotonic seconds.
            set_off: Starts one; False when it does not wait any more.
        """
        room = self.room(of, now) if of.fresh or of.tried else 0
        while room > 0 and (waiting := of.fresh or of.tried):
            item = self.reserve.newest(of) if of.held else None
            if item is None:
                item = next(reversed(waiting) if of.held and waiting is of.fresh else iter(waiting))
            del waiting[item]
            self.reserve.drop(item)
            room -= set_off(item)

    def rotate(self, of: Destination[T], most: int, set_off: Callable[[T], bool]) -> None:
        """Have the first ones looked at, whether they may start or not: those which do not come back as the last."""
        for waiting in (of.tried, of.fresh):
            for item in list(itertools.islice(waiting, most)):
                del waiting[item]
                self.reserve.drop(item)
                set_off(item)

    def waiting(self) -> list[Destination[T]]:
        """Those for which something waits."""
        return [of for of in self.known.values() if of.fresh or of.tried]

    def ask_again(self, of: Destination[T], now: float) -> float:
        """When what waits for a destination may start, at the latest."""
        if of.circuit is None or self.room(of, now) > 0:
            return now + LOOK_AGAIN
        return min(of.circuit.ask_again(now), now + LONGEST_LOOK)

    @property
    def held(self) -> list[Circuit]:
        """Circuits of those that are held."""
        return [
            of.circuit for of in tuple(self._failing.values()) if of.circuit is not None and of.circuit.held
        ]


class Circuits(Generic[T]):
    """The lane's circuit, and those of its destinations.

    A destination that the consumer names is one user for the lane: all of them failing is an outage of the lane. When
    the destinations are the consumer's channels, only the codec holds the lane.

    Args:
        breaker: Of the consumer; None when only what the provider says holds anything.
        now: Monotonic seconds.
        concurrency: Sends at once.
        destinations: None when the consumer has none.
    """

    def __init__(
        self,
        breaker: CircuitBreaker | None,
        now: float,
        concurrency: int,
        destinations: Destinations[T] | None = None,
    ) -> None:
        self.lane = Circuit(breaker, now, concurrency)
        self.destinations = destinations

    def accepted(
        self, sent: Try, now: float, of: Destination[T] | None = None, of_token: int = 0, *, seen: bool = True
    ) -> bool:
        """A send was accepted, or answered in a way that shows the provider working.

        Args:
            sent: What it was, with the lane's token.
            now: Monotonic seconds.
            of: Its destination, with its token.
            of_token: Of the destination's circuit.
            seen: Whether it was accepted.

        Returns:
            Whether a refusal of the account is disbelieved with it.
        """
        if of is None or self.destinations is None:
            return self.lane.accepted(sent, now, seen=seen)
        here = sent if sent.token == of_token else sent._replace(token=of_token)
        doubted = self.destinations.accepted(of, here, now, seen=seen)
        if not self.destinations.named and not self.lane.gated:
            return doubted  # what channels answer tells the lane nothing
        return self.lane.accepted(sent._replace(who=of.name), now, seen=seen) or doubted

    def failed(
        self,
        sent: Try,
        kind: Kind,
        code: str,
        now: float,
        *,
        asked: float | None = None,
        accepted: int = 0,
        of: Destination[T] | None = None,
        of_token: int = 0,
    ) -> tuple[Verdict, Destination[T] | None]:
        """A send failed, and that may say something about the provider.

        Args:
            sent: What it was, with the lane's token.
            kind: `FAILURE`, or a claim: of the destination, when there is one.
            code: Of the error.
            now: Monotonic seconds.
            asked: Seconds that a throttle asked to wait.
            accepted: Sends accepted since the start.
            of: Its destination, with its token.
            of_token: Of the destination's circuit.

        Returns:
            What it costs the notification; and a destination that lost its circuit, as too many fail: what waits for it
            is to be released.
        """
        lane, destinations = self.lane, self.destinations
        if of is None or destinations is None:
            return lane.failed(sent, kind, code, now, asked=asked, accepted=accepted), None
        here = sent if sent.token == of_token else sent._replace(token=of_token)
        verdict, dropped = destinations.failed(of, here, kind, code, now, asked)
        if destinations.named:
            sent = sent._replace(who=of.name)
            counted, wait = lane.failed(sent, Kind.FAILURE, code, now, accepted=accepted)
            verdict = Verdict(verdict.counted and counted, max(verdict.wait, wait))
        elif lane.held:
            lane.accepted(sent._replace(who=of.name), now, seen=False)  # it was decoded: the codec works
        return verdict, dropped
