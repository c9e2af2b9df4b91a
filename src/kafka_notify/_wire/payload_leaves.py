"""The types of single values: text, numbers, times, UUIDs, and data of no declared type."""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import attrs

from kafka_notify._wire.payload_kinds import FORMS, Convert, Form, Kind, Mismatch


def _exactly(cls: type, form: Form, expected: str) -> Kind:
    def convert(value: Any) -> Any:
        if type(value) is cls:
            return value
        raise Mismatch(expected)

    return Kind(convert, convert, expected, frozenset({form}), classes=(cls,), leaf=cls)


def _parsed(
    parse: Convert, text: Convert, classes: type, expected: str, *, lenient: frozenset[Form] = frozenset()
) -> Kind:
    """The kind of a type that is written as text."""
    kinds = (str, *(cls for cls, form in FORMS.items() if form in lenient))

    def read(value: Any) -> Any:
        if type(value) not in kinds:
            raise Mismatch(expected)
        try:
            return parse(value)
        except (ValueError, InvalidOperation):
            raise Mismatch(expected) from None

    return Kind(read, text, expected, frozenset({"str"}), lenient, (classes,))


def _write_str(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return str.__str__(value)  # the safe string of a template engine, for example: the same text
    raise Mismatch("a str")


def _read_float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise Mismatch("a number")
    try:
        return float(value)
    except OverflowError:
        raise Mismatch("a number") from None


def _write_float(value: Any) -> float:
    if type(value) is float:
        if math.isfinite(value):
            return value
    elif type(value) is int:
        try:
            if (number := float(value)) == value:
                return number
        except OverflowError:
            pass
    raise Mismatch("a finite float")


def _iso(parse: Convert) -> Convert:
    # Python 3.10 does not know the `Z` that other languages write for UTC.
    return lambda value: parse(f"{value[:-1]}+00:00" if value[-1:] in ("Z", "z") else value)


def _write_datetime(value: Any) -> str:
    if not isinstance(value, dt.datetime):
        raise Mismatch("a datetime")
    if value.tzinfo is None:
        if value.fold:
            raise Mismatch("a datetime without fold, or an aware one")
    elif value.utcoffset() is None:
        raise Mismatch("a datetime with a UTC offset")
    text = dt.datetime.isoformat(value)
    if type(value) is not dt.datetime and dt.datetime.fromisoformat(text) != value:
        raise Mismatch("a datetime of microseconds")  # that of another library has nanoseconds
    return text


def _write_date(value: Any) -> str:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise Mismatch("a date")
    return dt.date.isoformat(value)


def _write_time(value: Any) -> str:
    if not isinstance(value, dt.time):
        raise Mismatch("a time")
    if value.tzinfo is None:
        if value.fold:
            raise Mismatch("a time without fold")
    elif value.utcoffset() is None:
        raise Mismatch("a time with a UTC offset")
    return dt.time.isoformat(value)


def _write_uuid(value: Any) -> str:
    if not isinstance(value, uuid.UUID):
        raise Mismatch("a UUID")
    return uuid.UUID.__str__(value)


def _write_decimal(value: Any) -> str:
    if not isinstance(value, Decimal):
        raise Mismatch("a Decimal")
    return Decimal.__str__(value)


_NULL: Final = _exactly(type(None), "null", "null")
STR: Final = attrs.evolve(_exactly(str, "str", "a str"), write=_write_str)
_INT: Final = _exactly(int, "int", "a whole number")
_DATETIME: Final = _parsed(
    _iso(dt.datetime.fromisoformat), _write_datetime, dt.datetime, "an ISO 8601 date and time"
)
_DATE: Final = _parsed(dt.date.fromisoformat, _write_date, dt.date, "an ISO 8601 date")
_TIME: Final = _parsed(_iso(dt.time.fromisoformat), _write_time, dt.time, "an ISO 8601 time")
_UUID: Final = _parsed(uuid.UUID, _write_uuid, uuid.UUID, "a UUID")
_DECIMAL: Final = _parsed(
    lambda value: Decimal(str(value)),
    _write_decimal,
    Decimal,
    "a decimal number",
    lenient=frozenset({"int", "float"}),
)
LEAVES: Final[Mapping[Any, Kind]] = {
    str: STR,
    int: _INT,
    bool: _exactly(bool, "bool", "true or false"),
    type(None): _NULL,
    None: _NULL,
    float: Kind(_read_float, _write_float, "a number", frozenset({"float"}), frozenset({"int"}), (float,)),
    dt.datetime: _DATETIME,
    dt.date: _DATE,
    dt.time: _TIME,
    uuid.UUID: _UUID,
    Decimal: _DECIMAL,
}


def _write_any(value: Any) -> Any:
    kind = value.__class__
    if kind is list:
        return [_write_any(item) for item in value]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise Mismatch("JSON data: its objects have str keys")
        return {key: _write_any(item) for key, item in value.items()}
    if kind not in FORMS or (kind is float and not math.isfinite(value)):
        raise Mismatch("JSON data: dict, list, str, int, finite float, bool or None")
    return value


ANY: Final = Kind(lambda value: value, _write_any, "JSON data", frozenset(FORMS.values()))
