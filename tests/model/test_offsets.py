"""The tracker agrees with a set of offsets; commit metadata says what was written, or nothing."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from unittest import mock

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kafka_notify._fetch.topic_ids import changed
from kafka_notify._partition import commit_metadata, offsets, spill, wide
from kafka_notify._partition.commit_metadata import (
    MAX_METADATA,
    WINDOW,
    Committed,
    Fence,
    Wide,
    decode_metadata,
    encode_metadata,
)
from kafka_notify._partition.offsets import OffsetRewound, OffsetTracker
from kafka_notify._partition.spill import MAX_WINDOW, SpillName
from kafka_notify._partition.wide import RetryHalf, RetryTracker, Spill
from tests.model.released import released_decode
from tests.windows import windows

SMALL = 8
WHERE = ("group", "notif.high_priority", 7)
IDS = ("kcLQ2Q2cTPS2GW6cO2ZHcA", "9wFv_d9bQ-6t6zKhcW0O3w")
"""As topics have them."""


class TrackedOffsets(RuleBasedStateMachine):
    """A tracker and a plain set of finished offsets, told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = windows(SMALL)
        self.patches.enter_context(mock.patch.object(offsets, "_SHED", 5))

    def teardown(self) -> None:
        self.patches.close()

    @initialize(frontier=st.integers(0, 20), bits=st.text("01", max_size=SMALL), log_start=st.integers(0, 60))
    def assign(self, frontier: int, bits: str, log_start: int) -> None:
        self._assign(Committed(frontier, bits.rstrip("0").encode()), log_start)

    def _assign(self, committed: Committed, log_start: int) -> None:
        self.tracker = OffsetTracker(committed, log_start)
        self.position = max(committed.frontier, log_start)
        self.done = set(range(self.position))
        self.done |= {committed.frontier + i for i, bit in enumerate(committed.gaps) if bit == ord("1")}

    @property
    def frontier(self) -> int:
        return next(offset for offset in range(self.position + 1_000) if offset not in self.done)

    @rule(missing=st.just(0) | st.integers(0, 3 * SMALL))
    def read(self, missing: int) -> None:
        """A record is read; those before it do not exist."""
        offset = self.position + missing
        self.done |= set(range(self.position, offset))
        assert self.tracker.observe(offset) == (offset not in self.done)
        self.position = offset + 1

    @rule(missing=st.integers(-3, 3 * SMALL))
    def end(self, missing: int) -> None:
        """The end of the partition is reached; nothing exists below it that was not read."""
        self.done |= set(range(self.position, self.position + missing))
        self.tracker.skip_to(self.position + missing)
        self.position = max(self.position, self.position + missing)

    @rule(back=st.integers(0, 3 * SMALL))
    def complete_read(self, back: int) -> None:
        self._complete(max(self.position - 1 - back, 0))

    @rule(ahead=st.integers(0, 3 * SMALL), count=st.integers(1, SMALL))
    def complete_unread(self, ahead: int, count: int) -> None:
        """Copies are acknowledged, superseded and finished before they are read."""
        for offset in range(self.position + ahead, self.position + ahead + count):
            self._complete(offset)

    def _complete(self, offset: int) -> None:
        self.tracker.complete(offset)
        self.done.add(offset)

    @rule(back=st.integers(1, 50))
    def rewind(self, back: int) -> None:
        """A re-created topic is noticed."""
        if back <= self.position:
            with pytest.raises(OffsetRewound):
                self.tracker.observe(self.position - back)

    @rule(log_start=st.integers(0, 5))
    def reassign(self, log_start: int) -> None:
        """The next assignment starts from what was committed."""
        self._assign(self.tracker.snapshot(), log_start)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "tracker"):
            return
        assert self.tracker.position == self.position
        for offset in range(self.position + 5 * SMALL):
            assert self.tracker.is_done(offset) == (offset in self.done)

    @rule()
    def commit(self) -> None:
        frontier = self.frontier
        committed = self.tracker.snapshot()
        assert committed.frontier == self.tracker.advance() == frontier
        assert not committed.gaps.endswith(b"0")
        for offset in range(frontier + 5 * SMALL):
            assert committed.covers(offset) == (offset in self.done and offset < frontier + SMALL)


TestTrackedOffsets = TrackedOffsets.TestCase


def test_gap_larger_than_the_window_hides_no_record() -> None:
    """What lies behind a gap larger than the window is still to be done."""
    tracker = OffsetTracker(Committed(0))
    tracker.observe(0)
    tracker.complete(0)

    assert tracker.observe(3 * WINDOW)
    assert not tracker.is_done(3 * WINDOW + 1)
    assert tracker.snapshot() == Committed(3 * WINDOW)


def test_gap_behind_the_frontier_hides_no_record() -> None:
    """A gap below what was finished before it was read makes nothing finished."""
    tracker = OffsetTracker(Committed(0))
    for offset in range(WINDOW):
        tracker.complete(offset)
    tracker.advance()

    tracker.observe(3)

    assert not tracker.is_done(WINDOW)
    assert tracker.snapshot() == Committed(WINDOW)


# -- metadata ---------------------------------------------------------------------------------------

runs = st.lists(st.tuples(st.sampled_from("01"), st.integers(1, 3_000)), max_size=30)
gaps = st.one_of(
    st.text("01", max_size=100),
    runs.map(lambda parts: "".join(bit * count for bit, count in parts)),
    st.integers(1, WINDOW).map(lambda n: format(random.Random(n).getrandbits(n), "b")),
).map(lambda text: text[:WINDOW].rstrip("0").encode())
offset = st.integers(0, 2**63 - 1)


@st.composite
def fences(draw: st.DrawFn) -> Fence | None:
    fence = None
    for end, writer in draw(st.lists(st.tuples(offset, st.uuids()), max_size=8)):
        fence = Fence(end, writer.hex, fence)
    return fence


committed = st.builds(Committed, offset, gaps, fences())


def _longest() -> Committed:
    fence = None
    for n in range(8):
        fence = Fence(2**63 - 1 - n, "f" * 32, fence)
    return Committed(
        2**63 - 1, format(random.Random(0).getrandbits(WINDOW) | 1, f"0{WINDOW}b").encode(), fence
    )


@given(committed)
@example(Committed(0))
@example(Committed(5, b"1" * WINDOW))
@example(Committed(5, b"0" * (WINDOW - 1) + b"1"))
@example(_longest())
@pytest.mark.invariant(n=3)
def test_round_trip(state: Committed) -> None:
    """What is written is read again, and fits into the broker's limit."""
    text = encode_metadata(state, *WHERE, IDS)

    assert decode_metadata(state.frontier, text, *WHERE) == attrs.evolve(state, topic_ids=IDS)
    assert decode_metadata(state.frontier, encode_metadata(state, *WHERE), *WHERE) == state
    assert len(text) <= MAX_METADATA
    assert text.isascii()


def test_oldest_fences_are_forgotten() -> None:
    """However many hand-overs there were, the metadata fits, and the newest fences are kept."""
    state = _longest()
    for n in range(8):
        state = attrs.evolve(state, fence=Fence(n, "e" * 32, state.fence))

    text = encode_metadata(state, *WHERE)
    fence = decode_metadata(state.frontier, text, *WHERE).fence

    assert len(text) <= MAX_METADATA
    assert [f.writer[0] for f in _chain(fence)] == ["e"] * 8


def _chain(fence: Fence | None) -> Iterator[Fence]:
    while fence is not None:
        yield fence
        fence = fence.before


@given(committed, st.data())
@pytest.mark.invariant(n=15)
def test_mutated(state: Committed, data: st.DataObject) -> None:
    """Metadata that was altered in any place says nothing."""
    text = encode_metadata(state, *WHERE)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 4))
    altered = text[:at] + data.draw(st.text(max_size=4)) + text[at + cut :]

    if altered != text:
        assert decode_metadata(state.frontier, altered, *WHERE) == Committed(state.frontier)


@given(committed, st.integers(0, 4))
@pytest.mark.invariant(n=15)
def test_somebody_elses(state: Committed, which: int) -> None:
    """Metadata of another group, topic, partition or frontier says nothing."""
    text = encode_metadata(state, *WHERE)
    frontier, group, topic, partition = state.frontier, *WHERE
    others = [
        (frontier, "other", topic, partition),
        (frontier, group, "notif.retry.high_priority", partition),
        (frontier, group, topic, partition + 1),
        (frontier + 1, group, topic, partition),
        (max(frontier - 1, 0) if frontier else 1, group, topic, partition),
    ]

    assert decode_metadata(others[which][0], text, *others[which][1:]) == Committed(others[which][0])


@given(st.none() | st.text() | st.text("kn12|bz0123456789abcdef=,"))
@example("kn1|\ud800|||00000000")
@example("x" * 5_000)
def test_anything(text: str | None) -> None:
    """Whatever another tool has written there says nothing, and is no error."""
    assert decode_metadata(3, text, *WHERE) == Committed(3)


@given(committed, st.text("abc|", max_size=9))
def test_appended_fields(state: Committed, more: str) -> None:
    """A newer neighbour may append fields and raise the version: the known ones are still read."""
    text = encode_metadata(state, *WHERE, IDS)
    body = "kn2" + text.rpartition("|")[0][3:] + "|" + more
    checked = f"{body}|{commit_metadata._checksum(body, state.frontier, *WHERE)}"

    expected = attrs.evolve(state, topic_ids=IDS)
    assert decode_metadata(state.frontier, checked, *WHERE) == expected


def test_bitmap_beyond_the_window() -> None:
    """A bitmap longer than the window is not ours: it says nothing, however small it is compressed."""
    state = Committed(0, b"1" * (WINDOW + 1))

    assert decode_metadata(0, encode_metadata(state, *WHERE), *WHERE) == Committed(0)


# -- wide halves ------------------------------------------------------------------------------------

OTHERS = "|c:" + "0" * 197
"""What others may append."""
far = st.one_of(
    st.lists(st.integers(0, 5_000), max_size=60, unique=True),
    st.lists(st.integers(0, MAX_WINDOW - 1), max_size=20, unique=True),
    st.tuples(st.integers(0, 200_000), st.integers(0, 3_000)).map(lambda t: [*range(t[0], t[0] + t[1])]),
).map(sorted)
names = st.builds(SpillName, offset, st.uuids().map(lambda id: id.hex), offset, st.integers(0, 2**32 - 1))


@given(far)
def test_runs_round_trip(distances: list[int]) -> None:
    """Offsets written as runs are read again, or do not fit."""
    frontier = 10**12
    text = spill.encode_runs([frontier + d for d in distances], frontier)
    assert text is not None
    assert len(text) <= spill.DELTA_CHARS
    assert spill.offsets_of(spill.decode_runs(text), frontier) == [frontier + d for d in distances]


def test_about_a_thousand_scattered_offsets_fit() -> None:
    """What a commit can say without a spill: a thousand scattered offsets, not ten thousand; any number in a row."""
    rng = random.Random(1)
    assert spill.encode_runs(sorted(rng.sample(range(60_000), 1_000)), 0) is not None
    assert spill.encode_runs(sorted(rng.sample(range(60_000), 10_000)), 0) is None
    assert spill.encode_runs(range(MAX_WINDOW), 0) is not None


@given(offset, gaps)
def test_spill_round_trip(base: int, bits: bytes) -> None:
    """What a spill says is read again, from any later frontier."""
    value = spill.pack(base, bits)
    name = SpillName(7, "w", base, zlib.crc32(value))
    assert spill.unpack(value) == (base, bits)
    for later in (0, 1, len(bits) // 2, len(bits), len(bits) + 5):
        assert spill.believed(name, "spill:w", value, base + later) == bits[later:]


def test_largest_spill_fits_into_a_record() -> None:
    """Whatever is finished in the widest window, one record of any topic holds it."""
    bits = format(random.Random(0).getrandbits(MAX_WINDOW) | 1, f"0{MAX_WINDOW}b").encode()
    value = spill.pack(0, bits)
    assert len(value) < 600_000
    assert spill.unpack(value) == (0, bits)


@given(gaps, st.data())
@pytest.mark.invariant(n=16)
def test_any_other_spill(bits: bytes, data: st.DataObject) -> None:
    """A record that is not the named one, or was altered, or counts from a later offset, says nothing."""
    value = spill.pack(100, bits)
    name = SpillName(7, "w", 100, zlib.crc32(value))
    at = data.draw(st.integers(0, len(value)))
    altered = (
        value[:at] + data.draw(st.binary(min_size=1, max_size=3)) + value[at + data.draw(st.integers(0, 3)) :]
    )
    if altered != value:
        assert spill.believed(name, "spill:w", altered, 200) is None
    assert spill.believed(name, "spill:x", value, 200) is None
    assert spill.believed(name, "w", value, 200) is None
    assert spill.believed(name, "", None, 200) is None
    assert spill.believed(name, "spill:w", value, 99) is None
    assert spill.believed(attrs.evolve(name, base=101), "spill:w", value, 200) is None


@given(st.binary(max_size=80))
@example(b"12345678z" + zlib.compress(b"0" * (MAX_WINDOW // 8 + 1)))
@example(b"12345678b" + b"\1" * (MAX_WINDOW // 8 + 1))
def test_no_spill_at_all(value: bytes) -> None:
    """Whatever a record holds, reading it ends with an answer."""
    name = SpillName(7, "w", int.from_bytes(value[:8], "big"), zlib.crc32(value))
    found = spill.believed(name, "spill:w", value, name.base)
    assert found is None or len(found) <= MAX_WINDOW


@given(offset, fences(), far, names | st.none())
def test_wide_round_trip(
    frontier: int, fence: Fence | None, distances: list[int], name: SpillName | None
) -> None:
    """A wide half is read again, and the version before reads its fences, and topic ids that are others than ours."""
    delta = spill.encode_runs([frontier + d for d in distances], frontier)
    assert delta is not None
    state = Committed(frontier, b"", fence, wide=Wide(delta, name))

    text = encode_metadata(state, *WHERE, IDS, marked=True)
    seen = decode_metadata(frontier, text, *WHERE)

    assert attrs.evolve(seen, gaps=b"") == attrs.evolve(state, topic_ids=IDS, marked=True)
    assert spill.offsets_of(seen.gaps, frontier) == [frontier + d for d in distances]
    old = released_decode(frontier, text, *WHERE)
    assert (old.frontier, old.gaps, old.fence) == (frontier, b"", fence)
    assert changed(("s", "r"), old.topic_ids, IDS) == ("s", "r")
    assert len(text) + len(OTHERS) <= MAX_METADATA


def test_longest_wide_half() -> None:
    """The longest delta beside eight fences, the longest name and what others append."""
    longest = _longest()
    name = SpillName(2**63 - 1, "f" * 32, 2**63 - 1, 2**32 - 1)
    state = attrs.evolve(longest, gaps=b"", wide=Wide("r" + "A" * (spill.DELTA_CHARS - 1), name))
    assert len(encode_metadata(state, *WHERE, IDS, marked=True)) + len(OTHERS) <= MAX_METADATA
    assert len(encode_metadata(longest, *WHERE, IDS, marked=True)) + len(OTHERS) <= MAX_METADATA


@given(committed)
def test_narrow_halves_are_read_by_the_version_before(state: Committed) -> None:
    """Byte for byte what it would have written; the source half beside a wide one says other topic ids alone."""
    text = encode_metadata(state, *WHERE, IDS)
    assert released_decode(state.frontier, text, *WHERE) == attrs.evolve(state, topic_ids=IDS)
    beside = encode_metadata(state, *WHERE, IDS, marked=True)
    assert decode_metadata(state.frontier, beside, *WHERE) == attrs.evolve(state, topic_ids=IDS, marked=True)
    assert changed(("s", "r"), released_decode(state.frontier, beside, *WHERE).topic_ids, IDS) == ("s", "r")


@given(offset, far, names, st.data())
@pytest.mark.invariant(n=15)
def test_wide_mutated(frontier: int, distances: list[int], name: SpillName, data: st.DataObject) -> None:
    """A wide half that was altered in any place says nothing."""
    delta = spill.encode_runs([frontier + d for d in distances], frontier)
    text = encode_metadata(Committed(frontier, wide=Wide(delta or "", name)), *WHERE, IDS, marked=True)
    at = data.draw(st.integers(0, len(text)))
    altered = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 3)) :]
    if altered != text:
        assert decode_metadata(frontier, altered, *WHERE) == Committed(frontier)


@pytest.mark.parametrize(
    "field", ["d:x", "d:rAQ", "d:r////", "d:rAAA=", "d:|s:1,w,1", "d:|s:1,,1,00000000", "d:zAAAA"]
)
def test_odd_field(field: str) -> None:
    """A delta or name that is checked, and yet cannot be understood, says nothing; fences and ids count."""
    body = f"kn2||5|w|w:a,w:b|{field}"
    seen = decode_metadata(3, f"{body}|{commit_metadata._checksum(body, 3, *WHERE)}", *WHERE)
    assert seen == Committed(3, b"", Fence(5, "w"), ("a", "b"), wide=Wide(), marked=True)


def test_with_another_record_the_delta_alone_counts() -> None:
    """When the record that a half names is not its spill, what the metadata itself says is still known."""
    delta = spill.encode_runs([12], 10)
    state = attrs.evolve(Committed(10, b"001"), wide=Wide(delta or "", SpillName(50, "w", 9, 1)))
    assert state.with_spill("spill:w", b"junk") == attrs.evolve(state, wide=Wide(delta or ""))


class HalvesOfARetryPartition(RuleBasedStateMachine):
    """Each half that is committed covers what the one before did, and says nothing that is not so."""

    @initialize()
    def begin(self) -> None:
        self.patches = windows(SMALL)
        self.patches.enter_context(mock.patch.object(wide, "DELTA_OFFSETS", 6))
        self.patches.enter_context(mock.patch.object(spill, "DELTA_CHARS", 13))
        self.log: dict[int, tuple[str, bytes]] = {}
        self.position = 0
        self.done: set[int] = set()
        self.assign(Committed(0))

    def teardown(self) -> None:
        if hasattr(self, "patches"):
            self.patches.close()

    def assign(self, state: Committed) -> None:
        self.tracker = RetryTracker(state)
        self.half = RetryHalf(state, self.tracker)
        self.spilling: list[Spill] = []
        self.said: set[int] = set()
        self.stored = state

    @rule(ahead=st.integers(0, 40))
    def end(self, ahead: int) -> None:
        self.half.end(self.tracker.frontier + ahead)
        self.done.add(self.tracker.frontier + ahead)

    @rule(count=st.integers(1, 6))
    def end_first(self, count: int) -> None:
        for offset in range(self.tracker.frontier, self.tracker.frontier + count):
            self.half.end(offset)
            self.done.add(offset)

    @rule()
    def commit(self) -> None:
        half, started = self.half.snapshot(Fence(0, "me"), active=True)
        if started is not None:
            self.spilling.append(started)
        text = encode_metadata(half, *WHERE, IDS, marked=half.wide is not None)
        stored = decode_metadata(half.frontier, text, *WHERE)
        name = stored.wide.spill if stored.wide else None
        stored = stored.with_spill(*self.log.get(name.offset if name else -1, ("", None)))
        assert name is None or (stored.wide and stored.wide.spill)
        covered = {o for o in range(half.frontier + 5_000) if stored.covers(o)}
        # nothing is invented, nothing is forgotten; and one that says all it has to says all
        assert covered <= self.done | set(range(half.frontier))
        assert self.said <= covered
        if not self.half.spilling:
            assert self.done <= covered
        self.said, self.stored = covered, stored

    @rule()
    def acknowledge(self) -> None:
        if self.spilling:
            written = self.spilling.pop(0)
            self.position += 40
            self.log[self.position] = ("spill:me", written.value)
            if self.half.acknowledged(written, self.position, "me"):
                self.done.add(self.position)

    @rule()
    def take_over(self) -> None:
        self.done = {o for o in range(self.stored.frontier + 5_000) if self.stored.covers(o)}
        said, stored = self.said, self.stored
        self.assign(stored)
        self.said = said


TestHalvesOfARetryPartition = HalvesOfARetryPartition.TestCase


CHANNELS = tuple(f"{n:04x}" for n in range(32))


@pytest.mark.parametrize("ids", [IDS, ()], ids=["ids known", "ids unknown"])
def test_channels(ids: tuple[str, ...]) -> None:
    """Channels are read back, whether or not the topics' ids are known, and beside the most bits and fences."""
    rng = random.Random(1)
    fence = None
    for n in range(8):
        fence = Fence(2**62 + n, f"{n:032x}", fence)
    gaps = bytes(rng.choice(b"01") for _ in range(WINDOW - 1)) + b"1"
    state = Committed(2**62, gaps, fence, ids, CHANNELS)
    text = encode_metadata(state, *WHERE, ids, CHANNELS)
    assert len(text) <= MAX_METADATA
    assert decode_metadata(state.frontier, text, *WHERE) == state


def test_channels_that_do_not_fit() -> None:
    """Channels that would make the metadata too long are left out: all else is kept."""
    many = tuple(f"{n:04x}" for n in range(1_000))
    state = Committed(7, b"01", Fence(1, "w"), IDS)
    assert decode_metadata(7, encode_metadata(state, *WHERE, IDS, many), *WHERE) == state
