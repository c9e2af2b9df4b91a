"""What `Category` and `send` accept comes back from the wire as it was, whatever the payload class."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import typing
import uuid
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypedDict, Union

import attrs
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from kafka_notify import Category, ConfigError, InvalidNotificationError, Notification, wire
from kafka_notify.codec import CodecContext, JsonCodec

TOPIC = "notif.high_priority"
SECRET = "s3cr3t-492817"


def there_and_back(data: Any, category: Category[Any]) -> Any:
    """What a worker gets of what was sent; raises what `send` raises."""
    n = Notification[Any](user_id="u1", category=category.name, channel="sms", data=data)
    key, value, headers = wire.encode(n, JsonCodec(), TOPIC, category)
    back = wire.decode(key, value, headers, TOPIC, 0, 0, 0, JsonCodec(), {category.name: category})
    return back.data


def same(a: object, b: object) -> bool:
    """Whether two values mean the same to the last bit: types, zeros, offsets and order of items included."""
    if isinstance(a, (dt.datetime, dt.time)) and isinstance(b, type(a)) and a.tzinfo is not None:
        # a zone travels as its offset
        return b.tzinfo is not None and (a.utcoffset(), a.replace(tzinfo=None, fold=0)) == (
            b.utcoffset(),
            b.replace(tzinfo=None),
        )
    if type(a) is int and type(b) is float:
        return a == b  # an int where a float is declared
    if isinstance(a, str) and not isinstance(a, enum.Enum) and type(b) is str:
        return str.__str__(a) == b
    if type(a) is not type(b):
        return False
    if isinstance(a, enum.Enum):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return len(a) == len(b) and all(
            any(same(k, other) and same(v, w) for other, w in b.items()) for k, v in a.items()
        )
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (set, frozenset)) and isinstance(b, (set, frozenset)):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    cls: Any = type(a)
    if attrs.has(cls):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in attrs.fields(cls) if f.eq)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a) if f.compare)
    return repr(a) == repr(b)  # -0.0, 1.10, sNaN


# -- any class -------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(enum.Enum):
    ORIGIN = (0, 0)


class Safe(str):
    """Text that a template has escaped, say."""


class Mixed(enum.Enum):
    ONE = 1
    TEXT = "text"
    HALF = 0.5


@attrs.frozen
class Mail:
    subject: str
    kind: Literal["mail"] = "mail"


@attrs.frozen
class Text:
    text: str = ""
    kind: Literal["text"] = "text"


@attrs.frozen
class Plain:
    text: str = ""


@dataclasses.dataclass
class Tidy:
    name: str

    def __post_init__(self) -> None:
        self.name = self.name.strip()


@dataclasses.dataclass
class Doubling:
    count: int

    def __post_init__(self) -> None:
        self.count *= 2


def in_order(items: list[int]) -> list[int]:
    return sorted(items)


@attrs.define
class Counted:
    items: list[int] = attrs.field(factory=list, converter=in_order)
    total: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.total = sum(self.items)


LEAVES: list[Any] = [
    str, int, bool, float, type(None), dt.datetime, dt.date, dt.time, uuid.UUID, Decimal, Any, object, bytes, complex,
    Color, Level, Access, Point, Mixed, Literal["a"], Literal["b", 1, None], Literal["mail"], Literal[Color.RED],
    Mail, Text, Plain, Tidy, Doubling, Counted, list, dict, tuple[()],
]  # fmt: skip
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
ZONES = st.sampled_from([None, dt.timezone.utc, dt.timezone(dt.timedelta(hours=-3, seconds=7)), BERLIN])
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(codec="utf-8"), max_size=5)
    | st.builds(Safe, st.just("<b>"))
    | st.sampled_from(["red", "mail", "a", "b", "007", "2026-01-02"]),
    int: st.integers() | st.integers(0, 2),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
    type(None): st.none(),
    dt.datetime: st.datetimes(timezones=ZONES),
    dt.date: st.dates(),
    dt.time: st.times(timezones=st.none() | st.just(dt.timezone.utc)),
    uuid.UUID: st.uuids(),
    Decimal: st.decimals() | st.sampled_from([Decimal("1.0"), Decimal("1.00"), Decimal(7)]),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Access: st.sampled_from([Access.READ, Access.READ | Access.WRITE, Access(0)]),
    Point: st.just(Point.ORIGIN),
    Mixed: st.sampled_from(Mixed),
    bytes: st.binary(),
    complex: st.complex_numbers(),
    Mail: st.builds(Mail, st.text("ab", max_size=5)),
    Text: st.builds(Text, st.text("ab", max_size=5)),
    Plain: st.builds(Plain, st.text("ab", max_size=5)),
    Tidy: st.builds(Tidy, st.text("ab ", max_size=5)),
    Doubling: st.builds(Doubling, st.integers(0, 3)),
    Counted: st.builds(Counted, st.lists(st.integers(0, 9), max_size=3)),
}
WRONG: Any = Plain(5)  # type: ignore[arg-type]  # of a class that another type is declared for
NEARLY: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [10**5000, 10**400, 2**60 + 1, math.nan, math.inf, "\ud800", Level.LOW, WRONG, True, (1,)]
    ),
    st.datetimes().map(lambda moment: moment.replace(fold=1)),
    st.times(timezones=st.just(BERLIN)),
    st.datetimes(),
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=5,
)
ANYTHING = st.one_of(NEARLY, NEARLY, NEARLY, st.tuples(JSON_VALUES), *(VALUES[leaf] for leaf in VALUES))
KEYS: list[Any] = [
    str,
    int,
    bool,
    float,
    uuid.UUID,
    dt.date,
    Decimal,
    Color,
    Level,
    Literal["a", "b"],
    str | None,
    Any,
]


LIST: Any = list
SEQUENCE: Any = Sequence
SET: Any = set
FROZENSET: Any = frozenset
TUPLE: Any = tuple
DICT: Any = dict
MAPPING: Any = Mapping
UNION: Any = Union


def hints(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    key = st.sampled_from(KEYS)
    return st.one_of(
        st.builds(lambda a: LIST[a], inner),
        st.builds(lambda a: SEQUENCE[a], inner),
        st.builds(lambda a: SET[a], inner),
        st.builds(lambda a: FROZENSET[a], inner),
        st.builds(lambda a: TUPLE[a, ...], inner),
        st.builds(lambda a, b: TUPLE[a, b], inner, inner),
        st.builds(lambda k, a: DICT[k, a], key, inner),
        st.builds(lambda k, a: MAPPING[k, a], key, inner),
        st.builds(lambda a, b, c: UNION[a, b, c], inner, inner, inner),
    )


UNIONS = st.builds(lambda *members: UNION[members], *[st.sampled_from(LEAVES)] * 2)
HINTS = UNIONS | st.recursive(st.sampled_from(LEAVES), hints, max_leaves=3)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a hint, and now and then something else."""
    origin: Any = typing.get_origin(hint) or hint
    args = typing.get_args(hint)
    found: st.SearchStrategy[Any]
    if hint in (Any, object):
        found = JSON_VALUES
    elif hint in VALUES:
        found = VALUES[hint]
    elif origin is Union:
        found = st.one_of(*map(values, args))
    elif origin is Literal:
        found = st.sampled_from(args)
    elif origin in (list, Sequence, typing.get_origin(Sequence[int])):
        found = st.lists(values(args[0]) if args else JSON_VALUES, max_size=3)
    elif origin is tuple and args and args[-1] is Ellipsis:
        found = st.lists(values(args[0]), max_size=3).map(tuple)
    elif origin is tuple:
        found = st.tuples(*map(values, args))
    elif origin in (set, frozenset):
        found = st.lists(values(args[0]), max_size=3).map(lambda items: _hashed(origin, items))
    else:
        key, item = args or (str, Any)
        found = st.lists(st.tuples(values(key if key is not Any else str), values(item)), max_size=3).map(
            _dict
        )
    return st.integers(0, 19).flatmap(lambda n: ANYTHING if n == 0 else found)


def _hashed(make: Callable[[Any], Any], items: list[Any]) -> Any:
    try:
        return make(items)
    except TypeError:
        return items


def _dict(items: list[Any]) -> Any:
    try:
        return dict(items)
    except TypeError:
        return items


def attrs_class(fields: dict[str, Any]) -> type[Any]:
    return attrs.make_class("Made", {name: attrs.field(type=hint) for name, hint in fields.items()}, eq=True)


def data_class(fields: dict[str, Any]) -> type[Any]:
    return dataclasses.make_dataclass("Made", list(fields.items()))


@settings(deadline=None, max_examples=500, suppress_health_check=list(HealthCheck))
@given(
    st.data(),
    st.sampled_from([attrs_class, data_class]),
    st.dictionaries(st.sampled_from("ab"), HINTS, min_size=1),
)
def test_what_is_accepted_comes_back(
    data: st.DataObject, make: Callable[[dict[str, Any]], type[Any]], fields: dict[str, Any]
) -> None:
    """Any payload class that `Category` accepts brings every value that `send` accepts back, to the last bit."""
    payload = make(fields)
    try:
        category = Category("made", "high_priority", payload=payload)
    except ConfigError:
        event("class refused")
        assume(False)
        return
    value = payload(**{name: data.draw(values(hint)) for name, hint in fields.items()})
    try:
        back = there_and_back(value, category)
    except InvalidNotificationError:
        event("value refused")
        return
    event("sent")
    assert same(value, back), (value, back)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_ordinary_classes_and_values_are_accepted(data: st.DataObject) -> None:
    """Refusing everything would be no promise: each supported type is sent."""
    hint = data.draw(
        st.sampled_from(
            [str, int, bool, Decimal, dt.date, uuid.UUID, Color, Level, list[int], dict[str, Decimal], str | None,
             Mail | Text, int | float | None, tuple[int, str], dict[int, Color], set[str], list[Tidy]]
        )
    )  # fmt: skip
    ordinary = {
        str: st.text(st.characters(codec="utf-8")), int: st.integers(), bool: st.booleans(), Decimal: st.decimals(),
        dt.date: st.dates(), uuid.UUID: st.uuids(), Color: st.sampled_from(Color), Level: st.sampled_from(Level),
        list[int]: st.lists(st.integers()), dict[str, Decimal]: st.dictionaries(st.just("eur"), st.decimals()),
        str | None: st.just("x") | st.none(), Mail | Text: st.just(Mail("s")) | st.just(Text("t")),
        int | float | None: st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        tuple[int, str]: st.tuples(st.integers(), st.just("x")), dict[int, Color]: st.just({1: Color.RED}),
        set[str]: st.sets(st.just("x")), list[Tidy]: st.just([Tidy(" x ")]),
    }  # fmt: skip
    payload = attrs_class({"a": hint})
    value = payload(a=data.draw(ordinary[hint]))
    assert same(there_and_back(value, Category("made", "high_priority", payload=payload)), value)


# -- what was sent and died, or came back as something else ----------------------------------------


@attrs.frozen
class LoginCode:
    tenant: str
    code: str


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (str, 5, "a str"),
        (str, Color.RED, "a str"),
        (int, True, "a whole number"),
        (int, 1.0, "a whole number"),
        (float, True, "a finite float"),
        (float, math.nan, "a finite float"),
        (dt.date, dt.datetime(2026, 1, 2), "a date"),  # noqa: DTZ001  # a naive one
        (dt.datetime, dt.date(2026, 1, 2), "a datetime"),
        (dt.datetime, dt.datetime(2026, 10, 25, 2, 30, fold=1), "without fold"),  # noqa: DTZ001
        (Level, 1, "a Level"),
        (list[int], (1, 2), "a list"),
        (list[int], [1, "2"], "a whole number"),
        (tuple[int, ...], [1], "a tuple"),
        (dict[str, int], {1: 1}, "a str"),
        (Any, (1,), "JSON data"),
        (Any, {1: 1}, "JSON data"),
        (Plain, Mail("x"), "a Plain itself"),
        (Decimal, 7, "a Decimal"),
    ],
)
def test_a_value_of_another_type_is_refused_when_it_is_sent(hint: Any, value: object, expected: str) -> None:
    """With class, field and what would fit; never the value."""
    payload = attrs_class({"a": hint})
    with pytest.raises(InvalidNotificationError, match=rf"Made\.a must be .*{expected}"):
        there_and_back(payload(a=value), Category("made", "high_priority", payload=payload))


def test_the_refusal_names_the_field_and_not_the_value() -> None:
    """Also of a class that is given with a mapping."""
    category = Category("login", "high_priority", payload=LoginCode)
    wrong: Any = LoginCode(SECRET, 492817)  # type: ignore[arg-type]  # what the test is about
    for data in (wrong, {"tenant": SECRET, "code": 492817}):
        with pytest.raises(InvalidNotificationError, match=r"^LoginCode\.code must be a str$"):
            there_and_back(data, category)


class Derived(Plain):
    """Holds more than its base can say."""


def test_an_instance_of_a_derived_class_is_refused() -> None:
    """It would come back as its base."""
    with pytest.raises(InvalidNotificationError, match="data must be a Plain itself, not a Derived"):
        there_and_back(Derived("x"), Category("made", "high_priority", payload=Plain))


class Dictionary(TypedDict):
    a: int


class Pair(typing.NamedTuple):
    a: int


@dataclasses.dataclass
class WithSecret:
    name: str
    password: dataclasses.InitVar[str]


@dataclasses.dataclass
class List(list[int]):
    a: int


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Dictionary, "Dictionary is neither an attrs class nor a dataclass"),
        (lambda: Pair, "Pair is neither"),
        (lambda: int, "int is neither"),
        (lambda: list[int], r"list.* is neither"),
        (lambda: WithSecret, r"WithSecret\.password is an InitVar"),
        (lambda: List, "derives from a built-in class"),
        (lambda: attrs_class({"a": Decimal | str}), r"Made\.a is a union of .* look alike as JSON \(str\)"),
        (lambda: attrs_class({"a": Mail | Plain}), "give each class a field such as kind: Literal"),
        (lambda: attrs_class({"a": list[int] | set[int]}), "look alike"),
        (lambda: attrs_class({"a": dict[str, int] | Plain}), "look alike"),
        (lambda: attrs_class({"a": Color | str}), "look alike"),
        (lambda: attrs_class({"a": dt.date | dt.datetime}), "look alike"),
        (lambda: attrs_class({"a": dt.date | Any}), "union with Any"),
        (lambda: attrs_class({"a": Point}), "members' values are not all str, int or finite float"),
        (lambda: attrs_class({"a": Literal["red", Color.RED]}), "choices must be different"),
        (lambda: attrs_class({"a": dict[float, int]}), "are not text in JSON"),
        (lambda: attrs_class({"a": dict[int | str, int]}), "are not text in JSON"),
        (lambda: attrs_class({"a": Dictionary}), "which cannot be read from JSON"),
        (
            lambda: attrs.make_class("Made", {"a": attrs.field(type=Sequence[int], default=())}),
            r"the default of Made\.a cannot be sent: it must be a list, as which a Sequence is read back",
        ),
    ],
)
def test_a_class_that_might_not_come_back_is_refused_with_its_category(
    make: Callable[[], Any], text: str
) -> None:
    """The text names the field, and what to write instead."""
    with pytest.raises(ConfigError, match=text):
        Category("made", "high_priority", payload=make())


def test_models_of_other_libraries_are_refused_with_their_category() -> None:
    """They passed, and failed with the first notification."""
    pydantic, msgspec = pytest.importorskip("pydantic"), pytest.importorskip("msgspec")
    for base in (pydantic.BaseModel, msgspec.Struct):
        model = type("Model", (base,), {"__annotations__": {"a": int}})
        with pytest.raises(ConfigError, match="Model is neither an attrs class nor a dataclass"):
            Category("made", "high_priority", payload=model)


@pytest.mark.parametrize(
    ("hint", "values"),
    [
        (Mail | Text, [Mail("s"), Text("t")]),
        (list[Mail | Text], [[Text("t"), Mail("s")]]),
        (int | float | str | bool | None, [1, 1.0, "1", True, None, -0.0]),
        (Decimal | int, [Decimal("1.10"), 7]),
        (Literal["none"] | Color | None, ["none", Color.RED, None]),
        (Literal["a"] | str, ["a", "b"]),
        (list[int] | None | Plain, [[1], None, Plain("x")]),
    ],
)
def test_unions_that_can_be_told_apart(hint: Any, values: list[Any]) -> None:
    """By what they are in JSON, or by a field that names the class."""
    payload = attrs_class({"a": hint})
    category = Category("made", "high_priority", payload=payload)
    for value in values:
        assert same(there_and_back(payload(a=value), category).a, value)


def test_code_of_a_class_that_changes_what_it_is_given() -> None:
    """It is run before the value is sent: what it makes must stay as it is."""
    assert there_and_back(Tidy(" x "), Category("tidy", "high_priority", payload=Tidy)).name == "x"
    with pytest.raises(InvalidNotificationError, match="a Doubling would not be read back as it is"):
        there_and_back(Doubling(1), Category("doubling", "high_priority", payload=Doubling))
    holder = attrs_class({"a": list[Doubling]})
    with pytest.raises(InvalidNotificationError, match="a Made would not be read back as it is"):
        there_and_back(holder(a=[Doubling(1)]), Category("made", "high_priority", payload=holder))


def test_a_field_that_the_class_fills_itself() -> None:
    """It comes back when it follows from the others, and is refused when it was changed."""
    category = Category("counted", "high_priority", payload=Counted)
    value = Counted([2, 1])
    assert there_and_back(value, category).total == 3
    value.total = 4
    with pytest.raises(InvalidNotificationError, match="a Counted would not be read back as it is"):
        there_and_back(value, category)


@attrs.define
class Validated:
    code: str = attrs.field(validator=attrs.validators.max_len(3))


def test_a_value_that_its_own_class_would_refuse() -> None:
    """It was changed after it was made; the reader would have refused it."""
    value = Validated("123")
    with attrs.validators.disabled():
        value.code = "1234"
    with pytest.raises(InvalidNotificationError, match="Validated refused its fields with ValueError"):
        there_and_back(value, Category("validated", "high_priority", payload=Validated))


@attrs.frozen
class Tree:
    children: list[Tree]


def nested(depth: int) -> Any:
    data: Any = {}
    for _ in range(depth):
        data = {"a": [data]}
    return data


def test_deep_nesting_is_refused_when_it_is_sent() -> None:
    """A reader's stack may be fuller than a writer's."""
    tree = Tree([])
    for _ in range(40):
        tree = Tree([tree])
    category = Category("tree", "high_priority", payload=Tree)
    assert there_and_back(tree, category) == tree
    for _ in range(40):
        tree = Tree([tree])
    for data, of in ((tree, category), (nested(51), Category("json", "high_priority"))):
        with pytest.raises(InvalidNotificationError, match="nested more than 100 levels deep"):
            there_and_back(data, of)
    for _ in range(2_000):
        tree = Tree([tree])
    with pytest.raises(InvalidNotificationError, match="nested too deeply"):
        there_and_back(tree, category)
    flat = {"a": [{"b": "[" * 300}] * 200}
    assert there_and_back(flat, Category("json", "high_priority")) == flat


class Upper(JsonCodec):
    """A codec of a team's own, which writes something else."""

    content_type = "text/plain"

    def encode(self, notification: Notification[Any], context: CodecContext, /) -> bytes:
        return str(notification.data.code).encode()


def test_other_codecs_are_given_checked_data() -> None:
    """The check is the category's, whatever writes the bytes."""
    category = Category("login", "high_priority", payload=LoginCode)
    wrong: Any = LoginCode("acme", 5)  # type: ignore[arg-type]  # what the test is about
    n = Notification[Any](user_id="u1", category="login", channel="sms", data=wrong)
    with pytest.raises(InvalidNotificationError, match=r"LoginCode\.code must be a str"):
        wire.encode(n, Upper(), TOPIC, category)
