"""`status`: the state of each lane and consumer, from outside, through Kafka only."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import click

from kafka_notify._base.text import printable_lines
from kafka_notify._wire.pause import Pause
from kafka_notify.cli._backlog import Backlogs, by_code
from kafka_notify.cli._group_status import DUE, GroupStatus, Totals, look, remember
from kafka_notify.cli._site import Site, with_site
from kafka_notify.cli._times import COUNT, POSITIVE, SECONDS, show_span
from kafka_notify.cli.pauses import pause_to_dict, pause_to_text
from kafka_notify.errors import ConfigError, NotifyError
from kafka_notify.pauses import Pauses

HOUR_MS: Final = 3_600_000
LONG_PAUSE: Final = 5.0
"""Days."""


@click.command()
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C; a look that fails is repeated, too.")
@click.option("--interval", type=POSITIVE, default=2.0, show_default=True, help="Seconds between two looks.")
@click.option(
    "--limit",
    type=COUNT,
    default=20_000,
    show_default=True,
    help="Records that are read of each retry topic, to show what is due when.",
)
@click.option("--check", is_flag=True, help="Exit with 1 if there is a warning.")
@click.option(
    "--max-age", type=SECONDS, metavar="SECONDS", help="Warn of an unfinished notification older than this."
)
@with_site
def status(site: Site, watch: bool, interval: float, limit: int, check: bool, max_age: float | None) -> int:
    """Show each lane and consumer: open notifications and their age, waiting retries, workers, and rates.

    Reads offsets, commits and retry topics; joins no group. Rates are measured between two looks.
    """
    backlogs = Backlogs(site.config, site.topology)
    before: Totals = {}
    remembered = False
    while True:
        try:
            if not remembered:
                remember(backlogs, before)
                remembered = True
            time.sleep(interval)
            groups = look(backlogs, before, limit)
            found = _overview(site, backlogs, groups, max_age)
            if watch and not site.json:
                click.clear()
            _print_tables(site, found)
            site.answer(_as_dict(found))
        except NotifyError as e:
            if not watch:
                raise
            # brokers may be restarting one after the other, and the watch should show when they are done
            click.echo(
                f"{time.strftime('%H:%M:%SZ', time.gmtime())} this look failed: {printable_lines(str(e))}",
                err=True,
            )
            time.sleep(interval)
            continue
        if not watch:
            return 1 if check and found.warnings else 0


@attrs.frozen
class _Overview:
    """The result of one look at the cluster."""

    now_ms: int
    groups: Sequence[GroupStatus]
    dead_letters: Mapping[str, tuple[int, int]]
    """By topic: records kept, and those of the last hour."""
    paused: Sequence[Pause]
    warnings: Sequence[tuple[str, str]]
    """The subject of each warning, and its sentence."""


def _overview(
    site: Site, backlogs: Backlogs, groups: Sequence[GroupStatus], max_age: float | None
) -> _Overview:
    now_ms = round(time.time() * 1000)
    try:
        paused: list[Pause] = Pauses(site.config, topology=site.topology).active()
        no_control = ""
    except ConfigError as e:
        paused, no_control = [], str(e)
    dead_letters = {
        topic: backlogs.dead_letters(topic, now_ms - HOUR_MS)
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
        late = f" for {days:.0f} days; source topics keep records for 7" if days > LONG_PAUSE else ""
        warnings.append((site.topology.control_topic, f"paused: {pause_to_text(pause)}{late}"))
    return _Overview(now_ms, groups, dead_letters, paused, warnings)


def _print_tables(site: Site, found: _Overview) -> None:
    at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(found.now_ms / 1000))
    site.say(f"{site.servers}  {at}")
    site.table(_COLUMNS, [_row(each) for each in found.groups])
    rows = [
        (each.group.lane, each.group.consumer, *_waiting_row(each, found.now_ms))
        for each in found.groups
        if each.waiting
    ]
    if rows:
        site.table(_WAITING_COLUMNS, rows)
    site.table(
        ["dead letters", ">kept", ">last hour"],
        [(topic, f"{kept:,}", f"{recent:,}") for topic, (kept, recent) in found.dead_letters.items()],
    )
    for where, text in found.warnings:
        site.say(f"! {where}: {text}")


_COLUMNS: Final = (
    "lane", "consumer", "group", ">workers", ">partitions", ">open", ">in work", ">lag", ">oldest", ">in/s", ">done/s",
)  # fmt: skip
_WAITING_COLUMNS: Final = (
    "waiting for a retry", "", ">all", *(f">{name}" for name, _ in DUE), ">behind", ">paused", "because of",
)  # fmt: skip


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


def _as_dict(found: _Overview) -> dict[str, object]:
    return {
        "at_ms": found.now_ms,
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
                    "due": each.due(found.now_ms),
                    "behind_an_earlier_one": each.behind,
                    "paused": each.held,
                    "codes": dict(by_code(each.waiting)),
                    "complete": each.complete,
                },
                "produced_per_second": each.produced,
                "finished_per_second": each.finished,
            }
            for each in found.groups
        ],
        "dead_letters": {
            topic: {"kept": kept, "last_hour": recent} for topic, (kept, recent) in found.dead_letters.items()
        },
        "paused": [pause_to_dict(pause) for pause in found.paused],
        "warnings": [{"where": where, "text": text} for where, text in found.warnings],
    }
