"""How a value of one type travels as JSON: a `Kind` writes it and reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeGuard

import attrs

Convert = Callable[[Any], Any]
Form = Literal["null", "bool", "int", "float", "str", "list", "object"]


class Mismatch(Exception):
    """A value does not fit; the argument says what is expected."""


@attrs.frozen(eq=False)
class Kind:
    """One declared type.

    Args:
        read: Converts a JSON value to a value; raises `Mismatch`, for a payload class `InvalidNotificationError`.
        write: Converts a value of exactly this type to JSON; raises `Mismatch`.
        expected: The JSON that it reads, in words, for the text of a refusal.
        forms: The forms of JSON that it writes.
        lenient: Other forms that it reads: some writers drop the `.0` of a whole number.
        classes: Python classes whose instances it writes.
        leaf: The class whose instances are their own JSON, if there is one.
        words: All texts that it writes, if they are few.
        tags: For a payload class its fields that are a `Literal` of str, which identify it in a union; otherwise None.
    """

    read: Convert
    write: Convert
    expected: str
    forms: frozenset[Form]
    lenient: frozenset[Form] = frozenset()
    classes: tuple[type, ...] = ()
    leaf: type | None = None
    words: frozenset[str] | None = None
    tags: Mapping[str, frozenset[str]] | None = None


class Plain:
    """The `leaf` of a `Literal` of plain values, which are written as they are in any union."""


def form_of(value: object) -> Form | None:
    """The form of a decoded JSON value; None for a value that JSON does not have."""
    form = FORMS.get(type(value))
    return "object" if form is None and isinstance(value, Mapping) else form


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Return whether `value` is a JSON list."""
    return type(value) is list


def is_object(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    """Return whether `value` is a JSON object."""
    return type(value) is dict or isinstance(value, Mapping)  # isinstance alone costs 0.3 us


FORMS: Final[Mapping[type, Form]] = {
    type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "object"
}  # fmt: skip
