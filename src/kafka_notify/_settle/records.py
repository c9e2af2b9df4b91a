"""The records that a worker writes into the retry topic, copies and spills, and what follows each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kafka_notify import events
from kafka_notify._decision.context import Context
from kafka_notify._partition.entry import Assignment, Entry
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.wide import LongWaits, Spill
from kafka_notify._settle.copies import Copy
from kafka_notify._wire.history import NEW
from kafka_notify.notification import Notification
from kafka_notify.wire import (
    SPILL_ORIGIN,
    SPILL_WRITER,
    Headers,
    Origin,
    RetryState,
    category_of,
    channel_of,
    retry_copy,
)

if TYPE_CHECKING:
    from kafka_notify._partition.partition import Partition

log = logging.getLogger("kafka_notify.worker")

_SPILL_KEY: Final = b"kafka-notify-spill"


def place_of(entry: Entry, context: Context) -> tuple[str, int, int]:
    """Topic, partition and offset of the record that an entry began with: when the headers of a retry
    record cannot be read, that record is all that is known."""
    number = entry.partition.number
    if entry.retry is not None and entry.retry.stranger >= 0:
        return context.source, number, entry.retry.stranger
    if entry.origin < 0:
        return context.retry_topic, number, -1 - entry.origin
    return context.source, number, entry.origin


def origin_of(entry: Entry, retry: RetryRecord, context: Context) -> Origin:
    """The origin that the headers of a copy or dead letter name."""
    return Origin(*place_of(entry, context), retry.topic)


class PartitionCopy(Copy):
    """A copy that a partition waits for: it is outstanding from now until its answer.

    Args:
        of: The assignment that it belongs to.
        topic: The topic that it is written to.
        number: The partition there; -1 lets the key decide.
        key: The record's key; likewise `value` and `headers`.
    """

    __slots__ = ("_of",)

    def __init__(
        self,
        of: Assignment,
        topic: str,
        number: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
    ) -> None:
        super().__init__(topic, number, key, value, headers)
        self._of = of
        of.outstanding += 1

    def wanted(self) -> bool:
        """While its assignment lives."""
        return self._of.alive

    def _answered(self) -> bool:
        """Note that nobody waits for it any more; return True while its assignment lives."""
        self._of.outstanding -= 1
        return self._of.alive

    def abandon(self) -> None:
        """Do not keep the assignment alive."""
        super().abandon()
        del self._of


TooLarge = Callable[["RetryCopy"], object]


class RetryCopy(PartitionCopy):
    """A record of the retry topic: the entry lives there once the broker has it.

    Args:
        context: The worker's context.
        entry: Whose copy it is.
        retry: What it says.
        notification: None where nobody decoded it.
        instead: Writes something else when no topic takes it.
    """

    __slots__ = ("_context", "_instead", "entry", "notification", "retry")
    gives_way = True

    def __init__(
        self,
        context: Context,
        entry: Entry,
        retry: RetryRecord,
        notification: Notification[Any] | None,
        instead: TooLarge,
    ) -> None:
        self._context = context
        self._instead = instead
        self.entry = entry
        self.retry = retry
        self.notification = notification
        of = entry.partition
        state = RetryState(origin_of(entry, retry, context), retry.history, retry.due, of.writer)
        headers = retry_copy(entry.headers, state, retry.id, retry.created)
        super().__init__(of, context.retry_topic, of.number, entry.key, entry.value, headers)

    def acknowledged(self, offset: int) -> None:
        """The entry lives in the retry topic from now on."""
        partition, retry = self._of, self.retry
        if not self._answered():
            return
        context = self._context
        now = context.clock.now()
        retry.at = offset
        partition.copied(self.entry, retry, now)
        if context.on_event is not None:
            n = self.notification
            context.on_event(
                events.RetryScheduled(
                    retry.id,
                    n.category if n else category_of(self.headers) or "",
                    n.channel if n else channel_of(self.headers) or "",
                    retry.history.attempts,
                    (retry.due - now) / 1000,
                    self.topic,
                    partition.number,
                    offset,
                )
            )

    def failed(self) -> None:
        """It may have been written all the same: that orphan is read before a send."""
        self.retry.tainted = True

    def too_large(self) -> bool:
        """It is dead-lettered instead."""
        if self._answered():
            log.error(
                "%s[%d]: the retry copy of offset %d is too large for %s: it is dead-lettered; raise that topic's "
                "max.message.bytes",
                *place_of(self.entry, self._context),
                self.topic,
            )
            self._instead(self)
        return False

    def abandon(self) -> None:
        """Keep neither the entry nor the assignment alive."""
        super().abandon()
        del self.entry, self.retry, self.notification


class CarriedCopy(RetryCopy):
    """A waiting retry written forward as it is. It fitted before, so it is written again and again."""

    __slots__ = ()
    gives_way = False


class SpillCopy(PartitionCopy):
    """Which offsets of the retry partition are finished, written into itself. Its headers are those of a copy by
    another writer, so that an older version passes over it."""

    __slots__ = ("_long_waits", "_spilled", "_written")

    def __init__(self, context: Context, partition: Partition, written: Spill, long_waits: LongWaits) -> None:
        super().__init__(
            partition,
            context.retry_topic,
            partition.number,
            _SPILL_KEY,
            written.value,
            _spill_headers(context, partition),
        )
        self._spilled = partition.spilled
        self._written = written
        self._long_waits = long_waits

    def acknowledged(self, offset: int) -> None:
        """Commits may name it."""
        if self._answered():
            self._spilled(self._written, offset)

    def failed(self) -> None:
        """It counts."""
        self._long_waits.spill_failures += 1

    def abandon(self) -> None:
        """Do not keep the assignment alive."""
        super().abandon()
        del self._spilled, self._written


def _spill_headers(context: Context, partition: Partition) -> Headers:
    origin = Origin(context.source, partition.number, SPILL_ORIGIN)
    state = RetryState(origin, NEW, 0, SPILL_WRITER + partition.writer)
    return retry_copy(None, state, "spill", context.clock.now())
