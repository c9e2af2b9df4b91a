"""The `Kind` of a type hint, which writes a value as JSON and reads it again.

Writing accepts exactly the values that reading returns. A type for which that is not certain is refused: two types of a
union that look alike as JSON, keys that become the same text, an enum without plain values.
"""

from __future__ import annotations

import collections.abc as abc
import enum
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Union, cast, get_args, get_origin

from kafka_notify._wire.payload_kinds import FORMS, Convert, Form, Kind, Mismatch, Plain, is_list, is_object
from kafka_notify._wire.payload_leaves import ANY, LEAVES, STR
from kafka_notify._wire.payload_unions import union_of
from kafka_notify.errors import ConfigError

# -- by hint ---------------------------------------------------------------------------------------


def kind_of(hint: Any, where: str, payload: Callable[[type], Kind | None]) -> Kind:
    """The kind of a type hint.

    Args:
        where: Class and field, for the text of a refusal.
        payload: Returns the kind of a payload class, None for any other class.

    Raises:
        ConfigError: A value of that type might not be read back as it was.
    """
    hint = unwrapped(hint)
    if hint in (Any, object):
        return ANY
    if hint in LEAVES:
        return LEAVES[hint]
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return union_of([kind_of(arg, where, payload) for arg in args], where)
    if origin is Literal:
        return _literal(args, where)
    if origin is tuple and (hint == tuple[()] or (args and args[-1] is not Ellipsis)):
        return _fixed_tuple([kind_of(arg, where, payload) for arg in args])
    if origin in _COLLECTIONS:
        make, kind = _COLLECTIONS[origin]
        return _collection(make, kind, kind_of(args[0], where, payload) if args else ANY, origin)
    if origin in _MAPPINGS:
        key, item = args or (str, Any)
        return _mapping(_key(key, where), kind_of(item, where, payload))
    if isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return _enum(hint, where)
        found = payload(cast("type[Any]", hint))
        if found is not None:
            return found
    raise ConfigError(
        f"{where} has the type {hint!r}, which cannot be read from JSON; use str, int, float, bool, None, datetime, "
        "date, time, UUID, Decimal, Enum, Literal, collections of these, attrs classes and dataclasses"
    )


def unwrapped(hint: Any) -> Any:
    """The type behind a `NewType` or a type alias; any other hint as it is."""
    while hasattr(hint, "__supertype__"):  # NewType
        hint = hint.__supertype__
    return (
        hint.__value__ if hint.__class__.__name__ == "TypeAliasType" else hint
    )  # `type X = ...` of Python 3.12


# -- few values ------------------------------------------------------------------------------------


def _enum(cls: type[enum.Enum], where: str) -> Kind:
    plain = {member.value.__class__ for member in cls}
    if not plain <= {str, int, float} or any(
        type(m.value) is float and not math.isfinite(m.value) for m in cls
    ):
        raise ConfigError(
            f"{where} has the type {cls.__qualname__}, whose members' values are not all str, int or finite float: "
            "JSON cannot name them; give them such values"
        )
    expected = f"a value of {cls.__qualname__}"

    def read(value: Any) -> Any:
        if type(value) not in (str, int, float):
            raise Mismatch(expected)
        try:
            return cls(value)
        except ValueError:
            raise Mismatch(expected) from None

    def write(value: Any) -> Any:
        # a combination of flags is an instance too, named by its value
        if not isinstance(value, cls) or cls(value.value) is not value:
            raise Mismatch(f"a {cls.__qualname__}")
        return value.value

    flags = issubclass(cls, enum.Flag)
    forms: frozenset[Form] = frozenset({"int"} if flags else {FORMS[each] for each in plain})
    words = frozenset(member.value for member in cls if type(member.value) is str)
    if any(cls(member.value) is not member for member in cls):
        raise ConfigError(
            f"{where} has the type {cls.__qualname__}, whose values do not identify its members; give each member "
            "a value of its own"
        )
    return Kind(read, write, expected, forms, classes=(cls,), words=words)


def _literal(choices: tuple[Any, ...], where: str) -> Kind:
    values = [choice.value if isinstance(choice, enum.Enum) else choice for choice in choices]
    table = {(value.__class__, value): choice for value, choice in zip(values, choices, strict=True)}
    if len(table) < len(choices) or not {v.__class__ for v in values} <= {str, int, bool, type(None)}:
        raise ConfigError(
            f"{where} has the type {Literal[choices]!r}, whose choices must be different str, int, bool or None"
        )
    expected = f"one of {', '.join(map(repr, values))}"

    def read(value: Any) -> Any:
        for known, choice in zip(values, choices, strict=True):
            if type(known) is type(value) and known == value:
                return choice
        raise Mismatch(expected)

    def write(value: Any) -> Any:
        for known, choice in zip(values, choices, strict=True):
            if type(choice) is type(value) and choice == value:
                return known
        raise Mismatch(expected)

    forms: frozenset[Form] = frozenset(FORMS[type(value)] for value in values)
    classes = tuple({choice.__class__ for choice in choices})
    words = frozenset(value for value in values if type(value) is str)
    plain = not any(isinstance(choice, enum.Enum) for choice in choices)
    return Kind(read, write, expected, forms, classes=classes, words=words, leaf=None if not plain else Plain)


# -- collections -----------------------------------------------------------------------------------


def _order(plain: Any) -> str:
    return repr(plain)


def _collection(make: Convert, cls: type, item: Kind, hint: Any) -> Kind:
    read_item, write_item, leaf = item.read, item.write, item.leaf
    is_set = issubclass(cls, (set, frozenset))
    exact: Any = cls
    said = (
        f"a {cls.__name__}" if hint is cls else f"a {cls.__name__}, as which a {hint.__name__} is read back"
    )

    def read(value: Any) -> Any:
        if not is_list(value):
            raise Mismatch("a list")
        items = [read_item(each) for each in value]
        try:
            return make(items)
        except TypeError:
            raise Mismatch("a list of hashable items") from None

    def write(value: Any) -> Any:
        if type(value) is not exact:
            raise Mismatch(said)
        items = [each if type(each) is leaf else write_item(each) for each in value]
        return sorted(items, key=_order) if is_set else items  # equal sets are the same bytes

    return Kind(read, write, "a list", frozenset({"list"}), classes=(cls,))


def _fixed_tuple(kinds: Sequence[Kind]) -> Kind:
    size = len(kinds)

    def read(value: Any) -> Any:
        if not is_list(value) or len(value) != size:
            raise Mismatch(f"a list of {size}")
        return tuple(kind.read(each) for kind, each in zip(kinds, value, strict=True))

    def write(value: Any) -> Any:
        if value.__class__ is not tuple or len(value) != size:
            raise Mismatch(f"a tuple of {size}")
        return [kind.write(each) for kind, each in zip(kinds, value, strict=True)]

    return Kind(read, write, f"a list of {size}", frozenset({"list"}), classes=(tuple,))


def _mapping(key: Kind, item: Kind) -> Kind:
    read_key, write_key, read_item, write_item = key.read, key.write, item.read, item.write

    def read(value: Any) -> Any:
        if not is_object(value):
            raise Mismatch("an object")
        return {read_key(name): read_item(each) for name, each in value.items()}

    def write(value: Any) -> Any:
        if value.__class__ is not dict:
            raise Mismatch("a dict")
        out = {write_key(name): write_item(each) for name, each in value.items()}
        if len(out) != len(value):
            raise Mismatch("a dict whose keys are different as text")
        return out

    return Kind(read, write, "an object", frozenset({"object"}), classes=(dict,))


def _read_int_key(value: Any) -> int:
    if type(value) is not str:
        raise Mismatch(_INT_KEYS)
    try:
        return int(value)
    except ValueError:
        raise Mismatch(_INT_KEYS) from None


def _write_int_key(value: Any) -> str:
    if type(value) is not int:
        raise Mismatch("a dict with int keys")
    try:
        return str(value)
    except ValueError:  # too many digits
        raise Mismatch("a dict with int keys of fewer digits") from None


_INT_KEYS: Final = "an object with whole numbers as keys"
_INT_KEY: Final = Kind(_read_int_key, _write_int_key, _INT_KEYS, frozenset({"str"}))


def _key(hint: Any, where: str) -> Kind:
    """The kind of a mapping's keys, which are text in JSON."""
    hint = unwrapped(hint)
    if hint is int:
        return _INT_KEY
    if hint in (Any, object):
        return STR
    kind = kind_of(hint, where, lambda _: None)
    if kind.forms != {"str"}:
        raise ConfigError(
            f"{where} has the keys {hint!r}, which are not text in JSON; use str, int, UUID, date, datetime, time, "
            "Decimal, or an Enum or Literal of str"
        )
    return kind


def _same(value: Any) -> Any:
    return value


_COLLECTIONS: Final[Mapping[Any, tuple[Convert, type]]] = {
    list: (_same, list),
    abc.Sequence: (_same, list),
    tuple: (tuple, tuple),
    set: (set, set),
    frozenset: (frozenset, frozenset),
    abc.Set: (frozenset, frozenset),
}
_MAPPINGS: Final = (dict, abc.Mapping, abc.MutableMapping)
