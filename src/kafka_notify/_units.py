"""Durations and wall-clock times as the rest of the package uses them: seconds and epoch milliseconds."""

from __future__ import annotations

import datetime as dt
import math

Seconds = float | dt.timedelta
UTC = dt.timezone.utc


def to_seconds(value: Seconds, name: str) -> float:
    """`value` as seconds; a `ConfigError` that names the argument when it is no finite duration >= 0."""
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else value
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, (int, float))
        or not math.isfinite(seconds)
        or seconds < 0
    ):
        from kafka_notify.errors import ConfigError  # errors.py needs this module

        raise ConfigError(f"{name} must be a duration >= 0 in seconds (or a timedelta), not {value!r}")
    return float(seconds)


def to_millis(value: dt.datetime) -> int:
    """An aware datetime as epoch milliseconds (rounded down)."""
    return (value - _EPOCH) // _MILLISECOND


def from_millis(value: int) -> dt.datetime:
    """Epoch milliseconds as an aware UTC datetime."""
    return _EPOCH + dt.timedelta(milliseconds=value)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)
