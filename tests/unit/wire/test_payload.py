"""Payload classes: what JSON data becomes, and what the text of a refusal says."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal, NewType, Optional

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafka_notify._wire.payload import check_payload_class, structure, unstructure
from kafka_notify.errors import ConfigError, InvalidNotificationError

SECRET = "s3cr3t-492817"
UserId = NewType("UserId", str)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen
class Address:
    city: str
    zip: str | None = None


@dataclasses.dataclass(frozen=True)
class Item:
    name: str
    price: Decimal
    count: int = 1
    total: Decimal = dataclasses.field(init=False, default=Decimal(0))


@attrs.frozen
class Order:
    id: uuid.UUID
    user: UserId
    placed_at: dt.datetime
    day: dt.date
    at: dt.time
    items: list[Item]
    home: Address
    kind: Literal["new", "again"]
    weight: float
    gift: bool
    color: Color
    level: Level
    tags: set[str]
    labels: frozenset[str]
    point: tuple[int, int]
    path: tuple[str, ...]
    prices: dict[str, Decimal]
    rooms: Mapping[int, Address]
    by_color: dict[Color, int]
    notes: Sequence[str] = attrs.field(factory=list)
    work: Optional[Address] = None  # noqa: UP045  # teams write it both ways
    code: int | str | None = None
    extra: Any = None
    _private: int = 0


@attrs.frozen
class Tree:
    value: int
    children: list[Tree] = attrs.field(factory=list)


@attrs.frozen
class Checked:
    code: str = attrs.field()

    @code.validator
    def _six_digits(self, _: object, value: str) -> None:
        if len(value) != 6:
            raise ValueError(f"{value!r} is not six digits")


@attrs.frozen
class WithBytes:
    raw: bytes


@dataclasses.dataclass
class Deep:
    inner: list[WithBytes]


@attrs.frozen
class Unresolved:
    value: NoSuchType  # type: ignore[name-defined]  # noqa: F821  # what the test is about


ORDER = Order(
    id=uuid.UUID(int=7),
    user=UserId("u1"),
    placed_at=dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc),
    day=dt.date(2026, 1, 2),
    at=dt.time(3, 4),
    items=[Item("pen", Decimal("1.10")), Item("ink", Decimal("3"), 2)],
    home=Address("Rome", "00100"),
    kind="again",
    weight=1.5,
    gift=True,
    color=Color.BLUE,
    level=Level.HIGH,
    tags={"a", "b"},
    labels=frozenset({"c"}),
    point=(3, 4),
    path=("x", "y", "z"),
    prices={"eur": Decimal("1.10")},
    rooms={7: Address("Oslo")},
    by_color={Color.RED: 2},
    notes=["n"],
    work=Address("Pisa"),
    code="c",
    extra={"any": [1, None]},
    private=3,
)


def test_round_trip_through_json() -> None:
    """Every supported type comes back equal after a trip through JSON text."""
    assert structure(Order, json.loads(json.dumps(unstructure(ORDER)))) == ORDER


def test_unknown_keys_are_ignored() -> None:
    """A field added by a newer producer does not disturb an older consumer."""
    assert structure(Address, {"city": "Rome", "planet": "Mars"}) == Address("Rome")


def test_defaults_fill_what_is_missing() -> None:
    """An optional field that is absent takes the class's default."""
    assert structure(Item, {"name": "pen", "price": "2"}) == Item("pen", Decimal(2))


def test_recursive_class() -> None:
    """A class may hold itself."""
    assert structure(Tree, {"value": 1, "children": [{"value": 2}]}) == Tree(1, [Tree(2)])


def test_z_means_utc() -> None:
    """The `Z` of other languages is read on every supported Python."""
    placed = structure(Order, unstructure(ORDER) | {"placed_at": "2026-01-02T03:04:05Z"}).placed_at
    assert placed == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)


def test_whole_number_fits_a_float() -> None:
    """JSON writers drop `.0`: a whole number becomes a float where one is wanted."""
    order = structure(Order, unstructure(ORDER) | {"weight": 2})
    assert order.weight == 2.0
    assert type(order.weight) is float


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("id", SECRET, "Order.id must be a UUID"),
        ("user", 5, "Order.user must be a str"),
        ("placed_at", SECRET, "Order.placed_at must be an ISO 8601 date and time"),
        ("day", 5, "Order.day must be an ISO 8601 date"),
        ("at", SECRET, "Order.at must be an ISO 8601 time"),
        ("items", {"name": SECRET}, "Order.items must be a list"),
        ("items", [{"name": "pen"}], "Item.price is missing"),
        ("items", [{"name": "pen", "price": SECRET}], "Item.price must be a decimal number"),
        ("items", [SECRET], "the data of a Item must be a JSON object"),
        ("home", {}, "Address.city is missing"),
        ("kind", SECRET, "Order.kind must be one of 'new', 'again'"),
        ("weight", SECRET, "Order.weight must be a number"),
        ("weight", 10**400, "Order.weight must be a number"),
        ("gift", 1, "Order.gift must be true or false"),
        ("color", SECRET, "Order.color must be a value of Color"),
        ("level", True, "Order.level must be a value of Level"),
        ("tags", [["a"]], "Order.tags must be a str"),
        ("point", [1], "Order.point must be a list of 2"),
        ("point", [1, SECRET], "Order.point must be a whole number"),
        ("prices", [], "Order.prices must be an object"),
        ("rooms", {SECRET: {"city": "Oslo"}}, "Order.rooms must be an object with whole numbers as keys"),
        ("work", SECRET, "Order.work must be an object or null"),
        ("work", {"zip": SECRET}, "Address.city is missing"),
        ("code", [SECRET], "Order.code must be a whole number or a str or null"),
        ("_private", True, "Order._private must be a whole number"),
    ],
)
def test_refusal_names_class_and_field_and_never_the_value(field: str, value: object, expected: str) -> None:
    """A value that does not fit is refused with the class, the field and what would fit."""
    with pytest.raises(InvalidNotificationError) as raised:
        structure(Order, unstructure(ORDER) | {field: value})
    assert str(raised.value) == expected
    assert SECRET not in str(raised.value)
    assert raised.value.__context__ is None or raised.value.__suppress_context__


def test_validator_of_the_class_is_reported_without_its_text() -> None:
    """A validator's text may hold the value, so only the class of its exception is kept."""
    with pytest.raises(InvalidNotificationError, match=r"^Checked refused its fields with ValueError$"):
        structure(Checked, {"code": SECRET})


def test_data_must_be_an_object() -> None:
    """Only a JSON object can fill a class."""
    with pytest.raises(InvalidNotificationError, match="the data of a Address must be a JSON object"):
        structure(Address, [SECRET])


@pytest.mark.parametrize("cls", [WithBytes, Deep])
def test_class_that_json_cannot_fill_is_a_config_error(cls: type[Any]) -> None:
    """A field of an unsupported type is found before the first record, nested classes included."""
    with pytest.raises(ConfigError, match=r"WithBytes\.raw has the type <class 'bytes'>"):
        check_payload_class(cls)


def test_annotation_that_cannot_be_resolved_is_a_config_error() -> None:
    """An annotation that exists only for type checkers is found before the first record."""
    with pytest.raises(ConfigError, match="annotations of Unresolved cannot be resolved: name 'NoSuchType'"):
        check_payload_class(Unresolved)


def test_other_classes_are_refused() -> None:
    """A class that is neither attrs nor dataclass is found when the category is made."""
    for refuse in (lambda: check_payload_class(Fraction), lambda: structure(Fraction, {})):
        with pytest.raises(ConfigError, match="Fraction is neither an attrs class nor a dataclass"):
            refuse()


class Fraction:
    """Stands for a model of another library."""


@pytest.mark.parametrize("value", [Fraction(), {"a": [Fraction()]}, b"x"])
def test_unstructure_refuses_what_json_cannot_hold(value: object) -> None:
    """The refusal names the type."""
    with pytest.raises(
        InvalidNotificationError, match=r"data holds a (Fraction|bytes), which JSON cannot hold"
    ):
        unstructure(value)


@pytest.mark.parametrize("key", [True, 1.5, None, (1, 2)])
def test_unstructure_refuses_keys_that_would_come_back_as_something_else(key: object) -> None:
    """JSON keys are text: only what can be read back from text may be one."""
    with pytest.raises(InvalidNotificationError, match="as key; use str or int keys"):
        unstructure({key: 1})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*attrs.fields_dict(Order), "other"]), json_values))
def test_any_json_is_either_structured_or_refused(data: dict[str, Any]) -> None:
    """Hostile data never raises anything but `InvalidNotificationError`."""
    try:
        order = structure(Order, unstructure(ORDER) | data)
    except InvalidNotificationError:
        return
    assert isinstance(order, Order)
