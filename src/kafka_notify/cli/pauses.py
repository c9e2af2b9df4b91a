"""`pause`, `resume`, `paused`: the kill switch."""

from __future__ import annotations

import datetime as dt
import getpass
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from kafka_notify._base.units import UTC
from kafka_notify._wire.pause import Pause, PauseKind
from kafka_notify.cli._site import Site, with_site
from kafka_notify.cli._times import duration, show_moment
from kafka_notify.pauses import Pauses

F = TypeVar("F", bound=Callable[..., Any])


def pause_to_dict(pause: Pause) -> dict[str, object]:
    """A pause as plain data."""
    return {
        "kind": pause.kind,
        "name": pause.name,
        "lane": pause.lane,
        "at": pause.at.isoformat(),
        "until": None if pause.until is None else pause.until.isoformat(),
        "reason": pause.reason,
        "by": pause.by,
    }


def pause_to_text(pause: Pause) -> str:
    """A pause as one line for a person."""
    until = f", until {show_moment(pause.until)}" if pause.until else ""
    by = f" by {pause.by}" if pause.by else ""
    why = f": {pause.reason}" if pause.reason else ""
    return f"{pause.what}, since {show_moment(pause.at)}{until}{by}{why}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (
        KeyError,
        OSError,
        ImportError,
    ):  # a container may run under any number, without an entry in passwd
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def _what(command: F) -> F:
    for option in (
        click.option("--lane", metavar="LANE", help="Only on this lane."),
        click.option(
            "--consumer",
            metavar="NAME",
            help="All notifications of a consumer; `workers` is the unnamed one.",
        ),
        click.option("--category", metavar="NAME"),
        click.option("--channel", metavar="NAME"),
    ):
        command = option(command)
    return command


def _one_of(channel: str | None, category: str | None, consumer: str | None) -> tuple[PauseKind, str]:
    given = [(k, v) for k, v in (("channel", channel), ("category", category), ("consumer", consumer)) if v]
    if len(given) != 1:
        raise click.UsageError("give exactly one of --channel, --category and --consumer")
    return cast(tuple[PauseKind, str], given[0])


@click.command()
@_what
@click.option("--for", "span", metavar="DURATION", type=duration, help="End by itself after 15m, 3h, 2d, ...")
@click.option("--reason", default="", help="Shown with the pause; workers log it.")
@with_site
def pause(
    site: Site,
    channel: str | None,
    category: str | None,
    consumer: str | None,
    lane: str | None,
    span: dt.timedelta | None,
    reason: str,
) -> None:
    """Stop sending a category, a channel or a consumer, on all workers, without a deploy.

    Sends in progress complete. Paused notifications wait in Kafka, in order; nothing is lost while the pause is
    shorter than the retention (7 days in source topics). Notifications with a ttl still expire.
    """
    kind, name = _one_of(channel, category, consumer)
    until = None if span is None else dt.datetime.now(UTC) + span
    by = f"{_user()}@{socket.gethostname()}"
    made = Pauses(site.config, topology=site.topology).pause(
        kind, name, lane=lane, until=until, reason=reason, by=by
    )
    site.say(f"paused {pause_to_text(made)}")
    site.say(
        "Workers pause within a second. `kafka-notify status` shows what waits; `kafka-notify resume` ends the pause."
    )
    site.answer(pause_to_dict(made))


@click.command()
@_what
@with_site
def resume(
    site: Site, channel: str | None, category: str | None, consumer: str | None, lane: str | None
) -> None:
    """End a pause, given as it was made: what waits is sent at once, in order."""
    kind, name = _one_of(channel, category, consumer)
    switch = Pauses(site.config, topology=site.topology)
    ended = switch.resume(kind, name, lane=lane)
    what = f"{kind} {name}" + (f" on {lane}" if lane else "")
    left = switch.active()
    site.say(f"resumed {what}" if ended else f"{what} was not paused")
    for each in left:
        site.say(f"still paused: {pause_to_text(each)}")
    site.answer({"resumed": ended, "paused": [pause_to_dict(each) for each in left]})


@click.command()
@with_site
def paused(site: Site) -> None:
    """List what is paused now."""
    active = Pauses(site.config, topology=site.topology).active()
    for each in active:
        site.say(pause_to_text(each))
    if not active:
        site.say("nothing is paused")
    site.answer([pause_to_dict(each) for each in active])
