"""How a value of one type travels as JSON: a `Kind` writes it and reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeGuard

import attrs

Convert = Callable[[Any], Any]
Form = Literal["null", "bool", "int", "float", "str", "list", "object"]


class Mismatch(Exception):
    """A value does not fit; the argument says what would."""


@attrs.frozen(eq=False)
class Kind:
    """One declared type.

    Args:
        read: A JSON value to a value; raises `Mismatch`, a payload class `InvalidNotificationError`.
        write: The reverse, of values of this type and no others.
        expected: What JSON it is read from, for the text of a refusal.
        forms: What JSON it is written as.
        lenient: What else it is read from: other writers drop the `.0` of a whole number.
        classes: Python classes whose instances it writes.
        leaf: The class whose instances are their own JSON, when there is one.
        words: All texts that it is written as, when they are few.
        tags: Of a payload class its fields that are a `Literal` of str, which tell it from others; else None.
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
    """Marks a `Literal` of plain values, which are themselves in any union."""


def form_of(value: object) -> Form | None:
    """What a decoded JSON value is; None for what JSON does not have."""
    form = FORMS.get(type(value))
    return "object" if form is None and isinstance(value, Mapping) else form


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Whether it is a JSON list."""
    return type(value) is list


def is_object(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    """Whether it is a JSON object."""
    return type(value) is dict or isinstance(value, Mapping)  # isinstance alone costs 0.3 us


FORMS: Final[Mapping[type, Form]] = {
    type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "object"
}  # fmt: skip
