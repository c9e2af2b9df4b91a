"""How a value of a declared type travels as JSON: one `Kind` per type, which writes it and reads it.

Writing accepts exactly the values that reading gives back. A type for which that is not certain is refused: two types
of a union that look alike as JSON, keys that become the same text, an enum without plain values.
"""

from __future__ import annotations

import collections.abc as abc
import datetime as dt
import enum
import math
import types
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, TypeGuard, Union, cast, get_args, get_origin

import attrs

from kafka_notify.errors import ConfigError

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


def form_of(value: object) -> Form | None:
    """What a decoded JSON value is; None for what JSON does not have."""
    form = _FORMS.get(type(value))
    return "object" if form is None and isinstance(value, Mapping) else form


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Whether it is a JSON list."""
    return type(value) is list


def is_object(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    """Whether it is a JSON object."""
    return type(value) is dict or isinstance(value, Mapping)  # isinstance alone costs 0.3 us


_FORMS: Final[Mapping[type, Form]] = {
    type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "object"
}  # fmt: skip


# -- by hint ---------------------------------------------------------------------------------------


def kind_of(hint: Any, where: str, payload: Callable[[type], Kind | None]) -> Kind:
    """The kind of a type hint.

    Args:
        where: Class and field, for the text of a refusal.
        payload: The kind of a payload class; None for any other class.

    Raises:
        ConfigError: A value of that type might not come back as what it was.
    """
    hint = unwrapped(hint)
    if hint in (Any, object):
        return ANY
    if hint in _LEAVES:
        return _LEAVES[hint]
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return _union([kind_of(arg, where, payload) for arg in args], where)
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
        f"{where} has the type {hint!r}, which JSON data cannot fill; use str, int, float, bool, None, datetime, "
        "date, time, UUID, Decimal, Enum, Literal, collections of these, attrs classes and dataclasses"
    )


def unwrapped(hint: Any) -> Any:
    """What a `NewType` or a type alias stands for."""
    while hasattr(hint, "__supertype__"):  # NewType
        hint = hint.__supertype__
    return (
        hint.__value__ if hint.__class__.__name__ == "TypeAliasType" else hint
    )  # `type X = ...` of Python 3.12


# -- leaves ----------------------------------------------------------------------------------------


def _exactly(cls: type, form: Form, expected: str) -> Kind:
    def convert(value: Any) -> Any:
        if type(value) is cls:
            return value
        raise Mismatch(expected)

    return Kind(convert, convert, expected, frozenset({form}), classes=(cls,), leaf=cls)


def _parsed(
    parse: Convert, text: Convert, classes: type, expected: str, *, lenient: frozenset[Form] = frozenset()
) -> Kind:
    """Written as text."""
    kinds = (str, *(cls for cls, form in _FORMS.items() if form in lenient))

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
        return str.__str__(value)  # a template's safe string, say: the same text
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
        raise Mismatch("a datetime of microseconds")  # another library's with nanoseconds
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
_STR: Final = attrs.evolve(_exactly(str, "str", "a str"), write=_write_str)
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
_LEAVES: Final[Mapping[Any, Kind]] = {
    str: _STR,
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
    if kind not in _FORMS or (kind is float and not math.isfinite(value)):
        raise Mismatch("JSON data: dict, list, str, int, finite float, bool or None")
    return value


ANY: Final = Kind(lambda value: value, _write_any, "JSON data", frozenset(_FORMS.values()))


# -- few values ------------------------------------------------------------------------------------


def _enum(cls: type[enum.Enum], where: str) -> Kind:
    plain = {member.value.__class__ for member in cls}
    if not plain <= {str, int, float} or any(
        type(m.value) is float and not math.isfinite(m.value) for m in cls
    ):
        raise ConfigError(
            f"{where} has the type {cls.__qualname__}, whose members' values are not all str, int or finite float: "
            "JSON data cannot name them"
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
        # a combination of flags is an instance too, and its value stands for it
        if not isinstance(value, cls) or cls(value.value) is not value:
            raise Mismatch(f"a {cls.__qualname__}")
        return value.value

    flags = issubclass(cls, enum.Flag)
    forms: frozenset[Form] = frozenset({"int"} if flags else {_FORMS[each] for each in plain})
    words = frozenset(member.value for member in cls if type(member.value) is str)
    if any(cls(member.value) is not member for member in cls):
        raise ConfigError(f"{where} has the type {cls.__qualname__}, whose values do not name its members")
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

    forms: frozenset[Form] = frozenset(_FORMS[type(value)] for value in values)
    classes = tuple({choice.__class__ for choice in choices})
    words = frozenset(value for value in values if type(value) is str)
    plain = not any(isinstance(choice, enum.Enum) for choice in choices)
    return Kind(
        read, write, expected, forms, classes=classes, words=words, leaf=None if not plain else _Plain
    )


class _Plain:
    """Marks a `Literal` of plain values, which are themselves in any union."""


# -- several types ---------------------------------------------------------------------------------


def _union(kinds: list[Kind], where: str) -> Kind:
    if ANY in kinds:
        if all(kind is ANY or kind.leaf is not None for kind in kinds):
            return ANY
        raise ConfigError(f"{where} is a union with Any: what it holds would come back as plain JSON data")
    tag = _tag(kinds)
    for at, kind in enumerate(kinds):
        for other in kinds[:at]:
            _check_apart(kind, other, where, tagged=tag is not None)
    writers: dict[type, Kind] = {}
    readers: dict[Form, list[Kind]] = {}
    for kind in kinds:
        for cls in kind.classes:
            writers.setdefault(cls, kind)
        for form in kind.forms:
            # those of few words first: Literal["a"] | str
            readers.setdefault(form, []).insert(0 if kind.words else len(readers.get(form, ())), kind)
    for kind in kinds:
        for form in kind.lenient:
            readers.setdefault(form, []).append(kind)
    expected = " or ".join(dict.fromkeys(kind.expected for kind in kinds))

    def read(value: Any) -> Any:
        form = form_of(value)
        if form == "object" and tag is not None:
            return tag(value)
        for kind in readers.get(form, ()) if form else ():
            try:
                return kind.read(value)
            except Mismatch:
                continue
        raise Mismatch(expected)

    def write(value: Any) -> Any:
        first = writers.get(value.__class__)
        if first is not None:
            try:
                return first.write(value)
            except Mismatch:
                pass
        for kind in kinds:
            if kind is not first:
                try:
                    return kind.write(value)
                except Mismatch:
                    continue
        raise Mismatch(expected)

    forms: frozenset[Form] = frozenset(form for kind in kinds for form in kind.forms)
    lenient: frozenset[Form] = frozenset(form for k in kinds for form in k.lenient if form not in forms)
    words = [kind.words for kind in kinds if "str" in kind.forms]
    few = None if None in words else frozenset(word for each in words for word in each or ())
    return Kind(
        read, write, expected, forms, lenient, tuple(writers), words=few,
        leaf=_Plain if all(kind.leaf is not None for kind in kinds) else None,
    )  # fmt: skip


def _check_apart(kind: Kind, other: Kind, where: str, *, tagged: bool) -> None:
    common = kind.forms & other.forms
    classes = kind.tags is not None and other.tags is not None
    if tagged and classes:
        common -= {"object"}
    if kind.leaf is not None and other.leaf is not None:
        return  # Literal["a"] | str: the same value, whichever reads it
    if (
        common == {"str"}
        and kind.words is not None
        and other.words is not None
        and not kind.words & other.words
    ):
        return
    if not common:
        return
    remedy = (
        "give each class a field such as kind: Literal['mail'] = 'mail', with another value in each"
        if classes
        else "use one of them, or a class of its own for each"
    )
    raise ConfigError(
        f"{where} is a union of {kind.expected} and {other.expected}, which look alike as JSON "
        f"({'/'.join(sorted(common))}): one would come back as the other; {remedy}"
    )


def _tag(kinds: list[Kind]) -> Convert | None:
    """Reads an object of a union by a field that all of its classes have, each as a `Literal` with other values."""
    members = [(kind, kind.tags) for kind in kinds if kind.tags is not None]
    if len(members) < 2:
        return None
    for name in members[0][1]:
        words = {word: kind for kind, tags in members for word in tags.get(name, ())}
        if all(name in tags for _, tags in members) and len(words) == sum(len(t[name]) for _, t in members):
            return _by_tag(name, words)
    return None


def _by_tag(name: str, members: Mapping[str, Kind]) -> Convert:
    expected = f"an object whose {name!r} is one of {', '.join(map(repr, sorted(members)))}"

    def read(value: Any) -> Any:
        word = value.get(name)
        kind = members.get(word) if type(word) is str else None
        if kind is None:
            raise Mismatch(expected)
        return kind.read(value)

    return read


# -- collections -----------------------------------------------------------------------------------


def _order(plain: Any) -> str:
    return repr(plain)


def _collection(make: Convert, cls: type, item: Kind, hint: Any) -> Kind:
    read_item, write_item, leaf = item.read, item.write, item.leaf
    is_set = issubclass(cls, (set, frozenset))
    exact: Any = cls
    said = f"a {cls.__name__}" if hint is cls else f"a {cls.__name__}, as which a {hint.__name__} comes back"

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
        return sorted(items, key=_order) if is_set else items  # the same value is the same bytes

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
    """Keys of a JSON object are text."""
    hint = unwrapped(hint)
    if hint is int:
        return _INT_KEY
    if hint in (Any, object):
        return _STR
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
