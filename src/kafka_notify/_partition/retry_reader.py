"""Copies that were read: which generation of a notification counts, and which notification has an origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafka_notify._partition.offsets import TopicRecreated
from kafka_notify._partition.strangers import place

if TYPE_CHECKING:
    from kafka_notify._partition.effects import Effects
    from kafka_notify._partition.entry import Entry, UserQueue
    from kafka_notify._partition.own_copies import OwnCopies
    from kafka_notify._partition.redrives import Redrives
    from kafka_notify._partition.retry_record import RetryRecord
    from kafka_notify._partition.source_offsets import SourceOffsets
    from kafka_notify._partition.strangers import Origins
    from kafka_notify._partition.table import EntryTable
    from kafka_notify._partition.wide import RetryHalf


class RetryReader:
    """Takes copies into the table, and completes those that do not count. It starts nothing: it returns the queues
    that are to be looked at.

    Args:
        source: Of the source partition.
        half: Of the retry partition.
        table: What the assignment holds.
        own: Its own copies.
        redrives: Redriven copies.
        origins: Tells strangers.
        effects: Asked for the identity of an entry that lives in the source alone.
    """

    __slots__ = ("_effects", "_half", "_origins", "_own", "_redrives", "_source", "_table")

    def __init__(
        self,
        source: SourceOffsets,
        half: RetryHalf,
        table: EntryTable,
        own: OwnCopies,
        redrives: Redrives,
        origins: Origins,
        effects: Effects,
    ) -> None:
        self._source = source
        self._half = half
        self._table = table
        self._own = own
        self._redrives = redrives
        self._origins = origins
        self._effects = effects

    # -- by who wrote it ------------------------------------------------------------------------------

    def read(self, entry: Entry, *, redriven: bool) -> list[UserQueue]:
        """Take a copy that counts, and that this assignment did not write.

        Args:
            entry: Made of it, in no queue yet.
            redriven: It came from the redrive tool after the restore; otherwise it belongs to the restore.

        Returns:
            The queues to look at now; none in a restore, as nothing starts before the fence holds.
        """
        retry = entry.retry
        assert retry is not None
        if self._origins.is_stranger(retry, entry.origin):
            self._origins.place_apart(entry, surely=True)
        if redriven:
            return self._redriven(entry)
        self._tell_apart(entry)
        self._learn(entry)
        if not retry.foreign:
            self._source.farthest = max(self._source.farthest, retry.origin_of(entry))
        return []

    def own(self, offset: int, origin: int) -> None:
        """Take an own copy whose acknowledgement is not known."""
        entry = self._table.pending.get(origin)
        if entry is not None and entry.retry is not None and entry.retry.at == offset:
            return
        if (entry is not None and entry.busy) or origin in self._own.moving:
            self._own.saw(origin, offset)
        else:
            self._half.end(offset)  # its produce failed, but it was written

    def _redriven(self, entry: Entry) -> list[UserQueue]:
        """Let a redriven copy supersede the older generation that waits, or wait while that one is busy."""
        table, half, retry = self._table, self._half, entry.retry
        assert retry is not None
        if self._redrives.has_ended(entry):
            half.end(retry.at)
            return []
        queues = self._tell_apart(entry)
        origin = entry.origin
        known = table.pending.get(origin) or table.find_source(entry.queue.key, origin)
        if known is not None and known.busy:
            if known.retry is not None and retry.history.redrives <= known.history.redrives:
                half.end(retry.at)
            elif (older := self._redrives.wait(entry)) is not None:
                assert older.retry is not None
                half.end(older.retry.at)
            return queues
        if known is not None and known.retry is None:
            table.leave_source(known)
            table.forget(known)
            self._source.complete(origin)
            known = None
        if known is not None:
            self._learn(entry)
        else:
            table.hold(entry)
        return [*queues, table.queues[entry.queue.key]]

    # -- which generation counts ----------------------------------------------------------------------

    def _learn(self, entry: Entry) -> None:
        """Keep the newest copy of an origin: by redrives, then attempts, then place."""
        table = self._table
        known = table.pending.get(entry.origin)
        if known is None:
            table.hold(entry)
            return
        old, new = known.retry, entry.retry
        assert old is not None and new is not None
        if _generation(new) > _generation(old):
            self.supersede(old, new)
            if known.queue.key == entry.queue.key:
                table.replace(known, entry)
            else:
                table.forget(known)
                table.hold(entry)
        else:
            self.supersede(new, old)

    def supersede(self, old: RetryRecord, new: RetryRecord) -> None:
        """Let one copy stand for another copy of its notification, too."""
        self._half.tracker.complete(old.at)
        new.superseded = max(new.superseded, old.superseded, old.at)
        new.tainted = new.tainted or old.tainted

    # -- whose origin it is ---------------------------------------------------------------------------

    def is_of(self, copied: Entry, offset: int, identity: tuple[str, int]) -> bool:
        """Tell whether the copy that names the origin `offset`, or another one that waits, is of the record there.
        Otherwise the copy is set apart, and its queue is to be looked at.

        Raises:
            TopicRecreated: It is not, and is not a redrive of what another topic had there.
        """
        retry = copied.retry
        assert retry is not None
        if self._origins.matches(retry, identity) or place(offset, *identity) in self._table.pending:
            return True
        if not retry.history.redrives:
            raise TopicRecreated(f"the record at {offset} is not the one that a waiting retry came from")
        self._set_apart(copied, surely=True)
        return False

    def _tell_apart(self, entry: Entry) -> list[UserQueue]:
        """See that at most one notification has an origin: several may name it when the source topic was deleted and
        created again."""
        retry, origins, pending = entry.retry, self._origins, self._table.pending
        assert retry is not None
        origin = retry.origin_of(entry)
        known = pending.get(origin)
        had = None if known is None else known.retry
        apart = pending.get(place(origin, retry.id, retry.created))
        if retry.foreign:
            if known is not None and had is not None and had.identity == retry.identity:
                return self._set_apart(known, surely=True)
            if apart is not None and apart.retry is not None:
                apart.retry.foreign = True
        elif apart is not None:
            origins.place_apart(entry, surely=apart.retry is not None and apart.retry.foreign)
        elif known is not None and had is not None:
            if had.identity == retry.identity:
                return []
            if not origins.outranks(had, retry):
                return self._set_apart(known, surely=origins.is_present(retry))
            origins.place_apart(entry, surely=origins.is_present(had))
        elif origin < self._source.position and not self._source.is_done(origin):
            source = self._table.find_source(entry.queue.key, origin)
            if source is None or self._effects.identity(source) != retry.identity:
                origins.place_apart(entry, surely=True)
        return []

    def _set_apart(self, entry: Entry, *, surely: bool) -> list[UserQueue]:
        """Give an entry that is held already a place of its own, whatever is under way for it. It is in front of all
        others of its user then."""
        origin = entry.origin
        self._table.forget(entry)
        self._origins.place_apart(entry, surely=surely)
        self._own.move(origin, entry.origin)
        if (waiting := self._redrives.waiting.pop(origin, None)) is not None:
            self._origins.place_apart(waiting, surely=surely)
            self._redrives.waiting[waiting.origin] = waiting
        self._table.hold(entry)
        return [entry.queue]


def _generation(retry: RetryRecord) -> tuple[int, int, int]:
    return retry.history.redrives, retry.history.attempts, retry.at
