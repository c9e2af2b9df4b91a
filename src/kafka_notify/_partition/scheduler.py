"""Who is next: what the head of a user's queue may do now, and who is looked at again."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.parking import PARKING
from kafka_notify._partition.waiting import STEP_AT_ONCE

if TYPE_CHECKING:
    from kafka_notify._partition.effects import Effects
    from kafka_notify._partition.own_copies import OwnCopies
    from kafka_notify._partition.parking import Parking
    from kafka_notify._partition.retry_record import Held
    from kafka_notify._partition.source_offsets import SourceOffsets
    from kafka_notify._partition.waiting import Waiting
    from kafka_notify._partition.wide import RetryHalf

_SENDING: Final = Busy.SENDING  # found 70 ns faster than the member, at each record


class Action(IntEnum):
    """What is to be done about an idle head that lives in the retry topic. All but `SEND` park what waits in the source
    behind it."""

    SEND = 0
    """Queue its attempt."""
    LOAD = 1
    """Read its payload again."""
    WAIT_UNTIL_DUE = 2
    """Look again when it is due, or expires."""
    WAIT_FOR_PAUSE = 3
    """Look again when it expires; else what ends the pause says so."""
    WAIT_FOR_OFFSET = 4
    """Look again when what it needs was read, confirmed, or came into the window."""
    NOTHING = 5
    """Another send of its user is under way, and its end is answered."""


class Scheduler:
    """Decides what an idle head may do, from state alone, and then does it: no effect answers before it returns.

    Args:
        source: Coverage and reach of origins.
        half: What of the retry partition a commit can say.
        own: The copies on their way.
        waiting: Queues that wait for an offset.
        parking: Parks what waits behind a head.
        effects: Carries out the decision.
    """

    __slots__ = ("_effects", "_half", "_own", "_parking", "_source", "_waiting")

    def __init__(
        self,
        source: SourceOffsets,
        half: RetryHalf,
        own: OwnCopies,
        waiting: Waiting,
        parking: Parking,
        effects: Effects[Any],
    ) -> None:
        self._source = source
        self._half = half
        self._own = own
        self._waiting = waiting
        self._parking = parking
        self._effects = effects

    def step(self, queue: UserQueue, now: int) -> None:
        """Start what the queue's head may do at epoch ms `now`; park what waits behind it in the source."""
        head, partition = queue.head, queue.partition
        if not partition.active or partition.closing or head is None or head.busy:
            return
        held = head.held
        if held is None:
            if not queue.stuck:  # decided here, without a call for each send
                head.busy = _SENDING
                self._effects.send(head)
                return
        else:
            action = Action.NOTHING if queue.stuck else self._decide(queue, head, held, now)
            if action is Action.SEND:
                head.busy = _SENDING
                self._half.begin(held)
                self._effects.send(head)
                return
            if action is Action.LOAD:
                head.busy = Busy.LOADING
                self._effects.load(head)
            elif action is Action.WAIT_UNTIL_DUE:
                self._wake(queue, held.due if held.expires is None else min(held.due, held.expires))
            elif action is Action.WAIT_FOR_PAUSE:
                self._wake(queue, held.expires)
            elif action is Action.WAIT_FOR_OFFSET:
                self._wait(queue, head, held)
        if queue.later is not None:
            self._parking.park_followers(queue)

    def _decide(self, queue: UserQueue, head: Entry, held: Held, now: int) -> Action:
        expires = held.expires
        if (held.due if expires is None else min(held.due, expires)) > now and not (
            held.collapse and queue.superseder(head, now)
        ):
            return Action.WAIT_UNTIL_DUE
        if queue.paused is head and not (expires is not None and expires <= now):
            return Action.WAIT_FOR_PAUSE
        later = queue.later
        if later is not None and later.overtaken is not None and later.overtaken.busy is _SENDING:
            return Action.NOTHING  # redriven in front of a later one that is being sent
        if not self._is_sendable(head, held):
            return Action.WAIT_FOR_OFFSET
        return Action.LOAD if head.record is None else Action.SEND

    def _is_sendable(self, head: Entry, held: Held) -> bool:
        """Whether its origin is reached and covered, every orphan of it was read, and a commit can say its end."""
        if not held.foreign:
            origin = held.origin_of(head)
            if self._source.position <= origin or not self._source.confirmed.covers(origin):
                return False
        last = held.last
        if held.tainted and self._half.tracker.position <= last:
            return False  # the orphan of a failed produce, if any, lies before the acknowledged copy
        return self._half.can_say(last)

    def _wake(self, queue: UserQueue, at: int | None) -> None:
        if at is not None and queue.timer != at:
            queue.timer = at
            self._effects.wake(queue, at)

    def _wait(self, queue: UserQueue, head: Entry, held: Held) -> None:
        """Wait for what the head needs: each event looks only at the queues that it may have freed."""
        if queue.blocked is head:
            return
        queue.blocked = head
        waiting = self._waiting
        origin, last = held.origin_of(head), held.last
        if not held.foreign and self._source.position <= origin:
            waiting.wait(waiting.unreached, origin, queue)
        elif not held.foreign and not self._source.confirmed.covers(origin):
            waiting.uncovered.append(queue)
        elif held.tainted and self._half.tracker.position <= last:
            waiting.wait(waiting.tainted, last, queue)
        else:
            waiting.wait(waiting.beyond, last, queue)

    def step_blocked(self, now: int) -> bool:
        """Look again at a few queues that waited for a commit, a read, room in the window or beyond it, the end of a
        pause or the start. Whether there are more."""
        waiting = self._waiting
        if waiting.is_empty:
            return False
        more = waiting.free(self._source.position, self._half.tracker.position, self._half.sayable)
        agenda = waiting.agenda
        for _ in range(min(len(agenda), STEP_AT_ONCE)):
            self.step(agenda.popleft(), now)
        return more or bool(agenda)

    def park_more(self, now: int, *, makes_room: bool) -> None:
        """Go on with parking when less is on its way than could be: first what must be parked, then backlogs.

        Args:
            now: Epoch ms.
            makes_room: Whether backlogs keep others out.
        """
        moving, unparked = self._own.moving, self._parking.unparked
        before = len(moving)
        while before == len(moving) <= PARKING // 2:
            if unparked:
                self.step(unparked.popitem(last=False)[0], now)
            elif not (makes_room and self._parking.park_backlog()):
                break
