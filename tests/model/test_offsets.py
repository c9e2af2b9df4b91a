"""The tracker agrees with a set of offsets; commit metadata says what was written, or nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from unittest import mock

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kafka_notify._fetch import offsets
from kafka_notify._fetch.offsets import (
    MAX_METADATA,
    WINDOW,
    Committed,
    Fence,
    OffsetRewound,
    Tracker,
    decode_metadata,
    encode_metadata,
)

SMALL = 8
WHERE = ("group", "notif.high_priority", 7)
IDS = ("kcLQ2Q2cTPS2GW6cO2ZHcA", "9wFv_d9bQ-6t6zKhcW0O3w")
"""As topics have them."""


class TrackedOffsets(RuleBasedStateMachine):
    """A tracker and a plain set of finished offsets, told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = mock.patch.multiple(offsets, WINDOW=SMALL, _SHED=5)
        self.patch.start()

    def teardown(self) -> None:
        self.patch.stop()

    @initialize(frontier=st.integers(0, 20), bits=st.text("01", max_size=SMALL), log_start=st.integers(0, 60))
    def assign(self, frontier: int, bits: str, log_start: int) -> None:
        self._assign(Committed(frontier, bits.rstrip("0").encode()), log_start)

    def _assign(self, committed: Committed, log_start: int) -> None:
        self.tracker = Tracker(committed, log_start)
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
    tracker = Tracker(Committed(0))
    tracker.observe(0)
    tracker.complete(0)

    assert tracker.observe(3 * WINDOW)
    assert not tracker.is_done(3 * WINDOW + 1)
    assert tracker.snapshot() == Committed(3 * WINDOW)


def test_gap_behind_the_frontier_hides_no_record() -> None:
    """A gap below what was finished before it was read makes nothing finished."""
    tracker = Tracker(Committed(0))
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
def test_mutated(state: Committed, data: st.DataObject) -> None:
    """Metadata that was altered in any place says nothing."""
    text = encode_metadata(state, *WHERE)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 4))
    altered = text[:at] + data.draw(st.text(max_size=4)) + text[at + cut :]

    if altered != text:
        assert decode_metadata(state.frontier, altered, *WHERE) == Committed(state.frontier)


@given(committed, st.integers(0, 4))
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
    checked = f"{body}|{offsets._checksum(body, state.frontier, *WHERE)}"

    expected = attrs.evolve(state, topic_ids=IDS)
    assert decode_metadata(state.frontier, checked, *WHERE) == expected


def test_bitmap_beyond_the_window() -> None:
    """A bitmap longer than the window is not ours: it says nothing, however small it is compressed."""
    state = Committed(0, b"1" * (WINDOW + 1))

    assert decode_metadata(0, encode_metadata(state, *WHERE), *WHERE) == Committed(0)


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
