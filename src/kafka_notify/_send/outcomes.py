"""What happens to a notification after its attempt: records, counts, events and hooks.

`_decision.what_follows` decides, and this module carries its decision out. Runs on the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from typing_extensions import assert_never

from kafka_notify import events
from kafka_notify._base.retention import DAY_MS
from kafka_notify._decision.context import Context
from kafka_notify._decision.counts import Counts
from kafka_notify._decision.what_follows import (
    Decision,
    Finish,
    GiveUp,
    Kept,
    Rules,
    Ruling,
    TryAgain,
    WaitForCodec,
    decide,
    undecodable_now,
)
from kafka_notify._partition.entry import Assignment, Entry
from kafka_notify._send.attempt import describe
from kafka_notify._send.hooks import Hooks
from kafka_notify._send.permits import Permits
from kafka_notify._send.slots import Slot
from kafka_notify._settle.publisher import CopyPublisher
from kafka_notify._settle.records import place_of
from kafka_notify.errors import UnknownOutcomeError
from kafka_notify.notification import Attempt, Notification
from kafka_notify.outcome import Outcome, Retry, Sent
from kafka_notify.wire import DlqReason

log = logging.getLogger("kafka_notify.worker")


class Outcomes:
    """Settles the notifications of one worker.

    Args:
        context: The worker's context.
        permits: The circuits and the rate limit, which learn from outcomes.
        publisher: Writes copies and dead letters.
        hooks: Runs `on_sent`.
        counts: The worker's counts, which this object increases.
        on_room: Called with its assignment after a source record was finished.
    """

    def __init__(
        self,
        context: Context,
        permits: Permits,
        publisher: CopyPublisher,
        hooks: Hooks,
        counts: Counts,
        on_room: Callable[[Assignment], object],
    ) -> None:
        self.rules = Rules.of(context.retry, context.unknown)
        self.kept = Kept()
        """How long retries may wait, as far as the retry topic's retention is known."""
        self.counts = counts
        self.on_room = on_room
        self._context = context
        self._clock = context.clock
        self._guard = permits.guard
        self._pace = permits.pace
        self._publisher = publisher
        self._hooks = hooks
        self._on_event = context.on_event
        self.receipts_unread = context.on_event is None and hooks.on_sent is None
        """True when neither a listener nor `on_sent` asks for receipts."""

    def learn(self, kept: Kept) -> None:
        """Take over what is known of the retry topic's retention."""
        self.kept = kept

    # -- after an attempt -----------------------------------------------------------------------------

    def judge(
        self, slot: Slot, entry: Entry, notification: Notification[Any], outcome: Outcome, started: float
    ) -> Decision:
        """Tell the guard of an attempt that was not accepted, and decide what follows."""
        ruling, asked = self._guard.not_sent(slot, entry, notification, outcome, started)
        if not asked and slot.start and self._pace is not None:
            self._pace.give_back(slot.start)
        decision = self._decide(entry, notification, outcome, ruling)
        if isinstance(outcome, Retry) and isinstance(outcome.error, UnknownOutcomeError):
            self.counts.unknown += 1
            self.counts.assumed += isinstance(decision, Finish)
        return decision

    async def failed(
        self,
        slot: Slot,
        entry: Entry,
        notification: Notification[Any],
        attempt: Attempt,
        outcome: Outcome,
        started: float,
    ) -> None:
        """Judge, report and settle an attempt that was not accepted."""
        decision = self.judge(slot, entry, notification, outcome, started)
        if slot.of is not None:
            self._guard.leave(slot)
        await self.ended(entry, notification, attempt, decision, started)

    async def ended(
        self,
        entry: Entry,
        notification: Notification[Any],
        attempt: Attempt,
        decision: Decision,
        started: float,
    ) -> None:
        """Report an attempt that ended, and settle its notification."""
        partition = entry.queue.partition
        if not partition.alive:
            return
        outcome = decision.outcome
        if self._on_event is not None:
            self._tell(notification, attempt, outcome, started)
        if not isinstance(outcome, Sent):
            self.settle(entry, notification, decision)
            return
        self.counts.sent += 1
        if self._hooks.on_sent is not None:
            await self._hooks.sent(notification, outcome.receipt, partition)
            if not partition.alive:
                return
        partition.finish(entry, accepted=True, now=self._clock.now())
        self.on_room(partition)

    def _tell(
        self, notification: Notification[Any], attempt: Attempt, outcome: Outcome, started: float
    ) -> None:
        assert self._on_event is not None
        kind, provider, code = describe(outcome)
        self._on_event(
            events.AttemptEnded(
                notification.id,
                notification.category,
                notification.channel,
                attempt.number,
                kind,
                provider,
                code,
                self._clock.monotonic() - started,
                (self._clock.now() - notification._created_ms) / 1000,
                not isinstance(outcome, Retry) or outcome.counted,
            )
        )

    def settle(self, entry: Entry, notification: Notification[Any], decision: Decision) -> None:
        """Carry out the decision about a notification that was not sent."""
        if isinstance(decision, TryAgain):
            self.counts.retried += 1
            self._publisher.try_again(entry, notification, decision)
        elif isinstance(decision, GiveUp):
            self._give_up(entry, notification, decision)
        elif isinstance(decision, Finish):
            if not isinstance(decision.outcome, Sent):
                self.skip(entry, notification, decision.outcome.reason)
        else:
            assert_never(decision)

    def _give_up(self, entry: Entry, notification: Notification[Any], decision: GiveUp) -> None:
        reason, longest = decision.reason, self.kept.longest_wait_ms
        if reason == "expired" and isinstance(decision.outcome, Retry):
            self.counts.expired += 1
        else:
            self.counts.dead += 1
        if reason == "wait_too_long" and longest is not None:
            log.error(
                "%s[%d]: the notification at offset %d would wait longer than the %.3g days that %s is certain to "
                "keep it, so it is dead-lettered; ask for a shorter wait or raise retention.ms",
                *place_of(entry, self._context),
                longest / DAY_MS,
                self._context.retry_topic,
            )
        self._publisher.dead_letter(entry, reason, notification, history=decision.history)

    def _decide(
        self, entry: Entry, notification: Notification[Any], outcome: Outcome, ruling: Ruling | None
    ) -> Decision:
        expires, now = notification._expires_ms, self._clock.now()
        return decide(outcome, entry.history, expires, self.rules, now, self.kept, ruling)

    # -- without an attempt ---------------------------------------------------------------------------

    def not_sent(self, slot: Slot) -> None:
        """Give back a start that did not reach the provider, so that another send may use it."""
        self._guard.give_up(slot)
        if slot.start and self._pace is not None:
            self._pace.give_back(slot.start)

    def not_admitted(self, entry: Entry, notification: Notification[Any], outcome: Outcome) -> None:
        """Settle a notification whose destination was held for too long or cannot be named."""
        self.settle(entry, notification, self._decide(entry, notification, outcome, None))

    def expire(self, entry: Entry, notification: Notification[Any]) -> None:
        """Dead-letter a notification that expired before its send."""
        self.counts.expired += 1
        self._publisher.dead_letter(entry, "expired", notification)

    def skip(self, entry: Entry, notification: Notification[Any], reason: str) -> None:
        """Finish a notification that is not sent, by the team's decision or because a newer one supersedes it."""
        self.counts.skipped += 1
        if self._on_event is not None:
            n = notification
            self._on_event(events.NotificationSkipped(n.id, n.category, n.channel, reason))
        partition = entry.queue.partition
        partition.finish(entry, accepted=False, now=self._clock.now())
        self.on_room(partition)

    def pause(self, entry: Entry, notification: Notification[Any], now: int) -> None:
        """Let a notification wait while its category or channel is paused."""
        in_source = entry.retry is None
        entry.queue.partition.pause(entry, now)
        if in_source:
            self._publisher.pause(entry, notification)

    def undecodable(self, entry: Entry, reason: DlqReason, code: str) -> None:
        """Dead-letter a record that can never be decoded."""
        self.counts.dead += 1
        self._publisher.dead_letter(entry, reason, code=code)

    def wait_for_codec(self, entry: Entry, code: str) -> None:
        """Let a record wait that the codec cannot decode now, although it decodes others."""
        follows = undecodable_now(entry.history, self._expires(entry), code, self._clock.now())
        if isinstance(follows, WaitForCodec):
            self._publisher.wait_for_codec(entry, follows)
        elif follows == "expired":
            self.counts.expired += 1
            self._publisher.dead_letter(entry, follows)
        else:
            self.counts.dead += 1
            self._publisher.dead_letter(entry, follows, code=code)

    def _expires(self, entry: Entry) -> int | None:
        if entry.retry is not None:
            return entry.retry.expires
        number, origin = entry.partition.number, entry.origin
        return self._context.facts(entry.headers or [], number, origin, entry.timestamp)[2]
