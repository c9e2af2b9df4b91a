"""Lets a notification start when its destination has room, and puts it aside until then. Runs on the event loop.

`_decision.destinations` decides; this module keeps what waits in memory or in the retry topic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from kafka_notify._base import codes
from kafka_notify._decision.circuit import DAY, Circuit
from kafka_notify._decision.context import Context
from kafka_notify._decision.destinations import LOOK_AGAIN, Destination, Destinations
from kafka_notify._decision.holds import tell_held
from kafka_notify._decision.put_aside import is_copied, too_far, waits
from kafka_notify._partition.entry import Busy, Entry
from kafka_notify._send.place import Place, Senders
from kafka_notify._send.ready import Ready
from kafka_notify._send.recheck import Recheck
from kafka_notify._settle.publisher import CopyPublisher
from kafka_notify.errors import TransientError
from kafka_notify.notification import Notification
from kafka_notify.outcome import Dead, Outcome, Retry
from kafka_notify.wire import channel_of

log = logging.getLogger("kafka_notify.send")

FOREVER: Final = float("inf")
OVERDUE: Final = 100
"""Notifications looked at in one turn, of those that wait for a destination held for too long."""


class Admission:
    """The destinations of one worker, and the notifications that wait for them.

    Args:
        context: The worker's context. As many source records as sends at once may wait in memory for one destination.
        destinations: The destinations.
        destination: Names a notification's destination; None when the destinations are channels.
        publisher: Writes copies of notifications that wait for a held destination.
        ready: The queued attempts.
        senders: The parts that send.
        recheck: Has what waits looked at again.
    """

    def __init__(
        self,
        context: Context,
        destinations: Destinations[Entry],
        destination: Callable[[Notification[Any]], str | None] | None,
        publisher: CopyPublisher,
        ready: Ready,
        senders: Senders,
        recheck: Recheck,
    ) -> None:
        self._destinations = destinations
        self._named = destinations.named
        self._destination = destination
        self._max_wait = context.retry.max_wait
        self._concurrency = context.concurrency
        self._clock = context.clock
        self._on_event = context.on_event
        self._publisher = publisher
        self._ready = ready
        self._places = senders.places
        self._backoff = senders.backoff
        self._kick = senders.kick
        self._recheck = recheck

    # -- before a send --------------------------------------------------------------------------------

    def admit(self, place: Place, entry: Entry, notification: Notification[Any]) -> bool | Outcome:
        """True when the notification's destination lets it start now. Asked when destinations are counted, or when a
        destination is held or ramped up.

        Otherwise the notification is put aside, and its sender takes another one. It waits in memory like a queued one,
        up to `concurrency` per destination. Beyond that, and whenever the destination is held, it waits in the retry
        topic: as one copy with unchanged attempts, however long it waits. The last few that never failed are copied
        only when others push them out.

        Returns:
            False when it is put aside; an outcome when it ends, because its destination was held for too long or cannot
            be named.
        """
        destinations = self._destinations
        if self._named:
            try:
                name = self._name(notification)
            except Exception as e:
                log.error("destination() raised %s for notification %s", type(e).__name__, notification.id)
                error = TransientError(f"{codes.DESTINATION}{type(e).__name__}")
                return Retry(self._backoff(entry.history.attempts + 1), True, error)
        else:
            name = notification.channel
            if not destinations.counted and name not in destinations.gated:
                return True
        if name is None:
            return True
        of, now = destinations.get(name), self._clock.monotonic()
        if destinations.room(of, now) > 0:
            place.of, place.of_token = of, destinations.start(of, now)
            return True
        if self._held_too_long(of.circuit, entry, notification, now):
            return Dead("throttle_timeout")
        self._put_aside(of, entry, notification, now)
        return False

    def _name(self, notification: Notification[Any]) -> str | None:
        assert self._destination is not None
        name = self._destination(notification)
        if name is not None and not isinstance(name, str):
            raise TypeError
        return name

    def _held_too_long(
        self, circuit: Circuit | None, entry: Entry, notification: Notification[Any], now: float
    ) -> bool:
        if circuit is None or not circuit.held:
            return False
        most = self._longest(circuit, notification._expires_ms)
        return now - circuit.since >= most and self._clock.now() - entry.created > most * 1000

    def _longest(self, circuit: Circuit, expires: int | None = None) -> float:
        """Seconds for which a notification waits for a held destination. The policy bounds throttles alone: nobody
        chooses an outage, and a notification with an expiry ends by itself."""
        if self._max_wait is not None and circuit.cause == "throttle":
            return self._max_wait
        return DAY if expires is None else FOREVER

    def _put_aside(
        self, of: Destination[Entry], entry: Entry, notification: Notification[Any], now: float
    ) -> None:
        circuit = of.circuit
        tried = entry.history.failed or (circuit is not None and entry.key in circuit.failing)
        self._destinations.put_aside(of, entry, tried=tried, waits=waits)
        if entry.retry is not None:
            entry.queue.partition.pause(entry, self._clock.now())
        elif of.held:
            self._keep_or_copy(of, entry, notification, tried=tried)
        elif len(of.fresh) > self._concurrency:
            self._copy(entry, notification)
        self._recheck.by(min(self._destinations.ask_again(of, now), now + LOOK_AGAIN))

    def _keep_or_copy(self, of: Destination[Entry], entry: Entry, notification: Any, *, tried: bool) -> None:
        """Keep a notification that never failed in memory, as a probe of its held destination; copy those that it
        pushes out. Copy any other notification."""
        if tried or too_far(entry):
            self._copy(entry, notification)
            return
        number, now = entry.partition.number, self._clock.monotonic()
        for pushed in self._destinations.keep(of, entry, number, entry.size, now, is_copied):
            self._copy(pushed, None)

    def _copy(self, entry: Entry, notification: Notification[Any] | None) -> None:
        """Have a notification wait in the retry topic."""
        partition = entry.queue.partition
        if partition.alive and not partition.closing:
            partition.pause(entry, self._clock.now())
            self._publisher.pause(entry, notification, codes.DESTINATION_HELD)

    # -- after a send ---------------------------------------------------------------------------------

    def _count_under_way(self, channel: Destination[Entry]) -> None:
        """Count the sends of a channel that started before it was held. The others are counted before the send."""
        for place in self._places:
            entry = place.entry
            if entry is not None and place.of is None and channel_of(entry.headers or []) == channel.name:
                place.of = channel
                channel.busy += 1

    def hold(self, of: Destination[Entry], now: float) -> None:
        """Tell of a destination that has just been held. Copy what waits for it in memory, but for its next probes:
        the others would pin the frontier for as long as the hold lasts."""
        assert of.circuit is not None
        if not self._destinations.counted:
            self._count_under_way(of)
        tell_held(of.circuit, now, self._on_event, lane=False)
        for entry in (*of.tried, *of.fresh):
            if entry.retry is None and entry.busy is Busy.SENDING:
                self._keep_or_copy(of, entry, None, tried=entry in of.tried)
        self._recheck.by(min(of.circuit.ask_again(now), now + LOOK_AGAIN))

    def left(self, of: Destination[Entry]) -> None:
        """Let another send to a destination start, after one has ended and is not counted any more."""
        if of.fresh or of.tried:
            self.release(of)
        if not of.busy:
            self._destinations.forget(of)

    # -- what waits -----------------------------------------------------------------------------------

    def release(self, of: Destination[Entry]) -> None:
        """Let what waits for a destination start, as far as there is room."""
        if of.fresh or of.tried:
            now = self._clock.monotonic()
            self._destinations.release(of, now, self._set_off)
            if of.fresh or of.tried:
                self._recheck.by(self._destinations.ask_again(of, now))
            else:
                self._destinations.forget(of)
            self._kick()

    def _set_off(self, entry: Entry) -> bool:
        """Queue a notification that waited for its destination; False when it does not wait any more."""
        if not waits(entry):
            return False
        queue = entry.queue
        if queue.paused is entry:
            queue.partition.unpause(queue, self._clock.now())
        else:
            self._ready.add(entry)
        return True

    def look(self, now: float) -> None:
        """Release what may start or has waited for too long, and copy what has been in memory for long enough."""
        destinations = self._destinations
        for of in destinations.waiting():
            circuit = of.circuit
            if circuit is not None and circuit.held and now - circuit.since >= self._longest(circuit):
                destinations.rotate(of, OVERDUE, self._set_off)
            self.release(of)
        for entry in destinations.push_out(now, too_far, is_copied):
            self._copy(entry, None)
        self._recheck.by(destinations.reserve.ask_again(now))

    def drop_closed(self) -> None:
        """Keep nothing of partitions that have ended."""
        self._destinations.sweep(waits)
