"""The state of one lane and consumer: what is open, its age and rates, and warnings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import attrs

from kafka_notify._base import codes
from kafka_notify._base.retention import default_ms, margin
from kafka_notify.cli._backlog import Backlogs, Group, Waiting
from kafka_notify.cli._times import show_span

DUE: Final = (("now", 0), ("1 min", 60), ("10 min", 600), ("1 h", 3_600), ("later", float("inf")))
"""Classes of due times, each with its limit in seconds from now."""

Totals = dict[str, tuple[float, int, int]]
"""By group: the time of a look (monotonic seconds), and the records written and finished until then."""


@attrs.frozen
class GroupStatus:
    """The state of one group."""

    group: Group
    oldest: float | None
    """Seconds since the oldest unfinished notification was created."""
    waiting: Sequence[Waiting]
    complete: bool
    """True if `waiting` contains every waiting notification."""
    produced: float | None
    """Records per second that were written since the last look."""
    finished: float | None
    """Records per second that were finished since the last look."""
    removed_next: Sequence[str] = ()
    """Sentences on the records that retention will remove soon."""

    def due(self, now_ms: int) -> dict[str, int]:
        """The number of retries by due time, without those that are paused or wait behind an earlier one."""
        found = {name: 0 for name, _ in DUE}
        for each in self.waiting:
            if each.code not in (None, codes.PAUSED):
                after = (each.due_ms - now_ms) / 1000
                found[next(name for name, limit in DUE if after <= limit)] += 1
        return found

    @property
    def behind(self) -> int:
        """The number of notifications that wait behind an earlier one of their user."""
        return sum(each.code is None for each in self.waiting)

    @property
    def held(self) -> int:
        """The number of notifications that wait because their category or channel is paused."""
        return sum(each.code == codes.PAUSED for each in self.waiting)

    def warnings(self) -> list[str]:
        """Sentences on what a person should look at."""
        g = self.group
        found: list[str] = list(self.removed_next)
        partitions = len(g.source)
        if len(g.source) != len(g.retry):
            found.append(
                f"{len(g.source)} source and {len(g.retry)} retry partitions: they must be equal; `topics check`"
            )
        if len(g.members) > partitions:
            found.append(
                f"{len(g.members)} members share {partitions} partitions: {len(g.members) - partitions} stand idle; "
                "raise Consumer.concurrency instead of workers"
            )
        if g.never_ran and g.open:
            retry = g.retry[0].topic if g.retry else ""
            found.append(
                f"no worker has ever run: start one, or delete {retry} if the consumer has no work on this lane"
            )
        elif not g.members and g.open:
            found.append("nobody reads it: no worker is in the group")
        if g.members and g.state != "stable":
            found.append(
                f"the group is {g.state}: partitions are being handed over, and nothing is sent until that is done"
            )
        owned = frozenset(place for member in g.members for place in member.places)
        left = [half.partition for half in g.source if (half.topic, half.partition) not in owned]
        if g.members and g.state == "stable" and left:
            found.append(f"partitions without a worker: {_some(left)}; restart the workers if this persists")
        return found


def removed_next(topic: str, age_ms: int, retention_ms: int | None) -> str:
    """A sentence on a topic's oldest open record, if retention will remove it soon; otherwise empty.

    Args:
        topic: Name of the topic.
        age_ms: Age of the oldest open record.
        retention_ms: The topic's retention, -1 for unlimited; None if it is unknown, which means the default.
    """
    retention_ms = default_ms(topic) if retention_ms is None else retention_ms
    left = retention_ms - age_ms
    if retention_ms < 0 or left > margin(retention_ms):
        return ""
    return (
        f"retention removes the oldest open record of {topic} in {show_span(max(left, 0) / 1000)}: raise its "
        "retention.ms now, then find out why the record waits"
    )


def look(backlogs: Backlogs, before: Totals, limit: int) -> list[GroupStatus]:
    """Return the state of all groups, with rates since `before`, which is updated for the next look."""
    found: list[GroupStatus] = []
    for lane, consumer in backlogs.consumers():
        group = backlogs.group(lane, consumer)
        at = time.monotonic()
        ends = sum(half.end for half in group.source)
        finished = sum(half.finished for half in group.source)
        rates: tuple[float | None, float | None] = (None, None)
        if group.group in before:
            then, old_ends, old_finished = before[group.group]
            seconds = max(at - then, 0.001)
            rates = ((ends - old_ends) / seconds, max(0, finished - old_finished) / seconds)
        before[group.group] = (at, ends, finished)
        waiting, complete = backlogs.waiting(group, limit)
        created = [each.created_ms for each in waiting]
        written: dict[str, int] = {}
        if (oldest := backlogs.oldest_source(group)) is not None:
            created.append(oldest[0])
            written[group.source[0].topic] = oldest[1]
        if waiting:
            written[group.retry[0].topic] = min(each.written_ms for each in waiting)
        now_ms = round(time.time() * 1000)
        soon = [
            sentence
            for topic, at in written.items()
            if (sentence := removed_next(topic, now_ms - at, backlogs.retention(topic)))
        ]
        age = max(0.0, time.time() - min(created) / 1000) if created else None
        found.append(GroupStatus(group, age, waiting, complete, *rates, soon))
    return found


def remember(backlogs: Backlogs, before: Totals) -> None:
    """Take a first look for the rates: fill `before`."""
    for lane, consumer in backlogs.consumers():
        group = backlogs.group(lane, consumer)
        totals = sum(h.end for h in group.source), sum(h.finished for h in group.source)
        before[group.group] = (time.monotonic(), *totals)


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
