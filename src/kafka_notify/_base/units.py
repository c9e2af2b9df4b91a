"""Durations and wall-clock times as the rest of the package uses them: seconds and epoch milliseconds."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any, Final

Seconds = float | dt.timedelta
UTC = dt.timezone.utc
LONGEST: Final = 366 * 86_400.0
"""The longest wait that is accepted, in seconds: longer than topics keep records, and well within the range of a float
and a datetime."""


def clamped(value: Any) -> float | None:
    """Return a computed duration as seconds, at least 0; None unless it is a number up to `LONGEST`. Never raises."""
    given: object = value
    kind = type(given)
    if kind is float and 0.0 <= value <= LONGEST:
        return value  # type: ignore[no-any-return]  # nearly always
    try:
        if issubclass(kind, dt.timedelta):
            seconds = dt.timedelta.total_seconds(value)
        elif issubclass(kind, float):
            seconds = float.__float__(value)
        elif issubclass(kind, int) and kind is not bool:
            seconds = float(min(max(int.__int__(value), 0), int(LONGEST) + 1))
        else:
            return None
    except Exception:  # a subclass whose methods raise
        return None
    return None if math.isnan(seconds) or seconds > LONGEST else max(seconds, 0.0)


def to_millis(value: dt.datetime) -> int:
    """An aware datetime as epoch milliseconds (rounded down)."""
    return (value - _EPOCH) // _MILLISECOND


def from_millis(value: int) -> dt.datetime:
    """Epoch milliseconds as an aware UTC datetime."""
    return _EPOCH + dt.timedelta(milliseconds=value)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)
