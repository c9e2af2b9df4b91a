"""One queued notification: from its record through the checks before a send to the outcome of its attempt.

Runs on the event loop, on the task of a sender.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from kafka_notify._base import codes
from kafka_notify._decision.context import Context
from kafka_notify._decision.what_follows import Finish
from kafka_notify._partition.entry import Busy, Entry
from kafka_notify._send.attempt import AttemptRunner
from kafka_notify._send.decoder import Decoder
from kafka_notify._send.outcomes import Outcomes
from kafka_notify._send.permits import Permits
from kafka_notify._send.slots import FOREVER, Slot, Slots
from kafka_notify._wire.attempt import new_attempt
from kafka_notify._wire.send_key import KeyParts
from kafka_notify.errors import UnknownOutcomeError
from kafka_notify.notification import Attempt, Notification, Receipt
from kafka_notify.outcome import Outcome, Sent
from kafka_notify.wire import DerivedId

log = logging.getLogger("kafka_notify.send")

SENT: Final = Sent(Receipt("unread"))
"""The outcome of every success when nobody reads receipts: it saves one object per send."""


class Delivery:
    """Makes the attempts of one worker.

    `run` is the hot path. It calls only what it cannot decide itself, and reads fields of other parts where it could
    call a method: each call costs 1 % of a no-op send (measured).

    Args:
        context: The worker's context.
        permits: What may keep a send from starting. Its guard is told how each send ended.
        runner: Calls `should_send`, the middleware and `send`.
        decoder: Decodes records.
        outcomes: Settles notifications whose attempt ended.
        slots: All senders.
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
        # These belong to other parts; bound here, they save each send a look-up.
        self._read = decoder.read
        self._lane = guard.lane
        self._asks = guard.asks
        self._channels = guard.channels
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
            attempt = new_attempt(1, self._max_attempts, key, timeout, remaining)
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
        except BaseException as e:  # anything that user code raises is an outcome, SystemExit included
            if issubclass(type(e), GeneratorExit) and asyncio.current_task(self._loop) is not slot.task:
                raise  # this coroutine is being closed, together with its loop
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
            if slot.of or held or self._lane.gated or self._lane.failing or self._channels:
                self._guard.sent(slot, entry, notification, started)
            if outcome is SENT:  # no listener and no `on_sent` to tell
                self._counts.sent += 1
                partition.finish(entry, accepted=True, now=now)
                self._on_room(partition)
            else:
                assert isinstance(outcome, Sent)
                await self._outcomes.ended(entry, notification, attempt, Finish(outcome), started)

    # -- before the send ------------------------------------------------------------------------------

    def _not_started(self, slot: Slot, entry: Entry) -> None:
        """Drop an entry whose assignment is ending: the next owner of the partition sends it."""
        entry.busy = Busy.NO
        self._outcomes.not_sent(slot)

    def _withheld(self, slot: Slot, entry: Entry, notification: Notification[Any], now: int) -> bool:
        """Settle, queue or put aside a notification that must not be sent now; False when nothing keeps it."""
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
            entry.queue.partition.release(
                entry, now
            )  # it was queued to expire, and the clock was set back since
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
        """The attempt of a retry, or of a notification whose id is derived from its offset."""
        held = entry.retry
        key: KeyParts = (self._group, notification.user_id, notification.id)
        if type(notification.id) is DerivedId or (
            held is not None
            and notification.id[14:15] == "5"  # UUID version 5: every derived id, and few others
        ):
            key = self._key(entry, key)
        history = entry.history
        number = history.attempts + 1
        if held is None:
            return new_attempt(number, self._max_attempts, key, timeout, remaining)
        return new_attempt(
            number,
            self._max_attempts,
            key,
            timeout,
            remaining,
            history.outcome_unknown,
            history.provider,
            history.error_code,
        )

    def _key(self, entry: Entry, key: KeyParts) -> KeyParts:
        """The key with the place of the source record. A copy without a topic id counts as one of the present topic."""
        held, partition = entry.retry, entry.queue.partition
        topic_id = (held and held.topic) or partition.topic_id
        origin = entry.origin if held is None else held.origin_of(entry)
        return (key[0], key[1], key[2], (topic_id, self._source, partition.number, origin))

    # -- after the send -------------------------------------------------------------------------------

    def _raised(self, error: BaseException, attempt: Attempt) -> Outcome:
        outcome = self._runner.failed(error, attempt)
        # the traceback holds the caller's frame, that the outcome, and that the error: a cycle per failure
        BaseException.with_traceback(error, None)
        return outcome

    def _cancelled(self, slot: Slot, entry: Entry, attempt: Attempt) -> Outcome | None:
        """Interpret a cancellation: the end of this task (raised), a hand-over (None), or an unknown outcome."""
        if slot.reason == "close":
            raise asyncio.CancelledError
        if slot.stuck or slot.reason == "handover" or not entry.queue.partition.alive:
            return None
        # without a reason from this worker, the cancellation came from user code
        code = codes.TIMEOUT if slot.reason == "deadline" else codes.CANCELLED
        return self._runner.failed(UnknownOutcomeError(code), attempt)

    def _was_cancelled(self, slot: Slot, entry: Entry) -> bool:
        """Note that a cancelled send has ended, however user code reacted; True when it is settled already."""
        if not slot.stuck:
            self._slots.cancelled(slot, entry)
            return False
        self._guard.leave(slot)
        return True  # it was settled when it was left behind

    def _handed_over(self, slot: Slot, entry: Entry) -> None:
        """Drop a send that a hand-over interrupted: it is not an attempt, and the partition's new owner makes it."""
        entry.busy = Busy.NO
        self._guard.give_up(slot, asked=True)
        self._guard.leave(slot)

    def left_behind(self, slot: Slot) -> Coroutine[Any, Any, None] | None:
        """Settle an async send that ignored its cancellation, as an unknown outcome. Its own result, if it ends, is
        ignored.

        Returns:
            A coroutine that does the rest; None when there is nothing to do.
        """
        entry = self._slots.leave_behind(slot)
        partition = entry.queue.partition
        if slot.reason == "handover" or not partition.alive:
            self._guard.give_up(slot, asked=True)
            log.error(
                "an async send ignored its cancellation at a hand-over of partition %d and still runs: the next owner "
                "may send the same notification; let CancelledError through",
                partition.number,
            )
            return None
        entry.queue.stuck = True
        try:
            # decoded again, as keeping the notification of every send for these few would cost too much
            notification = self._decoder.decode(entry)
        except BaseException:  # the codec decoded it before and fails now: the entry stays open
            self._guard.give_up(slot, asked=True)
            return None
        key = self._key(entry, (self._group, notification.user_id, notification.id))
        attempt = new_attempt(entry.history.attempts + 1, self._max_attempts, key, self._send_timeout, None)
        started = self._clock.monotonic() - attempt.timeout - self._slots.grace
        failed = self._runner.failed(UnknownOutcomeError(codes.TIMEOUT), attempt)
        decision = self._outcomes.judge(slot, entry, notification, failed, started)
        return self._outcomes.ended(entry, notification, attempt, decision, started)
