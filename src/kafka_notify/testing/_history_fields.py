"""The fields of a line of a history, checked against the class that they make."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

Check = Callable[[Any], Any]
"""Returns a value as the class holds it.

Raises:
    ValueError: The value has another type; the text says what it must be.
"""


class FieldError(ValueError):
    """A field is missing or has a wrong type; the text names it, without its value."""


def read_fields(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that make a `kind`; fields that it does not have are left out.

    Raises:
        FieldError: A field is missing or has a wrong type.
    """
    found: dict[str, Any] = {}
    for name, check, required in _checks(kind):
        if name in given:
            try:
                found[name] = check(given[name])
            except ValueError as e:
                raise FieldError(f"`{name}` must be {e}") from None
        elif required:
            raise FieldError(f"`{name}` is missing")
    return found


@functools.lru_cache(64)
def _checks(kind: Any) -> tuple[tuple[str, Check, bool], ...]:
    hints = get_type_hints(kind)
    # `at` has a default for whoever writes a line, but a line that was written has it
    return tuple(
        (
            field.name,
            _SPECIAL.get(field.name) or _check(hints[field.name]),
            field.default is attrs.NOTHING or field.name == "at",
        )
        for field in attrs.fields(kind)
    )


def _check(hint: Any) -> Check:
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return functools.partial(_one_of, parts)
    if origin in (Union, UnionType):
        [inner] = [part for part in parts if part is not NoneType]
        return functools.partial(_or_none, _check(inner))
    if origin is list:
        return functools.partial(_list, _check(parts[0]))
    raise TypeError(f"no check for {hint}")


def _int(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("an integer from 0 to 2^63 - 1")
    return value


def _from_one(value: Any) -> int:
    if _int(value) < 1:
        raise ValueError("an integer from 1 on")
    return value  # type: ignore[no-any-return]


def _float(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("a finite number")
    return float(value)


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def _str(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("a string")
    return value


def _bytes(value: Any) -> bytes:
    return _str(value).encode(errors="surrogatepass")


def _gaps(value: Any) -> str:
    if set(_str(value)) - {"0", "1"}:
        raise ValueError("a string of 0 and 1")
    return value  # type: ignore[no-any-return]


def _one_of(choices: tuple[Any, ...], value: Any) -> Any:
    if type(value) is not str or value not in choices:
        raise ValueError(f"one of {', '.join(map(str, choices))}")
    return value


def _or_none(inner: Check, value: Any) -> Any:
    return None if value is None else inner(value)


def _array(value: Any, size: int | None = None) -> list[Any]:
    found: list[Any] = value  # which is checked next
    if type(value) is not list or size not in (None, len(found)):
        raise ValueError("an array" if size is None else f"made of arrays of {size}")
    return found


def _list(inner: Check, value: Any) -> list[Any]:
    return [inner(each) for each in _array(value)]


def _budgets(value: Any) -> dict[str, list[int]]:
    found: dict[str, Any] = value
    if type(value) is not dict:
        raise ValueError("an object")
    return {name: [_int(number) for number in _array(each, 2)] for name, each in found.items()}


def _headers(value: Any) -> tuple[tuple[str, bytes | None], ...]:
    pairs = (_array(pair, 2) for pair in _array(value))
    return tuple((_str(name), _or_none(_bytes, each)) for name, each in pairs)


_SPECIAL: dict[str, Check] = {
    "attempt": _from_one,
    "max_attempts": _from_one,
    "source_gaps": _gaps,
    "retry_gaps": _gaps,
    "headers": _headers,
    "budgets": _budgets,
}
"""Fields that hold more than their type says, by name."""
_PLAIN: dict[Any, Check] = {int: _int, float: _float, bool: _bool, str: _str, bytes: _bytes}
