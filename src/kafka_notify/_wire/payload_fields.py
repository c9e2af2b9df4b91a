"""What a payload class declares: its fields, their types, and the code of the team's that making one runs."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any, Final, get_args, get_origin

import attrs

from kafka_notify._wire.payload_types import unwrapped
from kafka_notify.errors import ConfigError

REQUIRED: Final = object()
MADE: Final = object()


def is_payload_class(cls: object) -> bool:
    """Whether it is an attrs class or a dataclass."""
    return (
        isinstance(cls, type)
        and get_origin(cls) is None
        and (attrs.has(cls) or dataclasses.is_dataclass(cls))
    )


def declared_fields(cls: type[Any]) -> list[tuple[str, str | None, Any, bool]]:
    """Name, parameter of `__init__`, default, and whether it takes part in comparisons."""
    found: list[tuple[str, str | None, Any, bool]] = []
    if attrs.has(cls):
        for a in attrs.fields(cls):
            default: Any = a.default
            if default is attrs.NOTHING:
                default = REQUIRED
            elif isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # typed as a function
                default = MADE
            found.append((a.name, (a.alias or a.name) if a.init else None, default, bool(a.eq)))
        return found
    missing = dataclasses.MISSING
    for f in dataclasses.fields(cls):
        default = (
            MADE if f.default_factory is not missing else REQUIRED if f.default is missing else f.default
        )
        found.append((f.name, f.name if f.init else None, default, f.compare))
    return found


def has_own_code(cls: type[Any]) -> bool:
    """Whether making an instance does more than to check and keep the arguments, as a generated `__init__` does."""
    made: Any = cls  # as an object whose attributes are compared, not as a type
    init = made.__init__
    filename: str = getattr(getattr(init, "__code__", None), "co_filename", "")
    generated = filename.startswith("<attrs generated") if attrs.has(cls) else filename == "<string>"
    if not generated or type(cls) not in (type, abc.ABCMeta) or made.__new__ is not object.__new__:
        return True
    if any(hasattr(cls, name) for name in ("__post_init__", "__attrs_post_init__", "__attrs_pre_init__")):
        return True
    if made.__getattribute__ is not object.__getattribute__ or hasattr(cls, "__getattr__"):
        return True
    names = [name for name, *_ in declared_fields(cls)]
    if any(isinstance(inspect.getattr_static(cls, name, None), property) for name in names):
        return True
    if attrs.has(cls):
        return any(
            a.converter is not None or a.validator is not None or not a.init for a in attrs.fields(cls)
        )
    return any(not f.init for f in dataclasses.fields(made))


def type_hints(cls: type[Any]) -> dict[str, Any]:
    declared: Mapping[str, Any] = getattr(cls, "__dataclass_fields__", {})
    for name, field in declared.items():
        # before the hints are resolved, which Python 3.10 cannot do for these
        if getattr(getattr(field, "_field_type", None), "name", "") == "_FIELD_INITVAR":
            raise ConfigError(
                f"{cls.__qualname__}.{name} is an InitVar: an instance does not hold it, so it cannot be sent; "
                "make it a field"
            )
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError) as e:
        raise ConfigError(
            f"the annotations of {cls.__qualname__} cannot be resolved: {e}; its types must be importable "
            "at run time, from the module that defines it, and be defined before the category"
        ) from None


def reachable(cls: type[Any]) -> list[type[Any]]:
    """A payload class, and those in its fields."""
    seen: list[type[Any]] = []
    waiting = [cls]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.append(current)
            if is_payload_class(current):
                nested = (each for hint in type_hints(current).values() for each in _classes_in(hint))
                waiting += [each for each in nested if is_payload_class(each)]
    return seen


def _classes_in(hint: Any) -> list[type[Any]]:
    hint = unwrapped(hint)
    if isinstance(hint, type) and not get_args(hint):
        return [hint]
    return [cls for part in get_args(hint) for cls in _classes_in(part)]
