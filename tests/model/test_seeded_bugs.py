"""Each way to get the protocol wrong is seen by the model's checks: what proves that they can fail."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any, ClassVar
from unittest import mock

import attrs
import pytest

from kafka_notify._partition import parts, spill
from kafka_notify._partition.commit_metadata import Committed, Fence, Wide
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.parking import Parking
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.retry_reader import RetryReader
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.scheduler import Action, Scheduler
from kafka_notify._partition.strangers import Origins
from kafka_notify._partition.table import EntryTable
from kafka_notify._partition.wide import RetryHalf, Spill
from kafka_notify._settle.copies import Copy as Written
from kafka_notify._settle.records import RetryCopy, SpillCopy
from kafka_notify._worker import pair_assertions
from kafka_notify.wire import DlqReason
from tests.model.owner import Owner
from tests.model.promises import REDRIVE, Copy, Violation
from tests.model.test_threats import taken_over_twice
from tests.model.world import World, run

SEEDS = 6_000
pytestmark = pytest.mark.search


@pytest.fixture(autouse=True)
def without_pair_assertions() -> Iterator[None]:
    """They would see most of these bugs first; what is to be shown here is that the model does."""
    pair_assertions.unbind()
    yield
    pair_assertions.bind()


class HighestPolled(Owner):
    """The source commit covers everything read."""

    def snapshot(self) -> tuple[Committed, Committed]:
        return Committed(self.partition.source.position), super().snapshot()[1]


class CompleteBeforeAcknowledgement(Owner):
    """A source record is complete once its copy was asked for."""

    def write(self, written: Written) -> None:
        super().write(written)
        if isinstance(written, RetryCopy) and written.entry.retry is None:
            self.partition.source.complete(written.entry.origin)


class CopyForgetsAttempts(Owner):
    """Every copy starts to count anew."""

    def _try_again(self, entry: Entry, attempt: int, due: int) -> None:
        super()._try_again(entry, min(attempt, 1), due)


class DeadLetterForgetsAttempt(Owner):
    """A dead letter says what was known before the last attempt."""

    def _give_up(self, entry: Entry, reason: DlqReason, attempt: int) -> None:
        self.decided[self._what(entry), entry.history.redrives] = reason, attempt
        self.publisher.dead_letter(entry, reason)


class NoRestore(Owner):
    """Work starts without a look at the copies of earlier assignments."""

    def _look_up_retry_end(self) -> None:
        assert self.fetched is not None
        self.retry_end = self.fetched[1].frontier


class NotAwaitedFence(Owner):
    """Sends start before the fence is stored."""

    def _commit(self) -> None:
        super()._commit()
        self.partition.confirmed(self.partition.snapshot()[0], self.now)


class NoCarry(Owner):
    """What pins the retry frontier stays where it is."""

    def _tick(self) -> None:
        self.partition.step_blocked(self.now)


class CopyForgetsOrphan(Owner):
    """A copy whose first try failed is sent at once."""

    def _copied(self, written: RetryCopy, copy: Copy, at: int) -> None:
        written.retry.tainted = False
        super()._copied(written, copy, at)


class WithParts(Partition):
    """One of whose parts some are of other classes: `parts` says which, by name."""

    parts: ClassVar[dict[str, Any]]

    def __init__(self, *args: Any, **more: Any) -> None:
        with mock.patch.multiple(parts, **self.parts):
            super().__init__(*args, **more)


class TrustZombie(Partition):
    """Another writer's copy, read after the restore, counts."""

    def on_retry(self, offset: int, lane_key: Hashable, state: Any, *args: Any) -> None:
        if state is not None and state.writer != self.writer and offset >= self.restore_end:
            state = attrs.evolve(state, writer=REDRIVE)
        super().on_retry(offset, lane_key, state, *args)


class RestoreForgetsAttempts(Partition):
    """A restored copy starts to count anew."""

    def on_retry(self, offset: int, lane_key: Hashable, state: Any, *args: Any) -> None:
        super().on_retry(
            offset,
            lane_key,
            state and attrs.evolve(state, history=attrs.evolve(state.history, attempts=0)),
            *args,
        )


class NoRedriveGenerations(Partition):
    """All copies are of one generation."""

    def on_retry(self, offset: int, lane_key: Hashable, state: Any, *args: Any) -> None:
        super().on_retry(
            offset,
            lane_key,
            state and attrs.evolve(state, history=attrs.evolve(state.history, redrives=0)),
            *args,
        )


class NoReach(Scheduler):
    """A copy is sent although an earlier record of its user may be unread."""

    def _missing(self, head: Entry, held: RetryRecord) -> Action | None:
        position = self._source.position
        self._source.position = 1_000_000
        try:
            return super()._missing(head, held)
        finally:
            self._source.position = position


class NoCoverage(Scheduler):
    """A copy is sent although a crash would read its source record again."""

    def _missing(self, head: Entry, held: RetryRecord) -> Action | None:
        confirmed = self._source.confirmed
        self._source.confirmed = Committed(1_000_000)
        try:
            return super()._missing(head, held)
        finally:
            self._source.confirmed = confirmed


class NoWindow(RetryHalf):
    """A copy is sent although the bitmap cannot hold that it is finished."""

    @property
    def sayable(self) -> int:
        return 10**9

    def snapshot(self, fence: Fence, *, active: bool) -> tuple[Committed, Spill | None]:
        self.last_end = -1
        return super().snapshot(fence, active=active)


class ExpiryBeforeCoverage(Scheduler):
    """A waiting copy expires at once."""

    def step(self, lane: UserQueue, now: int) -> None:
        head = lane.entries[0] if lane.entries else None
        works = lane.partition.active and not lane.partition.closing
        if works and head and not (head.busy or head.record is None or lane.stuck):
            expires = head.retry.expires if head.retry else None
            if expires is not None and expires <= now:
                head.busy = Busy.SENDING
                self._effects.send(head)
        super().step(lane, now)


class Overtake(Parking):
    """A source record does not wait for an earlier one of its user that waits for its retry."""

    def _park(self, entry: Entry) -> None:
        entry.busy = Busy.SENDING
        self._effects.send(entry)


class Overlap(Scheduler):
    """A redriven copy is sent while a later one of its user is."""

    def step(self, lane: UserQueue, now: int) -> None:
        later = [entry for entry in lane.entries[1:] if entry.busy is Busy.SENDING]
        for entry in later:
            entry.busy = Busy.COPYING
        super().step(lane, now)
        for entry in later:
            entry.busy = Busy.SENDING


class NoFence(Partition):
    """The next owner is not told whose copies count."""

    def snapshot(self) -> tuple[Committed, Committed]:
        source, retry = super().snapshot()
        return source, attrs.evolve(retry, fence=None)


class SkipBeforeCoverage(Scheduler):
    """What is superseded is skipped at once, wherever it lives."""

    def _missing(self, head: Entry, held: RetryRecord) -> Action | None:
        return None if head.queue.superseder(head, held.due) else super()._missing(head, held)


class TrimmedBitmap(Partition):
    """Of the bitmap only the first bits are kept."""

    def snapshot(self) -> tuple[Committed, Committed]:
        source, retry = super().snapshot()
        return attrs.evolve(source, gaps=source.gaps[:3]), attrs.evolve(retry, gaps=retry.gaps[:3])


class NoOrphans(RetryReader):
    """An own copy that was not acknowledged is left alone."""

    def own(self, offset: int, origin: int) -> None:
        pass


class NoDedupe(Partition):
    """A source record is sent although a copy of it waits."""

    def on_source(self, offset: int, *args: Any) -> None:
        pending, self.pending = self.pending, {}
        try:
            super().on_source(offset, *args)
        finally:
            self.pending = pending


class EvictsHeads(Scheduler):
    """A payload that was forgotten is not read again."""

    def step(self, lane: UserQueue, now: int) -> None:
        super().step(lane, now)
        if lane.entries and lane.entries[0].busy is Busy.LOADING:
            lane.entries[0].busy = Busy.SENDING
            self._effects.send(lane.entries[0])


class ForgetsRedriven(Partition):
    """A redriven copy is forgotten when the generation before is done with, whatever became of that."""

    def finish(self, entry: Entry, *, accepted: bool, now: int) -> None:
        redriven = self.redrives.waiting.pop(entry.origin, None)
        if redriven is not None and redriven.retry is not None:
            self.retry.complete(redriven.retry.at)
        super().finish(entry, accepted=accepted, now=now)


class MatchesByOffset(WithParts):
    """What died in a topic before this one is taken for the record that this one has at its offset."""

    class Reader(RetryReader):
        def _tell_apart(self, entry: Entry) -> list[UserQueue]:
            return []

    class Nowhere(Origins):
        def is_elsewhere(self, held: RetryRecord) -> bool:
            return False

    parts: ClassVar = {"RetryReader": Reader, "Origins": Nowhere}


class SwallowsByOffset(Partition):
    """A redrive counts as done when that of another notification of the same offset was."""

    def finish(self, entry: Entry, *, accepted: bool, now: int) -> None:
        super().finish(entry, accepted=accepted, now=now)
        for (origin, _, _), redrives in tuple(self.redrives.ended.items()):
            self.redrives.ended |= {(origin, f"{which}{origin}", origin): redrives for which in ("id", "old")}


class TakesRecordForItsCopy(RetryReader):
    """A record counts as copied when a copy of another notification names its offset."""

    def is_of(self, copied: Entry, offset: int, identity: tuple[str, int]) -> bool:
        return True


class NoResume(Partition):
    """What was paused is not looked at again."""

    def resume(self) -> None:
        pass


class OvertakesPaused(Scheduler):
    """A later one of the user is sent while an earlier one is paused."""

    def step(self, lane: UserQueue, now: int) -> None:
        super().step(lane, now)
        if lane.paused is not None and lane.entries[:1] == [lane.paused] and len(lane.entries) > 1:
            later = lane.entries[1]
            if later.retry is not None and not later.busy and later.record is not None:
                later.busy = Busy.SENDING
                self._effects.send(later)


class NotLookedAt(Parking):
    """What comes in before others that were looked at is not looked at."""

    def park_followers(self, lane: UserQueue) -> None:
        later = lane.later
        if later is not None:
            last = later.last
            later._fresh = deque(entry for entry in later.fresh if entry is last)
            super().park_followers(lane)


class NotCleared(EntryTable):
    """What was overtaken while it was being sent counts as being sent after it left."""

    def forget(self, entry: Entry) -> None:
        before = entry.queue.later
        overtaken = None if before is None else before.overtaken
        super().forget(entry)
        if entry.queue.later is not None:
            entry.queue.later.overtaken = overtaken


class NotContinued(Partition):
    """When the copy that made room is a dead letter's, parking stops."""

    def finish(self, entry: Entry, *, accepted: bool, now: int) -> None:
        unparked, self.parking.unparked = self.parking.unparked, OrderedDict()
        super().finish(entry, accepted=accepted, now=now)
        self.parking.unparked.update(unparked)


class KeepsFirst(Parking):
    """A busy user keeps their first ones in the source, which pin the window."""

    def _park(self, entry: Entry) -> None:
        lane = entry.queue
        if lane.head is not None and lane.head.retry is None and entry is lane.entries[1]:
            return
        super()._park(entry)


class ForgetsChannels(Owner):
    """Its commits do not say which channels it sends."""

    def commit_channels(self) -> tuple[str, ...]:
        return ()


class PassesOver(Owner):
    """It goes on although its group sends more channels."""

    def passes_over(self, committed: Committed) -> bool:
        return False


class NamedBeforeAcknowledged(Owner):
    """A commit names a spill that is still on its way."""

    def spill(self, partition: Partition, written: Spill, /) -> None:
        super().spill(partition, written)
        partition.spilled(written, len(self.world.retry))


class AnySpill(Owner):
    """A restore takes the newest spill in the log, a zombie's too."""

    def _with_spill(self, retry: Committed) -> Committed:
        found = [copy.spill for copy in self.world.retry if copy and copy.spill]
        if not found:
            return retry
        base, gaps = spill.unpack(found[-1])
        shifted = (
            gaps[retry.frontier - base :] if base <= retry.frontier else b"0" * (base - retry.frontier) + gaps
        )
        return attrs.evolve(retry, gaps=spill.union(retry.gaps, shifted), wide=retry.wide or Wide())


class WrongBase(Owner):
    """The bits of a spill are counted from the committed frontier."""

    def _with_spill(self, retry: Committed) -> Committed:
        right = super()._with_spill(retry)
        name = right.wide.spill if right.wide else None
        if name is None or (copy := self.world.retry[name.offset]) is None or copy.spill is None:
            return right
        return attrs.evolve(retry, gaps=spill.union(retry.gaps, spill.unpack(copy.spill)[1]))


class TrimmedDelta(RetryHalf):
    """What does not fit into the metadata is left out."""

    def snapshot(self, fence: Fence, *, active: bool) -> tuple[Committed, Spill | None]:
        half, _ = super().snapshot(fence, active=False)
        since = sorted({o for o in self.tracker.since or () if o >= self.tracker.frontier})
        if self.is_wide and since:
            delta = spill.encode_runs(since[:1], self.tracker.frontier) or ""
            half = Committed(self.tracker.frontier, b"", fence, wide=Wide(delta, self.spill))
        return half, None


class DeltaLeftOut(RetryHalf):
    """A commit that names a spill says nothing of what has ended since."""

    def snapshot(self, fence: Fence, *, active: bool) -> tuple[Committed, Spill | None]:
        half, started = super().snapshot(fence, active=active)
        if half.wide and half.wide.spill and half.wide.delta:
            half = attrs.evolve(half, wide=Wide("", half.wide.spill))
        return half, started


class StaleHalf(RetryHalf):
    """While a spill is on its way, an older wide half than the last narrow one is committed."""

    def snapshot(self, fence: Fence, *, active: bool) -> tuple[Committed, Spill | None]:
        ready, narrow = self._ready, not self.is_wide
        half = super().snapshot(fence, active=active)
        if narrow and ready is not None:
            self._ready = ready
        return half


class NoRoom(RetryHalf):
    """Sends go on beyond the window although no spill is acknowledged."""

    @property
    def has_room(self) -> bool:
        return True


class FencesDropped(Partition):
    """Older fences are forgotten as soon as a new one holds."""

    def snapshot(self) -> tuple[Committed, Committed]:
        self.writers.before = None if self.active else self.writers.before
        return super().snapshot()


class NoCarryAtRetention(Owner):
    """What nears the end of its retention stays where it is."""

    carries_aged = False


class NarrowAtOnce(RetryHalf):
    """A worker that may not be wide commits in the format of the version before, whatever is far already."""

    def snapshot(self, fence: Fence, *, active: bool) -> tuple[Committed, Spill | None]:
        if not self.goes_far:
            self.last_end = -1
        return super().snapshot(fence, active=active)


class NoMark(Owner):
    """The topic ids are not marked: a worker of the version before goes on."""

    marks = False


class SpillWithoutHeaders(Owner):
    """A spill does not look like a retry copy."""

    def _read_spill(self, written: SpillCopy) -> Copy:
        return attrs.evolve(super()._read_spill(written), origin=-1, attempt=-1)


class AdmittedSpill(Owner):
    """A spill has the same writer as the copies of its assignment."""

    def _read_spill(self, written: SpillCopy) -> Copy:
        return attrs.evolve(super()._read_spill(written), writer=self.writer)

    def _with_spill(self, retry: Committed) -> Committed:
        with mock.patch.object(spill, "SPILL_WRITER", ""):
            return super()._with_spill(retry)


_WIDE = frozenset({"wide", "gaps", "refused", "zombies", "drain", "timeouts"})
_ZOMBIES = frozenset({"zombies", "drain", "timeouts"})
BUGS: list[tuple[type, str, frozenset[str] | None]] = [
    (HighestPolled, "LOSS", None),
    (CompleteBeforeAcknowledgement, "LOSS", None),
    (NoRestore, "LOSS", None),
    (NoDedupe, "DUP", None),
    (CopyForgetsAttempts, "ATTEMPTS", None),
    (RestoreForgetsAttempts, "ATTEMPTS", None),
    (DeadLetterForgetsAttempt, "CAUSE", None),
    (Overtake, "ORDER", None),
    (NoReach, "ORDER", _ZOMBIES),
    (NoCoverage, "EARLY", None),
    (NotAwaitedFence, "EARLY", None),
    (ExpiryBeforeCoverage, "DUP", frozenset({"expiry"})),
    (SkipBeforeCoverage, "DUP", frozenset({"collapse"})),
    (TrimmedBitmap, "DUP", frozenset()),
    (NoWindow, "DUP", frozenset({"windows", "gaps"})),
    (NoCarry, "STUCK", frozenset({"windows", "gaps"})),
    (EvictsHeads, "PAYLOAD", frozenset({"budget"})),
    (TrustZombie, "LOSS", _ZOMBIES),
    (NoFence, "DUP", _ZOMBIES),
    (NoOrphans, "STUCK", frozenset({"timeouts"})),
    (CopyForgetsOrphan, "DUP", frozenset({"timeouts"})),
    (NoRedriveGenerations, "DUP", frozenset({"redrive"})),
    (Overlap, "OVERLAP", frozenset({"redrive"})),
    (ForgetsRedriven, "LOSS", frozenset({"redrive"})),
    (MatchesByOffset, "LOSS", frozenset({"strangers", "redrive"})),
    (SwallowsByOffset, "LOSS", frozenset({"strangers", "redrive"})),
    (TakesRecordForItsCopy, "LOSS", frozenset({"strangers", "redrive"})),
    (ForgetsChannels, "LOSS", frozenset({"channels"})),
    (PassesOver, "LOSS", frozenset({"channels"})),
    (NoResume, "STUCK", frozenset({"pause"})),
    (OvertakesPaused, "ORDER", frozenset({"pause"})),
    (NotLookedAt, "PINNED", frozenset({"drain", "zombies", "redrive"})),
    (NotCleared, "STUCK", frozenset({"redrive"})),
    (NotContinued, "PINNED", frozenset({"expiry", "windows"})),
    (KeepsFirst, "CROWD", frozenset({"crowds", "windows"})),
    (NamedBeforeAcknowledged, "DUP", _WIDE),
    (AnySpill, "LOSS", frozenset({"wide", "zombies", "gaps", "crowds", "pause", "rollback"})),
    (WrongBase, "LOSS", _WIDE),
    (TrimmedDelta, "DUP", _WIDE),
    (DeltaLeftOut, "DUP", _WIDE),
    (StaleHalf, "DUP", _WIDE),
    (NoRoom, "BOUND", _WIDE),
    (NoCarryAtRetention, "LOSS", _WIDE | {"ages"}),
    (NarrowAtOnce, "DUP", _WIDE | {"rollback"}),
    (NoMark, "DUP", _WIDE | {"mixed"}),
    (SpillWithoutHeaders, "JUNK", _WIDE),
    (AdmittedSpill, "JUNK", _WIDE | {"mixed"}),
]
"""The bug (an owner, a partition, or one part of it), the check that is there for it, and the adversities that bring it
out; None is any."""


def test_dropped_fences_are_caught() -> None:
    """One world in thousands needs a fence that is older than the last: this is what happens in it."""
    assert taken_over_twice(FencesDropped) != taken_over_twice(Partition)


def new_owner(bug: type) -> Callable[[World], Owner]:
    """What makes owners with this bug."""
    if issubclass(bug, Owner):
        return bug
    if not issubclass(bug, Partition):
        part = bug.__mro__[1].__name__
        bug = type(bug.__name__, (WithParts,), {"parts": {part: bug}})
    return type(bug.__name__, (Owner,), {"partition_class": bug})


@pytest.mark.parametrize(("bug", "kind", "features"), BUGS, ids=lambda value: getattr(value, "__name__", ""))
def test_caught(bug: type, kind: str, features: frozenset[str] | None) -> None:
    """The bug is seen, by the check that is there for it."""
    its = new_owner(bug)
    seen = set()
    for seed in range(SEEDS):
        try:
            run(seed, its, features)
        except Violation as e:
            if e.kind == kind:
                return
            seen.add(e.kind)
    pytest.fail(f"{SEEDS} worlds and no {kind}, but {seen}")
