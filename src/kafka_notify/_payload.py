"""Payload classes to JSON data and back: attrs classes and dataclasses, converters compiled once per class."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import datetime as dt
import enum
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, TypeGuard, TypeVar, Union, cast, get_args, get_origin

import attrs

from kafka_notify.errors import ConfigError, InvalidNotification

T = TypeVar("T")
Convert = Callable[[Any], Any]


def structure(cls: type[T], value: object) -> T:
    """An instance of `cls` (an attrs class or dataclass) from decoded JSON; unknown keys are ignored.

    Raises:
        InvalidNotification: A field is missing or does not fit; the text names class and field, never the value.
        ConfigError: `cls` cannot be read from JSON (see `check_payload_class`).
    """
    convert = _converters.get(cls) or _class_converter(cls)
    return cast(T, convert(value))


def unstructure(value: Any) -> Any:
    """`value` as data that JSON can hold: the reverse of `structure`.

    Raises:
        InvalidNotification: It holds something that JSON cannot; the text names its type.
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
    if not _is_payload_class(kind):
        raise InvalidNotification(f"data holds a {kind.__qualname__}, which JSON cannot hold")
    return {name: unstructure(getattr(value, name)) for name in _field_names(kind)}


def check_payload_class(cls: type[Any]) -> None:
    """Raise a `ConfigError` when an attrs class or dataclass (or one nested in it) has a field that JSON cannot fill.

    Other classes pass: instances of them come from a codec of the user's own.
    """
    seen: set[type[Any]] = set()
    waiting = [cls]
    while waiting:
        current = waiting.pop()
        if current not in seen and _is_payload_class(current):
            seen.add(current)
            _class_converter(current)
            waiting += [nested for hint in _hints(current).values() for nested in _classes_in(hint)]


_converters: Final[dict[type[Any], Convert]] = {}
_names: Final[dict[type[Any], tuple[str, ...]]] = {}
_JSON_LEAVES: Final = frozenset({str, int, float, bool, type(None)})


class _Mismatch(Exception):
    """A value does not fit; the argument says what would."""


class _Field(typing.NamedTuple):
    name: str
    argument: str
    convert: Convert
    required: bool


# -- classes ---------------------------------------------------------------------------------------


def _is_payload_class(cls: type[Any]) -> bool:
    return attrs.has(cls) or dataclasses.is_dataclass(cls)


def _class_converter(cls: type[Any]) -> Convert:
    if not _is_payload_class(cls):
        raise ConfigError(
            f"{cls.__qualname__} is neither an attrs class nor a dataclass: JSON data cannot fill it"
        )
    where = cls.__qualname__
    fields = _fields(cls)

    def convert(value: Any) -> Any:
        if not _is_object(value):
            raise InvalidNotification(f"the data of a {where} must be a JSON object")
        arguments = {}
        for name, argument, convert_field, required in fields:
            if name in value:
                try:
                    arguments[argument] = convert_field(value[name])
                except _Mismatch as e:
                    raise InvalidNotification(f"{where}.{name} must be {e}") from None
            elif required:
                raise InvalidNotification(f"{where}.{name} is missing")
        try:
            return cls(**arguments)
        except Exception as e:  # a validator of the team's; its text may hold the value
            raise InvalidNotification(f"{where} refused its fields with {type(e).__name__}") from None

    _converters[cls] = convert
    return convert


def _fields(cls: type[Any]) -> list[_Field]:
    hints = _hints(cls)
    if attrs.has(cls):
        raw = [(a.name, a.alias or a.name, a.default is attrs.NOTHING) for a in attrs.fields(cls) if a.init]
    else:
        missing = dataclasses.MISSING
        raw = [
            (f.name, f.name, f.default is missing and f.default_factory is missing)
            for f in dataclasses.fields(cls)
            if f.init
        ]
    fields: list[_Field] = []
    for name, argument, required in raw:
        convert = _converter(hints.get(name, Any), f"{cls.__qualname__}.{name}")
        fields.append(_Field(name, argument, convert, required))
    return fields


def _field_names(cls: type[Any]) -> tuple[str, ...]:
    names = _names.get(cls)
    if names is None:
        fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
        names = _names[cls] = tuple(field.name for field in fields if field.init)
    return names


def _hints(cls: type[Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError) as e:
        raise ConfigError(
            f"the annotations of {cls.__qualname__} cannot be resolved: {e}; its types must be importable "
            "at run time, from the module that defines it"
        ) from None


def _classes_in(hint: Any) -> list[type[Any]]:
    if isinstance(hint, type) and not get_args(hint):
        return [hint]
    return [cls for part in get_args(hint) for cls in _classes_in(part)]


# -- fields ----------------------------------------------------------------------------------------


def _converter(hint: Any, where: str) -> Convert:
    """What turns a JSON value into one of type `hint`; raises `_Mismatch`."""
    while hasattr(hint, "__supertype__"):  # NewType
        hint = hint.__supertype__
    if type(hint).__name__ == "TypeAliasType":  # `type X = ...` of Python 3.12
        hint = hint.__value__
    if hint in (Any, object):
        return _same
    if hint in _LEAVES:
        return _LEAVES[hint]
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return _union([_converter(arg, where) for arg in args])
    if origin is Literal:
        return _literal(args)
    if origin is tuple and args and args[-1] is not Ellipsis:
        return _fixed_tuple([_converter(arg, where) for arg in args])
    if origin in _COLLECTIONS:
        return _collection(_COLLECTIONS[origin], _converter(args[0] if args else Any, where))
    if origin in _MAPPINGS:
        key, item = args or (str, Any)
        return _mapping(_INT_KEY if key is int else _converter(key, where), _converter(item, where))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _leaf(hint, (str, int, float), f"a value of {hint.__qualname__}")
    if isinstance(hint, type) and _is_payload_class(hint):
        return _nested(hint)
    raise ConfigError(
        f"{where} has the type {hint!r}, which JSON data cannot fill; use str, int, float, bool, None, datetime, "
        "date, time, UUID, Decimal, Enum, Literal, collections of these, attrs classes and dataclasses"
    )


def _same(value: Any) -> Any:
    return value


def _nested(cls: type[Any]) -> Convert:
    return lambda value: structure(cls, value)  # looked up late: a class may hold itself


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return type(value) is list


def _is_object(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return type(value) is dict or isinstance(value, Mapping)  # isinstance alone costs 0.3 us


def _exactly(*kinds: type, expected: str) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) in kinds:
            return value
        raise _Mismatch(expected)

    return convert


def _leaf(make: Convert, kinds: tuple[type, ...], expected: str) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) not in kinds:
            raise _Mismatch(expected)
        try:
            return make(value)
        except (ValueError, InvalidOperation):
            raise _Mismatch(expected) from None

    return convert


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise _Mismatch("a number")
    try:
        return float(value)
    except OverflowError:
        raise _Mismatch("a number") from None


def _iso(parse: Convert) -> Convert:
    # Python 3.10 does not know the `Z` that other languages write for UTC.
    return lambda value: parse(f"{value[:-1]}+00:00" if value[-1:] in ("Z", "z") else value)


def _union(converters: list[Convert]) -> Convert:
    def convert(value: Any) -> Any:
        expected: list[str] = []
        inside: InvalidNotification | None = None
        for each in converters:
            try:
                return each(value)
            except _Mismatch as e:
                expected.append(str(e))
            except (
                InvalidNotification
            ) as e:  # a payload class: when it was given an object, its text says more
                expected.append("an object")
                inside = e if _is_object(value) else None
        raise inside or _Mismatch(" or ".join(dict.fromkeys(expected)))

    return convert


def _literal(choices: tuple[Any, ...]) -> Convert:
    values = [choice.value if isinstance(choice, enum.Enum) else choice for choice in choices]

    def convert(value: Any) -> Any:
        for known, choice in zip(values, choices, strict=True):
            if type(known) is type(value) and known == value:
                return choice
        raise _Mismatch(f"one of {', '.join(map(repr, values))}")

    return convert


def _collection(make: Callable[[Any], Any], convert_item: Convert) -> Convert:
    def convert(value: Any) -> Any:
        if not _is_list(value):
            raise _Mismatch("a list")
        items = [convert_item(item) for item in value]
        try:
            return make(items)
        except TypeError:
            raise _Mismatch("a list of hashable items") from None

    return convert


def _fixed_tuple(converters: list[Convert]) -> Convert:
    def convert(value: Any) -> Any:
        if not _is_list(value) or len(value) != len(converters):
            raise _Mismatch(f"a list of {len(converters)}")
        return tuple(each(item) for each, item in zip(converters, value, strict=True))

    return convert


def _mapping(convert_key: Convert, convert_item: Convert) -> Convert:
    def convert(value: Any) -> Any:
        if not _is_object(value):
            raise _Mismatch("an object")
        return {convert_key(key): convert_item(item) for key, item in value.items()}

    return convert


def _json_key(key: Any) -> str:
    plain = unstructure(key)
    if isinstance(plain, str):
        return plain
    if isinstance(plain, int) and not isinstance(plain, bool):
        return str(plain)
    raise InvalidNotification(
        f"data holds an object with a {type(key).__qualname__} as key, which JSON cannot"
    )


_LEAVES: Final[Mapping[Any, Convert]] = {
    str: _exactly(str, expected="a str"),
    int: _exactly(int, expected="a whole number"),
    bool: _exactly(bool, expected="true or false"),
    type(None): _exactly(type(None), expected="null"),
    None: _exactly(type(None), expected="null"),
    float: _float,
    dt.datetime: _leaf(_iso(dt.datetime.fromisoformat), (str,), "an ISO 8601 date and time"),
    dt.date: _leaf(dt.date.fromisoformat, (str,), "an ISO 8601 date"),
    dt.time: _leaf(_iso(dt.time.fromisoformat), (str,), "an ISO 8601 time"),
    uuid.UUID: _leaf(uuid.UUID, (str,), "a UUID"),
    Decimal: _leaf(lambda value: Decimal(str(value)), (str, int, float), "a decimal number"),
}
_INT_KEY: Final = _leaf(int, (str,), "an object with whole numbers as keys")
_COLLECTIONS: Final[Mapping[Any, Callable[[Any], Any]]] = {
    list: _same,
    abc.Sequence: _same,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    abc.Set: frozenset,
}
_MAPPINGS: Final = (dict, abc.Mapping, abc.MutableMapping)
