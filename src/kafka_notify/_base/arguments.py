"""Checks of arguments: a `ConfigError` names the argument and says what it must be."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable

from kafka_notify._base.text import either
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


def check_choice(value: object, choices: Iterable[object], name: str) -> None:
    """Raise a `ConfigError` that lists the choices unless `value` is one of them."""
    known = tuple(choices)
    if value not in known:
        raise ConfigError(f"{name} must be {either(known)}, not {value!r}")


def check_flag(value: object, name: str) -> None:
    """Raise a `ConfigError` unless `value` is a bool: the text "false" of a config file would count as true."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {value!r}")


def names_of(values: Iterable[str], name: str) -> frozenset[str]:
    """`values` as a set; a `ConfigError` for one str, whose letters would count as names."""
    if isinstance(values, str):
        raise ConfigError(f"{name} must be a set of names, not a str: write {{{values!r}}}")
    return frozenset(values)
