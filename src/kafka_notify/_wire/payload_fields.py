"""The declaration of a payload class: its fields, their types, and whether an instance runs the team's code."""

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
    """Return whether `cls` is an attrs class or a dataclass."""
    return (
        isinstance(cls, type)
        and get_origin(cls) is None
        and (attrs.has(cls) or dataclasses.is_dataclass(cls))
    )


def declared_fields(cls: type[Any]) -> list[tuple[str, str | None, Any, bool]]:
    """For each field: name, parameter of `__init__`, default, and whether it takes part in comparisons."""
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
    """Return whether creating an instance does more than a generated `__init__`, which checks and keeps arguments."""
    made: Any = cls  # an object whose attributes are compared, instead of a type
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
        # before the hints are resolved, which fails for an InitVar in Python 3.10
        if getattr(getattr(field, "_field_type", None), "name", "") == "_FIELD_INITVAR":
            raise ConfigError(
                f"{cls.__qualname__}.{name} is an InitVar: an instance does not keep it, so it cannot be sent; "
                "make it a field"
            )
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError) as e:
        raise ConfigError(
            f"the annotations of {cls.__qualname__} cannot be resolved: {e}; the module that defines the class must "
            "import or define these types at run time, before the category is created"
        ) from None


def reachable(cls: type[Any]) -> list[type[Any]]:
    """A payload class, and the payload classes in its fields, directly or not."""
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
