"""Checks of arguments: a `ConfigError` names the argument and says what it must be."""

from __future__ import annotations

import datetime as dt
import math

from kafka_notify._base.units import Seconds
from kafka_notify.errors import ConfigError


def to_seconds(value: Seconds, name: str) -> float:
    """Return `value` as seconds.

    Raises:
        ConfigError: It is not a finite duration >= 0; the text names the argument.
    """
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else value
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, (int, float))
        or not math.isfinite(seconds)
        or seconds < 0
    ):
        raise ConfigError(f"{name} must be a duration >= 0 in seconds (or a timedelta), not {value!r}")
    return float(seconds)
