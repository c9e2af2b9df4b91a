"""The destinations of a consumer: their circuits, their shares of the concurrency, and what waits for them. Pure.

A destination is known while it has sends under way, waiting items or a circuit. The caller keeps the order per user:
each waiting item is the head of its user's queue.
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
"""Circuits kept; when there are more, the oldest one is dropped."""
FAILURES: Final = 5
"""Score that holds a destination that a consumer names: many of these have few users."""
FIRST_WAIT: Final = 0.25
"""Seconds until the first probe of a named destination, at most, doubled up to `CircuitBreaker.max_wait`. It has few
notifications, and each user in a row who always fails costs the others a wait."""
SHARE: Final = 0.25
"""Share of the concurrency that a named destination may take."""
LOOK_AGAIN: Final = 1.0
"""Seconds after which a destination with room is looked at again: what was released may have ended without a send."""
SWEEP: Final = 1_000
"""Waiting items of a destination at which it is first swept."""
LONGEST_LOOK: Final = 30.0
"""Seconds after which any other destination is looked at again, whatever else happens."""
NAME: Final = 255
"""Characters by which names are told apart."""

T = TypeVar("T", bound=Hashable)


class Destination(Generic[T]):
    """One destination."""

    __slots__ = ("accepted", "busy", "circuit", "fresh", "name", "sweep_at", "tried")

    def __init__(self, name: str, busy: int) -> None:
        self.name = name
        self.busy = busy
        """Sends under way."""
        self.accepted = 0
        """Accepted sends since it is known."""
        self.circuit: Circuit | None = None
        """The circuit; None while nothing of it fails."""
        self.fresh: dict[T, None] = {}
        """Waiting items that never failed, in order."""
        self.tried: dict[T, None] = {}
        """Waiting items that failed before, in order."""
        self.sweep_at = SWEEP
        """Number of waiting items above which those that do not wait any more are swept."""

    @property
    def held(self) -> bool:
        """True while its circuit holds it."""
        return self.circuit is not None and self.circuit.held


class Destinations(Generic[T]):
    """The destinations of one worker.

    Args:
        breaker: The consumer's circuit breaker; None when failures never hold a destination.
        concurrency: Sends at once, to all destinations together.
        share: Share of the concurrency that one destination may take; None for no limit.
        named: True when the consumer names them: there may be many, and each is one user for the lane. Otherwise they
            are its channels.
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
        """True when the sends of each destination are counted, because a share of the concurrency limits them."""
        self.named = named
        self.known: dict[str, Destination[T]] = {}
        self.reserve: Reserve[Destination[T], T] = Reserve()
        """The items in memory, without a copy, that wait for held destinations."""
        self.failing: dict[str, Destination[T]] = {}
        """The destinations with a circuit by name, the oldest first."""
        self.gated: dict[str, Destination[T]] = {}
        """The destinations that are held or ramped up, by name."""

    def get(self, name: str, busy: int = 0) -> Destination[T]:
        """The destination of this name, which is known from now on.

        Args:
            name: The name; its first `NAME` characters count.
            busy: Sends under way, for a destination that was not known.
        """
        name = name[:NAME]
        known = self.known.get(name)
        if known is None:
            known = self.known[name] = Destination(name, busy)
        return known

    def room(self, of: Destination[T], now: float) -> int:
        """The number of sends to a destination that may start now."""
        free = self._limit - of.busy
        return free if of.circuit is None or free <= 0 else min(free, of.circuit.room(now, of.busy))

    def start(self, of: Destination[T], now: float) -> int:
        """Note that a send starts; return its token for `Try`."""
        of.busy += 1
        return 0 if of.circuit is None else of.circuit.start(now)

    def accepted(self, of: Destination[T], sent: Try, now: float, *, seen: bool = True) -> bool:
        """Tell the destination's circuit of an accepted send, as `Circuit.accepted`."""
        circuit = of.circuit
        if circuit is None:
            return False
        doubted = circuit.accepted(sent, now, seen=seen)
        if not circuit.gated:
            if self.gated:
                self.gated.pop(of.name, None)
            if self.named and circuit.score <= 0:
                of.circuit = None
                del self.failing[of.name]
        return doubted

    def failed(
        self, of: Destination[T], sent: Try, kind: Kind, code: str, now: float, asked: float | None
    ) -> tuple[Verdict, Destination[T] | None]:
        """Tell the destination's circuit of a failed send, as `Circuit.failed`.

        Returns:
            The verdict; and a destination whose circuit was dropped, for which waiting items are to be released.
        """
        dropped = None
        if of.circuit is None:
            of.circuit = Circuit(self._breaker, now, self._limit)
            self.failing[of.name] = of
            if len(self.failing) > MOST:
                dropped = self.failing.pop(next(iter(self.failing)))
                dropped.circuit = None
                self.gated.pop(dropped.name, None)
        verdict = of.circuit.failed(sent, kind, code, now, asked=asked, accepted=of.accepted)
        if of.circuit.gated:
            self.gated[of.name] = of
        return verdict, dropped

    def forget(self, of: Destination[T]) -> None:
        """Forget a destination if it has no sends under way, no waiting items and no circuit."""
        if not of.busy and of.circuit is None and not of.fresh and not of.tried:
            self.known.pop(of.name, None)

    # -- what waits -----------------------------------------------------------------------------------

    def put_aside(self, of: Destination[T], item: T, *, tried: bool, waits: Callable[[T], bool]) -> None:
        """Let an item wait for a destination. An item that waits already changes nothing.

        Args:
            of: The destination.
            item: The item.
            tried: True when the item failed before.
            waits: Returns False for an item that does not wait any more. Such items are swept when twice as many came.
        """
        (of.tried if tried else of.fresh)[item] = None
        if len(of.fresh) + len(of.tried) > of.sweep_at:
            self._sweep(of, waits)

    def keep(
        self, of: Destination[T], item: T, partition: int, size: int, now: float, copied: Callable[[T], bool]
    ) -> list[T]:
        """Keep an item that was put aside for a held destination in memory, as its next probe: see `Reserve`. Return
        the items that are to be copied now."""
        self.reserve.keep(of, partition, item, size, now)
        return [item for of, item in self.reserve.to_copy(copied, partition) if of.held]

    def push_out(self, now: float, too_far: Callable[[T], bool], copied: Callable[[T], bool]) -> list[T]:
        """Return the items that have been in memory for long enough and are to be copied now: see `Reserve`."""
        self.reserve.push_out(now, too_far)
        return [item for of, item in self.reserve.to_copy(copied) if of.held]

    def sweep(self, waits: Callable[[T], bool]) -> None:
        """Forget the items that do not wait any more."""
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
        """Let waiting items start as far as there is room: first those that never failed, then the others in rotation.

        A probe is the item that came last, of those in memory if there are any: items that have waited for long may all
        be of users who always fail, and another user shows that the destination works.

        Args:
            of: The destination.
            now: Monotonic seconds.
            set_off: Starts an item; returns False when it does not wait any more.
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
        """Set off the first `most` items of each kind without regard to room. Those that may not start come back at
        the end."""
        for waiting in (of.tried, of.fresh):
            for item in list(itertools.islice(waiting, most)):
                del waiting[item]
                self.reserve.drop(item)
                set_off(item)

    def waiting(self) -> list[Destination[T]]:
        """The destinations with waiting items."""
        return [of for of in self.known.values() if of.fresh or of.tried]

    def ask_again(self, of: Destination[T], now: float) -> float:
        """When to look again at what waits for a destination, at the latest."""
        if of.circuit is None or self.room(of, now) > 0:
            return now + LOOK_AGAIN
        return min(of.circuit.ask_again(now), now + LONGEST_LOOK)

    @property
    def held(self) -> list[Circuit]:
        """The circuits of the destinations that are held."""
        return [
            of.circuit for of in tuple(self.failing.values()) if of.circuit is not None and of.circuit.held
        ]


class Circuits(Generic[T]):
    """The circuit of a lane, and those of its destinations.

    To the lane each destination that the consumer names is one user: when all of them fail, the lane is held. When the
    destinations are the consumer's channels, only the codec holds the lane.

    Args:
        breaker: The consumer's circuit breaker; None when only claims of the provider hold anything.
        now: Monotonic seconds.
        concurrency: Sends at once.
        destinations: The destinations; None when the consumer has none.
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
        """Take a send that was accepted, or answered in a way that shows the provider working.

        Args:
            sent: The send, with the token of the lane's circuit.
            now: Monotonic seconds.
            of: The destination of the send, if it has one.
            of_token: Token of the destination's circuit.
            seen: True when the send was accepted.

        Returns:
            True when this send disproves the claim that the account is refused.
        """
        if of is None or self.destinations is None:
            return self.lane.accepted(sent, now, seen=seen)
        here = sent if sent.token == of_token else sent._replace(token=of_token)
        doubted = self.destinations.accepted(of, here, now, seen=seen)
        if not self.destinations.named and not self.lane.gated:
            return doubted  # answers of channels are no evidence for the lane
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
        """Take a failed send that may say something about the provider.

        Args:
            sent: The send, with the token of the lane's circuit.
            kind: `FAILURE`, or a claim of the destination if there is one, else of the lane's provider.
            code: The error's code.
            now: Monotonic seconds.
            asked: Seconds that a throttle asked to wait.
            accepted: Sends accepted since the start.
            of: The destination of the send, if it has one.
            of_token: Token of the destination's circuit.

        Returns:
            The verdict; and a destination whose circuit was dropped, because too many fail: what waits for it is to be
            released.
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
            lane.accepted(
                sent._replace(who=of.name), now, seen=False
            )  # the record was decoded, so the codec works
        return verdict, dropped
