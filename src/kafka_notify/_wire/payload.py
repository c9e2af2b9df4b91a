"""Payload classes to JSON data and back: attrs classes and dataclasses, compiled once per class.

`structure` reads what `to_json` wrote as an equal instance; `to_json` refuses an instance for which that would fail.
"""

from __future__ import annotations

import datetime as dt
import enum
import typing
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Literal, TypeVar, cast, get_args, get_origin

import attrs

from kafka_notify._wire.payload_fields import (
    MADE,
    REQUIRED,
    declared_fields,
    has_own_code,
    is_payload_class,
    reachable,
    type_hints,
)
from kafka_notify._wire.payload_kinds import Convert, Kind, Mismatch, is_object
from kafka_notify._wire.payload_types import kind_of, unwrapped
from kafka_notify.errors import ConfigError, InvalidNotificationError

T = TypeVar("T")


def structure(cls: type[T], value: object) -> T:
    """Return an instance of `cls` (an attrs class or dataclass) from decoded JSON; unknown keys are ignored.

    Raises:
        InvalidNotificationError: A field is missing or does not fit; the text names class and field, never the value.
        ConfigError: `cls` cannot be read from JSON (see `check_payload_class`).
    """
    found = _compiled.get(cls) or _compile(cls)
    return cast(T, found.read(value))


def to_json(cls: type[Any], value: object) -> dict[str, Any]:
    """Return an instance of `cls` as data that JSON can hold, from which `structure` makes an equal instance.

    Each field is checked against its declared type, and by its validators. An instance of a class that changes its
    arguments (converters, `__post_init__`, an `__init__` of its own) is also read back and compared.

    Raises:
        InvalidNotificationError: It would not be read back as it is; the text names class and field, never the value.
    """
    found, name = _compiled.get(cls) or _compile(cls), cls.__qualname__
    try:
        plain: dict[str, Any] = found.write(value)
        if found.reads_back is None:
            found.reads_back = any(_compile(each).own_code for each in reachable(cls))
        # repr distinguishes True, 1 and 1.0, and costs half as much as JSON
        if found.reads_back and repr(found.write(found.read(plain))) != repr(plain):
            raise InvalidNotificationError(
                f"a {name} would not be read back as it is: its converters, __init__ or __post_init__, or "
                "those of a class in it, change fields that are already set; leave such fields unchanged there"
            )
    except Mismatch:
        raise InvalidNotificationError(
            f"data must be a {name} itself, not a {type(value).__qualname__}"
        ) from None
    except (RecursionError, ValueError) as e:
        if isinstance(e, InvalidNotificationError):
            raise
        raise InvalidNotificationError(f"a {name} is nested too deeply, or contains itself") from None
    return plain


def unstructure(value: Any) -> Any:
    """Return any value as data that JSON can hold, whatever its declared type; a tuple becomes a list, a date text.

    Raises:
        InvalidNotificationError: The value contains something that JSON cannot hold; the text names its type.
    """
    kind = value.__class__
    if kind in _JSON_LEAVES:
        return value
    if issubclass(kind, Mapping):
        return {_json_key(key): unstructure(item) for key, item in value.items()}
    if issubclass(kind, (list, tuple, set, frozenset)):
        return [unstructure(item) for item in value]
    if isinstance(value, enum.Enum):
        return unstructure(value.value)
    if isinstance(value, (dt.date, dt.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, (uuid.UUID, Decimal)):
        return str(value)
    if isinstance(value, (str, int, float)):
        return value
    if not is_payload_class(kind):
        raise InvalidNotificationError(f"data holds a {kind.__qualname__}, which JSON cannot hold")
    return {name: unstructure(getattr(value, name)) for name in _field_names(kind)}


def check_payload_class(cls: type[Any]) -> None:
    """Raise a `ConfigError` unless every instance that can be sent is certain to be read back from JSON as it is."""
    for each in reachable(cls):
        _compile(each)


_names: Final[dict[type[Any], tuple[str, ...]]] = {}
_JSON_LEAVES: Final = frozenset({str, int, float, bool, type(None)})


# -- classes ---------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _Compiled:
    read: Convert
    write: Convert
    own_code: bool
    """True if creating an instance runs code of the team's that may change the arguments."""
    reads_back: bool | None = None
    """True if this class, or a class in it, has code of its own; None until it is computed."""


class _Field(typing.NamedTuple):
    name: str
    argument: str | None
    """The parameter of `__init__`; None for a field that the class itself sets."""
    kind: Kind
    default: Any
    """`REQUIRED` without a default, `MADE` for one that a function makes."""


_compiled: Final[dict[type[Any], _Compiled]] = {}


def _compile(cls: type[Any]) -> _Compiled:
    found = _compiled.get(cls)
    if found is not None:
        return found
    if not is_payload_class(cls):
        raise ConfigError(
            f"{getattr(cls, '__qualname__', cls)} is neither an attrs class nor a dataclass, and cannot be read from "
            "JSON. Copy its fields into such a class, or leave the payload class out and send a mapping"
        )
    if issubclass(cls, (dict, list, tuple, set, frozenset, str, bytes, int, float)):
        raise ConfigError(
            f"{cls.__qualname__} derives from a built-in class, whose contents are not fields; make them a field"
        )
    fields = _fields(cls)
    own_code = has_own_code(cls)
    made = _Compiled(_reader(cls, fields), _writer(cls, fields), own_code)
    if not own_code:
        for field in fields:
            _check_default(cls, field)
    _compiled[cls] = made
    return made


def _reader(cls: type[Any], fields: list[_Field]) -> Convert:
    where = cls.__qualname__
    wanted = [
        (f.name, f.argument, f.kind.read, f.default is REQUIRED) for f in fields if f.argument is not None
    ]

    def read(value: Any) -> Any:
        if not is_object(value):
            raise InvalidNotificationError(f"the data of a {where} must be a JSON object")
        arguments = {}
        for name, argument, read_field, required in wanted:
            if name in value:
                try:
                    arguments[argument] = read_field(value[name])
                except Mismatch as e:
                    raise InvalidNotificationError(f"{where}.{name} must be {e}") from None
            elif required:
                raise InvalidNotificationError(f"{where}.{name} is missing")
        try:
            return cls(**arguments)
        except Exception as e:
            raise _refused(cls, e) from None

    return read


def _writer(cls: type[Any], fields: list[_Field]) -> Convert:
    where = cls.__qualname__
    written = [(f.name, f.kind.leaf, f.kind.write) for f in fields]
    validators = [(a, a.validator) for a in attrs.fields(cls) if a.validator] if attrs.has(cls) else []

    def write(value: Any) -> dict[str, Any]:
        if type(value) is not cls:
            raise Mismatch(f"a {where} itself")
        out: dict[str, Any] = {}
        name = ""
        try:
            for name, leaf, write_field in written:
                item = getattr(value, name)
                out[name] = item if type(item) is leaf else write_field(item)
        except Mismatch as e:
            raise InvalidNotificationError(f"{where}.{name} must be {e}") from None
        except AttributeError:
            raise InvalidNotificationError(f"{where}.{name} is missing") from None
        for attribute, validator in validators:
            # the instance may have been changed since it was created, and the reader runs the validators too
            try:
                validator(value, attribute, getattr(value, attribute.name))
            except Exception as e:
                raise _refused(cls, e) from None
        return out

    return write


def _refused(cls: type[Any], error: Exception) -> InvalidNotificationError:
    """The error for an exception of the team's code, whose text is left out because it may contain the value."""
    return InvalidNotificationError(f"{cls.__qualname__} refused its fields with {type(error).__name__}")


def _check_default(cls: type[Any], field: _Field) -> None:
    if field.default is REQUIRED or field.default is MADE:
        return
    try:
        field.kind.write(field.default)
    except (Mismatch, InvalidNotificationError) as e:
        raise ConfigError(
            f"the default of {cls.__qualname__}.{field.name} cannot be sent: it must be {e}"
        ) from None


def _fields(cls: type[Any]) -> list[_Field]:
    hints = type_hints(cls)
    fields: list[_Field] = []
    for name, argument, default, compared in declared_fields(cls):
        if argument is None and not compared:
            continue  # a cache, for example: the class fills it again
        kind = kind_of(hints.get(name, Any), f"{cls.__qualname__}.{name}", _nested)
        fields.append(_Field(name, argument, kind, default))
    return fields


def _field_names(cls: type[Any]) -> tuple[str, ...]:
    names = _names.get(cls)
    if names is None:
        names = _names[cls] = tuple(
            name for name, argument, _, _ in declared_fields(cls) if argument is not None
        )
    return names


def _nested(cls: type[Any]) -> Kind | None:
    """A payload class as the type of a field. It is compiled when it is used: a class may contain itself."""
    if not is_payload_class(cls):
        return None
    tags: dict[str, frozenset[str]] = {}
    hints = type_hints(cls)
    for name, argument, _, compared in declared_fields(cls):
        hint = unwrapped(hints.get(name))
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        if (argument is not None or compared) and choices and all(type(choice) is str for choice in choices):
            tags[name] = frozenset(choices)
    return Kind(
        lambda value: structure(cls, value),
        lambda value: (_compiled.get(cls) or _compile(cls)).write(value),
        "an object",
        frozenset({"object"}),
        classes=(cls,),
        tags=tags,
    )


def _json_key(key: Any) -> str:
    plain = unstructure(key)
    if isinstance(plain, str):
        return plain
    if isinstance(plain, int) and not isinstance(plain, bool):
        return str(plain)
    raise InvalidNotificationError(
        f"data holds an object with a {type(key).__qualname__} as key; use str or int keys"
    )
