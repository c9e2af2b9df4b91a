"""One queued notification: from its record through the checks before a send to the outcome of its attempt.

Runs on the event loop, on the task of a sender.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs

from kafka_notify._base import codes
from kafka_notify._decision.context import Context
from kafka_notify._decision.what_follows import Finish
from kafka_notify._partition.entry import Busy, Entry
from kafka_notify._send.attempt import AttemptRunner
from kafka_notify._send.decoder import Decoder
from kafka_notify._send.outcomes import Outcomes
from kafka_notify._send.permits import Permits
from kafka_notify._send.slots import FOREVER, Slot, Slots
from kafka_notify.errors import UnknownOutcomeError
from kafka_notify.notification import Attempt, KeyParts, Notification, Receipt, new_attempt
from kafka_notify.outcome import Outcome, Sent
from kafka_notify.wire import DerivedId

log = logging.getLogger("kafka_notify.send")

SENT: Final = Sent(Receipt("unread"))
"""Any success, where nobody reads receipts: an object less per send."""


class Delivery:
    """Makes the attempts of one worker.

    The way of a send that is accepted at once has no calls but those that somebody else must answer, and reads other
    parts' fields where it could ask: each call costs 1 % of a send that does nothing (measured).

    Args:
        context: Of the worker.
        permits: What may keep a send from starting; the guard is told how each ended.
        runner: Calls `should_send`, middleware and `send`.
        decoder: Record to notification.
        outcomes: Settles what ended.
        slots: Of all senders.
        again: Queues an entry whose send could not start.
    """

    def __init__(
        self,
        context: Context,
        permits: Permits,
        runner: AttemptRunner,
        decoder: Decoder,
        outcomes: Outcomes,
        slots: Slots,
        again: Callable[[Entry], object],
    ) -> None:
        guard = permits.guard
        self._loop = context.loop
        self._clock = context.clock
        self._source = context.source
        self._group = context.group
        self._send_timeout = context.send_timeout
        self._max_attempts = context.retry.max_attempts
        self._runner = runner
        self._send = runner.send
        self._decoder = decoder
        self._guard = guard
        self._outcomes = outcomes
        self._slots = slots
        self._paused = permits.paused
        self._again = again
        # What follows is other parts' own: one attribute less to walk through, for each send.
        self._read = decoder.read
        self._lane = guard.lane
        self._asks = guard.asks
        self._counts = outcomes.counts
        self._on_room = outcomes.on_room
        self._receipts_unread = outcomes.receipts_unread

    async def run(self, slot: Slot, entry: Entry) -> None:
        """Send one notification, unless something keeps it from its send, and settle it."""
        partition = entry.queue.partition
        if not partition.alive or partition.closing:
            self._not_started(slot, entry)
            return
        notification = self._read(slot, entry, partition)
        if notification is None:
            return
        now, held, expires = self._clock.now(), entry.retry, notification._expires_ms
        if (
            notification.collapse_key is not None
            or (expires is not None and expires <= now)
            or (held is not None and held.due > now)
            or self._paused.parts
            or self._asks
        ) and self._withheld(slot, entry, notification, now):
            return
        remaining = None if expires is None else (expires - now) / 1000
        timeout = self._send_timeout if remaining is None else min(self._send_timeout, remaining)
        if held is None and type(notification.id) is not DerivedId:
            key = self._group, notification.user_id, notification.id
            attempt = new_attempt(entry.attempt + 1, self._max_attempts, key, timeout, remaining)
        else:
            attempt = self._attempt(entry, notification, timeout, remaining)
        partition.outstanding += 1
        started = self._clock.monotonic()
        slot.entry, slot.deadline = entry, started + timeout
        outcome: Outcome | None = SENT
        try:
            if self._send is None:
                outcome = self._runner.checked(await self._runner.run(notification, attempt), attempt)
            else:
                receipt = await self._send(notification, attempt)
                if type(receipt) is not Receipt or not self._receipts_unread:
                    outcome = self._runner.sent(receipt, attempt)
        except asyncio.CancelledError:
            outcome = self._cancelled(slot, entry, attempt)
        except BaseException as e:  # whatever user code raises is an outcome, also SystemExit
            if issubclass(type(e), GeneratorExit) and asyncio.current_task(self._loop) is not slot.task:
                raise  # this coroutine is closed, with its loop
            outcome = self._raised(e, attempt)
        if slot.reason and self._was_cancelled(slot, entry):
            return
        slot.entry, slot.deadline = None, FOREVER
        partition.outstanding -= 1
        if outcome is None or not partition.alive:
            self._handed_over(slot, entry)
        elif outcome is not SENT and not isinstance(outcome, Sent):
            await self._outcomes.failed(slot, entry, notification, attempt, outcome, started)
        else:
            if slot.of is not None or held is not None or self._lane.gated or self._lane.failing:
                self._guard.sent(slot, entry, started)
            if outcome is SENT:  # nobody else wants to know
                self._counts.sent += 1
                partition.finish(entry, accepted=True, now=now)
                self._on_room(partition)
            else:
                assert isinstance(outcome, Sent)
                await self._outcomes.ended(entry, notification, attempt, Finish(outcome), started)

    # -- before the send ------------------------------------------------------------------------------

    def _not_started(self, slot: Slot, entry: Entry) -> None:
        """Its assignment ends: whoever has the partition next sends it."""
        entry.busy = Busy.NO
        self._outcomes.not_sent(slot)

    def _withheld(self, slot: Slot, entry: Entry, notification: Notification[Any], now: int) -> bool:
        """Whether something keeps it from its send; then all that follows is done."""
        outcomes, held, expires = self._outcomes, entry.retry, notification._expires_ms
        if expires is not None and expires <= now:
            outcomes.not_sent(slot)
            self._expire(entry, notification)
            return True
        if notification.collapse_key is not None and self._decoder.superseded(entry, now):
            outcomes.not_sent(slot)
            outcomes.skip(entry, notification, "superseded")
            return True
        if held is not None and held.due > now:
            outcomes.not_sent(slot)
            entry.queue.partition.release(entry, now)  # queued to expire, and the clock was set back since
            return True
        if self._paused.parts and self._paused.holds(notification.category, notification.channel):
            outcomes.not_sent(slot)
            outcomes.pause(entry, notification, now)
            return True
        if self._asks and (admitted := self._guard.admit(slot, entry, notification)) is not True:
            outcomes.not_sent(slot)
            if admitted is not False:
                outcomes.not_admitted(entry, notification, admitted)
            return True
        return False

    def _expire(self, entry: Entry, notification: Notification[Any]) -> None:
        if self._clock.settled:
            self._outcomes.expire(entry, notification)
        else:
            self._loop.call_later(1.0, self._again, entry)

    def _attempt(
        self, entry: Entry, notification: Notification[Any], timeout: float, remaining: float | None
    ) -> Attempt:
        """The attempt of a retry, or of a notification whose id is derived from its place."""
        held = entry.retry
        key: KeyParts = (self._group, notification.user_id, notification.id)
        if type(notification.id) is DerivedId or (
            held is not None and notification.id[14:15] == "5"  # as in every derived id, and in few others
        ):
            key = self._key(entry, key)
        attempt = new_attempt(entry.attempt + 1, self._max_attempts, key, timeout, remaining)
        if held is None:
            return attempt
        return attrs.evolve(
            attempt, maybe_sent=held.unknown, last_provider=held.provider, last_error=held.error_code
        )

    def _key(self, entry: Entry, key: KeyParts) -> KeyParts:
        """With where its record is: a copy that does not say of which topic it is, is taken for one of this."""
        held, partition = entry.retry, entry.queue.partition
        topic_id = (held and held.topic) or partition.topic_id
        origin = entry.origin if held is None else held.origin_of(entry)
        return (key[0], key[1], key[2], (topic_id, self._source, partition.number, origin))

    # -- after the send -------------------------------------------------------------------------------

    def _raised(self, error: BaseException, attempt: Attempt) -> Outcome:
        outcome = self._runner.failed(error, attempt)
        # it holds the caller's frame, which holds the outcome, which holds it: a cycle per failure
        BaseException.with_traceback(error, None)
        return outcome

    def _cancelled(self, slot: Slot, entry: Entry, attempt: Attempt) -> Outcome | None:
        """What a cancellation means: the end of this task, a hand-over (None), or an unknown outcome."""
        if slot.reason == "close":
            raise asyncio.CancelledError
        if slot.stuck or slot.reason == "handover" or not entry.queue.partition.alive:
            return None
        # without a reason of ours the sender's own code was cancelled
        code = codes.TIMEOUT if slot.reason == "deadline" else codes.CANCELLED
        return self._runner.failed(UnknownOutcomeError(code), attempt)

    def _was_cancelled(self, slot: Slot, entry: Entry) -> bool:
        """A send that was cancelled has ended, whatever user code made of that; whether it is settled already."""
        if not slot.stuck:
            self._slots.cancelled(slot, entry)
            return False
        self._guard.leave(slot)
        return True  # it was settled when it was left behind

    def _handed_over(self, slot: Slot, entry: Entry) -> None:
        """No attempt: whoever has the partition now sends it."""
        entry.busy = Busy.NO
        self._guard.give_up(slot, asked=True)
        self._guard.leave(slot)

    def left_behind(self, slot: Slot) -> Coroutine[Any, Any, None] | None:
        """An async send ignored its cancellation: settle it now, as an unknown outcome. What it says in the end comes
        too late to count.

        Returns:
            The rest, to be run; None when there is nothing.
        """
        entry = self._slots.leave_behind(slot)
        partition = entry.queue.partition
        if slot.reason == "handover" or not partition.alive:
            self._guard.give_up(slot, asked=True)
            log.error(
                "an async send ignored its cancellation at a hand-over of partition %d and still runs: the next owner "
                "may send the same; let CancelledError through",
                partition.number,
            )
            return None
        entry.queue.stuck = True
        try:
            # once more: nothing is kept of each send for the sake of these few
            notification = self._decoder.decode(entry)
        except BaseException:  # the codec has changed its mind: it stays open
            self._guard.give_up(slot, asked=True)
            return None
        key = self._key(entry, (self._group, notification.user_id, notification.id))
        attempt = new_attempt(entry.attempt + 1, self._max_attempts, key, self._send_timeout, None)
        started = self._clock.monotonic() - attempt.timeout - self._slots.grace
        failed = self._runner.failed(UnknownOutcomeError(codes.TIMEOUT), attempt)
        decision = self._outcomes.judge(slot, entry, notification, failed, started)
        return self._outcomes.ended(entry, notification, attempt, decision, started)
