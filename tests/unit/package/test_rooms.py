"""The package's modules lie in rooms: no import leads in a circle or upwards, and no module grows too large."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import kafka_notify
from tests.rooms import ROOMS, Room, circles, crowded, grown, imports, modules, oversized, room_of, upward

PACKAGE = Path(kafka_notify.__file__).parent


# Lines of what is above its limit. They may become fewer, never more.
TOO_LARGE = {
    "kafka_notify.prometheus:Metrics.__init__": 65,  # a list of metrics, each in a line or two
    "kafka_notify.testing._check_sender:check_sender": 72,  # half of it is documentation
    "kafka_notify.testing._deliver:deliver": 68,  # likewise
    "kafka_notify.wire:decode": 71,  # runs for each record: its parts as functions would cost 0.1 us each
}

# Arguments of constructors above their limit. They may become fewer, never more.
TOO_MANY_ARGUMENTS = {
    # what users write, by keyword
    "kafka_notify.limits:RateLimit": 8,
    "kafka_notify.notification:Notification": 11,
    "kafka_notify.testing._fake_provider:FakeProvider": 9,
    "kafka_notify.worker:Worker": 12,
}


def test_no_imports_lead_in_a_circle() -> None:
    assert circles(imports(PACKAGE)) == []


def test_every_module_is_in_a_room_and_every_room_has_its_modules() -> None:
    known = modules(PACKAGE)
    assert [module for module in known if room_of(module, ROOMS) is None] == []
    assert [name for room in ROOMS for name in room.modules if name not in known] == []


def test_no_private_module_lies_beside_the_public_ones() -> None:
    loose = [
        name for name, path in modules(PACKAGE).items() if name.count(".") == 1 and path.name.startswith("_")
    ]
    assert [name for name in loose if modules(PACKAGE)[name].name not in ("__init__.py", "__main__.py")] == []


def test_the_design_says_of_each_room_what_it_is_for() -> None:
    design = (Path(__file__).parents[3] / "docs" / "design.md").read_text(encoding="utf-8")
    folders = [name for room in ROOMS for name in room.modules if name.startswith("kafka_notify._")]
    for name in folders:
        if name == "kafka_notify.__main__":
            continue
        sentence = importlib.import_module(name).__doc__ or ""
        assert f"  {name.removeprefix('kafka_notify.')}/" in design
        assert sentence
        assert sentence in design


def test_no_room_imports_a_higher_one() -> None:
    assert upward(imports(PACKAGE), ROOMS) == set()


def test_nothing_is_too_large_and_what_is_does_not_grow() -> None:
    assert grown(oversized(PACKAGE), TOO_LARGE) == {}


def test_an_exception_for_a_size_is_still_needed() -> None:
    assert TOO_LARGE.keys() - oversized(PACKAGE).keys() == set()


def test_no_constructor_takes_too_many_arguments() -> None:
    found = crowded(PACKAGE)
    assert grown(found, TOO_MANY_ARGUMENTS) == {}
    assert TOO_MANY_ARGUMENTS.keys() - found.keys() == set()


def test_an_exception_may_shrink_and_not_grow() -> None:
    assert grown({"a": 400, "b": 401}, {"a": 401, "b": 401}) == {}
    assert grown({"a": 402, "b": 400, "new": 351}, {"a": 401, "b": 401}) == {"a": 402, "new": 351}


def _tree(root: Path, **sources: str) -> Path:
    package = root / "house"
    package.mkdir()
    for name, source in {"__init__": "", **sources}.items():
        (package / f"{name}.py").write_text(source, encoding="utf-8")
    return package


@pytest.mark.parametrize(
    "back",
    [
        "import house.a\n",
        "from house import a\n",
        "from house.a import A\n",
        "from . import a\n",
        "from .a import A\n",
        "def later():\n    from house.a import A\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.a import A\n",
    ],
)
def test_a_planted_circle_is_found(tmp_path: Path, back: str) -> None:
    house = _tree(tmp_path, a="from house.b import B\n", b="from house.c import C\n", c=back)
    assert circles(imports(house)) == [frozenset({"house.a", "house.b", "house.c"})]


def test_imports_without_a_circle_are_accepted(tmp_path: Path) -> None:
    house = _tree(tmp_path, a="from house.b import B\nfrom house.c import C\n", b="import house.c\n", c="")
    assert circles(imports(house)) == []


def test_a_planted_import_of_a_higher_room_is_found(tmp_path: Path) -> None:
    low, high = Room("low", ("house.low",)), Room("high", ("house.high", "house"))
    house = _tree(tmp_path, low="def f():\n    import house.high\n", high="")
    assert upward(imports(house), (low, high)) == {("house.low", "house.high")}
    assert upward(imports(house), (high, low)) == set()


@pytest.mark.parametrize(("extra", "found"), [(0, {}), (1, {"house.a:f": 61})])
def test_a_planted_long_function_is_found(tmp_path: Path, extra: int, found: dict[str, int]) -> None:
    house = _tree(tmp_path, a="def f():\n" + "    pass\n" * (59 + extra))
    assert oversized(house) == found


@pytest.mark.parametrize(("extra", "found"), [(0, {}), (1, {"house.a:C": 301})])
def test_a_planted_long_class_is_found(tmp_path: Path, extra: int, found: dict[str, int]) -> None:
    house = _tree(tmp_path, a="class C:\n" + "    x = 1\n" * (299 + extra))
    assert oversized(house) == found


@pytest.mark.parametrize(("extra", "found"), [(0, {}), (1, {"house.a": 351})])
def test_a_planted_long_module_is_found(tmp_path: Path, extra: int, found: dict[str, int]) -> None:
    house = _tree(tmp_path, a="x = 1\n" * (350 + extra))
    assert oversized(house) == found


@pytest.mark.parametrize(
    ("extra", "found"), [("", {}), (", h", {"house.a:C": 8}), (", *, h=1", {"house.a:C": 8})]
)
def test_a_planted_constructor_with_too_many_arguments_is_found(
    tmp_path: Path, extra: str, found: dict[str, int]
) -> None:
    house = _tree(tmp_path, a=f"class C:\n    def __init__(self, a, b, c, d, e, f, g{extra}): ...\n")
    assert crowded(house) == found
