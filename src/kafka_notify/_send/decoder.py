"""Decodes records to notifications, and settles those that cannot be decoded now or ever. Runs on the event loop."""

from __future__ import annotations

import logging
from typing import Any, Final

from kafka_notify._base import codes
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._base.where import name_of
from kafka_notify._decision.context import Context
from kafka_notify._partition.entry import Assignment, Entry
from kafka_notify._send.guard import Guard
from kafka_notify._send.outcomes import Outcomes
from kafka_notify._send.ready import Ready
from kafka_notify._send.slots import Slot
from kafka_notify._send.unread import Unread
from kafka_notify.errors import CodecUnavailableError
from kafka_notify.notification import Notification
from kafka_notify.wire import ContentTypeUnread, DlqReason, Undecodable, decode

log = logging.getLogger("kafka_notify.send")

FEW: Final = 3
"""Users in a row whose records the codec cannot decode before the lane waits."""


class Decoder:
    """Decodes the records of one lane.

    Args:
        context: The worker's context.
        outcomes: Settles records that cannot be decoded.
        guard: Holds the lane when the codec's service is unavailable.
        ready: Takes back an entry that waits for the codec with its lane.
    """

    def __init__(self, context: Context, outcomes: Outcomes, guard: Guard, ready: Ready) -> None:
        self.unread = Unread(context.clock.boottime)
        self._source = context.source
        self._codec = context.codec
        self._categories = context.categories
        self._outcomes = outcomes
        self._guard = guard
        self._ready = ready
        self._wrong = LimitedLog(log)
        self._undecided: set[bytes | None] = set()
        """Users whose records the codec could not decode since it last decoded one."""

    def read(self, slot: Slot, entry: Entry, partition: Assignment) -> Notification[Any] | None:
        """The notification of an entry; None when the entry was dead-lettered or has to wait instead."""
        record = entry.record
        assert record is not None
        reason: DlqReason
        try:
            notification = decode(  # as `decode` below, without a call more per record
                record.key(),
                record.value(),
                entry.headers,
                self._source,
                partition.number,
                entry.origin,
                record.timestamp()[1],
                self._codec,
                self._categories,
            )
            if self._undecided:
                self._undecided.clear()
            return notification
        except Undecodable as e:
            reason, code, unavailable = e.reason, e.code, ""
            if e.detail:
                self._wrong.warning(f"{self._source}: {e.code}: {e.detail}")
        except ContentTypeUnread as e:
            self.unread.met(e)
            reason, code, unavailable = "undecodable", "", codes.CONTENT_TYPE_UNREAD
        except CodecUnavailableError:
            reason, code, unavailable = "undecodable", "", codes.CODEC_UNAVAILABLE
        except BaseException as e:  # such as SystemExit; `decode` handles every Exception
            reason, code, unavailable = "undecodable", f"{codes.CODEC}{name_of(e)[:50]}", ""
        # outside of the except blocks: a produce that is refused would keep the exception, with this frame and its
        # entry, for as long as the process lives (docs/upstream/exception-context.md)
        if unavailable:
            self._codec_unavailable(slot, entry, unavailable)
        else:
            self._outcomes.undecodable(entry, reason, code)
        self._outcomes.not_sent(slot)
        return None

    def decode(self, entry: Entry) -> Notification[Any]:
        """The notification of an entry whose payload is in memory. Raises what `wire.decode` raises."""
        record = entry.record
        assert record is not None
        return decode(
            record.key(),
            record.value(),
            entry.headers,
            self._source,
            entry.queue.partition.number,
            entry.origin,
            record.timestamp()[1],
            self._codec,
            self._categories,
        )

    def _codec_unavailable(self, slot: Slot, entry: Entry, code: str) -> None:
        """Let one record wait that cannot be decoded now; hold the lane when this happens to a few users in a row.

        A probe that cannot be decoded waits by itself, too: at the front of its queue it would be every next probe.
        """
        undecided = self._undecided
        if len(undecided) < FEW:
            undecided.add(entry.key)
        if len(undecided) >= FEW:
            if not slot.token and not self._guard.lane.held:
                log.warning(
                    "the codec cannot decode the records of %d users in a row; check its service", FEW
                )
            probe = slot.token
            if self._guard.codec_unavailable(slot, entry, code) and not probe:
                self._ready.add(entry)
                return
        self._outcomes.wait_for_codec(entry, code)

    # -- what supersedes what -------------------------------------------------------------------------

    def will_be_sent(self, entry: Entry, now: int) -> bool:
        """True when a waiting record can be decoded and has not expired. One whose payload was evicted counts as such:
        it was checked when it was parked."""
        if entry.record is None:
            return True
        try:
            notification = self.decode(entry)
        except BaseException:  # any error of the codec; it is reported when the record's own turn comes
            return False
        return notification._expires_ms is None or notification._expires_ms > now

    def superseded(self, entry: Entry, now: int) -> bool:
        """True when a newer notification with the same collapse key is sent instead."""
        partition = entry.queue.partition
        while (other := partition.superseder(entry, now)) is not None:
            if self.will_be_sent(other, now):
                return True
            partition.will_not_be_sent(other)
        return False
