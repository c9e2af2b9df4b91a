"""What once broke the protocol, one scenario each; most are too rare to meet by chance."""

from __future__ import annotations

from collections.abc import Container

import attrs
import pytest

from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.carrying import CARRYING, SLACK, SPARSE_AFTER
from kafka_notify._partition.commit_metadata import (
    WINDOW,
    Committed,
    Fence,
    Wide,
    decode_metadata,
    encode_metadata,
)
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.offsets import TopicRecreated
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.wide import ROOM, LongWaits, Spill
from kafka_notify.wire import History, Origin, RetryState
from tests.model.promises import Bytes

ME, BEFORE, REDRIVE = "me", "before", "redrive"
NOW = 1_000


class Asked:
    """Effects that notes what it was asked for."""

    def __init__(self) -> None:
        self.sends: list[Entry] = []
        self.parks: list[Entry] = []
        self.loads: list[Entry] = []
        self.letters: list[Entry] = []
        self.wakes: list[tuple[UserQueue, int]] = []
        self.spills: list[Spill] = []

    def send(self, entry: Entry, /) -> None:
        self.sends.append(entry)

    def park(self, entry: Entry, /) -> None:
        self.parks.append(entry)

    def load(self, entry: Entry, /, *, to_copy: bool = False) -> None:
        self.loads.append(entry)

    def recall(self, partition: Partition, entries: Container[Entry], /) -> list[Entry]:
        queued = [entry for entry in (*self.sends, *self.loads) if entry in entries]
        self.sends = [entry for entry in self.sends if entry not in queued]
        self.loads = [entry for entry in self.loads if entry not in queued]
        return queued

    def dead_letter(self, entry: Entry, /) -> None:
        self.letters.append(entry)

    def wake(self, lane: UserQueue, at: int, /) -> None:
        self.wakes.append((lane, at))

    def spill(self, partition: Partition, spill: Spill, /) -> None:
        self.spills.append(spill)

    def identity(self, entry: Entry, /) -> tuple[str, int]:
        return f"id{entry.origin}", 0


@attrs.define
class Bench:
    """A partition, and short words for what happens to it."""

    asked: Asked
    partition: Partition

    @property
    def sent(self) -> list[int]:
        return [entry.origin for entry in self.asked.sends]

    def source(self, offset: int, user: str = "u") -> None:
        self.partition.on_source(
            offset, user, Bytes(b"u", b"value"), None, 1, lambda: (f"id{offset}", 0), NOW
        )

    def retry(
        self,
        offset: int,
        origin: int,
        writer: str,
        redrives: int = 0,
        attempt: int = 0,
        topic: str | None = None,
        id: str = "",
    ) -> None:
        state = RetryState(Origin("source", 0, origin, topic), History(attempt, redrives), NOW, writer)
        facts = (id or f"id{origin}", 0, None, "")
        if not self.partition.reads_own(offset):
            self.partition.on_retry(offset, "u", state, Bytes(b"u", b"value"), None, lambda: facts, NOW)

    def commit(self) -> tuple[Committed, Committed]:
        source, retry = self.partition.snapshot()
        self.partition.confirmed(source, NOW)
        return source, retry

    def copy(self, entry: Entry, at: int, attempt: int = 1) -> None:
        """A failed attempt's copy is acknowledged."""
        self.partition.copying(entry)
        history = attrs.evolve(entry.history, attempts=attempt)
        self.partition.copied(entry, RetryRecord(at, NOW, None, f"id{entry.origin}", 0, history), NOW)


def bench(
    source: Committed = Committed(0),  # noqa: B008 - frozen
    retry: Committed = Committed(0),  # noqa: B008 - frozen
    *,
    source_end: int = 0,
    retry_end: int = 0,
    budget: int = 1_000_000,
    long_waits: LongWaits | None = None,
    knows_topics: bool = True,
    topic_id: str = "",
    owner: type[Partition] = Partition,
) -> Bench:
    asked = Asked()
    partition = owner(
        Epoch(0, ME, topic_id=topic_id, knows_topics=knows_topics),
        Half(source, 0, source_end),
        Half(retry, 0, retry_end),
        effects=asked,
        budget=PayloadBudget(budget),
        long_waits=long_waits,
    )
    return Bench(asked, partition)


def working() -> Bench:
    b = bench()
    b.commit()
    return b


@pytest.mark.invariant(n=14)
def test_read_no_further_than_can_be_committed() -> None:
    """What was read beyond the bitmap to reach a restored origin would be sent again: its end cannot be committed."""
    b = bench(source_end=WINDOW + 2, retry_end=1)
    b.retry(0, origin=WINDOW + 1, writer=BEFORE)
    b.commit()
    assert b.partition.wants_source(room=False)

    b.source(0, "slow")
    b.source(WINDOW - 1, "other")
    assert not b.partition.must_read
    assert not b.partition.wants_source(room=True)

    b.partition.finish(b.asked.sends[0], accepted=True, now=NOW)
    b.commit()
    assert b.partition.wants_source(room=False)


def test_unreadable_record_keeps_its_payload() -> None:
    """A retry record that nobody can read reaches its dead letter with its payload, however full the memory."""
    b = bench(budget=0)

    b.partition.on_retry(0, "?", None, Bytes(b"key", b"value"), None, lambda: ("", 0, None, ""), NOW)

    assert [(entry.key, entry.value) for entry in b.asked.letters] == [(b"key", b"value")]


def test_an_acknowledged_copy_is_passed_and_an_orphan_is_not() -> None:
    """What the broker acknowledged is known when it is read; what a failed produce wrote all the same is found."""
    b = working()
    b.source(0)
    b.copy(
        b.asked.sends[0], at=1
    )  # offset 0 holds what its first produce wrote, which was reported as failed

    assert [b.partition.reads_own(0), b.partition.retry.position] == [False, 0]
    b.retry(0, origin=0, writer=ME)
    assert [b.partition.reads_own(1), b.partition.retry.position] == [True, 2]
    assert [b.partition.retry.is_done(offset) for offset in (0, 1)] == [True, False]


def test_redrive_waits_for_a_running_send_of_its_user() -> None:
    """A redriven notification is not sent while a later one of the same user is."""
    b = working()
    b.source(0)
    b.partition.finish(b.asked.sends[0], accepted=False, now=NOW)
    b.source(1)
    b.commit()

    b.retry(0, origin=0, writer=REDRIVE, redrives=1)
    assert b.sent == [0, 1]

    b.partition.finish(b.asked.sends[1], accepted=True, now=NOW)
    assert b.sent == [0, 1, 0]


def test_redrive_of_a_record_not_yet_read() -> None:
    """A redriven copy of a record that only a zombie has read waits until its user's earlier ones are known."""
    b = working()

    b.retry(0, origin=1, writer=REDRIVE, redrives=1)
    assert b.sent == []

    b.source(0)
    b.source(1)
    b.partition.finish(b.asked.sends[0], accepted=True, now=NOW)
    b.commit()
    assert b.sent == [0, 1]


def test_redrive_starts_when_the_generation_before_has_died() -> None:
    """A redriven copy that was read during the last attempt of the generation before runs after it."""
    b = working()
    b.source(0)
    b.copy(b.asked.sends[0], at=0)
    b.commit()
    assert b.sent == [0, 0]

    b.retry(1, origin=0, writer=REDRIVE, redrives=1)
    b.partition.finish(b.asked.sends[1], accepted=False, now=NOW)
    b.commit()

    assert b.sent == [0, 0, 0]
    assert b.asked.sends[2].history.redrives == 1


def redriven_in_front(monkeypatch: pytest.MonkeyPatch | None = None) -> Bench:
    """A redriven copy in front of an older generation's copy that the bitmap cannot cover.

    Args:
        monkeypatch: Has the end of a record said by its own place alone.
    """
    b = bench(Committed(1), source_end=1, retry_end=WINDOW + 2)
    if monkeypatch is not None:
        monkeypatch.setattr(RetryRecord, "last", property(lambda retry: retry.at))
    b.retry(0, origin=0, writer=REDRIVE, redrives=1)
    b.retry(WINDOW + 1, origin=0, writer=BEFORE)
    b.commit()
    b.partition.step_blocked(NOW)
    return b


def test_redrive_waits_until_what_it_supersedes_can_be_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redriven copy in front of an older generation's copy that the bitmap cannot cover is not sent: once it
    had been accepted, a crash would bring the older generation back."""
    with monkeypatch.context() as planted:
        assert redriven_in_front(planted).sent == [0]
    b = redriven_in_front()
    assert b.sent == []

    carried = list(b.partition.carry(NOW))
    assert [entry.origin for entry in carried] == [0]
    b.copy(carried[0], at=WINDOW + 2, attempt=0)
    assert b.sent == []
    b.commit()
    assert b.sent == [0]


def test_copies_of_two_topics() -> None:
    """Copies of a topic that was deleted and of the one after it, which name the same origin, are both sent: neither
    supersedes the other, whichever lies first."""
    for old, new in ((0, 1), (1, 0)):
        b = bench(Committed(1), source_end=1, retry_end=2, topic_id="new")
        for offset in (0, 1):
            if offset == old:
                b.retry(offset, origin=0, writer=BEFORE, attempt=2, topic="old", id="old")
            if offset == new:
                b.retry(offset, origin=0, writer=BEFORE, attempt=1, topic="new", id="new")
        b.commit()
        assert [(entry.retry and entry.retry.id, entry.history.attempts) for entry in b.asked.sends] == [
            ("old", 2)
        ]
        b.partition.finish(b.asked.sends[0], accepted=True, now=NOW)
        assert [(entry.retry and entry.retry.id, entry.history.attempts) for entry in b.asked.sends[1:]] == [
            ("new", 1)
        ]
        assert not b.partition.retry.is_done(new)


def test_stranger_whose_copy_is_on_its_way() -> None:
    """A redriven copy turns out to be of an earlier topic while it is carried forward: its new copy, which was read
    before it was acknowledged, is not taken for one of the record that the present topic has at that offset."""
    b = working()
    b.retry(0, origin=0, writer=REDRIVE, redrives=1)
    old = b.partition.pending[0]
    old.busy = Busy.COPYING
    b.retry(1, origin=0, writer=ME, redrives=1)
    b.partition.on_source(0, "v", Bytes(b"v", b"new"), None, 1, lambda: ("fresh", 7), NOW)
    [fresh] = b.asked.sends
    assert (fresh.origin, fresh.retry) == (0, None)
    assert old.retry is not None
    assert (old.retry.stranger, old.retry.foreign) == (0, True)

    b.copy(old, at=1, attempt=0)
    b.partition.finish(fresh, accepted=True, now=NOW)

    assert [b.partition.retry.is_done(offset) for offset in (0, 1)] == [True, False]
    assert b.asked.sends == [fresh, old]
    b.partition.finish(old, accepted=True, now=NOW)
    assert b.partition.retry.is_done(1)


def test_orphan_of_a_superseded_copy() -> None:
    """A redriven copy is not sent before the retry partition was read past the copy it supersedes: a produce of
    that one may have failed and been written all the same."""
    b = working()
    b.source(0)
    entry = b.asked.sends[0]
    b.partition.copying(entry)
    b.retry(0, origin=0, writer=REDRIVE, redrives=1)
    held = RetryRecord(2, NOW, None, "id0", 0, History(1))
    held.tainted = True
    b.partition.copied(entry, held, NOW)
    b.commit()
    assert b.sent == [0]

    b.retry(1, origin=0, writer=ME, attempt=1)
    b.retry(2, origin=0, writer=ME, attempt=1)
    b.partition.step_blocked(NOW)

    assert b.sent == [0, 0]
    assert b.partition.snapshot()[1].gaps == b"011"


class CoversAtOnce(Partition):
    """The first commit says of the source what is finished, too."""

    __slots__ = ()

    def snapshot(self) -> tuple[Committed, Committed]:
        _, retry = super().snapshot()
        return self.source.snapshot(), retry


def covered_without_a_fence(owner: type[Partition]) -> Committed:
    """What the first commit says of the source, when a copy that this restore admitted finishes a source record. The
    broker may refuse the other half, with the fence."""
    b = bench(source_end=1, retry_end=1, owner=owner)
    b.retry(0, origin=0, writer=BEFORE)
    b.source(0)
    source, retry = b.partition.snapshot()
    assert retry.fence == Fence(1, ME)
    return source


@pytest.mark.invariant(n=8)
def test_fence_commit_leaves_the_source_alone() -> None:
    """Until the fence is stored, the source's committed state stays: half of the commit may be refused, and a
    copy that this restore admitted would not count for the next one."""
    assert covered_without_a_fence(CoversAtOnce) == Committed(1)
    assert covered_without_a_fence(Partition) == Committed(0)

    b = bench(source_end=1, retry_end=1)
    b.retry(0, origin=0, writer=BEFORE)
    b.source(0)
    b.commit()
    assert b.partition.snapshot()[0] == Committed(1)


def sent_of_one_that_was_copied(source_end: int) -> list[str]:
    """Where a notification is sent from whose copy an owner before wrote while this one began: offset 0 in both.

    Args:
        source_end: The end of the source as it was looked up, after or before that notification was written.
    """
    b = bench(source_end=source_end, retry_end=1)
    b.retry(0, origin=0, writer=BEFORE)
    b.commit()
    b.source(0)
    b.commit()
    for entry in b.asked.sends:
        b.partition.finish(entry, accepted=True, now=NOW)
    b.commit()
    return ["source" if entry.retry is None else "copy" for entry in b.asked.sends]


@pytest.mark.invariant(n=7)
def test_a_copy_is_not_sent_beside_its_source_record() -> None:
    """A source end that was looked up before that of the retry topic takes the copy for another topic's, and sends the
    notification from both. Looked up after it, the copy counts as what it is."""
    assert sent_of_one_that_was_copied(source_end=0) == ["copy", "source"]
    assert sent_of_one_that_was_copied(source_end=1) == ["copy"]


def taken_over_twice(owner: type[Partition]) -> list[int]:
    """Copies that count for the second owner after a zombie wrote one beyond the bitmap's reach; the right one is at 0.

    Args:
        owner: What commits in between: twice, the fence first.
    """
    end = WINDOW + 1
    b = bench(Committed(1), Committed(0, fence=Fence(5, BEFORE)), source_end=1, retry_end=end, owner=owner)
    b.retry(0, origin=0, writer=BEFORE)
    b.retry(WINDOW, origin=0, writer="zombie")
    b.commit()
    heir = bench(*b.commit(), source_end=1, retry_end=end)
    heir.retry(0, origin=0, writer=BEFORE)
    heir.retry(WINDOW, origin=0, writer="zombie")
    return [e.retry.at for e in heir.partition.pending.values() if e.retry]


@pytest.mark.invariant(n=9)
def test_what_a_fence_kept_out_stays_out() -> None:
    """A zombie's copy beyond the bitmap's reach does not rise when the second owner after it takes over."""
    assert taken_over_twice(Partition) == [0]


def test_fences_end_where_the_bitmap_reaches() -> None:
    """Earlier fences are no longer committed once the bitmap holds what they kept out."""
    b = bench(Committed(1), Committed(0, fence=Fence(1, BEFORE)), source_end=1, retry_end=3)
    b.retry(0, origin=0, writer=BEFORE)
    b.retry(1, origin=0, writer="zombie")
    b.retry(2, origin=0, writer=BEFORE, attempt=1)

    assert b.partition.snapshot()[1] == Committed(2, fence=Fence(3, ME))


@pytest.mark.invariant(n=17)
def test_recreated_source_topic() -> None:
    """A source record that is not the one a waiting copy came from stops the partition instead of passing as
    that one."""
    b = bench(Committed(0), source_end=1, retry_end=1)
    b.retry(0, origin=0, writer=BEFORE)
    b.commit()

    with pytest.raises(TopicRecreated):
        b.partition.on_source(0, "u", Bytes(b"u", b"other"), None, 1, lambda: ("another", 0), NOW)
    assert not b.partition.source.is_done(0)


def test_copy_without_its_source_record() -> None:
    """A restored copy whose origin lies past the source's end, as the topic was re-created, is sent all the same."""
    b = bench(Committed(0), source_end=3, retry_end=1)
    b.retry(0, origin=1_000, writer=BEFORE)
    b.commit()

    held = b.asked.sends[0].retry
    assert held is not None
    assert (held.stranger, held.id) == (1_000, "id1000")
    assert b.asked.sends[0].busy is Busy.SENDING


def look(b: Bench) -> None:
    while b.partition.step_blocked(NOW):
        pass


def far_bench(count: int, long_waits: LongWaits, *, knows_topics: bool = True) -> Bench:
    """One that waits for long at the frontier, and `count` users whose retries are due, beyond the window."""
    b = bench(
        Committed(count + 1),
        source_end=count + 1,
        retry_end=WINDOW + count,
        long_waits=long_waits,
        knows_topics=knows_topics,
        budget=10**9,
    )
    waits = RetryState(Origin("source", 0, 0), History(), NOW + 9, BEFORE)
    facts = ("id0", 0, None, "")
    b.partition.on_retry(0, "long", waits, Bytes(b"u", b"value"), None, lambda: facts, NOW)
    for n in range(count):
        state = RetryState(Origin("source", 0, n + 1), History(1), NOW, BEFORE)
        b.partition.on_retry(
            WINDOW + n, n, state, Bytes(b"u", b"value"), None, lambda: ("id", 0, None, ""), NOW
        )
    b.partition.on_source_end(count + 1)
    b.commit()
    look(b)
    return b


def test_far_retries_are_sent_and_their_ends_committed() -> None:
    """A retry beyond the window is sent when it is due; the next owner knows that it has ended, and nothing else."""
    b = far_bench(10, LongWaits(True))
    assert b.sent == list(range(1, 11))
    for entry in b.asked.sends[:5]:
        b.partition.finish(entry, accepted=True, now=NOW)
    assert b.commit()[1].wide is None  # what lies between is too much for the metadata: as before
    (spill,) = b.asked.spills
    b.partition.spilled(spill, WINDOW + 10)
    source, retry = b.commit()
    assert list(b.partition.carry(NOW)) == []
    stored = decode_metadata(retry.frontier, encode_metadata(retry, "g", "t", 0), "g", "t", 0)
    stored = stored.with_spill(f"spill:{ME}", spill.value)

    heir = bench(source, stored, source_end=11, retry_end=WINDOW + 10, long_waits=LongWaits(True))

    assert [heir.partition.retry.is_done(WINDOW + n) for n in range(10)] == [True] * 5 + [False] * 5
    assert not heir.partition.retry.is_done(0)


@pytest.mark.parametrize(("wide", "knows_topics"), [(False, True), (True, False)])
def test_narrow_workers_send_nothing_far(wide: bool, knows_topics: bool) -> None:
    """Without wide retries, or when an older version could not be told, what lies in front is carried instead."""
    b = far_bench(3, LongWaits(wide), knows_topics=knows_topics)
    assert b.sent == []
    assert [entry.origin for entry in b.partition.carry(NOW)] == [0]


def test_far_retries_wait_for_room() -> None:
    """Of those beyond the window a bounded number is sent while no half can say what has ended; each spill makes
    room."""
    b = far_bench(2 * ROOM, LongWaits(True))
    assert len(b.sent) == ROOM
    for entry in b.asked.sends[:ROOM]:
        b.partition.finish(entry, accepted=True, now=NOW)
    look(b)
    assert len(b.sent) == ROOM
    b.commit()
    (spill,) = b.asked.spills
    look(b)
    assert len(b.sent) == ROOM
    b.partition.spilled(spill, WINDOW + 2 * ROOM)
    look(b)
    assert len(b.sent) == 2 * ROOM


def test_what_nears_retention_is_carried_once() -> None:
    """A copy is written again at half of the retention of its topic, not before, and not again at once."""
    b = bench(Committed(1), source_end=1, retry_end=1, long_waits=LongWaits(True, retention_ms=1_000))
    state = RetryState(Origin("source", 0, 0), History(), NOW * 9, BEFORE)
    b.partition.on_retry(0, "u", state, Bytes(b"u", b"value", NOW), None, lambda: ("id0", 0, None, ""), NOW)
    b.commit()
    assert list(b.partition.carry(NOW + 500)) == []
    (entry,) = b.partition.carry(NOW + 501)
    held = RetryRecord(1, NOW * 9, None, "id0", 0)
    b.partition.copied(entry, held, NOW + 501)
    assert list(b.partition.carry(NOW + 1_001)) == []
    assert len(list(b.partition.carry(NOW + 1_002))) == 1


def aged_bench(count: int, *, budget: int = 10**9, due: int = NOW * 9) -> Bench:
    """Retries of as many users, all of which were written at `NOW`; their topic keeps them for a second."""
    waits = LongWaits(True, retention_ms=1_000)
    end = Committed(count)
    b = bench(end, source_end=count, retry_end=count, long_waits=waits, budget=budget)
    for n in range(count):
        state = RetryState(Origin("source", 0, n), History(), due, BEFORE)
        record = Bytes(b"u", b"value", NOW)
        b.partition.on_retry(n, n, state, record, None, lambda n=n: (f"id{n}", 0, None, ""), NOW)  # type: ignore[misc]
    b.commit()
    look(b)
    return b


def test_few_are_carried_at_once() -> None:
    """However many near their retention, and however long the broker refuses their copies, a bounded number is on its
    way; each copy that is acknowledged makes room for another one."""
    b = aged_bench(2 * CARRYING)
    carried = [entry for _ in range(10) for entry in b.partition.carry(NOW + 501)]
    assert [entry.origin for entry in carried] == list(range(CARRYING))
    for entry in carried[:5]:
        assert entry.retry is not None
        renewed = RetryRecord(5_000 + entry.origin, NOW * 9, None, entry.retry.id, 0)
        b.partition.copied(entry, renewed, NOW + 501)
    assert [entry.origin for entry in b.partition.carry(NOW + 501)] == list(range(CARRYING, CARRYING + 5))


def test_few_payloads_are_read_again_to_be_carried() -> None:
    """The same of payloads that have to be read again: no more are asked for than are carried."""
    b = aged_bench(2 * CARRYING, budget=0)
    for _ in range(10):
        assert list(b.partition.carry(NOW + 501)) == []
    assert len(b.asked.loads) == CARRYING
    b.partition.loaded(b.asked.loads[0], Bytes(b"u", b"value"), NOW + 501)
    assert [entry.origin for entry in b.partition.carry(NOW + 501)] == [0]


@pytest.mark.parametrize("budget", [10**9, 0])
def test_queued_attempts_are_carried(budget: int) -> None:
    """While nothing may start, as the lane is held, what is due waits in a queue, or for its payload: it is taken out
    before retention removes its copy, written again, and queued again."""
    b = aged_bench(3, budget=budget, due=NOW)
    queued = b.asked.sends if budget else b.asked.loads
    assert [entry.origin for entry in queued] == [0, 1, 2]
    carried = list(b.partition.carry(NOW + 562))  # nine sixteenths of the retention at the latest
    for entry in [] if budget else tuple(b.asked.loads):
        b.partition.loaded(entry, Bytes(b"u", b"value"), NOW + 562)
    carried += [] if budget else b.partition.carry(NOW + 562)
    assert [entry.origin for entry in carried] == [0, 1, 2]
    assert b.sent == []
    for entry in carried:
        assert entry.retry is not None
        renewed = RetryRecord(5_000 + entry.origin, NOW, None, entry.retry.id, 0)
        b.partition.copied(entry, renewed, NOW + 562)
    again = b.asked.sends if budget else b.asked.loads[-3:]
    assert [entry.origin for entry in again] == [0, 1, 2]
    assert list(b.partition.carry(NOW + 900)) == []


def test_queued_attempts_do_not_keep_a_partition_wide() -> None:
    """A worker without wide retries becomes narrow while its lane is held, too: what is queued at the frontier is
    carried."""
    fetched = Committed(0, b"0" * (WINDOW + 9) + b"1", wide=Wide())
    b = bench(Committed(1), fetched, source_end=1, retry_end=WINDOW + 10, long_waits=LongWaits(False))
    b.retry(0, origin=0, writer=BEFORE)
    b.partition.on_retry_end(WINDOW + 10)
    b.partition.on_source_end(1)
    b.commit()
    look(b)
    assert b.partition.window
    assert b.sent == [0]
    (entry,) = b.partition.carry(NOW)
    assert b.sent == []
    b.partition.copied(entry, RetryRecord(WINDOW + 10, NOW, None, "id0", 0), NOW)
    b.commit()
    assert not b.partition.window


def test_a_sparse_window_is_carried_after_a_minute() -> None:
    """What lies at the beginning of a window in which nearly everything is finished is written again, so that a
    restart need not read it all; not when it is so for a moment."""
    b = bench(Committed(1), source_end=1, retry_end=SLACK + 9, long_waits=LongWaits(True))
    state = RetryState(Origin("source", 0, 0), History(), NOW + 10**6, BEFORE)
    b.partition.on_retry(0, "u", state, Bytes(b"u", b"value"), None, lambda: ("id0", 0, None, ""), NOW)
    b.partition.on_retry_end(SLACK + 9)
    b.commit()
    assert list(b.partition.carry(NOW)) == []
    assert list(b.partition.carry(NOW + SPARSE_AFTER - 1)) == []
    assert [entry.origin for entry in b.partition.carry(NOW + SPARSE_AFTER)] == [0]
