"""Protects providers: reports sends to the circuits, and turns their decisions into rulings, timers, events and logs.

`_decision.circuit` and `_decision.destinations` decide; `Admission` keeps what waits for a destination. Runs on the
event loop.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kafka_notify import events
from kafka_notify._base import codes
from kafka_notify._decision.circuit import Circuit
from kafka_notify._decision.context import Context
from kafka_notify._decision.destinations import Circuits, Destination, Destinations
from kafka_notify._decision.evidence import Kind, Try, kind_of
from kafka_notify._decision.holds import how, tell_held, tell_resumed
from kafka_notify._decision.what_follows import Ruling
from kafka_notify._partition.entry import Entry
from kafka_notify._send.admission import Admission
from kafka_notify._send.place import Place, Probes, Senders
from kafka_notify._send.ready import Ready
from kafka_notify._send.recheck import Recheck
from kafka_notify._settle.publisher import CopyPublisher
from kafka_notify.errors import DeliveryError, ThrottledError
from kafka_notify.notification import Notification
from kafka_notify.outcome import Dead, Outcome, Retry
from kafka_notify.policy import is_deferred

log = logging.getLogger("kafka_notify.send")


class Guard:
    """The circuits of one worker, and what follows from them.

    Args:
        context: The worker's context.
        circuits: The circuit of the lane, and those of its destinations.
        destination: Names a notification's destination; None when the destinations are channels, or there are none.
        publisher: Writes copies of notifications that wait for a held destination.
        ready: The queued attempts.
        senders: The parts that send.
    """

    def __init__(
        self,
        context: Context,
        circuits: Circuits[Entry],
        destination: Callable[[Notification[Any]], str | None] | None,
        publisher: CopyPublisher,
        ready: Ready,
        senders: Senders,
    ) -> None:
        self.lane = circuits.lane
        """The lane's circuit."""
        self.probes = Probes()
        self._circuits = circuits
        self._destinations = destinations = circuits.destinations
        self._named = destinations is not None and destinations.named
        self._max_attempts = context.retry.max_attempts
        self._clock = context.clock
        self._on_event = context.on_event
        self._ready = ready
        self._accepted_sends = senders.accepted
        self._backoff = senders.backoff
        self._throttled = senders.throttled
        self._kick = senders.kick
        self._recheck = Recheck(context, self._look)
        self._admission = admission = (
            None
            if destinations is None
            else Admission(context, destinations, destination, publisher, ready, senders, self._recheck)
        )
        self.asks: Collection[object] = _asks(destinations)
        """While this is not empty, destinations limit their sends: `admit` decides about each send."""
        self.channels: Mapping[str, Destination[Entry]] = (
            {} if destinations is None or destinations.counted else destinations.failing
        )
        """The channels that have failed; empty when the destinations of all sends are counted."""
        self.admit = _admit_all if admission is None else admission.admit
        """As `Admission.admit`."""

    def close(self) -> None:
        """Stop the timer: the worker has ended."""
        self._recheck.close()

    # -- seen from outside, from any thread -----------------------------------------------------------

    def destinations_held(self) -> list[Circuit]:
        """The circuits of the destinations that are held."""
        return [] if self._destinations is None else self._destinations.held

    def names_held(self) -> list[str]:
        """The names of the destinations that are held. They may be personal, so only the test kit asks."""
        known = {} if self._destinations is None else self._destinations.known
        return [name for name, of in tuple(known.items()) if of.held]

    def problems(self) -> list[str]:
        """Sentences for `Health.problems` on what is held."""
        now = self._clock.monotonic()
        found: list[str] = []
        if self.lane.held:
            found.append(f"provider unavailable ({how(self.lane, now)})")
        elif self.lane.uncounted(now):
            found.append("degraded: half of all sends fail, so failures do not count as attempts")
        if not self._named:
            found += self._held()
        return found

    def notes(self) -> list[str]:
        """Sentences for `Health.notes` on destinations that the consumer names: others are responsible for these."""
        return self._held() if self._named else []

    def _held(self) -> list[str]:
        held = self.destinations_held()
        if not held:
            return []
        longest = min(held, key=lambda circuit: circuit.since)
        what = "destinations" if self._named else "channels"
        return [f"{len(held)} {what} unavailable, longest: {how(longest, self._clock.monotonic())}"]

    # -- before a send --------------------------------------------------------------------------------

    def room(self, running: int) -> int:
        """The number of sends that the lane's circuit lets start while `running` are under way.

        Asked only while the circuit is `gated`. When the number is 0, a timer wakes the senders later.
        """
        now = self._clock.monotonic()
        room = self.lane.room(now, running)
        if room <= 0:
            self._recheck.by(self.lane.ask_again(now))
        return room

    def start(self, place: Place, running: int) -> bool:
        """Let a send start if there is room, and note whether it is a probe; False when there is no room."""
        if self.room(running) <= 0:
            return False
        place.token = self.lane.start(self._clock.monotonic())
        if place.token:
            self._ready.choose_probe()
        return True

    # -- after a send ---------------------------------------------------------------------------------

    def give_up(self, place: Place, *, asked: bool = False) -> None:
        """Note that a send said nothing about the provider. If it was a probe, another may start.

        Args:
            place: The send.
            asked: True when the provider was asked.
        """
        if place.token:
            self.lane.give_up(place.token, asked=asked)
        if place.of_token and place.of is not None and place.of.circuit is not None:
            place.of.circuit.give_up(place.of_token, asked=asked)
        place.token = place.of_token = 0

    def sent(self, place: Place, entry: Entry, notification: Notification[Any], started: float) -> None:
        """Note that the provider accepted a send, which has ended.

        A first send need not be reported while the lane's circuit is not `gated`, its `failing` and `channels` are
        empty, and the send's destination is not counted.
        """
        of = place.of
        if of is None:
            of = self.channels.get(notification.channel)
        if of is not None:
            of.accepted += 1
            circuit = of.circuit
            if (
                circuit is not None
                and not (circuit.gated or self.lane.gated or entry.retry or place.of)
                and entry.key not in circuit.failing
            ):
                return  # nearly every send of a channel of which a few fail: `_tells` costs half as much again
        if self._tells(of, entry):
            self._accepted(place, of, entry, started, seen=True)
        if place.of is not None:
            self.leave(place)

    def not_sent(
        self, place: Place, entry: Entry, notification: Notification[Any], outcome: Outcome, started: float
    ) -> tuple[Ruling | None, bool]:
        """Take an outcome other than `Sent`.

        Returns:
            The ruling of the circuits, None when the outcome says nothing against the provider; and True when the
            provider was asked at all.
        """
        error = outcome.error if isinstance(outcome, (Retry, Dead)) else None
        kind = kind_of(error)
        if error is not None and kind in (Kind.FAILURE, Kind.ACCOUNT, Kind.THROTTLE):
            return self._blame(place, entry, notification, error, kind, started), True
        asked = error is not None and not is_deferred(error)
        if kind is not Kind.ANSWER:
            self.give_up(place, asked=asked)
            return None, asked
        of = place.of or self.channels.get(notification.channel)
        if self._tells(of, entry):
            self._accepted(place, of, entry, started, seen=False)
        return None, asked

    def leave(self, place: Place) -> None:
        """Note that a send has ended in whatever way: another to the same destination may start."""
        of, place.of = place.of, None
        if of is not None and self._admission is not None:
            of.busy -= 1
            self._admission.left(of)

    def codec_unavailable(self, place: Place, entry: Entry, code: str = codes.CODEC_UNAVAILABLE) -> bool:
        """Note that the codec's own service does not answer, for several users in a row.

        Returns:
            True when the lane is held now; False when others were accepted a moment ago.
        """
        lane, now = self.lane, self._clock.monotonic()
        was = lane.held
        lane.failed(self._try(place, entry, now), Kind.CODEC, code, now, accepted=self._accepted_sends())
        place.token = 0
        self._lane_failed(was, now)
        return lane.held

    def _tells(self, of: Destination[Entry] | None, entry: Entry) -> bool:
        """True when the circuits have to know that this send was accepted: hardly ever for a first send."""
        lane, held = self.lane, entry.retry
        if lane.gated or (held is not None and held.history.first_failed_ms is not None):
            return True
        if of is None:
            return entry.key in lane.failing
        if self._named:  # there may be many, so each drops its circuit as soon as it can
            return of.circuit is not None or of.name in lane.failing
        return of.circuit is not None and (of.circuit.gated or entry.key in of.circuit.failing)

    def _try(self, place: Place, entry: Entry, started: float) -> Try:
        history = entry.history
        made, age = history.attempts, history.age(self._clock.now())
        return Try(entry.key, started, place.token, made, history.failed, age, made + 1 >= self._max_attempts)

    def _accepted(
        self, place: Place, of: Destination[Entry] | None, entry: Entry, started: float, *, seen: bool
    ) -> None:
        lane, now = self.lane, self._clock.monotonic()
        circuit = of.circuit if of is not None else None
        was, of_was = lane.held, circuit is not None and circuit.held
        self.probes.made += place.token != 0 or place.of_token != 0
        if self._circuits.accepted(self._try(place, entry, started), now, of, place.of_token, seen=seen):
            code = circuit.reason if circuit is not None and of_was else lane.reason
            log.warning(
                "%s concerns single notifications: others are accepted, so for 10 minutes it holds nothing",
                code,
            )
            if self._on_event is not None:
                self._on_event(events.RefusalDisbelieved(code))
        place.token = place.of_token = 0
        if was and not lane.held:
            tell_resumed(lane, now, self._on_event, lane=True)
        self._ready.row = 0 if lane.held else 1
        if circuit is not None and of_was and not circuit.held:
            tell_resumed(circuit, now, self._on_event, lane=False)
        if was or lane.gated:
            self._kick()

    def _blame(
        self,
        place: Place,
        entry: Entry,
        notification: Notification[Any],
        error: DeliveryError,
        kind: Kind,
        started: float,
    ) -> Ruling:
        """Rule on a failure that may be the provider's: whether it counts, and how long the notification waits."""
        lane, admission, now = self.lane, self._admission, self._clock.monotonic()
        of = place.of
        if of is None and self._destinations is not None and not self._named:
            of = self._destinations.get(notification.channel)
        was, of_was = lane.held, of is not None and of.held
        probe = place.token != 0 or place.of_token != 0
        self.probes.made += probe
        self.probes.failed += probe
        self._ready.row += place.token != 0
        verdict, dropped = self._circuits.failed(
            self._try(place, entry, started),
            kind,
            error.code,
            now,
            asked=error.retry_after if isinstance(error, ThrottledError) else None,
            accepted=self._accepted_sends(),
            of=of,
            of_token=place.of_token,
        )
        place.token = place.of_token = 0
        self._lane_failed(was, now)
        if admission is not None:
            if of is not None and of.held and not of_was:
                admission.hold(of, now)
            if dropped is not None:
                admission.left(dropped)
        if kind is Kind.THROTTLE and (probe or was != lane.held or (of is not None and of.held != of_was)):
            self._throttled()
        claim, wait = kind is not Kind.FAILURE, verdict.wait
        # a refusal that is not the account's waits as long as any other failure
        backoff = self._backoff(entry.history.attempts + 1) if claim and verdict.counted else 0.0
        return Ruling(verdict.counted, wait, claim, backoff, min(wait / 4, 5.0) * random.random())

    # -- the lane's hold ------------------------------------------------------------------------------

    def _lane_failed(self, was_held: bool, now: float) -> None:
        """Tell of a hold of the lane that has just begun; plan its next probe."""
        if self.lane.held:
            if not was_held:
                tell_held(self.lane, now, self._on_event, lane=True)
            self._recheck.by(self.lane.ask_again(now))

    def _look(self) -> None:
        now = self._clock.monotonic()
        if self._admission is not None:
            self._admission.look(now)
        if self._ready and self.lane.held:
            self._recheck.by(self.lane.ask_again(now))
        self._kick()

    def drop_closed(self) -> None:
        """Keep nothing of partitions that have ended."""
        if self._admission is not None:
            self._admission.drop_closed()


def _asks(destinations: Destinations[Entry] | None) -> Collection[object]:
    """Empty without destinations; never empty when all sends are counted; else the channels held or ramped up."""
    if destinations is None:
        return ()
    return (destinations,) if destinations.counted else destinations.gated


def _admit_all(place: Place, entry: Entry, notification: Notification[Any]) -> bool | Outcome:
    return True
