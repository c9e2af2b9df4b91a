"""Every single missing right of every role, on a broker that grants none by itself: what is said, and where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka import roles
from tests.kafka.roles import ROLES, Role
from tests.kafka.secured import Secured, secured

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
RUN_BOOK = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture(scope="module")
def kafka() -> Iterator[Secured]:
    with secured() as kafka:
        yield kafka


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name.strip("`"))
def test_each_role_needs_no_more_than_its_rights(kafka: Secured, role: Role, tmp_path: Path) -> None:
    """With all of them and no others it does its work."""
    said = roles.attempt(kafka, role, None, None, tmp_path)
    assert not said.failed, said.text


@pytest.mark.parametrize(
    ("role", "missing", "expected"),
    [(role, right, said) for role in ROLES for right, said in role.rights],
    ids=lambda value: value.name.strip("`") if isinstance(value, Role) else None,
)
def test_a_missing_right_is_named(
    kafka: Secured, role: Role, missing: str, expected: str, tmp_path: Path
) -> None:
    """What the run-book says is said, and when, and a worker's probes answer as it says."""
    said = roles.attempt(kafka, role, missing, expected, tmp_path)
    assert expected in said.text
    assert said.when == roles.when(role, missing)
    assert (said.ready, said.live) == roles.answers(role, missing)


def test_the_run_book_has_this_table() -> None:
    """As it is made from what these tests expect."""
    assert roles.table() in RUN_BOOK.read_text()
