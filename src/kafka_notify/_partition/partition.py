"""One source partition and its retry partition during one assignment: the ordered-retry protocol.

Pure: records read, answers of the provider and acknowledgements of the broker go in, calls of `Effects` come
out. The object is the epoch: whoever holds a `Partition` that is no longer `alive` changes nothing with it.

What must hold (docs/design.md tells why):

- A lane is ordered by origin, whichever topic a record lives in. At most one thing is under way per entry,
  at most one send per lane.
- A source offset is complete when its notification is terminal or a copy of it was acknowledged. A retry
  offset is complete when its notification is terminal, a newer copy was acknowledged, or it is nobody's.
- A retry entry is sent, expired or skipped only when it is due (or superseded), the confirmed source commit
  covers its origin, and the source was read past it. Without coverage a crash would read the source record as
  new after its retry ran; without reach an earlier record of the user may still be unread.
"""

from __future__ import annotations

import heapq
import itertools
import operator
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Hashable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from kafka_notify._partition import spill
from kafka_notify._partition.entry import Busy, Entry, Held, Lane
from kafka_notify._partition.offsets import WINDOW, Committed, Fence, Tracker
from kafka_notify._partition.record import Record
from kafka_notify._partition.strangers import OTHER_TOPIC, place
from kafka_notify._partition.wide import LongWaits, RetryHalf, RetryTracker
from kafka_notify._retention import rewritten_after

if TYPE_CHECKING:
    from kafka_notify._partition.wide import Spill
    from kafka_notify.wire import Headers, RetryState

DEEP: Final = 8
"""Notifications of one user in memory from which on they count as a backlog, which may be parked for others."""
PARKING: Final = 512
"""First copies of a partition that are on their way at most, when more could be."""
PARK_AT_ONCE: Final = 64
"""First copies that one event writes at most (some 3 ms); their acknowledgements write the next ones."""
STEP_AT_ONCE: Final = 64
"""Lanes that one event looks at; the rest stays on the agenda."""
PACKED_FROM: Final = 16 * 2**20
"""Bytes of waiting payloads from which on they are packed: that costs 8 us a retry, and pays where many wait."""
READ_WINDOW: Final = 18_000
"""Source records read beyond the frontier; below WINDOW, so that one more batch still fits the bitmap."""
CARRY_BATCH: Final = 200
"""Entries that one look carries forward at most, so that the window moves on."""
CARRYING: Final = 600
"""Entries of a partition that are being carried at most, their payloads read again for that included."""
PASSED_OVER: Final = 1_000
"""Entries in front of those to be carried that one look passes over at most: busy ones, and a few young ones."""
RECALL_EVERY: Final = 1_000
"""Milliseconds between two recalls of queued attempts, while they keep a partition wide that must not be."""
DENSITY: Final = 4
SLACK: Final = 40_000
"""A window longer than `DENSITY` times what waits in it, and this, is sparse: a restore reads all of it."""
SPARSE_AFTER: Final = 60_000
"""Milliseconds for which it must be so before what waits at its beginning is carried."""
SPARSE_BATCH: Final = 100
_SENDING: Final = Busy.SENDING  # found 70 ns faster than the member, at each record


class Effects(Protocol):
    """What a partition asks of the world; each is answered later by a method of the partition."""

    def send(self, entry: Entry, /) -> None:
        """Queue an attempt (or its expiry); answered by `finish`, `copying` + `copied`, or `release`."""

    def park(self, entry: Entry, /) -> None:
        """Copy a source entry behind an earlier one; answered by `copied` or asked again by the caller."""

    def load(self, entry: Entry, /, *, to_copy: bool = False) -> None:
        """Read an evicted payload again, for a send once one may start, or to copy it; answered by `loaded`."""

    def recall(self, partition: Partition, entries: Container[Entry], /) -> list[Entry]:
        """Take attempts out of their queues that have not begun, payloads to be read for them included; which."""
        ...

    def bury(self, entry: Entry, /) -> None:
        """Write a dead letter of a retry record that cannot be read; answered by `finish`."""

    def wake(self, lane: Lane, at: int, /) -> None:
        """Call `step(lane)` at epoch ms `at`."""

    def spill(self, partition: Partition, spill: Spill, /) -> None:
        """Write a record that says what is finished; answered by `spilled`."""

    def identity(self, entry: Entry, /) -> tuple[str, int]:
        """Id and creation time of an entry that lives in the source alone; rarely asked."""
        ...


class PayloadBudget:
    """What all partitions of a worker hold in memory.

    Args:
        limit: Bytes of payloads that waiting retries may keep; what does not fit is read again by offset.
        loads: Bytes, beside those, of payloads that were read again: those being read, waiting for their send, and
            being sent. What the waiting ones leave of their limit may be used, too. One record always passes.
    """

    def __init__(self, limit: int, loads: int = 32 * 2**20) -> None:
        self.limit = limit
        self.loads = loads
        self.used = 0
        """Bytes of payloads of waiting retries, kept or read again."""
        self.loaded = 0
        """Of these, bytes that were read again or are being read."""
        self.open = 0
        """Source records in memory that are not finished and have no copy yet."""

    def keep(self, held: Held, size: int) -> bool:
        """Count the payload of a waiting retry if it fits."""
        held.bytes = size
        if self.used + size > self.limit:
            return False
        held.size = size
        self.used += size
        return True

    def may_load(self, held: Held) -> bool:
        """Whether its payload may be read again now."""
        return not self.loaded or self.used + held.bytes <= self.limit + self.loads

    def load(self, held: Held, size: int) -> None:
        """Count a payload that is to be read again, or was: the answer corrects what the request reserved."""
        self.give(held)
        held.size = held.bytes = size
        held.loaded = True
        self.used += size
        self.loaded += size

    def rest(self, held: Held) -> bool:
        """What was read again is not sent now: whether its payload may stay."""
        if held.loaded and self.used <= self.limit:
            held.loaded = False
            self.loaded -= held.size
        return not held.loaded

    def give(self, held: Held) -> None:
        """Return what was counted for it."""
        self.used -= held.size
        if held.loaded:
            self.loaded -= held.size
            held.loaded = False
        held.size = 0


class TopicRecreated(Exception):
    """A source record is not the one that a waiting copy came from."""


class Partition:
    """State of partition `number` of a source topic and its retry topic, for one assignment.

    Args:
        number: The partition's number in both topics.
        source: Committed state of the source partition.
        retry: Committed state of the retry partition, with the fence of the assignment before.
        source_range: Log start and end offset of the source partition, taken after those of the retry partition:
            a copy whose origin lies past that end passes for one of a topic that was re-created.
        retry_range: The same of the retry partition, read_uncommitted, taken after the assignment.
        writer: Fresh and unique: marks the copies of this assignment.
        redrive_writer: Marks the copies of the redrive tool, which no fence stops.
        effects: Carries out what this object decides.
        budget: Shared by all partitions of a worker.
        long_waits: Shared as well.
        knows_topics: Whether the ids of both topics are known: without them a worker of an older version could not be
            told that the retry half is wide, so it does not become so.
        topic_id: Of the source topic; empty when it is not known.
    """

    __slots__ = (
        "_acknowledged", "_agenda", "_backlogs", "_beyond", "_budget", "_carrying", "_confirmed", "_effects",
        "_end_seen", "_farthest", "_fence_before", "_half", "_knows_topics", "_loaded", "_long_waits", "_moving",
        "_order", "_ordered_at", "_paused", "_recall_at", "_recalled", "_redrive_writer", "_redriven", "_seen",
        "_sparse_since", "_stash", "_tainted", "_uncovered", "_unparked", "_unreached", "active", "alive", "closing",
        "due", "epoch", "failed", "lanes", "makes_room", "new", "number", "open", "open_bytes", "outstanding",
        "pending", "restore_end", "retry", "source", "source_end", "topic_id", "writer",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        source: Committed,
        retry: Committed,
        *,
        source_range: tuple[int, int],
        retry_range: tuple[int, int],
        writer: str,
        redrive_writer: str,
        effects: Effects,
        budget: PayloadBudget,
        epoch: int = 0,
        long_waits: LongWaits | None = None,
        knows_topics: bool = True,
        topic_id: str = "",
    ) -> None:
        self.number = number
        self.topic_id = topic_id
        self.epoch = epoch
        """Which assignment this is, for those who cannot compare objects."""
        self.writer = writer
        self.alive = True
        self.active = False
        """Restored and fenced: sends may start."""
        self.closing = False
        """Being handed over: nothing new starts."""
        self.open = 0
        """Source records in memory that are not finished and have no copy yet."""
        self.outstanding = 0
        """Sends and copies that were started and not answered; kept by the caller."""
        self.source = Tracker(source, source_range[0])
        self.retry = RetryTracker(retry, retry_range[0])
        self._half = RetryHalf(retry, self.retry)
        self._long_waits = long_waits or LongWaits()
        self._knows_topics = knows_topics
        self.source_end = source_range[1]
        self.restore_end = retry_range[1]
        self.pending: dict[int, Entry] = {}
        self.lanes: dict[Hashable, Lane] = {}
        self.new: deque[Entry] = deque()
        """Queued attempts of entries that live in the source alone, for the turns between partitions."""
        self.due: deque[Entry] = deque()
        """Queued attempts of entries that live in the retry topic, and never failed."""
        self.failed: deque[Entry] = deque()
        """Queued attempts of entries that failed before."""
        self.open_bytes = 0
        """Bytes of the records that `open` counts."""
        self.makes_room = False
        """Whether backlogs of single users are parked, so that others can be read; set by the caller."""
        self._agenda: deque[Lane] = deque()
        """Lanes to be looked at: each call of `step_blocked` looks at a few."""
        self._fence_before = retry.fence
        self._redrive_writer = redrive_writer
        self._effects = effects
        self._budget = budget
        self._confirmed = source
        self._moving: dict[int, Entry] = {}
        """Source entries whose first copy is on its way, by origin."""
        self._seen: dict[int, set[int]] = {}
        """Own copies read while a produce of their origin was outstanding: the answer tells which one counts."""
        self._acknowledged: set[int] = set()
        """Own copies that were acknowledged and not read yet."""
        self._stash: dict[int, Entry] = {}
        """Redriven copies that wait until the older generation of their letter is done with."""
        self._redriven: dict[tuple[int, str, int], int] = {}
        """Redrives of the newest generation that this assignment finished, by origin and identity."""
        self._farthest = -1
        """Highest origin that the restore brought: the source must be read past it."""
        self._end_seen = -1
        """Where the source partition ended when its end was last reached."""
        self._unparked: OrderedDict[Lane, None] = OrderedDict()
        """Lanes of which more is to be parked once less is on its way."""
        self._backlogs: OrderedDict[Lane, None] = OrderedDict()
        """Lanes that had `DEEP` entries behind their head when one was added."""
        self._paused: dict[Lane, None] = {}
        """Lanes that wait for the end of a pause."""
        self._order = itertools.count()
        """Of lanes in the heaps that wait for the same offset."""
        self._unreached: list[tuple[int, int, Lane]] = []
        """A heap of lanes whose head is due, by the source offset that must be read first."""
        self._uncovered: list[Lane] = []
        """Lanes whose head is due, but not covered by a commit yet."""
        self._tainted: list[tuple[int, int, Lane]] = []
        """A heap of lanes whose head is due, by the retry offset that must be read first."""
        self._beyond: list[tuple[int, int, Lane]] = []
        """A heap of lanes whose head is due, by the retry offset that must come into the window first."""
        self._sparse_since: int | None = None
        self._ordered_at = 0
        """Epoch ms at which the table was put in order, so that what nears retention is found."""
        self._carrying = 0
        self._loaded: deque[Entry] = deque()
        """Payloads that were read again to be carried."""
        self._recalled: dict[Lane, None] = {}
        """Lanes whose head was taken out of its queue to be carried: looked at again when nothing is carried."""
        self._recall_at = 0
        """Epoch ms before which nothing is recalled to become narrow."""

    # -- what was read --------------------------------------------------------------------------------

    @property
    def restored(self) -> bool:
        """Whether every unfinished copy of earlier assignments is known."""
        return self.retry.position >= self.restore_end

    def on_source(
        self,
        offset: int,
        lane_key: Hashable,
        record: Record,
        headers: Headers | None,
        size: int,
        identity: Callable[[], tuple[str, int]],
        now: int,
    ) -> None:
        """A source record was read.

        Args:
            offset: Its offset.
            lane_key: Whose order it keeps.
            record: As it came from the broker.
            headers: Its headers if they were read already, for they are read once.
            size: Bytes that it takes in memory.
            identity: Gives the notification's id and creation time; called only in the rare case of a crash
                between copy and commit.
            now: Epoch ms.

        Raises:
            OffsetRewound: The partition went back.
            TopicRecreated: A copy with this origin waits, but it is not of this record.
        """
        if not self.source.observe(offset):
            return
        copied = self.pending.get(offset) if self.pending else None
        if copied is not None and self._is_of(copied, offset, identity(), now):
            self.source.complete(offset)  # its forwarder died before the commit
            return
        lane = self.lanes.get(lane_key)
        if lane is None:
            self.lanes[lane_key] = lane = Lane(self, lane_key)
            lane.head = entry = Entry(lane, offset, record, headers, size)
            self._enter_source(entry)
            if self.active and not self.closing:
                entry.busy = _SENDING
                self._effects.send(entry)
            return
        entry = Entry(lane, offset, record, headers, size)
        self._enter_source(entry)
        lane.add(entry)
        if (later := lane.later) is not None and later.count >= DEEP and not later.is_backlog:
            later.is_backlog = True
            self._backlogs[lane] = None
        head = lane.head
        assert head is not None
        if head is entry or (not head.busy and head.held is None):
            self.step(lane, now)
        elif not head.busy:  # it waits; `step` would look at it again for each record behind it
            self._park_followers(lane)

    def pass_over(self, offset: int) -> None:
        """A source record was read that another consumer sends.

        Raises:
            OffsetRewound: The partition went back.
        """
        if self.source.observe(offset):
            self.source.complete(offset)

    def on_retry(
        self,
        offset: int,
        lane_key: Hashable,
        state: RetryState | None,
        record: Record,
        headers: Headers | None,
        facts: Callable[[], tuple[str, int, int | None, str]],
        now: int,
    ) -> None:
        """A record of the retry partition was read.

        Args:
            offset: Its offset.
            lane_key: Whose order it keeps.
            state: Its retry headers; None when they cannot be read.
            record: As it came from the broker.
            headers: Its headers if they were read already.
            facts: Gives the notification's id, creation and expiry (epoch ms), and what it collapses with;
                called when it must be held.
            now: Epoch ms.

        Raises:
            OffsetRewound: The partition went back.
        """
        if not self.retry.observe(offset):
            return

        def fresh() -> Entry:
            assert state is not None
            id, created, expires, collapse = facts()
            entry = Entry(Lane(self, lane_key), state.origin, record, headers, 0)
            entry.attempt = state.attempt
            entry.held = held = Held(offset, state.due_ms, expires, id, created)
            held.redrives, held.collapse = state.redrives, collapse
            held.first_failed = state.first_failed_ms
            held.error_class, held.error_code = state.error_class, state.error_code
            held.provider, held.unknown = state.provider, state.outcome_unknown
            held.written = min(record.timestamp()[1], now)
            held.unknown_before, held.waiting_since = state.unknown_before, state.waiting_since_ms
            held.topic = state.origin_topic_id or ""
            # a zombie may have read past our end of the source: a redrive of its letter is no stranger
            if self._is_elsewhere(held) or (state.origin >= self.source_end and offset < self.restore_end):
                self._place_apart(entry, surely=True)
            return entry

        if state is None:
            entry = Entry(Lane(self, ("unreadable", offset)), -1 - offset, record, headers, 0)
            entry.held = Held(offset, now, None, "", 0)
            entry.busy = Busy.DYING  # before it is held: its payload must not be evicted
            self._hold(entry)
            self._effects.bury(entry)
        elif offset < self.restore_end:
            fence = self._fence_before
            if fence and state.writer != self._redrive_writer and not fence.admits(offset, state.writer):
                self.retry.complete(offset)  # a zombie wrote it after our predecessor dropped it
            else:
                entry = fresh()
                self._tell_apart(entry, now)
                self._learn(entry)
                if not entry.held.foreign:  # type: ignore[union-attr]
                    self._farthest = max(self._farthest, state.origin)
        elif state.writer == self._redrive_writer:
            self._on_redrive(fresh(), now)
        elif state.writer != self.writer:
            self.retry.complete(offset)  # a zombie's: its record is ours, from its own copy or its source
        else:
            origin = state.origin
            if state.redrives or state.origin_topic_id not in (None, self.topic_id):
                id, created, _, _ = facts()
                apart = place(origin, id, created)
                origin = apart if apart in self.pending else origin
            self._on_own(offset, origin)

    def on_spill(self, offset: int) -> None:
        """A spill was read: whoever wrote it, only the one that the commit names counts, and that was read before all
        else. It is an end: an older version must not restore a partition that still holds it.

        Raises:
            OffsetRewound: The partition went back.
        """
        if self.retry.observe(offset):
            self._half.end(offset)

    def reads_own(self, offset: int) -> bool:
        """A retry record was read. Whether it is an own copy that was acknowledged before: then all that it says is
        known, and nothing more is to be done with it.

        Raises:
            OffsetRewound: The partition went back.
        """
        if offset not in self._acknowledged:
            return False
        self._acknowledged.remove(offset)
        self.retry.observe(offset)
        return True

    def on_source_end(self, offset: int) -> None:
        """Everything below `offset` of the source partition was read; what was not delivered does not exist."""
        self.source.skip_to(offset)
        self._end_seen = offset

    def on_retry_end(self, offset: int) -> None:
        """The same of the retry partition: its last offsets may be control records."""
        self.retry.skip_to(offset)

    def _on_own(self, offset: int, origin: int) -> None:
        entry = self.pending.get(origin)
        if entry is not None and entry.held is not None and entry.held.at == offset:
            return
        if (entry is not None and entry.busy) or origin in self._moving:
            self._seen.setdefault(origin, set()).add(offset)
        else:
            self._half.end(offset)  # its produce failed, but it was written

    def _settle_seen(self, origin: int, keep: int) -> None:
        for offset in self._seen.pop(origin, ()):
            if offset != keep:
                self._half.end(offset)

    # -- whose origin it is ---------------------------------------------------------------------------

    def _is_elsewhere(self, held: Held) -> bool:
        """Whether its origin is surely in another topic than the present one."""
        return held.topic == OTHER_TOPIC or bool(held.topic and self.topic_id and held.topic != self.topic_id)

    def _place_apart(self, entry: Entry, *, surely: bool) -> None:
        """Its origin is an offset of another topic, or may be: from now on it is no other's place in the queue. While
        that is not sure, it waits like any other until its origin is covered and reached."""
        held = entry.held
        assert held is not None
        if surely:
            held.foreign = True
            if not self._is_elsewhere(held):
                held.topic = OTHER_TOPIC
        held.stranger = entry.origin
        entry.origin = place(entry.origin, held.id, held.created)

    def _set_apart(self, entry: Entry, now: int, *, surely: bool) -> None:
        """The same of one that is held already, whatever is under way for it."""
        origin = entry.origin
        self._forget(entry)
        self._place_apart(entry, surely=surely)
        if (seen := self._seen.pop(origin, None)) is not None:
            self._seen[entry.origin] = seen
        if (waiting := self._stash.pop(origin, None)) is not None:
            self._place_apart(waiting, surely=surely)
            self._stash[waiting.origin] = waiting
        self._hold(entry)
        self.step(entry.lane, now)  # it is in front of all others of its user now

    def _tell_apart(self, entry: Entry, now: int) -> None:
        """Several notifications may name one origin, when the source topic was deleted and created again: see that
        at most one of them has it. Which one is decided by what is known of their topics, then by generations,
        because a letter of an old topic comes back as a redrive, then by their places in the retry topic."""
        held = entry.held
        assert held is not None
        origin = held.origin_of(entry)
        known = self.pending.get(origin)
        had = None if known is None else known.held
        apart = self.pending.get(place(origin, held.id, held.created))
        if held.foreign:
            if had is not None and had.identity == held.identity:
                self._set_apart(known, now, surely=True)  # type: ignore[arg-type]
            elif apart is not None and apart.held is not None:
                apart.held.foreign = True
        elif apart is not None:
            self._place_apart(entry, surely=apart.held is not None and apart.held.foreign)
        elif had is not None:
            if had.identity == held.identity:
                return
            if self._outranks(had, held):
                self._place_apart(entry, surely=self._is_present(had))
            else:
                self._set_apart(known, now, surely=self._is_present(held))  # type: ignore[arg-type]
        elif origin < self.source.position and not self.source.is_done(origin):
            source = self._find_source(entry.lane.key, origin)
            if source is None or self._effects.identity(source) != held.identity:
                self._place_apart(entry, surely=True)

    def _is_present(self, held: Held) -> bool:
        """Whether its origin is surely in the present topic."""
        return bool(held.topic) and held.topic == self.topic_id

    def _outranks(self, one: Held, other: Held) -> bool:
        """Which of two has their origin in the present topic."""

        def rank(held: Held) -> tuple[bool, bool, int]:
            return self._is_present(held), not held.redrives, held.at

        return rank(one) > rank(other)

    def _is_of(self, copied: Entry, offset: int, identity: tuple[str, int], now: int) -> bool:
        """Whether the copy that names the origin `offset`, or another one that waits, is of the record there.

        Raises:
            TopicRecreated: It is not, and is no redrive of what another topic had there.
        """
        held = copied.held
        assert held is not None
        if identity == held.identity:
            held.topic = held.topic or self.topic_id
            return True
        if place(offset, *identity) in self.pending:
            return True
        if not held.redrives:
            raise TopicRecreated(f"the record at {offset} is not the one that a waiting retry came from")
        self._set_apart(copied, now, surely=True)
        return False

    def _learn(self, entry: Entry) -> None:
        """The newest copy of an origin counts: by redrives, then attempts, then place."""
        known = self.pending.get(entry.origin)
        if known is None:
            self._hold(entry)
            return
        old, new = known.held, entry.held
        assert old is not None and new is not None
        if (new.redrives, entry.attempt, new.at) > (old.redrives, known.attempt, old.at):
            self._supersede(old, new)
            if known.lane.key == entry.lane.key:
                self._replace(known, entry)
            else:
                self._forget(known)
                self._hold(entry)
        else:
            self._supersede(new, old)

    def _supersede(self, old: Held, new: Held) -> None:
        self.retry.complete(old.at)
        new.superseded = max(new.superseded, old.superseded, old.at)
        new.tainted = new.tainted or old.tainted

    def _on_redrive(self, entry: Entry, now: int) -> None:
        """A redriven copy supersedes the older generation that waits, and waits while that one is busy."""
        held = entry.held
        assert held is not None
        if self._redriven.get(_redriven(entry, held), -1) >= held.redrives:
            self._half.end(held.at)
            return
        self._tell_apart(entry, now)
        origin = entry.origin
        known = self.pending.get(origin) or self._find_source(entry.lane.key, origin)
        if known is not None and known.busy:
            if known.held is not None and held.redrives <= known.held.redrives:
                self._half.end(held.at)
                return
            waiting = self._stash.get(origin)
            if waiting is None:
                self._stash[origin] = entry
                return
            assert waiting.held is not None
            older, newer = sorted((waiting, entry), key=lambda e: (e.held.redrives, e.held.at))  # type: ignore[union-attr]
            self._half.end(older.held.at)  # type: ignore[union-attr]
            self._stash[origin] = newer
            return
        if known is not None and known.held is None:
            self._leave_source(known)
            self._forget(known)
            self.source.complete(origin)
            known = None
        if known is not None:
            self._learn(entry)
        else:
            self._hold(entry)
        self.step(self.lanes[entry.lane.key], now)

    def _find_source(self, lane_key: Hashable, origin: int) -> Entry | None:
        lane = self.lanes.get(lane_key)
        return lane.find(origin) if lane else None

    def _hold(self, entry: Entry) -> None:
        lane = self.lanes.setdefault(entry.lane.key, entry.lane)
        entry.lane = lane
        lane.add(entry)
        if (later := lane.later) is not None and later.count >= DEEP and later.fresh:
            self._backlogs[lane] = None  # it came in front of them
        self.pending[entry.origin] = entry
        self._keep_payload(entry)

    def _replace(self, old: Entry, new: Entry) -> None:
        """The newer copy of an origin takes the place of the older one."""
        lane, held = old.lane, old.held
        assert held is not None
        lane.replace(old, new)
        new.lane = lane
        if lane.paused is old:
            lane.paused = None
        del self.pending[new.origin]  # to the end of the table: it is in the order of the copies
        self.pending[new.origin] = new
        self._budget.give(held)
        self._keep_payload(new)

    def _forget(self, entry: Entry) -> None:
        """Take an entry out of its lane and the table; its offset is the caller's to complete."""
        lane = entry.lane
        if lane.later is None and lane.head is entry:
            lane.head = None
            if not lane.stuck:
                self.lanes.pop(lane.key, None)
        else:
            lane.remove(entry)
            if lane.later is None and self._backlogs:
                self._backlogs.pop(lane, None)
        held = entry.held
        if held is not None:
            self.pending.pop(entry.origin, None)
            self._budget.give(held)
            if lane.paused is entry:
                lane.paused = None
                self._paused.pop(lane, None)

    def _enter_source(self, entry: Entry) -> None:
        self.open += 1
        self.open_bytes += entry.size
        self._budget.open += 1

    def _leave_source(self, entry: Entry) -> None:
        self.open -= 1
        self.open_bytes -= entry.size
        self._budget.open -= 1

    def _keep_payload(self, entry: Entry) -> None:
        held = entry.held
        assert held is not None
        if entry.record is None or held.size:
            return
        size = entry.record_size() if self._budget.used < PACKED_FROM else entry.pack()
        if not self._budget.keep(held, size) and not entry.busy:
            entry.evict()

    # -- who is next ----------------------------------------------------------------------------------

    def step(self, lane: Lane, now: int) -> None:
        """Start what the lane's head may do at epoch ms `now`; park what waits behind it in the source."""
        head = lane.head
        if not self.active or self.closing or head is None or head.busy:
            return
        held = head.held
        if lane.stuck:
            pass  # nothing of this user may start; what waits in the source is parked below
        elif held is None:
            head.busy = _SENDING
            self._effects.send(head)
            return
        elif (wake := held.due if held.expires is None else min(held.due, held.expires)) > now and not (
            held.collapse and self.superseded(head, now)
        ):
            if lane.timer != wake:
                lane.timer = wake
                self._effects.wake(lane, wake)
        elif lane.paused is head and not (held.expires is not None and held.expires <= now):
            if held.expires is not None and lane.timer != held.expires:
                lane.timer = held.expires
                self._effects.wake(lane, held.expires)
        elif (
            (later := lane.later) is not None
            and later.overtaken is not None
            and later.overtaken.busy is _SENDING
        ):
            pass  # redriven in front of a later one that is being sent, and whose answer comes back here
        elif not self._sendable(head, held):
            self._block(lane, head, held)
        elif head.record is None:
            head.busy = Busy.LOADING
            self._effects.load(head)
        else:
            edge = self.retry.frontier + WINDOW
            if self._half.last_end >= edge or held.last >= edge:
                held.counted = True
                self._half.under_way += 1
            head.busy = _SENDING
            self._effects.send(head)
            return
        if lane.later is not None:
            self._park_followers(lane)

    def _block(self, lane: Lane, head: Entry, held: Held) -> None:
        """Wait for what the head needs: each event looks only at the lanes that it may have freed."""
        if lane.blocked is head:
            return
        lane.blocked = head
        heap, offset = self._beyond, held.last
        origin = held.origin_of(head)
        if not held.foreign and self.source.position <= origin:
            heap, offset = self._unreached, origin
        elif not held.foreign and not self._confirmed.covers(origin):
            self._uncovered.append(lane)
            return
        elif held.tainted and self.retry.position <= offset:
            heap = self._tainted
        heapq.heappush(heap, (offset, next(self._order), lane))

    def _park_followers(self, lane: Lane) -> None:
        """Park what waits in the source behind the head, or the source would wait with it. Each is looked at once;
        what there is no room for now goes on with the acknowledgements."""
        later = lane.later
        if later is None or not self.active or self.closing:
            return
        fresh, moving, most = later.fresh, self._moving, min(PARKING, len(self._moving) + PARK_AT_ONCE)
        while fresh:
            if len(moving) >= most:
                self._unparked[lane] = None
                return
            entry = fresh.popleft()
            if entry.held is None and not entry.busy and later.find(entry.origin) is entry:
                self._park(entry)

    def park_more(self, now: int) -> None:
        """Go on with parking when less is on its way than could be: first what must be parked, then backlogs while
        they keep others out."""
        moving = self._moving
        before = len(moving)
        while before == len(moving) <= PARKING // 2:
            if self._unparked:
                self.step(self._unparked.popitem(last=False)[0], now)
            elif self.makes_room and self._backlogs:
                lane = self._backlogs.popitem(last=False)[0]
                self._park_followers(lane)
                if lane in self._unparked:  # the rest only if others still need room then, and in turns
                    del self._unparked[lane]
                    self._backlogs[lane] = None
                elif lane.later is not None:
                    lane.later.is_backlog = False
            else:
                break

    @property
    def has_backlog(self) -> bool:
        """Whether a user has so much in memory that parking it may make room for others."""
        return bool(self._backlogs)

    def superseded(self, entry: Entry, now: int) -> bool:
        """Whether a newer one of its user, with the same collapse key and channel, waits behind it: then it is
        skipped in its place, without waiting for its due time."""
        return self.superseder(entry, now) is not None

    def superseder(self, entry: Entry, now: int) -> Entry | None:
        """The newest one that supersedes `entry`. Of one that lives in the source nobody has looked at expiry or
        payload yet: the caller does so before it skips `entry`, and says `will_not_be_sent` if need be."""
        key = entry.collapse
        if not key:
            return None
        later = entry.lane.later
        while later is not None:
            other = later.newest(key)
            if other is None or other.origin <= entry.origin:
                return None
            held = other.held
            if other.busy is not Busy.DYING and (
                held is None or (held.collapse and (held.expires is None or held.expires > now))
            ):
                return other
            later.pass_over_newest(key)  # for good
        return None

    def will_not_be_sent(self, entry: Entry) -> None:
        """The one that `superseder` named has expired or cannot be decoded: it supersedes nobody."""
        if (later := entry.lane.later) is not None and later.newest(entry.collapse) is entry:
            later.pass_over_newest(entry.collapse)

    def _sendable(self, head: Entry, held: Held) -> bool:
        if not held.foreign:
            origin = held.origin_of(head)
            if self.source.position <= origin or not self._confirmed.covers(origin):
                return False
        last = held.last
        if held.tainted and self.retry.position <= last:
            return False  # the orphan of a failed produce, if any, lies before the acknowledged copy
        edge = self.retry.frontier + WINDOW
        return (last < edge and self._half.last_end < edge) or last < self._sayable

    @property
    def _sayable(self) -> int:
        """The retry offset below which a notification's last copy must lie to be sent: a commit will be able to say
        that it has ended, or its end is one of a bounded number that a crash would repeat."""
        half = self._half
        if half.has_room:
            return self.retry.frontier + (spill.MAX_WINDOW if self.goes_far else WINDOW)
        return -1 if half.is_wide else self.retry.frontier + WINDOW

    @property
    def goes_far(self) -> bool:
        """Whether notifications beyond the window are sent; otherwise what lies in front of them is carried."""
        return self._long_waits.wide and self._knows_topics

    @property
    def window(self) -> int:
        """Offsets of the retry partition between its frontier and the last finished one that a commit has to name, when
        they are more than the bitmap holds; else 0."""
        return self._half.length

    @property
    def spilling(self) -> bool:
        """Whether a spill is on its way: what is committed meanwhile is older."""
        return self._half.spilling

    def _not_counted(self, held: Held) -> None:
        if held.counted:
            held.counted = False
            self._half.under_way -= 1

    def _not_carried(self, held: Held) -> None:
        held.carried = ""
        self._carrying -= 1

    def _park(self, entry: Entry) -> None:
        if not self.active or self.closing:
            return
        entry.busy = Busy.COPYING
        self._moving[entry.origin] = entry
        self._effects.park(entry)

    def step_blocked(self, now: int) -> bool:
        """Look again at a few lanes that waited for a commit, a read, room in the window or beyond it, the end of a
        pause or the start. Whether there are more."""
        agenda, more = self._agenda, False
        if not (agenda or self._unreached or self._tainted or self._beyond):
            return False
        for heap, offset in (
            (self._unreached, self.source.position),
            (self._tainted, self.retry.position),
            (self._beyond, self._sayable),
        ):
            while heap and heap[0][0] < offset:
                if len(agenda) >= STEP_AT_ONCE:
                    more = True
                    break
                lane = heapq.heappop(heap)[2]
                lane.blocked = None
                agenda.append(lane)
        for _ in range(min(len(agenda), STEP_AT_ONCE)):
            self.step(agenda.popleft(), now)
        return more or bool(agenda)

    def carry(self, now: int) -> Iterator[Entry]:
        """Entries to copy forward as they are at epoch ms `now`. Each is marked busy: the caller writes the copy.

        - What nears the end of the retry topic's retention.
        - What lies at the beginning of a window so sparse that a restore would read mostly what is finished.
        - What keeps the frontier from moving on, when a head that is due may not be sent beyond the window.
        """
        if not self.active or self.closing:
            return
        while self._loaded:
            entry = self._loaded.popleft()
            self._long_waits.carried[entry.held.carried] += 1  # type: ignore[union-attr]
            yield entry
        self.retry.advance()
        retention = self._long_waits.retention_ms
        if retention is not None:
            written = now - rewritten_after(retention)
            if now - self._ordered_at >= retention // 16:
                self._ordered_at = now
                self._order_table()
                self._recall(lambda held: held.written < written)
            yield from self._oldest("retention", CARRY_BATCH, written=written)
        if self.goes_far:
            if self._is_sparse(now):
                yield from self._oldest("sparse", SPARSE_BATCH)
            reach = spill.MAX_WINDOW
        else:
            reach = WINDOW
        frontier = self.retry.frontier
        blocked = self._beyond and self._beyond[0][0] >= frontier + reach
        narrows = self._half.is_wide and not self.goes_far
        if narrows and now >= self._recall_at:
            self._recall_at = now + RECALL_EVERY
            self._recall(lambda held: held.at < frontier + WINDOW)
        if blocked or narrows:
            yield from self._oldest("window", CARRY_BATCH, below=frontier + WINDOW)
        if self._recalled and not self._carrying:
            self._agenda.extend(self._recalled)  # mostly they are queued again already
            self._recalled.clear()

    def _recall(self, which: Callable[[Held], bool]) -> None:
        """Attempts that are queued would not be carried for as long as the lane is held or paused: take them out of
        their queues. They are carried, oldest first, and queued again when their copy is acknowledged."""
        queued = {
            entry
            for entry in self.pending.values()
            if (entry.busy is Busy.SENDING or entry.busy is Busy.LOADING) and which(entry.held)  # type: ignore[arg-type]
        }
        for entry in self._effects.recall(self, queued) if queued else ():
            entry.busy = Busy.NO
            self._not_counted(entry.held)  # type: ignore[arg-type]
            self._recalled[entry.lane] = None
            self._park_followers(entry.lane)

    def _is_sparse(self, now: int) -> bool:
        if self.retry.position - self.retry.frontier <= DENSITY * len(self.pending) + SLACK:
            self._sparse_since = None
        elif self._sparse_since is None:
            self._sparse_since = now
        return self._sparse_since is not None and now - self._sparse_since >= SPARSE_AFTER

    def _order_table(self) -> None:
        """Put the table in the order of the copies. It mostly is; what was set apart, or redriven and read after an own
        copy beyond it was acknowledged, came to its end."""
        places = [entry.held.at for entry in self.pending.values()]  # type: ignore[union-attr]
        if any(map(operator.gt, places, itertools.islice(places, 1, None))):
            in_order = sorted(self.pending.items(), key=lambda item: item[1].held.at)  # type: ignore[union-attr]
            self.pending = dict(in_order)

    def _oldest(
        self, reason: str, most: int, *, below: int | None = None, written: int | None = None
    ) -> Iterator[Entry]:
        """Idle entries in the order of the table, which is nearly that of their copies.

        Args:
            reason: For the statistics.
            most: How many.
            below: Only those whose copy lies below this offset.
            written: Only those whose copy is older than this, epoch ms. It stops at a few younger ones.
        """
        found: list[Entry] = []
        most = min(most, CARRYING - self._carrying)
        young, passed = CARRY_BATCH, PASSED_OVER
        for entry in self.pending.values() if most > 0 else ():
            held = entry.held
            assert held is not None
            if written is not None and held.written >= written:
                young -= 1
                if young < 0:
                    break
            elif not entry.busy and (below is None or held.at < below):
                found.append(entry)
                if len(found) == most:
                    break
            else:
                passed -= 1
                if passed < 0:
                    break
        for entry in found:
            assert entry.held is not None
            entry.held.carried = reason
            self._carrying += 1
            if entry.record is None:
                entry.busy = Busy.LOADING
                self._effects.load(entry, to_copy=True)
            else:
                entry.busy = Busy.COPYING
                self._long_waits.carried[reason] += 1
                yield entry

    # -- answers --------------------------------------------------------------------------------------

    def loaded(self, entry: Entry, record: Record, now: int) -> None:
        """An evicted payload is here again: for a send, or for the next `carry`."""
        entry.load(record)
        held = entry.held
        assert held is not None
        self._budget.load(held, entry.record_size())
        if held.carried:
            entry.busy = Busy.COPYING
            self._loaded.append(entry)
            return
        entry.busy = Busy.NO
        self.step(entry.lane, now)

    def rest(self, entry: Entry) -> None:
        """A payload was read again and is not needed now: it stays if there is room."""
        held = entry.held
        assert held is not None
        if held.loaded and not self._budget.rest(held):
            self._budget.give(held)
            entry.evict()

    def copying(self, entry: Entry) -> None:
        """A failed attempt's copy is on its way."""
        entry.busy = Busy.COPYING
        if entry.held is None:
            self._moving[entry.origin] = entry

    def dying(self, entry: Entry) -> None:
        """A dead letter is on its way."""
        entry.busy = Busy.DYING
        if entry.held is None:
            self._moving[entry.origin] = entry

    def copied(self, entry: Entry, held: Held, attempt: int, now: int) -> None:
        """A copy was acknowledged: the entry lives at `held.at` from now on."""
        origin = entry.origin
        self._moving.pop(origin, None)
        if self._seen:
            self._settle_seen(origin, held.at)
        old = entry.held
        if old is None:
            self._leave_source(entry)
            self.source.complete(origin)
        else:
            self.retry.complete(old.at)
            self._budget.give(old)
            if old.counted:
                self._not_counted(old)
            if old.carried:
                self._not_carried(old)
            self.pending.pop(origin, None)  # as in `_replace`
            # it may have been set apart while its copy was on its way
            held.foreign, held.stranger, held.topic = old.foreign, old.stranger, old.topic
        if held.at >= self.retry.position:
            self._acknowledged.add(held.at)
        held.written = now
        entry.held = held
        entry.attempt = attempt
        entry.busy = Busy.NO
        self.pending[origin] = entry
        waiting = self._stash.get(origin)
        if waiting is not None and waiting.held is not None and waiting.held.redrives > held.redrives:
            self._supersede(held, waiting.held)  # by a redrive meanwhile
            self._forget(entry)
            self._unstash(origin)
        else:
            self._keep_payload(entry)
        self.step(self.lanes.get(entry.lane.key, entry.lane), now)
        if self._unparked or self.makes_room:
            self.park_more(now)

    def finish(self, entry: Entry, *, accepted: bool, now: int) -> None:
        """The entry is terminal: accepted, skipped, expired or dead-lettered (acknowledged)."""
        origin, held, lane = entry.origin, entry.held, entry.lane
        if self._moving:
            self._moving.pop(origin, None)
        if self._seen:
            self._settle_seen(origin, -1)
        self._forget(entry)
        if held is None:
            self.open -= 1  # as `_leave_source`, without a call for each send
            self.open_bytes -= entry.size
            self._budget.open -= 1
            self.source.complete(origin)
        else:
            last = held.last
            if last != held.at:
                self.retry.complete(held.at)
            self._half.end(last)
            if held.counted:
                self._not_counted(held)
            if held.carried:
                self._not_carried(held)
            if self._half.last_end >= self.retry.frontier + WINDOW:
                self._half.unsaid += 1
            if held.redrives:
                self._redriven[_redriven(entry, held)] = held.redrives
        if self._stash and origin in self._stash:
            if accepted:
                stashed = self._stash.pop(origin)
                waiting = stashed.held
                assert waiting is not None
                self._half.end(waiting.at)
                self._redriven[_redriven(stashed, waiting)] = waiting.redrives
            else:
                self._unstash(origin)
                lane = self.lanes[lane.key]  # a new one, if nothing else was in it
        if self._unparked:
            self.park_more(now)
        if lane.head is not None:
            self.step(lane, now)

    def release(self, entry: Entry, now: int) -> None:
        """An attempt did not start, or was cancelled: it is as if it had never been asked for."""
        entry.busy = Busy.NO
        lane = entry.lane
        if entry.held is not None:
            self._not_counted(entry.held)
        elif lane.head is not entry and lane.later is not None:
            lane.later.fresh.append(entry)  # an earlier one came in front of it
            if lane.later.count >= DEEP:
                self._backlogs[lane] = None
        self.step(lane, now)

    def pause(self, entry: Entry, now: int) -> None:
        """An attempt did not start, as the entry's category or channel is paused, or its destination held: it waits
        where it is until `resume` or `unpause`, or its expiry.

        An entry that lives in the source alone is marked so that its copy waits: the caller writes that.
        """
        entry.lane.paused = entry
        self._paused[entry.lane] = None
        if entry.held is None:
            self.copying(entry)
            return
        entry.busy = Busy.NO
        self._not_counted(entry.held)
        self.rest(entry)
        self.step(entry.lane, now)

    def unpause(self, lane: Lane, now: int) -> None:
        """What this lane's head waited for has come."""
        lane.paused = None
        self._paused.pop(lane, None)
        self.step(lane, now)

    def resume(self) -> None:
        """Less is paused than before: `step_blocked` looks again at what waits for that."""
        for lane in self._paused:
            lane.paused = None
        self._agenda.extend(self._paused)
        self._paused.clear()

    def stick(self, lane_key: Hashable) -> Lane:
        """A send of an earlier assignment outlived it and still runs here: nothing of this user may start."""
        lane = self.lanes.setdefault(lane_key, Lane(self, lane_key))
        lane.stuck = True
        return lane

    def unstick(self, lane: Lane, now: int) -> None:
        """The send that outlived its deadline has returned: the user's next may start."""
        lane.stuck = False
        if lane.head is not None:
            self.step(lane, now)
        else:
            self.lanes.pop(lane.key, None)

    def _unstash(self, origin: int) -> None:
        self._hold(self._stash.pop(origin))

    def close(self) -> None:
        """The assignment is over: whatever still holds this object changes nothing with it, and finds nothing in it.

        A send that still runs keeps its own entry, and a wake-up its lane; neither keeps a payload or another entry.
        """
        self.alive = self.active = False
        for lane in self.lanes.values():
            for entry in lane.entries:
                if entry.held is None:
                    self._leave_source(entry)
                else:
                    self._budget.give(entry.held)
                entry.evict()
            lane.head = lane.later = lane.paused = lane.blocked = None
        for table in (
            self.lanes, self.pending, self._moving, self._seen, self._acknowledged, self._stash, self._redriven,
            self._agenda, self._unparked, self._backlogs, self._paused, self._unreached, self._uncovered,
            self._tainted, self._beyond, self._loaded, self._recalled,
        ):  # fmt: skip
            table.clear()
        self.source = Tracker(Committed(self.source.frontier))
        self.retry = RetryTracker(Committed(self.retry.frontier))
        self._half = RetryHalf(Committed(self.retry.frontier), self.retry)
        self._confirmed, self._fence_before = Committed(0), None

    # -- commits --------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[Committed, Committed]:
        """What may be committed of source and retry partition, in one request."""
        before = self._fence_before if self.restore_end > self.retry.advance() + WINDOW else None
        fence = Fence(self.restore_end, self.writer, before)
        fenced, started = self._half.snapshot(fence, active=self.active)
        if started is not None:
            self._effects.spill(self, started)
        # not before the fence holds: the source must not cover what only this restore has admitted
        return self.source.snapshot() if self.active else self._confirmed, fenced

    def spilled(self, written: Spill, offset: int) -> bool:
        """A spill was acknowledged: the next snapshot names it. False when nobody needs it any more."""
        self._long_waits.spills += 1
        return self._half.acknowledged(written, offset, self.writer)

    def confirmed(self, source: Committed, now: int) -> None:
        """The broker stored a snapshot; the first one is the fence, and starts the work."""
        self._confirmed = source
        if self.active:
            uncovered, self._uncovered = self._uncovered, []
            for lane in uncovered:
                lane.blocked = None
            self._agenda.extend(uncovered)
        else:
            self.active = True
            self._agenda.extend(self.lanes.values())
        self.step_blocked(now)

    @property
    def at_end(self) -> bool:
        """Whether there was nothing more to read when last something was read."""
        return self.source.position == self._end_seen

    @property
    def must_read(self) -> bool:
        """Whether a restored origin is still to be reached: its lane could not move otherwise. What the bitmap could
        not say is not read for that either: the frontier moves on without, as copies are always written."""
        return self.source.position <= self._farthest and self.source.position - self.source.frontier < WINDOW

    @property
    def has_window(self) -> bool:
        """Whether what is read now still fits the bitmap."""
        return self.source.position - self.source.frontier < READ_WINDOW

    def wants_source(self, *, room: bool) -> bool:
        """Whether the next source record may be let in. What comes from the broker before waits beside the partition.

        Args:
            room: Whether there is room for more records at all. A restored origin must be reached even without.
        """
        return (room and self.has_window) or self.must_read


def _redriven(entry: Entry, held: Held) -> tuple[int, str, int]:
    return held.origin_of(entry), held.id, held.created
