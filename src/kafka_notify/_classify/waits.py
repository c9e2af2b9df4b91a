"""The wait that a response asks for, in the formats that providers use. Pure; never raises."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from kafka_notify._base.units import UTC

MAX_RETRY_AFTER: Final = 900.0
"""The longest `Retry-After` that is followed, in seconds; after that the provider is asked again."""

_ASKED: Final = ("retry-after-ms", "x-ms-retry-after-ms", "retry-after")
"""An explicit wait. The first two are Azure's, more exact, and in milliseconds."""
_RESETS: Final = (
    "x-ratelimit-reset-after",
    "ratelimit-reset",
    "x-ratelimit-reset",
    "x-rate-limit-reset",
    "x-sib-ratelimit-reset",
)
"""The reset of a rate limit. Some providers send it with every response, so it counts only for a throttle."""
_LIMITS: Final = "ratelimit"
"""The structured header of the IETF's drafts: `"default";r=0;t=30`, before that `limit=10, remaining=0, reset=30`."""
_KNOWN: Final = frozenset({*_ASKED, *_RESETS, _LIMITS})

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{0,9})?")
_RESET_PARAMETER: Final = re.compile(r"(?:^|[;,\s])(?:t|reset)\s*=\s*([0-9]{1,15})(?![0-9.])", re.ASCII)
_DELTA_NOT_EPOCH: Final = 1e8  # as an epoch that would be 1973, as a delta three years
_MAX_TEXT: Final = 256


def retry_after(headers: Mapping[str, str], *, now: dt.datetime | None = None) -> float | None:
    """Return the seconds that a response asks to wait, at most 15 minutes; None if it does not say. Never raises.

    Args:
        headers: `Retry-After` (seconds, an HTTP date, or an epoch in seconds or milliseconds) and `Retry-After-Ms`
            take precedence over `RateLimit-Reset`, `X-RateLimit-Reset` and similar names, and those over
            `RateLimit`. A time in the past is 0; of several values the longest counts; a value that cannot be
            parsed is ignored.
        now: Aware datetime; the current time by default.
    """
    asked, reset = waits(headers, now)
    return reset if asked is None else asked


def waits(headers: Mapping[str, str], now: dt.datetime | None = None) -> tuple[float | None, float | None]:
    """The wait that a response asks for, and the time until its rate limit is reset; seconds or None each."""
    try:
        found = {
            name.lower(): value
            for name, value in headers.items()
            if isinstance(name, str) and name.lower() in _KNOWN
        }
        moment = (dt.datetime.now(UTC) if now is None else now).timestamp()
    except Exception:  # not a mapping, or one that raises
        return None, None
    if not found:
        return None, None
    asked = _first(_wait(name, found.get(name), moment) for name in _ASKED)
    reset = _first(_wait(name, found.get(name), moment) for name in (*_RESETS, _LIMITS))
    return asked, reset


def _first(found: Iterable[float | None]) -> float | None:
    seconds = next((wait for wait in found if wait is not None), None)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _wait(name: str, value: object, now: float) -> float | None:
    if name == _LIMITS:
        return _limits(value)
    numbers = _numbers(value)
    if numbers is None:
        date = _date(value)
        return None if date is None else date - now
    if name.endswith("-ms"):
        return max(numbers) / 1000
    return max(_delta(number, now) for number in numbers)


def _delta(number: float, now: float) -> float:
    """Seconds from now: a delta as it is, or an epoch in seconds, milliseconds, microseconds or nanoseconds."""
    if number < _DELTA_NOT_EPOCH:
        return number
    for unit in (1, 1e3, 1e6, 1e9):
        if number / unit < 1e11:  # an epoch of the year 5138
            return number / unit - now
    return MAX_RETRY_AFTER


def _numbers(value: object) -> list[float] | None:
    """One number, or several that a proxy joined: `30, 30`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = repr(value) if abs(value) < 10**15 else None
    if not isinstance(value, str):
        return None
    parts = [part.strip() for part in str.__str__(value)[: _MAX_TEXT + 1].split(",")]
    if sum(map(len, parts)) > _MAX_TEXT or not all(map(_NUMBER.fullmatch, parts)):
        return None
    return [float(part) for part in parts]


def _limits(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    found = _RESET_PARAMETER.findall(str.__str__(value)[:_MAX_TEXT])
    return max(map(float, found)) if found else None


def _date(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    text = str.__str__(value)[:_MAX_TEXT].strip()
    found = _moment(parsedate_to_datetime, text)
    return _moment(_iso, text) if found is None else found


def _moment(parse: Callable[[str], dt.datetime], text: str) -> float | None:
    try:
        date = parse(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except Exception:  # ValueError, TypeError, OverflowError, IndexError: not a date in this spelling
        return None


def _iso(text: str) -> dt.datetime:
    # Python 3.10 does not know the `Z` for UTC; a bare date or week has no time of day
    if "T" not in text:
        raise ValueError
    return dt.datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] in ("Z", "z") else text)
