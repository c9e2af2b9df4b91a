"""From a record to its notification, and what follows when it has none now or never. Runs on the event loop."""

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
"""Users whose records the codec cannot decode, in a row, before the lane waits."""


class Decoder:
    """Decodes the records of one lane.

    Args:
        context: Of the worker.
        outcomes: Settles what cannot be decoded.
        guard: Told when the codec's service is away.
        ready: Where an entry goes back to.
    """

    def __init__(self, context: Context, outcomes: Outcomes, guard: Guard, ready: Ready) -> None:
        self.unread = Unread()
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
        """The notification; None when it has none and its dead letter is on its way, or when it must wait."""
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
        except BaseException as e:  # SystemExit and its like; `decode` takes the rest
            reason, code, unavailable = "undecodable", f"{codes.CODEC}{name_of(e)[:50]}", ""
        # not while the exception is handled: a produce that is refused would keep it, with this frame and its entry,
        # for ever (docs/upstream/exception-context.md)
        if unavailable:
            self._codec_unavailable(slot, entry, unavailable)
        else:
            self._outcomes.undecodable(entry, reason, code)
        self._outcomes.not_sent(slot)
        return None

    def decode(self, entry: Entry) -> Notification[Any]:
        """The notification of an entry whose payload is in memory; raises as `wire.decode`."""
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
        """One record that cannot be decoded now waits alone; the lane waits when those of a few users in a row cannot.

        A probe that cannot be decoded waits alone, too, or it would be the next probe again, for ever.
        """
        undecided = self._undecided
        if len(undecided) < FEW:
            undecided.add(entry.key)
        if len(undecided) >= FEW:
            if not slot.token and not self._guard.lane.held:
                log.warning("the codec cannot decode the records of %d users now", FEW)
            probe = slot.token
            if self._guard.codec_unavailable(slot, entry, code) and not probe:
                self._ready.add(entry)
                return
        self._outcomes.wait_for_codec(entry, code)

    # -- what supersedes what -------------------------------------------------------------------------

    def will_be_sent(self, entry: Entry, now: int) -> bool:
        """Whether a record that waits can be decoded and has not expired; also when its payload is not in memory, as it
        was looked at when it was parked."""
        if entry.record is None:
            return True
        try:
            notification = self.decode(entry)
        except BaseException:  # the codec's own code runs here; it says so again when its turn comes
            return False
        return notification._expires_ms is None or notification._expires_ms > now

    def superseded(self, entry: Entry, now: int) -> bool:
        """Whether a newer notification with its collapse key is sent instead."""
        partition = entry.queue.partition
        while (other := partition.superseder(entry, now)) is not None:
            if self.will_be_sent(other, now):
                return True
            partition.will_not_be_sent(other)
        return False
