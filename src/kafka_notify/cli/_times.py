"""Moments and durations as people write and read them; what reads them is a `type` of click's options."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

import click

from kafka_notify._units import UTC

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def duration(value: str) -> dt.timedelta:
    """Read `90s`, `15m`, `3h` or `2d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value.strip())
    if not found:
        raise click.BadParameter(f"{value!r} is no duration such as 90s, 15m, 3h or 2d")
    return dt.timedelta(seconds=float(found[1]) * _UNITS[found[2]])


def moment(value: str) -> dt.datetime:
    """Read an ISO 8601 time (UTC when it names no zone), or a duration: so long ago."""
    if re.fullmatch(r"\d+(\.\d+)?[smhd]", value):
        return dt.datetime.now(UTC) - duration(value)
    try:
        found = dt.datetime.fromisoformat(re.sub(r"Z$", "+00:00", value))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no time such as 2026-11-22T03:00:00Z, and no duration such as 3h"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def show_span(seconds: float | None) -> str:
    """Seconds for a person: `12 s`, `3 min`, `2.5 h`, `4 d`."""
    if seconds is None:
        return "-"
    for limit, unit, name in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if abs(seconds) < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.1f} d"


def show_moment(value: dt.datetime | None) -> str:
    """A moment for a person, in UTC and to the second."""
    return "" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
