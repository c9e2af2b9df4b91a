"""What protects providers: tells circuits how sends ended, settles what failures cost, and has destinations wait.

Runs on the event loop. The circuits decide (`circuit`, `destinations`); here their decisions become outcomes, copies,
timers, events and log lines.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from typing import Any, Final

import attrs

from kafka_notify import events
from kafka_notify._base import codes
from kafka_notify._decision.circuit import DAY, Circuit, Kind, Try, kind_of
from kafka_notify._decision.context import Context
from kafka_notify._decision.destinations import LOOK_AGAIN, Circuits, Destination, Destinations
from kafka_notify._decision.holds import how, tell_held, tell_resumed
from kafka_notify._decision.put_aside import is_copied, too_far, waits
from kafka_notify._decision.what_follows import Ruling
from kafka_notify._partition.entry import Busy, Entry
from kafka_notify._send.attempt import AttemptRunner
from kafka_notify._send.ready import Ready
from kafka_notify._settle.publisher import CopyPublisher
from kafka_notify.errors import DeliveryError, ThrottledError, TransientError
from kafka_notify.notification import Notification
from kafka_notify.outcome import Dead, Outcome, Retry
from kafka_notify.policy import is_deferred
from kafka_notify.wire import channel_of

log = logging.getLogger("kafka_notify.send")

FOREVER: Final = float("inf")
OVERDUE: Final = 100
"""Of what waits for a destination that was held for a day, looked at in one turn."""


class Place:
    """Where a send happens: a sender's, one after the other."""

    __slots__ = ("entry", "of", "of_token", "token")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.token = 0
        """Of the lane's circuit: not 0 when the send is a probe."""
        self.of: Destination[Entry] | None = None
        """Where the send goes, when that is counted, or known to fail."""
        self.of_token = 0
        """As `token`, of the destination's circuit."""


@attrs.define
class Probes:
    """Sends that were to find out whether a provider works again, and were answered or failed."""

    made: int = 0
    failed: int = 0


@attrs.frozen
class Senders:
    """What a guard needs of those who send.

    Args:
        places: Of all sends under way.
        accepted: How many sends were accepted since the start.
        throttled: Called when the provider asked to slow down.
        kick: Called when more may start.
    """

    places: Collection[Place]
    accepted: Callable[[], int]
    throttled: Callable[[], object]
    kick: Callable[[], object]


class Guard:
    """The circuits of one worker, and what follows from them.

    Args:
        context: Of the worker. As many source records as sends at once may wait in memory for one destination.
        circuits: The lane's, and those of its destinations.
        destination: Names a notification's; None when the destinations are channels, or there are none.
        runner: Knows the backoff.
        publisher: Writes the copies of what waits for a held destination.
        ready: Queued attempts.
        senders: Those who send.
    """

    def __init__(
        self,
        context: Context,
        circuits: Circuits[Entry],
        destination: Callable[[Notification[Any]], str | None] | None,
        runner: AttemptRunner,
        publisher: CopyPublisher,
        ready: Ready,
        senders: Senders,
    ) -> None:
        self.lane = circuits.lane
        """The lane's circuit."""
        self.probes = Probes()
        self._circuits = circuits
        self._destinations = circuits.destinations
        self._named = self._destinations is not None and self._destinations.named
        self.asks: Collection[object] = _asks(self._destinations)
        """While this is not empty, `admit` has to be asked before each send."""
        self._destination = destination
        self._max_attempts = context.retry.max_attempts
        self._max_wait = context.retry.max_wait
        self._concurrency = context.concurrency
        self._loop = context.loop
        self._clock = context.clock
        self._runner = runner
        self._publisher = publisher
        self._ready = ready
        self._places = senders.places
        self._accepted_sends = senders.accepted
        self._throttled = senders.throttled
        self._kick = senders.kick
        self._on_event = context.on_event
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = FOREVER

    def close(self) -> None:
        """The worker has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = -FOREVER

    # -- seen from outside, from any thread -----------------------------------------------------------

    def destinations_held(self) -> list[Circuit]:
        """Circuits of the destinations that are held."""
        return [] if self._destinations is None else self._destinations.held

    def names_held(self) -> list[str]:
        """Names of the destinations that are held: they may be personal, so only the test kit asks."""
        known = {} if self._destinations is None else self._destinations.known
        return [name for name, of in tuple(known.items()) if of.held]

    def problems(self) -> list[str]:
        """What is held, as sentences for `health`."""
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
        """What others have to look after, as sentences for `health`: destinations that the consumer names."""
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
        """How many sends the lane's circuit lets start, while `running` are under way; asked only while it is `gated`.
        When it is none, something wakes the senders later."""
        now = self._clock.monotonic()
        room = self.lane.room(now, running)
        if room <= 0:
            self._look_again(self.lane.ask_again(now))
        return room

    def start(self, place: Place, running: int) -> bool:
        """Whether a send may start; then it is noted as a probe, if it is one."""
        if self.room(running) <= 0:
            return False
        place.token = self.lane.start(self._clock.monotonic())
        if place.token:
            self._ready.choose_probe()
        return True

    def admit(self, place: Place, entry: Entry, notification: Notification[Any]) -> bool | Outcome:
        """Whether the notification's destination lets it start now; asked when destinations are counted or known.

        Otherwise it is put aside, and no sender waits. It lives in memory like one that is queued, up to `concurrency`
        per destination; beyond, and whenever the destination is held, in the retry topic: one copy with unchanged
        attempts, however long it waits. The last few that never failed are copied when others push them out.

        Returns:
            An outcome when it ends, as its destination was held for too long or cannot be named.
        """
        destinations = self._destinations
        assert destinations is not None
        if self._named:
            try:
                name = self._name(notification)
            except Exception as e:
                log.error("destination() raised %s for notification %s", type(e).__name__, notification.id)
                error = TransientError(f"{codes.DESTINATION}{type(e).__name__}")
                return Retry(self._runner.backoff(entry.attempt + 1), True, error)
        else:
            name = notification.channel
            if not destinations.counted:
                known = destinations.known.get(name)
                if known is None:
                    return True
                if known.circuit is None or not known.circuit.gated:
                    # nearly always: there is room for all senders
                    place.of = known
                    known.busy += 1
                    return True
        if name is None:
            return True
        of, now = destinations.get(name), self._clock.monotonic()
        if destinations.room(of, now) > 0:
            place.of, place.of_token = of, destinations.start(of, now)
            return True
        circuit, at = of.circuit, self._clock.now()
        if (
            circuit is not None
            and circuit.held
            and now - circuit.since >= (most := self._longest(circuit, notification._expires_ms))
            and at - entry.created > most * 1000
        ):
            return Dead("throttle_timeout")
        tried = entry.failed or (circuit is not None and entry.key in circuit.failing)
        destinations.put_aside(of, entry, tried=tried, waits=waits)
        if entry.retry is not None:
            entry.queue.partition.pause(entry, at)
        elif of.held:
            self._keep_or_copy(of, entry, notification, tried=tried)
        elif len(of.fresh) > self._concurrency:
            self._put_in_kafka(entry, notification)
        self._look_again(min(destinations.ask_again(of, now), now + LOOK_AGAIN))
        return False

    def _longest(self, circuit: Circuit, expires: int | None = None) -> float:
        """Seconds for which a notification waits for a held destination. The policy bounds throttles alone: an outage
        is nobody's wish, and what expires ends by itself."""
        if self._max_wait is not None and circuit.cause == "throttle":
            return self._max_wait
        return DAY if expires is None else FOREVER

    def _name(self, notification: Notification[Any]) -> str | None:
        assert self._destination is not None
        name = self._destination(notification)
        if name is not None and not isinstance(name, str):
            raise TypeError
        return name

    def _keep_or_copy(self, of: Destination[Entry], entry: Entry, notification: Any, *, tried: bool) -> None:
        """Leave one that never failed in memory, as a probe of its held destination; what it pushes out is copied."""
        if tried or too_far(entry) or self._destinations is None:
            self._put_in_kafka(entry, notification)
            return
        number, now = entry.partition.number, self._clock.monotonic()
        for pushed in self._destinations.keep(of, entry, number, entry.size, now, is_copied):
            self._put_in_kafka(pushed, None)

    def _put_in_kafka(self, entry: Entry, notification: Notification[Any] | None) -> None:
        partition = entry.queue.partition
        if partition.alive and not partition.closing:
            partition.pause(entry, self._clock.now())
            self._publisher.pause(entry, notification, codes.DESTINATION_HELD)

    # -- after a send ---------------------------------------------------------------------------------

    def give_up(self, place: Place, *, asked: bool = False) -> None:
        """If the send was a probe, it said nothing.

        Args:
            place: The send.
            asked: Whether the provider was asked.
        """
        if place.token:
            self.lane.give_up(place.token, asked=asked)
        if place.of_token and place.of is not None and place.of.circuit is not None:
            place.of.circuit.give_up(place.of_token, asked=asked)
        place.token = place.of_token = 0

    def sent(self, place: Place, entry: Entry, started: float) -> None:
        """The provider accepted, and the send has ended. Need not be called for a first send while the lane's circuit
        is not `gated`, nobody is in `failing`, and the destination is not known."""
        if place.of is not None:
            place.of.accepted += 1
        if self._tells(place, entry):
            self._accepted(place, entry, started, seen=True)
        self.leave(place)

    def not_sent(
        self, place: Place, entry: Entry, notification: Notification[Any], outcome: Outcome, started: float
    ) -> tuple[Ruling | None, bool]:
        """Hear of an outcome other than `Sent`.

        Returns:
            What the circuits rule, when it may be the provider's; and whether the provider was asked at all.
        """
        error = outcome.error if isinstance(outcome, (Retry, Dead)) else None
        kind = kind_of(error)
        if error is not None and kind in (Kind.FAILURE, Kind.ACCOUNT, Kind.THROTTLE):
            return self._blame(place, entry, notification, error, kind, started), True
        asked = error is not None and not is_deferred(error)
        if kind is not Kind.ANSWER:
            self.give_up(place, asked=asked)
        elif self._tells(place, entry):
            self._accepted(place, entry, started, seen=False)
        return None, asked

    def _tells(self, place: Place, entry: Entry) -> bool:
        """Whether circuits have to be told that this send was accepted: nearly never of a first send."""
        lane, of, held = self.lane, place.of, entry.retry
        if lane.gated or (held is not None and held.first_failed is not None):
            return True
        if of is None:
            return bool(lane.failing) and entry.key in lane.failing
        if lane.failing and of.name in lane.failing:
            return True
        circuit = of.circuit
        if circuit is None:
            return False
        # one of many that the consumer names forgets its circuit as soon as it can
        return circuit.gated or self._named or (bool(circuit.failing) and entry.key in circuit.failing)

    def _age(self, entry: Entry) -> float:
        """Seconds since it failed first, or was put off."""
        held = entry.retry
        if held is None or held.first_failed is None:
            return 0.0
        return max((self._clock.now() - held.first_failed) / 1000, 0.0)

    def _try(self, place: Place, entry: Entry, started: float) -> Try:
        last = entry.attempt + 1 >= self._max_attempts
        return Try(entry.key, started, place.token, entry.attempt, entry.failed, self._age(entry), last)

    def _accepted(self, place: Place, entry: Entry, started: float, *, seen: bool) -> None:
        lane, of, now = self.lane, place.of, self._clock.monotonic()
        circuit = of.circuit if of is not None else None
        was, of_was = lane.held, circuit is not None and circuit.held
        self.probes.made += place.token != 0 or place.of_token != 0
        if self._circuits.accepted(self._try(place, entry, started), now, of, place.of_token, seen=seen):
            code = circuit.reason if circuit is not None and of_was else lane.reason
            log.warning(
                "%s is not everybody's: others are accepted; for 10 minutes nothing is held for it", code
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
        """A failure that may be the provider's: whether it counts, and how long it waits."""
        lane, now = self.lane, self._clock.monotonic()
        if self._destinations is not None and not self._named and place.of is None:
            place.of = self._channel(notification.channel)
            place.of.busy += 1  # until `leave`
        of = place.of
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
        if lane.held:
            if not was:
                tell_held(lane, now, self._on_event, lane=True)
            self._look_again(lane.ask_again(now))
        if of is not None and of.held and not of_was:
            self._destination_held(of, now)
        if dropped is not None:
            self._release(dropped)
        if kind is Kind.THROTTLE and (probe or was != lane.held or (of is not None and of.held != of_was)):
            self._throttled()
        claim, wait = kind is not Kind.FAILURE, verdict.wait
        # a refusal that was not the account's waits as long as any other failure
        backoff = self._runner.backoff(entry.attempt + 1) if claim and verdict.counted else 0.0
        return Ruling(verdict.counted, wait, claim, backoff, min(wait / 4, 5.0) * random.random())

    def codec_unavailable(self, place: Place, entry: Entry, code: str = codes.CODEC_UNAVAILABLE) -> bool:
        """The codec's own service does not answer, for several users in a row: whether the lane is held. It is not when
        others were accepted just now."""
        lane, now = self.lane, self._clock.monotonic()
        was = lane.held
        lane.failed(self._try(place, entry, now), Kind.CODEC, code, now, accepted=self._accepted_sends())
        place.token = 0
        if lane.held:
            if not was:
                tell_held(lane, now, self._on_event, lane=True)
            self._look_again(lane.ask_again(now))
        return lane.held

    # -- what waits -----------------------------------------------------------------------------------

    def _look_again(self, at: float) -> None:
        """See at monotonic `at` what a held lane or destination lets start."""
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self._loop.call_later(max(at - self._clock.monotonic(), 0.001), self._look)

    def _look(self) -> None:
        self._timer, self._timer_at = None, FOREVER
        now = self._clock.monotonic()
        if self._destinations is not None:
            for of in self._destinations.waiting():
                if (
                    of.circuit is not None
                    and of.circuit.held
                    and now - of.circuit.since >= self._longest(of.circuit)
                ):
                    self._destinations.rotate(of, OVERDUE, self._set_off)
                self._release(of)
            for entry in self._destinations.push_out(now, too_far, is_copied):
                self._put_in_kafka(entry, None)
            self._look_again(self._destinations.reserve.ask_again(now))
        if self._ready and self.lane.held:
            self._look_again(self.lane.ask_again(now))
        self._kick()

    def leave(self, place: Place) -> None:
        """The send has ended, however: another to the same destination may start."""
        of, place.of = place.of, None
        if of is not None and self._destinations is not None:
            of.busy -= 1
            if of.fresh or of.tried:
                self._release(of)
            if not of.busy:
                self._destinations.forget(of)

    def drop_closed(self) -> None:
        """Partitions have ended: keep nothing of theirs."""
        if self._destinations is not None:
            self._destinations.sweep(waits)

    def _release(self, of: Destination[Entry]) -> None:
        assert self._destinations is not None
        if of.fresh or of.tried:
            now = self._clock.monotonic()
            self._destinations.release(of, now, self._set_off)
            if of.fresh or of.tried:
                self._look_again(self._destinations.ask_again(of, now))
            self._kick()

    def _set_off(self, entry: Entry) -> bool:
        """Queue what waited for its destination; whether it still waited."""
        if not waits(entry):
            return False
        lane = entry.queue
        if lane.paused is entry:
            lane.partition.unpause(lane, self._clock.now())
        else:
            self._ready.add(entry)
        return True

    def _channel(self, name: str) -> Destination[Entry]:
        """A channel failed: from now on what is under way of it is counted."""
        destinations = self._destinations
        assert destinations is not None
        of = destinations.known.get(name)
        if of is None:
            of = destinations.get(name)
            for place in self._places:
                entry = place.entry
                if entry is not None and place.of is None and channel_of(entry.headers or []) == name:
                    place.of = of
                    of.busy += 1
        return of

    def _destination_held(self, of: Destination[Entry], now: float) -> None:
        assert of.circuit is not None
        tell_held(of.circuit, now, self._on_event, lane=False)
        for entry in (*of.tried, *of.fresh):
            if entry.retry is None and entry.busy is Busy.SENDING:
                self._keep_or_copy(of, entry, None, tried=entry in of.tried)
        self._look_again(min(of.circuit.ask_again(now), now + LOOK_AGAIN))


def _asks(destinations: Destinations[Entry] | None) -> Collection[object]:
    """Always something when all sends are counted, else the destinations that are known: those that failed."""
    if destinations is None:
        return ()
    return (destinations,) if destinations.counted else destinations.known
