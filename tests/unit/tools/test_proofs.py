"""Each invariant is cited by a test, and each test that docs/failures.md names exists; planted faults are found."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
DESIGN = "| I1 | One. | |\n| I2 | Two. | |\n"
FAILURES = "| situation | shown by |\n|---|---|\n| it fails | `tests/unit/test_a.py::test_one` |\n"
TESTS = """
@pytest.mark.invariant(n=1)
@pytest.mark.invariant(n=2)
def test_one(): ...
"""


@pytest.fixture(scope="module")
def proofs() -> ModuleType:
    """The script."""
    spec = importlib.util.spec_from_file_location("check_proofs", ROOT / "scripts" / "check_proofs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(proofs: ModuleType, root: Path, design: str, failures: str, tests: str) -> list[str]:
    """What the script finds in a project with these files."""
    (root / "docs").mkdir()
    (root / "tests" / "unit").mkdir(parents=True)
    (root / "docs" / "design.md").write_text(design)
    (root / "docs" / "failures.md").write_text(failures)
    (root / "tests" / "unit" / "test_a.py").write_text(tests)
    answer: list[str] = proofs.check(root)
    return answer


def test_this_project(proofs: ModuleType) -> None:
    """All that the documents say is shown by tests."""
    assert proofs.check(ROOT) == []


def test_what_is_right(proofs: ModuleType, tmp_path: Path) -> None:
    """Invariants that are cited and tests that exist are no finding."""
    assert found(proofs, tmp_path, DESIGN, FAILURES, TESTS) == []


NO_NUMBER = "@pytest.mark.invariant()\nasync def test_two(): ...\n"
PLANTED = {
    "an invariant that no test cites": (DESIGN + "| I3 | Three. | |\n", FAILURES, TESTS, "I3 is cited by no test"),
    "a number that does not exist": (DESIGN, FAILURES, TESTS.replace("n=2", "n=7") + TESTS, "there is no invariant I7"),
    "a marker without a number": (DESIGN, FAILURES, TESTS + NO_NUMBER, "test_a.py::test_two: there is no"),
    "a number that is missing": (DESIGN.replace("I1", "I3"), FAILURES, TESTS, "numbered [3, 2]"),
    "a test that does not exist": (DESIGN, FAILURES.replace("_one", "_none"), TESTS, "no test tests/unit/test_a"),
    "a test without its file": (DESIGN, FAILURES.replace("tests/unit/test_a.py::", ""), TESTS, "a test is named as"),
    "a row without a test": (DESIGN, FAILURES + "| it burns | nothing |\n", TESTS, "the row names no test"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_planted(proofs: ModuleType, tmp_path: Path, fault: str) -> None:
    """What is wrong is found, and named."""
    design, failures, tests, text = PLANTED[fault]
    assert text in "\n".join(found(proofs, tmp_path, design, failures, tests))
