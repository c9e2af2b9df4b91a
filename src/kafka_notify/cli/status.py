"""`status`: how each lane and consumer is, from outside, through Kafka only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import attrs
import click

from kafka_notify._base import codes
from kafka_notify._base.retention import default_ms, margin
from kafka_notify._base.text import printable_lines
from kafka_notify._wire.pause import Pause
from kafka_notify.cli._backlog import Backlogs, Group, Waiting, by_code
from kafka_notify.cli._site import Site, with_site
from kafka_notify.cli._times import COUNT, POSITIVE, SECONDS, show_span
from kafka_notify.cli.pauses import pause_to_dict, pause_to_text
from kafka_notify.errors import ConfigError, NotifyError
from kafka_notify.pauses import Pauses

DUE: Final = (("now", 0), ("1 min", 60), ("10 min", 600), ("1 h", 3_600), ("later", float("inf")))
"""Until when a retry is due, in seconds from now."""
HOUR_MS: Final = 3_600_000
LONG_PAUSE: Final = 5.0
"""Days."""


@attrs.frozen
class GroupStatus:
    """What is said of one group."""

    group: Group
    oldest: float | None
    """Seconds since the oldest unfinished notification was created."""
    waiting: Sequence[Waiting]
    complete: bool
    """Whether `waiting` is all that waits."""
    produced: float | None
    """Records per second that came in, and that were finished, since the last look."""
    finished: float | None
    removed_next: Sequence[str] = ()
    """What retention will remove soon, a sentence each."""

    def due(self, now_ms: int) -> dict[str, int]:
        """How many retries are due until when, but for those that are paused, or wait behind an earlier one."""
        found = {name: 0 for name, _ in DUE}
        for each in self.waiting:
            if each.code not in (None, codes.PAUSED):
                after = (each.due_ms - now_ms) / 1000
                found[next(name for name, limit in DUE if after <= limit)] += 1
        return found

    @property
    def behind(self) -> int:
        """How many wait behind an earlier notification of their user."""
        return sum(each.code is None for each in self.waiting)

    @property
    def held(self) -> int:
        """How many wait because their category or channel is paused."""
        return sum(each.code == codes.PAUSED for each in self.waiting)

    def warnings(self) -> list[str]:
        """What a person should look at."""
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
                f"no worker has ever run: start one, or delete {retry} if it is not to work on this lane"
            )
        elif not g.members and g.open:
            found.append("nobody reads it: no worker is in the group")
        if g.members and g.state != "stable":
            found.append(
                f"the group is {g.state}: partitions are being handed over; nothing is sent meanwhile"
            )
        owned = frozenset(place for member in g.members for place in member.places)
        left = [half.partition for half in g.source if (half.topic, half.partition) not in owned]
        if g.members and g.state == "stable" and left:
            found.append(f"partitions without a worker: {_some(left)}; if it stays so, restart the workers")
        return found


def removed_next(topic: str, age_ms: int, retention_ms: int | None) -> str:
    """What to say of a topic whose oldest open record is so old; empty when its end is not near.

    Args:
        topic: Its name.
        age_ms: Of the oldest open record.
        retention_ms: Of the topic, -1 for ever; None when nobody can tell, which is taken for the default.
    """
    retention_ms = default_ms(topic) if retention_ms is None else retention_ms
    left = retention_ms - age_ms
    if retention_ms < 0 or left > margin(retention_ms):
        return ""
    return (
        f"retention removes the oldest open record of {topic} in {show_span(max(left, 0) / 1000)}: lengthen its "
        "retention.ms now, then see why it waits"
    )


def look(
    site: Site, backlogs: Backlogs, before: dict[str, tuple[float, int, int]], limit: int
) -> list[GroupStatus]:
    """The state of all groups; `before` remembers totals for the next look."""
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


@click.command()
@click.option(
    "--watch", is_flag=True, help="Look again and again, until Ctrl-C; a look that fails is repeated."
)
@click.option("--interval", type=POSITIVE, default=2.0, show_default=True, help="Seconds between two looks.")
@click.option(
    "--limit",
    type=COUNT,
    default=20_000,
    show_default=True,
    help="Records of each retry topic that are read to say what waits for when.",
)
@click.option("--check", is_flag=True, help="Exit with 1 when there is a warning.")
@click.option(
    "--max-age", type=SECONDS, metavar="SECONDS", help="An older unfinished notification is a warning."
)
@with_site
def status(site: Site, watch: bool, interval: float, limit: int, check: bool, max_age: float | None) -> int:
    """Show each lane and consumer: what is open, how old, what waits for a retry, who works, and how fast.

    Reads offsets, commits and retry topics; joins no group. Rates are those between two looks.
    """
    backlogs = Backlogs(site.config, site.topology)
    before: dict[str, tuple[float, int, int]] = {}
    remembered = False
    while True:
        try:
            if not remembered:
                _remember(backlogs, before)
                remembered = True
            time.sleep(interval)
            groups = look(site, backlogs, before, limit)
            warned = _show(site, backlogs, groups, max_age, clear=watch)
        except NotifyError as e:
            if not watch:
                raise
            # brokers that are restarted one after the other: whoever watches wants to see the end of it
            click.echo(
                f"{time.strftime('%H:%M:%SZ', time.gmtime())} this look failed: {printable_lines(str(e))}",
                err=True,
            )
            time.sleep(interval)
            continue
        if not watch:
            return 1 if check and warned else 0


def _remember(backlogs: Backlogs, before: dict[str, tuple[float, int, int]]) -> None:
    """A first look, for the rates."""
    for lane, consumer in backlogs.consumers():
        group = backlogs.group(lane, consumer)
        totals = sum(h.end for h in group.source), sum(h.finished for h in group.source)
        before[group.group] = (time.monotonic(), *totals)


def _show(
    site: Site, backlogs: Backlogs, groups: Sequence[GroupStatus], max_age: float | None, *, clear: bool
) -> bool:
    now_ms = round(time.time() * 1000)
    try:
        paused: list[Pause] = Pauses(site.config, topology=site.topology).active()
        no_control = ""
    except ConfigError as e:
        paused, no_control = [], str(e)
    letters = {
        topic: backlogs.letters(topic, now_ms - HOUR_MS)
        for topic in sorted({site.topology.dlq_topic(lane) for lane in site.topology.lanes})
    }
    warnings: list[tuple[str, str]] = []
    for each in groups:
        warnings += [(each.group.group, text) for text in each.warnings()]
        if max_age is not None and each.oldest is not None and each.oldest > max_age:
            text = f"the oldest unfinished notification is {show_span(each.oldest)} old"
            warnings.append((each.group.group, text))
    if not groups:
        warnings.append((site.topology.prefix, "no retry topic of this topology exists: `topics create`"))
    if no_control:
        warnings.append((site.topology.control_topic, no_control))
    for pause in paused:
        days = (now_ms / 1000 - pause.at.timestamp()) / 86_400
        late = f" for {days:.0f} days: source topics keep 7" if days > LONG_PAUSE else ""
        warnings.append((site.topology.control_topic, f"paused: {pause_to_text(pause)}{late}"))
    if site.json:
        site.answer(_as_dict(groups, letters, paused, warnings, now_ms))
        return bool(warnings)
    if clear:
        click.clear()
    site.say(f"{site.servers}  {time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(now_ms / 1000))}")
    site.table(
        [
            "lane",
            "consumer",
            "group",
            ">workers",
            ">partitions",
            ">open",
            ">in work",
            ">lag",
            ">oldest",
            ">in/s",
            ">done/s",
        ],
        [_row(each) for each in groups],
    )
    rows = [
        (each.group.lane, each.group.consumer, *_waiting_row(each, now_ms)) for each in groups if each.waiting
    ]
    if rows:
        site.table(
            [
                "waiting for a retry",
                "",
                ">all",
                *(f">{name}" for name, _ in DUE),
                ">behind",
                ">paused",
                "because of",
            ],
            rows,
        )
    site.table(
        ["dead letters", ">kept", ">last hour"],
        [(topic, f"{kept:,}", f"{recent:,}") for topic, (kept, recent) in letters.items()],
    )
    for where, text in warnings:
        site.say(f"! {where}: {text}")
    return bool(warnings)


def _row(each: GroupStatus) -> tuple[object, ...]:
    g = each.group
    return (
        g.lane,
        g.consumer,
        g.state,
        len(g.members),
        len(g.source),
        f"{g.open:,}",
        f"{sum(half.taken for half in g.source):,}",
        f"{sum(half.lag for half in g.source):,}",
        show_span(each.oldest),
        _rate(each.produced),
        _rate(each.finished),
    )


def _waiting_row(each: GroupStatus, now_ms: int) -> tuple[object, ...]:
    total = sum(half.open for half in each.group.retry)
    codes = ", ".join(f"{code} {count:,}" for code, count in by_code(each.waiting)[:3])
    counted = [f"{count:,}" for count in each.due(now_ms).values()]
    note = "" if each.complete else f" (of the first {len(each.waiting):,})"
    return (f"{total:,}", *counted, f"{each.behind:,}", f"{each.held:,}", codes + note)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")


def _as_dict(
    groups: Sequence[GroupStatus],
    letters: dict[str, tuple[int, int]],
    paused: Sequence[Pause],
    warnings: Sequence[tuple[str, str]],
    now_ms: int,
) -> dict[str, object]:
    return {
        "at_ms": now_ms,
        "groups": [
            {
                "lane": each.group.lane,
                "consumer": each.group.consumer,
                "group": each.group.group,
                "state": each.group.state,
                "members": len(each.group.members),
                "partitions": len(each.group.source),
                "open": each.group.open,
                "in_work_at_least": sum(half.taken for half in each.group.source),
                "lag": sum(half.lag for half in each.group.source),
                "oldest_seconds": each.oldest,
                "waiting": {
                    "total": sum(half.open for half in each.group.retry),
                    "due": each.due(now_ms),
                    "behind_an_earlier_one": each.behind,
                    "paused": each.held,
                    "codes": dict(by_code(each.waiting)),
                    "complete": each.complete,
                },
                "produced_per_second": each.produced,
                "finished_per_second": each.finished,
            }
            for each in groups
        ],
        "dead_letters": {
            topic: {"kept": kept, "last_hour": recent} for topic, (kept, recent) in letters.items()
        },
        "paused": [pause_to_dict(pause) for pause in paused],
        "warnings": [{"where": where, "text": text} for where, text in warnings],
    }
