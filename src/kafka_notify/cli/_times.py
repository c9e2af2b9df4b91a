"""Times and durations as people write and read them, and types of click options for numbers."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Any, Final

import click

from kafka_notify._base.units import UTC


class _Real(click.FloatRange):
    """A number in a range; refuses `nan`, which passes click's comparisons."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        return self.fail(f"{value!r} is not a number.", param, ctx) if math.isnan(found) else found


SECONDS: Final = _Real(min=0, max=1e9)
"""A type for click options, like those below."""
POSITIVE: Final = _Real(min=0, min_open=True, max=1e9)
COUNT: Final = click.IntRange(min=0, max=10**9)
PORT: Final = click.IntRange(min=0, max=65_535)

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def duration(value: str) -> dt.timedelta:
    """Read `90s`, `15m`, `3h` or `2d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value.strip())
    if not found:
        raise click.BadParameter(f"{value!r} is not a duration; write for example 90s, 15m, 3h or 2d")
    try:
        return dt.timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    except OverflowError:
        raise click.BadParameter(
            f"{value!r} is too long; durations end at {dt.timedelta.max.days:,} days"
        ) from None


def moment(value: str) -> dt.datetime:
    """Read an ISO 8601 time (UTC if it names no zone), or a duration before now."""
    if re.fullmatch(r"\d+(\.\d+)?[smhd]", value):
        try:
            return dt.datetime.now(UTC) - duration(value)
        except OverflowError:
            raise click.BadParameter(f"{value!r} ago is before the year 1") from None
    try:
        found = dt.datetime.fromisoformat(re.sub(r"Z$", "+00:00", value))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither a time nor a duration; write for example 2026-11-22T03:00:00Z or 3h"
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
    """A time for a person, in UTC and to the second."""
    return "" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
