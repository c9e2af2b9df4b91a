"""What is open of a partition, from what the group committed."""

from __future__ import annotations

import pytest

from kafka_notify import Category, Lane, Topology
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify.cli._backlog import Group, Half, Member
from kafka_notify.cli._group_status import GroupStatus, removed_next
from kafka_notify.cli.topics import changes


def half(low: int, end: int, committed: Committed | None, topic: str = "t", partition: int = 0) -> Half:
    return Half(topic, partition, low, end, committed)


@pytest.mark.parametrize(
    ("committed", "low", "end", "lag", "open_", "taken"),
    [
        (None, 0, 10, 10, 10, 0),
        (None, 4, 10, 6, 6, 0),
        (Committed(10), 0, 10, 0, 0, 0),
        (Committed(3), 0, 10, 7, 7, 0),
        (Committed(3, b"01011"), 0, 10, 7, 4, 2),
        (Committed(3, b"01011"), 5, 10, 5, 3, 1),  # retention has removed what was open
        (Committed(3, b"01011"), 8, 10, 2, 2, 0),
        (Committed(12), 0, 12, 0, 0, 0),
    ],
)
def test_finished_records_are_not_open(
    committed: Committed | None, low: int, end: int, lag: int, open_: int, taken: int
) -> None:
    """Lag counts from the oldest open record; open leaves out what is finished behind it; taken lies before that."""
    h = half(low, end, committed)
    assert (h.lag, h.open, h.taken, h.finished) == (lag, open_, taken, end - open_)
    assert sum(not h.covers(offset) for offset in range(low, end)) == open_


def status(
    members: list[Member], partitions: int = 3, *, retries: int = 3, open_: int = 0, state: str = "stable"
) -> list[str]:
    """The warnings of such a group."""
    source = [half(0, open_ if n == 0 else 0, Committed(0), "s", n) for n in range(partitions)]
    retry = [half(0, 0, None, "r", n) for n in range(retries)]
    group = Group("l", "sms", "g", state, members, source, retry)
    return GroupStatus(group, None, [], True, None, None).warnings()


def member(*partitions: int) -> Member:
    return Member("c", "h", frozenset((topic, n) for topic in "sr" for n in partitions))


def test_a_group_that_is_well_has_no_warnings() -> None:
    """Every partition has a worker, and nobody is idle."""
    assert status([member(0, 1), member(2)]) == []
    assert status([]) == []  # nobody, and nothing to do


@pytest.mark.parametrize(
    ("warnings", "says"),
    [
        (status([member(0), member(1), member(2), member()]), "1 stand idle"),
        (status([], open_=1), "nobody reads it"),
        (status([member(0, 1)]), "partitions without a worker: 2"),
        (status([member(0, 1, 2)], state="preparing rebalance"), "the group is preparing rebalance"),
        (status([member(0, 1, 2)], retries=2), "3 source and 2 retry partitions"),
    ],
)
def test_what_is_off_is_one_warning(warnings: list[str], says: str) -> None:
    """Each trouble is said once, and nothing else."""
    (warning,) = warnings
    assert says in warning


def test_a_plan_leaves_alone_what_only_differs() -> None:
    """Only source and retry topics are grown or called too large; a dead-letter topic of any size will do."""
    topology = Topology(lanes=[Lane("l", partitions=4)], categories=[Category("c", "l")], channels=["sms"])
    counts = {"notif.l": 2, "notif.retry.l": 6, "notif.dlq": 1, "notif.control": 3}
    found = {change.topic: change.action for change in changes(topology, [""], counts)}
    assert found == {
        "notif.l": "grow", "notif.retry.l": "cannot shrink", "notif.dlq": "keep", "notif.control": "keep",
    }  # fmt: skip


DAY = 86_400_000


@pytest.mark.parametrize(
    ("age", "retention", "left"),
    [
        (5.5 * DAY, 7 * DAY, None),
        (6.5 * DAY, 7 * DAY, "12 h"),
        (8 * DAY, 7 * DAY, "0 s"),
        (100 * DAY, -1, None),
        (6.5 * DAY, None, "12 h"),
        (2_800_000, 3_600_000, "13 min"),
    ],
)
def test_what_retention_removes_next_is_a_warning(
    age: float, retention: int | None, left: str | None
) -> None:
    """A day before the oldest open record is removed, or at three quarters of a short retention, it is said."""
    said = removed_next("notif.high", round(age), retention)
    if left is None:
        assert said == ""
    else:
        assert f"removes the oldest open record of notif.high in {left}" in said
