"""What retention removed is counted once, whenever it is noticed."""

from __future__ import annotations

import pytest

from kafka_notify._fetch.removed import Removed
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.offsets import OffsetTracker


def reading(upto: int) -> tuple[OffsetTracker, Removed]:
    tracker = OffsetTracker(Committed(0))
    for offset in range(upto):
        tracker.observe(offset)
    return tracker, Removed(tracker, 0)


@pytest.mark.parametrize("looks_before", [0, 1, 2])
@pytest.mark.parametrize("ends", [False, True], ids=["more is left", "nothing is left"])
def test_removed_before_it_was_read(looks_before: int, ends: bool) -> None:
    """Five records that were removed before they were read are five, whether that is seen before the reading goes on,
    after it, or both."""
    tracker, removed = reading(3)
    told = [removed.look(8) for _ in range(looks_before)]
    if ends:
        tracker.skip_to(8)
    else:
        tracker.observe(8)
    told += [removed.look(8), removed.look(8), removed.look(9)]
    assert sum(told) == 5


def test_removed_after_it_was_read() -> None:
    """Records that were read before they were removed are not missing."""
    _, removed = reading(10)
    assert [removed.look(start) for start in (0, 4, 10, 10)] == [0, 0, 0, 0]


def test_finished_before() -> None:
    """What an earlier assignment had finished beyond its frontier is not missing."""
    tracker = OffsetTracker(Committed(2, b"0101"))
    removed = Removed(tracker, 0)
    tracker.observe(7)
    assert removed.look(7) == 3
    assert Committed(2, b"0101").open_below(7) == 3


def test_transaction_markers_are_no_loss() -> None:
    """Offsets that never held a record are not missing, as long as the log begins before them."""
    tracker, removed = reading(3)
    tracker.observe(4)
    assert [removed.look(0), removed.look(3), removed.look(5)] == [0, 0, 0]


def test_removed_twice() -> None:
    """Each removal counts."""
    tracker, removed = reading(3)
    tracker.observe(8)
    assert removed.look(8) == 5
    tracker.observe(20)
    assert removed.look(20) == 11
