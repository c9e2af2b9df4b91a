"""What becomes of a notification that was not sent: a retry copy, a parked copy, or a dead letter.

The engine decides how an attempt ended; this decides what is written, and completes the old record once the
broker has the new one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from kafka_notify import _codes as codes
from kafka_notify import events
from kafka_notify._clock import Clock
from kafka_notify._dead_letter import DeadLetter
from kafka_notify._partition.entry import Entry
from kafka_notify._partition.retry_record import Held
from kafka_notify._partition.wide import LongWaits, Spill
from kafka_notify._retention import DAY_MS, RETRY_DEFAULT_MS, keepable
from kafka_notify._settle import letters
from kafka_notify._settle.copies import Copy, CopyWriter
from kafka_notify.codec import Codec
from kafka_notify.errors import DeliveryError, ThrottledError, UnknownOutcomeError
from kafka_notify.events import OnEvent
from kafka_notify.notification import Category, Notification
from kafka_notify.outcome import Retry
from kafka_notify.policy import given_up, holds_lane, is_deferred
from kafka_notify.wire import (
    SPILL_ORIGIN,
    SPILL_WRITER,
    DlqPayload,
    DlqReason,
    Headers,
    RetryState,
    category_of,
    channel_of,
    collapse_of,
    collapses_with,
    dead_letter,
    expiry,
    identity,
    retry_copy,
)

if TYPE_CHECKING:
    from kafka_notify._partition.partition import Partition

log = logging.getLogger("kafka_notify.worker")

MAX_WAIT_MS = 24 * 3600 * 1000
"""How long a notification without expiry may be throttled in a row before it is dead-lettered; how long one whose
codec cannot decode it, though it decodes others, may wait."""

_SPILL_KEY: Final = b"kafka-notify-spill"

DeadLetterHook = Callable[[DeadLetter], Awaitable[None]]


def known_reason(reason: str) -> DlqReason:
    """A middleware may say anything; readers of dead letters know a closed set."""
    return cast(DlqReason, reason) if reason in get_args(DlqReason) else "permanent"


class Settler:
    """Writes the copies of one worker.

    Args:
        writer: Writes until acknowledged.
        clock: Epoch milliseconds.
        topics: Names of source, retry and dead-letter topic.
        group: The consumer group.
        categories: Of the topology: their ttl and dead-letter policy.
        codec: For `on_dead_letter`.
        on_event: Guarded.
        on_dead_letter: Awaited after the acknowledgement, before completion: at least once. None costs nothing.
        spawn: Runs it.
        max_wait_ms: `RetryPolicy.max_wait`.
    """

    def __init__(
        self,
        writer: CopyWriter,
        clock: Clock,
        *,
        topics: tuple[str, str, str],
        group: str,
        categories: Mapping[str, Category[Any]],
        codec: Codec,
        on_event: OnEvent | None,
        on_dead_letter: DeadLetterHook | None,
        spawn: Callable[[Any], object],
        max_wait_ms: int | None = None,
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._source, self._retry_topic, self._dlq = topics
        self._group = group
        self._categories = categories
        self._codec = codec
        self._on_event = on_event
        self._on_dead_letter = on_dead_letter
        self._spawn = spawn
        self._max_wait_ms = max_wait_ms
        self.longest_wait_ms: int | None = keepable(RETRY_DEFAULT_MS)
        """How long one copy is surely kept; None is for ever."""
        self.keeps_any_wait = False
        """Whether a retry may wait for longer: it is known that its copy is written again in time."""

    def facts(
        self, headers: Headers, partition: int, origin: int, timestamp: int
    ) -> tuple[str, int, int | None, str]:
        """Id, creation and expiry (epoch ms) of a notification, and what it collapses with, without decoding it."""
        id, created = identity(headers, self._source, partition, origin, timestamp)
        return id, created, expiry(headers, created, self._categories), collapse_of(headers)

    # -- retry topic ----------------------------------------------------------------------------------

    def park(self, entry: Entry, *, will_be_sent: Callable[[Entry, int], bool]) -> None:
        """Put a source record behind an earlier one of its user: a copy with its attempts, due now.

        Args:
            entry: Which.
            will_be_sent: Says whether it can be sent at that epoch ms, so that it supersedes older ones with its
                collapse key: later its payload may not be in memory any more. Asked only when it has one.
        """
        now = self._clock.now()
        held = self._held(entry, now)
        if held.collapse and not will_be_sent(entry, now):
            held.collapse = ""
        self._copy(entry, held, entry.attempt)

    def pause(self, entry: Entry, notification: Notification[Any] | None, code: str = codes.PAUSED) -> None:
        """Copy a source record whose category or channel is paused, or whose destination is held: no attempt, and due
        as soon as it is resumed."""
        held = self._held(entry, self._clock.now(), notification)
        held.error_class, held.error_code = "Paused", code
        self._copy(entry, held, entry.attempt, notification)

    def wait_for_codec(self, entry: Entry, code: str = codes.CODEC_UNAVAILABLE) -> str | None:
        """Let a record wait in the retry topic that its codec cannot decode now, while it can decode others: as long as
        it has waited so far, from a second to a minute. No attempt is counted.

        Args:
            entry: Which.
            code: Why it cannot.

        Returns:
            Why it was dead-lettered; None when it was not.
        """
        now = self._clock.now()
        held = self._held(entry, now)
        if held.first_failed is None:
            held.first_failed = now
        if held.expires is not None and held.expires <= now:
            self.bury(entry, "expired", None, None)
            return "expired"
        waited = now - held.first_failed
        if waited > MAX_WAIT_MS:
            self.bury(entry, "undecodable", None, code)
            return "undecodable"
        held.due = now + min(max(waited, 1_000), 60_000)
        held.error_class, held.error_code = "CodecUnavailable", code
        entry.partition.copying(entry)
        self._copy(entry, held, entry.attempt)
        return None

    def carry(self, entry: Entry) -> None:
        """Copy a waiting retry forward as it is, so that the retry partition's frontier can move on."""
        held = entry.held
        assert held is not None
        self._copy(entry, self._held(entry, held.due), entry.attempt, carried=True)

    def retry(
        self,
        entry: Entry,
        notification: Notification[Any],
        outcome: Retry,
        max_attempts: int,
    ) -> str | None:
        """Write a copy that waits for its next attempt, or a dead letter when there will be none.

        Returns:
            Why it was dead-lettered; None when it was not.
        """
        now = self._clock.now()
        error = outcome.error
        attempts = entry.attempt + 1 if outcome.counted else entry.attempt
        due = now + max(round(outcome.after * 1000), 0)
        expires = notification._expires_ms
        reason = given_up(
            counted=outcome.counted,
            attempts_made=attempts,
            max_attempts=max_attempts,
            due=due,
            expires=expires,
        )
        if reason is not None:
            self.bury(entry, reason, notification, None, error, attempts)
            return reason
        if self.longest_wait_ms is not None and due - now > self.longest_wait_ms:
            if not outcome.counted and holds_lane(error):
                due = (
                    now + self.longest_wait_ms
                )  # the provider asked, not for this one: it is looked at earlier
            elif not self.keeps_any_wait:
                days = self.longest_wait_ms / DAY_MS
                log.error(
                    "%s[%d]: the notification at offset %d is to wait longer than the %.3g days that %s surely keeps "
                    "it: it is dead-lettered; ask for less, or lengthen retention.ms",
                    *self._place(entry), days, self._retry_topic,
                )  # fmt: skip
                self.bury(entry, "wait_too_long", notification, None, error, attempts)
                return "wait_too_long"
        held = self._held(entry, due, notification)
        if held.first_failed is None:
            held.first_failed = now
        if self._waited_too_long(held, error, expires, now):
            self.bury(entry, "throttle_timeout", notification, None, error, attempts)
            return "throttle_timeout"
        if error is not None:
            held.error_class, held.error_code = type(error).__name__, error.code
            held.provider = error.provider or held.provider
        held.unknown = held.unknown or isinstance(error, UnknownOutcomeError)
        entry.partition.copying(entry)
        self._copy(entry, held, attempts, notification)
        return None

    def _waited_too_long(
        self, held: Held, error: DeliveryError | None, expires: int | None, now: int
    ) -> bool:
        """Whether it was throttled, or deferred, for too long in a row; notes since when. An outage has no bound."""
        deferred = is_deferred(error)
        if not deferred and not isinstance(error, ThrottledError):
            held.waiting_since = None
            return False
        if held.waiting_since is None or deferred != (held.error_code or "").startswith(codes.DEFERRED):
            held.waiting_since = now
        most = self._max_wait_ms
        if most is None and not deferred and expires is None:
            most = MAX_WAIT_MS
        return most is not None and now - held.waiting_since > most

    def _held(self, entry: Entry, due: int, notification: Notification[Any] | None = None) -> Held:
        """What the next copy of `entry` says, from what its last one said."""
        old = entry.held
        if old is None:
            if notification is not None:
                n = notification
                id, created, expires, collapse = n.id, n._created_ms, n._expires_ms, collapses_with(n)
            else:
                id, created, expires, collapse = self.facts(
                    entry.headers or [], entry.partition.number, entry.origin, entry.timestamp
                )
            held = Held(-1, due, expires, id, created)
            held.collapse, held.topic = collapse, entry.partition.topic_id
            return held
        held = Held(-1, due, old.expires, old.id, old.created)
        held.collapse = old.collapse
        held.redrives, held.foreign, held.tainted = old.redrives, old.foreign, old.tainted
        held.stranger, held.topic = old.stranger, old.topic
        held.first_failed, held.error_class, held.error_code = (
            old.first_failed,
            old.error_class,
            old.error_code,
        )
        held.provider, held.unknown = old.provider, old.unknown
        held.unknown_before, held.waiting_since = old.unknown_before, old.waiting_since
        return held

    def _copy(
        self,
        entry: Entry,
        held: Held,
        attempts: int,
        notification: Notification[Any] | None = None,
        *,
        carried: bool = False,
    ) -> None:
        partition = entry.partition
        headers = retry_copy(entry.headers, self._state(entry, held, attempts), held.id, held.created)
        partition.outstanding += 1

        def done(offset: int) -> None:
            partition.outstanding -= 1
            if not partition.alive:
                return
            now = self._clock.now()
            held.at = offset
            partition.copied(entry, held, attempts, now)
            if self._on_event is not None:
                self._on_event(
                    events.RetryScheduled(
                        held.id,
                        notification.category if notification else category_of(headers) or "",
                        notification.channel if notification else channel_of(headers) or "",
                        attempts,
                        (held.due - now) / 1000,
                        self._retry_topic,
                        partition.number,
                        offset,
                    )
                )

        def failed() -> None:
            held.tainted = True

        def too_large(_: Copy) -> bool:
            partition.outstanding -= 1
            if partition.alive:
                log.error(
                    "%s[%d]: the retry copy of offset %d is too large for %s: it is dead-lettered; raise that topic's "
                    "max.message.bytes",
                    *self._place(entry),
                    self._retry_topic,
                )
                code = codes.RECORD_TOO_LARGE
                self.bury(entry, "permanent", notification, code, None, attempts, held)
            return False

        self._writer.write(
            self._retry_topic,
            partition.number,
            entry.key,
            entry.value,
            headers,
            wanted=lambda: partition.alive,
            done=done,
            failed=failed,
            too_large=None if carried else too_large,
        )

    def _state(self, entry: Entry, held: Held, attempts: int) -> RetryState:
        topic, number, origin = self._place(entry)
        return RetryState(
            origin_topic=topic,
            origin_partition=number,
            origin=origin,
            attempt=attempts,
            due_ms=held.due,
            first_failed_ms=held.first_failed,
            error_class=held.error_class,
            error_code=held.error_code,
            provider=held.provider,
            outcome_unknown=held.unknown,
            writer=entry.partition.writer,
            redrives=held.redrives,
            origin_topic_id=held.topic,
            unknown_before=held.unknown_before,
            waiting_since_ms=held.waiting_since,
        )

    def spill(self, partition: Partition, written: Spill, long_waits: LongWaits) -> None:
        """Write which offsets of the retry partition are finished into itself. Its headers are those of a copy by
        another writer, so that an older version passes over it."""
        state = RetryState(
            origin_topic=self._source,
            origin_partition=partition.number,
            origin=SPILL_ORIGIN,
            attempt=0,
            due_ms=0,
            first_failed_ms=None,
            error_class=None,
            error_code=None,
            provider=None,
            outcome_unknown=False,
            writer=SPILL_WRITER + partition.writer,
            redrives=0,
        )
        partition.outstanding += 1

        def done(offset: int) -> None:
            partition.outstanding -= 1
            if partition.alive:
                partition.spilled(written, offset)

        def failed() -> None:
            long_waits.spill_failures += 1

        self._writer.write(
            self._retry_topic,
            partition.number,
            _SPILL_KEY,
            written.value,
            retry_copy(None, state, "spill", self._clock.now()),
            wanted=lambda: partition.alive,
            done=done,
            failed=failed,
        )

    # -- dead-letter topic ----------------------------------------------------------------------------

    def bury(
        self,
        entry: Entry,
        reason: DlqReason,
        notification: Notification[Any] | None,
        code: str | None,
        error: DeliveryError | None = None,
        attempts: int | None = None,
        held: Held | None = None,
    ) -> None:
        """Write a dead letter; the entry is terminal when the broker has it.

        When no topic takes it, it is written without its value, and if need be without key and headers.

        Args:
            entry: Whose letter it is.
            reason: Why it died.
            notification: None when it cannot be decoded.
            code: Of what is wrong with the record; with an `error` its own.
            error: The last failure.
            attempts: Counted attempts; the entry's by default, plus one when an attempt failed for good.
            held: What is known of earlier attempts; by default what the entry says.
        """
        partition = entry.partition
        now = self._clock.now()
        held = held or self._held(entry, now)
        if error is not None:
            held.error_class, held.error_code = type(error).__name__, error.code
            held.provider = error.provider or held.provider
            held.unknown = held.unknown or isinstance(error, UnknownOutcomeError)
        elif code is not None:
            held.error_code = code
        if attempts is None:
            attempts = entry.attempt + 1 if error is not None else entry.attempt

        def headers(own: Headers | None, payload: DlqPayload, code: str | None) -> Headers:
            held.error_code = code or held.error_code
            return dead_letter(
                own,
                reason=reason,
                at_ms=now,
                group=self._group,
                payload=payload,
                redrives=held.redrives,
                state=self._state(entry, held, attempts),
                id=held.id or None,
                created_ms=held.created if held.id and held.created >= 0 else None,
            )

        forms = letters.forms(entry, letters.payload_policy(entry, notification, self._categories), headers)
        letter = next(forms)
        partition.dying(entry)
        partition.outstanding += 1

        def done(offset: int) -> None:
            if self._on_event is not None:
                self._on_event(
                    events.DeadLettered(
                        held.id,
                        notification.category if notification else None,
                        notification.channel if notification else None,
                        reason,
                        held.error_code,
                        *self._place(entry),
                    )
                )
            if self._on_dead_letter is None:
                finish()
            else:
                self._spawn(told(offset))

        async def told(offset: int) -> None:
            assert self._on_dead_letter is not None
            try:
                dead = DeadLetter.from_record(
                    self._dlq,
                    -1,
                    offset,
                    letter.key,
                    letter.value,
                    letter.headers,
                    now,
                    self._codec,
                    self._categories,
                    notification,
                )
                await self._on_dead_letter(dead)
            finally:
                finish()

        def finish() -> None:
            partition.outstanding -= 1
            if partition.alive:
                partition.finish(entry, accepted=False, now=self._clock.now())

        def too_large(copy: Copy) -> bool:
            nonlocal letter
            if partition.alive:
                log.error(
                    "%s[%d]: the dead letter of offset %d is too large for %s: less of it is written; the original "
                    "stays in its topic until retention removes it",
                    *self._place(entry),
                    self._dlq,
                )
                letter = next(forms)
                copy.key, copy.value, copy.headers = letter.key, letter.value, letter.headers
            return partition.alive

        self._writer.write(
            self._dlq,
            -1,
            letter.key,
            letter.value,
            letter.headers,
            wanted=lambda: partition.alive,
            done=done,
            failed=lambda: None,
            too_large=too_large,
            outlives=True,  # `on_dead_letter` is told of a letter that was written
        )

    def _place(self, entry: Entry) -> tuple[str, int, int]:
        """Topic, partition and offset of the record that an entry began with: when the headers of a retry
        record cannot be read, that record is all that is known."""
        number = entry.partition.number
        if entry.held is not None and entry.held.stranger >= 0:
            return self._source, number, entry.held.stranger
        if entry.origin < 0:
            return self._retry_topic, number, -1 - entry.origin
        return self._source, number, entry.origin
