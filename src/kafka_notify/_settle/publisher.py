"""What is written of a notification that was not sent: a copy in the retry topic, or a dead letter.

`_decision.what_follows` decides what follows; here it becomes a record, and the old record is completed once the
broker has the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kafka_notify._base import codes
from kafka_notify._decision.context import Context
from kafka_notify._decision.what_follows import TryAgain, WaitForCodec
from kafka_notify._partition.entry import Entry
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.wide import LongWaits, Spill
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._settle.dead_letters import DeadLetterCopy, DeadLetterHook, Death, Spawn
from kafka_notify._settle.records import CarriedCopy, RetryCopy, SpillCopy
from kafka_notify.errors import DeliveryError, UnknownOutcomeError
from kafka_notify.notification import Notification
from kafka_notify.wire import DlqReason, collapses_with

if TYPE_CHECKING:
    from kafka_notify._partition.partition import Partition


class CopyPublisher:
    """Writes the copies of one worker.

    Args:
        context: Of the worker.
        writer: Writes until acknowledged.
        on_dead_letter: Awaited after the acknowledgement of each dead letter, before completion: at least once. None
            costs nothing.
        spawn: Runs it.
    """

    def __init__(
        self, context: Context, writer: CopyWriter, on_dead_letter: DeadLetterHook | None, spawn: Spawn
    ) -> None:
        self._context = context
        self._clock = context.clock
        self._writer = writer
        self._on_dead_letter = on_dead_letter
        self._spawn = spawn

    # -- retry topic ----------------------------------------------------------------------------------

    def park(self, entry: Entry, *, will_be_sent: Callable[[Entry, int], bool]) -> None:
        """Put a source record behind an earlier one of its user: a copy with its attempts, due now.

        Args:
            entry: Which.
            will_be_sent: Says whether it can be sent at that epoch ms, so that it supersedes older ones with its
                collapse key: later its payload may not be in memory any more. Asked only when it has one.
        """
        now = self._clock.now()
        retry = self._held(entry, now)
        if retry.collapse and not will_be_sent(entry, now):
            retry.collapse = ""
        self._copy(entry, retry, entry.attempt)

    def pause(self, entry: Entry, notification: Notification[Any] | None, code: str = codes.PAUSED) -> None:
        """Copy a source record whose category or channel is paused, or whose destination is held: no attempt, and due
        as soon as it is resumed."""
        retry = self._held(entry, self._clock.now(), notification)
        retry.error_class, retry.error_code = "Paused", code
        self._copy(entry, retry, entry.attempt, notification)

    def wait_for_codec(self, entry: Entry, code: str, decision: WaitForCodec) -> None:
        """Let a record wait that its codec cannot decode now. No attempt is counted.

        Args:
            entry: Which.
            code: Why it cannot.
            decision: When its codec is asked again.
        """
        retry = self._held(entry, decision.due)
        retry.first_failed = decision.first_failed
        retry.error_class, retry.error_code = "CodecUnavailableError", code
        entry.partition.copying(entry)
        self._copy(entry, retry, entry.attempt)

    def carry(self, entry: Entry) -> None:
        """Copy a waiting retry forward as it is, so that the retry partition's frontier can move on."""
        retry = entry.retry
        assert retry is not None
        carried = self._held(entry, retry.due)
        self._writer.write(
            CarriedCopy(self._context, entry, carried, entry.attempt, None, self._dead_letter_instead)
        )

    def try_again(self, entry: Entry, notification: Notification[Any], decision: TryAgain) -> None:
        """Write a copy that waits for its next attempt."""
        retry = self._held(entry, decision.due, notification)
        retry.first_failed, retry.waiting_since = decision.first_failed, decision.waiting_since
        _note(retry, decision.outcome.error)
        entry.partition.copying(entry)
        self._copy(entry, retry, decision.attempts, notification)

    def spill(self, partition: Partition, written: Spill, long_waits: LongWaits) -> None:
        """Write which offsets of the retry partition are finished into itself."""
        self._writer.write(SpillCopy(self._context, partition, written, long_waits))

    def _copy(
        self, entry: Entry, retry: RetryRecord, attempts: int, notification: Notification[Any] | None = None
    ) -> None:
        self._writer.write(
            RetryCopy(self._context, entry, retry, attempts, notification, self._dead_letter_instead)
        )

    def _held(self, entry: Entry, due: int, notification: Notification[Any] | None = None) -> RetryRecord:
        """What the next copy of `entry` says, from what its last one said."""
        old = entry.retry
        if old is None:
            if notification is not None:
                n = notification
                id, created, expires, collapse = n.id, n._created_ms, n._expires_ms, collapses_with(n)
            else:
                id, created, expires, collapse = self._context.facts(
                    entry.headers or [], entry.partition.number, entry.origin, entry.timestamp
                )
            retry = RetryRecord(-1, due, expires, id, created)
            retry.collapse, retry.topic = collapse, entry.partition.topic_id
            return retry
        retry = RetryRecord(-1, due, old.expires, old.id, old.created)
        retry.collapse = old.collapse
        retry.redrives, retry.foreign, retry.tainted = old.redrives, old.foreign, old.tainted
        retry.stranger, retry.topic = old.stranger, old.topic
        retry.first_failed, retry.error_class, retry.error_code = (
            old.first_failed,
            old.error_class,
            old.error_code,
        )
        retry.provider, retry.unknown = old.provider, old.unknown
        retry.unknown_before, retry.waiting_since = old.unknown_before, old.waiting_since
        return retry

    # -- dead-letter topic ----------------------------------------------------------------------------

    def dead_letter(
        self,
        entry: Entry,
        reason: DlqReason,
        notification: Notification[Any] | None = None,
        *,
        attempts: int | None = None,
        error: DeliveryError | None = None,
        code: str | None = None,
    ) -> None:
        """Write a dead letter; the entry is terminal when the broker has it.

        Args:
            entry: Whose dead letter it is.
            reason: Why it died.
            notification: None when it cannot be decoded.
            attempts: Counted attempts; the entry's by default.
            error: The last failure.
            code: Of what is wrong with the record, when there is no `error`.
        """
        now = self._clock.now()
        retry = self._held(entry, now)
        _note(retry, error)
        if error is None and code is not None:
            retry.error_code = code
        made = entry.attempt if attempts is None else attempts
        self._write_letter(entry, Death(reason, retry, made, now), notification)

    def _dead_letter_instead(self, copy: RetryCopy) -> None:
        """No topic takes a copy: write a dead letter that says what the copy would have said."""
        retry = copy.retry
        retry.error_code = codes.RECORD_TOO_LARGE
        death = Death("permanent", retry, copy.attempts, self._clock.now())
        self._write_letter(copy.entry, death, copy.notification)

    def _write_letter(self, entry: Entry, death: Death, notification: Notification[Any] | None) -> None:
        letter = DeadLetterCopy(self._context, entry, death, notification, self._on_dead_letter, self._spawn)
        entry.partition.dead_lettering(entry)
        self._writer.write(letter)


def _note(retry: RetryRecord, error: DeliveryError | None) -> None:
    """What a failure leaves behind for the next attempt."""
    if error is not None:
        retry.error_class, retry.error_code = type(error).__name__, error.code
        retry.provider = error.provider or retry.provider
        retry.unknown = retry.unknown or isinstance(error, UnknownOutcomeError)
