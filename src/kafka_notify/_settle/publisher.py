"""What is written of a notification that was not sent: a copy in the retry topic, or a dead letter.

`_decision.what_follows` decides what follows; here it becomes a record, and the old record is completed once the
broker has the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from kafka_notify._base import codes
from kafka_notify._decision.context import Context
from kafka_notify._decision.what_follows import TryAgain, WaitForCodec
from kafka_notify._partition.entry import Entry
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.wide import LongWaits, Spill
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._settle.dead_letters import DeadLetterCopy, DeadLetterHook, Spawn
from kafka_notify._settle.records import CarriedCopy, RetryCopy, SpillCopy
from kafka_notify.notification import Notification
from kafka_notify.wire import DlqReason, History, collapses_with

if TYPE_CHECKING:
    from kafka_notify._partition.partition import Partition


class CopyPublisher:
    """Writes the copies of one worker.

    Args:
        context: The worker's context.
        writer: Writes until acknowledged.
        on_dead_letter: Awaited at least once for each dead letter: after its acknowledgement, before completion.
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
            entry: The source record.
            will_be_sent: Says whether it can be sent at that epoch ms, so that it supersedes older ones with its
                collapse key: later its payload may not be in memory any more. Asked only when it has one.
        """
        now = self._clock.now()
        retry = self._next(entry, now, entry.history)
        if retry.collapse and not will_be_sent(entry, now):
            retry.collapse = ""
        self._copy(entry, retry)

    def pause(self, entry: Entry, notification: Notification[Any] | None, code: str = codes.PAUSED) -> None:
        """Copy a source record whose category or channel is paused, or whose destination is held: no attempt, and due
        as soon as it is resumed."""
        history = attrs.evolve(entry.history, error_class="Paused", error_code=code)
        self._copy(entry, self._next(entry, self._clock.now(), history, notification), notification)

    def wait_for_codec(self, entry: Entry, decision: WaitForCodec) -> None:
        """Let a record wait that its codec cannot decode now. No attempt is counted."""
        entry.partition.copying(entry)
        self._copy(entry, self._next(entry, decision.due, decision.history))

    def carry(self, entry: Entry) -> None:
        """Copy a waiting retry forward as it is, so that the retry partition's frontier can move on."""
        assert entry.retry is not None
        carried = entry.retry.next(entry.retry.due, entry.history)
        self._writer.write(CarriedCopy(self._context, entry, carried, None, self._dead_letter_instead))

    def try_again(self, entry: Entry, notification: Notification[Any], decision: TryAgain) -> None:
        """Write a copy that waits for its next attempt."""
        retry = self._next(entry, decision.due, decision.history, notification)
        entry.partition.copying(entry)
        self._copy(entry, retry, notification)

    def spill(self, partition: Partition, written: Spill, long_waits: LongWaits) -> None:
        """Write which offsets of the retry partition are finished into itself."""
        self._writer.write(SpillCopy(self._context, partition, written, long_waits))

    def _copy(self, entry: Entry, retry: RetryRecord, notification: Notification[Any] | None = None) -> None:
        self._writer.write(RetryCopy(self._context, entry, retry, notification, self._dead_letter_instead))

    def _next(
        self, entry: Entry, due: int, history: History, notification: Notification[Any] | None = None
    ) -> RetryRecord:
        """The record that is written next for `entry`."""
        if entry.retry is not None:
            return entry.retry.next(due, history)
        if notification is not None:
            n = notification
            id, created, expires, collapse = n.id, n._created_ms, n._expires_ms, collapses_with(n)
        else:
            id, created, expires, collapse = self._context.facts(
                entry.headers or [], entry.partition.number, entry.origin, entry.timestamp
            )
        retry = RetryRecord(-1, due, expires, id, created, history)
        retry.collapse, retry.topic = collapse, entry.partition.topic_id
        return retry

    # -- dead-letter topic ----------------------------------------------------------------------------

    def dead_letter(
        self,
        entry: Entry,
        reason: DlqReason,
        notification: Notification[Any] | None = None,
        *,
        history: History | None = None,
        code: str | None = None,
    ) -> None:
        """Write a dead letter; the entry is terminal when the broker has it.

        Args:
            entry: Whose dead letter it is.
            reason: Why it is dead-lettered.
            notification: None when it cannot be decoded.
            history: What happened to it, with the last attempt; the entry's by default.
            code: What is wrong with the record; None keeps the code of the last failure.
        """
        history = history or entry.history
        if code is not None:
            history = attrs.evolve(history, error_code=code)
        self._write_dead_letter(entry, self._next(entry, 0, history), reason, notification)

    def _dead_letter_instead(self, copy: RetryCopy) -> None:
        """No topic takes a copy: write a dead letter that says what the copy would have said."""
        retry = copy.retry
        retry.history = attrs.evolve(retry.history, error_code=codes.RECORD_TOO_LARGE)
        self._write_dead_letter(copy.entry, retry, "permanent", copy.notification)

    def _write_dead_letter(
        self, entry: Entry, retry: RetryRecord, reason: DlqReason, notification: Notification[Any] | None
    ) -> None:
        written = DeadLetterCopy(
            self._context, entry, retry, reason, notification, self._on_dead_letter, self._spawn
        )
        entry.partition.dead_lettering(entry)
        self._writer.write(written)
