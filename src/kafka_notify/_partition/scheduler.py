"""The next step of a user's queue: what its head may do now, and when the queue is looked at again."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.waiting import STEP_AT_ONCE

if TYPE_CHECKING:
    from kafka_notify._partition.effects import Effects
    from kafka_notify._partition.parking import Parking
    from kafka_notify._partition.retry_record import RetryRecord
    from kafka_notify._partition.source_offsets import SourceOffsets
    from kafka_notify._partition.waiting import Waiting
    from kafka_notify._partition.wide import RetryHalf

_SENDING: Final = Busy.SENDING  # looked up 70 ns faster than the member, for each record


class Action(IntEnum):
    """The next step of an idle head that lives in the retry topic. All but `SEND` also park its followers in the
    source."""

    SEND = 0
    """Queue its attempt."""
    LOAD = 1
    """Read its payload again."""
    WAIT_UNTIL_DUE = 2
    """Look again when it is due or expires."""
    WAIT_FOR_PAUSE = 3
    """Look again when it expires. `resume` and `unpause` tell the end of a pause."""
    WAIT_UNTIL_REACHED = 4
    """Look again when the source was read past its origin."""
    WAIT_UNTIL_COVERED = 5
    """Look again when a commit is confirmed."""
    WAIT_FOR_ORPHANS = 6
    """Look again when the retry partition was read past its copy."""
    WAIT_FOR_WINDOW = 7
    """Look again when its copy has come into the window, or there is room beyond the window."""
    NOTHING = 8
    """Leave it alone: another send of its user is under way, and its answer steps the queue."""


_SEND: Final = Action.SEND  # for the same reason
_LOAD: Final = Action.LOAD
_UNTIL_DUE: Final = Action.WAIT_UNTIL_DUE
_NOTHING: Final = Action.NOTHING


class Scheduler:
    """Decides from state alone what an idle head may do, and then does it. No effect is answered before it returns.

    Args:
        source: Knows which origins are covered and reached.
        half: Knows which ends of the retry partition a commit can say.
        waiting: Queues that wait for an offset.
        parking: Parks the entries behind a head.
        effects: Carries out the decision.
    """

    __slots__ = ("_effects", "_half", "_parking", "_source", "_waiting")

    def __init__(
        self,
        source: SourceOffsets,
        half: RetryHalf,
        waiting: Waiting,
        parking: Parking,
        effects: Effects,
    ) -> None:
        self._source = source
        self._half = half
        self._waiting = waiting
        self._parking = parking
        self._effects = effects

    def step(self, queue: UserQueue, now: int) -> None:
        """Start what the queue's head may do at epoch ms `now`; park what waits behind it in the source."""
        head, partition = queue.head, queue.partition
        if not partition.active or partition.closing or head is None or head.busy:
            return
        retry = head.retry
        if retry is None:
            if not queue.stuck:  # decided here to save each send a call
                head.busy = _SENDING
                self._effects.send(head)
                return
        else:
            action = _NOTHING if queue.stuck else self._decide(queue, head, retry, now)
            if action is _SEND:
                head.busy = _SENDING
                self._half.begin(retry)
                self._effects.send(head)
                return
            if action is _UNTIL_DUE:
                self._wake(queue, retry.due if retry.expires is None else min(retry.due, retry.expires))
            elif action is _LOAD:
                head.busy = Busy.LOADING
                self._effects.load(head)
            elif action is Action.WAIT_FOR_PAUSE:
                self._wake(queue, retry.expires)
            elif action is not _NOTHING:
                self._wait(queue, head, retry, action)
        if queue.later is not None:
            self._parking.park_followers(queue)

    def _decide(self, queue: UserQueue, head: Entry, retry: RetryRecord, now: int) -> Action:
        expires = retry.expires
        if (retry.due if expires is None else min(retry.due, expires)) > now and not (
            retry.collapse and queue.superseder(head, now)
        ):
            return _UNTIL_DUE
        if queue.paused is head and not (expires is not None and expires <= now):
            return Action.WAIT_FOR_PAUSE
        later = queue.later
        if later is not None and later.overtaken is not None and later.overtaken.busy is _SENDING:
            return _NOTHING  # this head was redriven, and came in front of a later entry that is being sent
        missing = self._missing(head, retry)
        if missing is not None:
            return missing
        return _LOAD if head.record is None else _SEND

    def _missing(self, head: Entry, retry: RetryRecord) -> Action | None:
        """Find what a head that is due has to wait for; None when it may be sent."""
        if not retry.foreign:
            origin = retry.origin_of(head)
            if self._source.position <= origin:
                return Action.WAIT_UNTIL_REACHED
            if not self._source.confirmed.covers(origin):
                return Action.WAIT_UNTIL_COVERED
        last = retry.last
        if retry.tainted and self._half.tracker.position <= last:
            return (
                Action.WAIT_FOR_ORPHANS
            )  # an orphan of the failed produce can only be before the acknowledged copy
        return None if self._half.can_say(last) else Action.WAIT_FOR_WINDOW

    def _wake(self, queue: UserQueue, at: int | None) -> None:
        if at is not None and queue.timer != at:
            queue.timer = at
            self._effects.wake(queue, at)

    def _wait(self, queue: UserQueue, head: Entry, retry: RetryRecord, action: Action) -> None:
        """Let a queue wait for what its head needs, so that each event looks only at the queues that it may free."""
        if queue.blocked is head:
            return
        queue.blocked = head
        waiting = self._waiting
        if action is Action.WAIT_UNTIL_REACHED:
            waiting.wait(waiting.unreached, retry.origin_of(head), queue)
        elif action is Action.WAIT_UNTIL_COVERED:
            waiting.uncovered.append(queue)
        elif action is Action.WAIT_FOR_ORPHANS:
            waiting.wait(waiting.tainted, retry.last, queue)
        else:
            waiting.wait(waiting.beyond, retry.last, queue)

    def step_blocked(self, now: int) -> bool:
        """Look again at a few queues that waited for a commit, a read, room in the window or beyond it, the end of a
        pause or the start. Return True when there are more."""
        waiting = self._waiting
        if waiting.is_empty:
            return False
        more = waiting.free(self._source.position, self._half.tracker.position, self._half.sayable)
        agenda = waiting.agenda
        for _ in range(min(len(agenda), STEP_AT_ONCE)):
            self.step(agenda.popleft(), now)
        return more or bool(agenda)

    def park_more(self, now: int, *, makes_room: bool) -> None:
        """Go on with parking while few copies are on their way: first entries that must be parked, then backlogs.

        Args:
            now: Epoch ms.
            makes_room: True while backlogs keep others out.
        """
        parking, moving = self._parking, self._parking.moving
        before = len(moving)
        while before == len(moving) and parking.has_room:
            if parking.unparked:
                self.step(parking.unparked.popitem(last=False)[0], now)
            elif not (makes_room and parking.park_backlog()):
                break
