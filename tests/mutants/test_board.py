"""The board of mutants fits the code and its page, and its runner tells a caught mutant from a survivor."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.mutants.board import PACKAGE, ROOT, Mutant, StaleMutant, names_of_tests
from tests.mutants.mutants import MUTANTS, SEEDED
from tests.mutants.page import page
from tests.mutants.runner import Verdict

LEAST = 40
"""Mutants on the board, at least."""
PROVEN = ("retry-as-old-as-the-epoch", "requeue-starts-at-zero", "null-key")
"""Mutants that are tried here; `make mutants` tries all."""
NAMES = [mutant.name for mutant in MUTANTS]


def test_the_board_is_large_and_names_each_mutant_once() -> None:
    assert len(MUTANTS) >= LEAST
    assert len(set(NAMES)) == len(NAMES)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in NAMES)


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    """Its old text is there once, the code with the new text can be read, and its tests exist."""
    before = (ROOT / PACKAGE / mutant.file).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(mutant.patched(before))) != ast.dump(ast.parse(before))
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert name.removesuffix("::runTest") in names_of_tests(ROOT / "tests" / file), test


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_source_can_be_looked_up(mutant: Mutant) -> None:
    """An own defect is a row of the design; another one is an issue or a pull request."""
    if mutant.is_own:
        assert f"| {mutant.source}" in (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    else:
        assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/[1-9][0-9]*", mutant.url)


def test_a_mutant_of_other_code_is_refused() -> None:
    """Neither text that is gone nor text that occurs twice is replaced."""
    mutant = MUTANTS[0]
    with pytest.raises(StaleMutant, match=f"{mutant.name}: the old text occurs 0 times in {mutant.file}"):
        mutant.patched("other code")
    with pytest.raises(StaleMutant, match="occurs 2 times"):
        mutant.patched(mutant.old * 2)


def test_the_page_is_that_of_the_board() -> None:
    """It is written when all are caught: then it depends on nothing but the board."""
    written = (ROOT / "docs" / "proof" / "mutants.md").read_text(encoding="utf-8")
    assert written == page([Verdict(mutant, ()) for mutant in MUTANTS]), "run `make mutants`"


def test_a_page_tells_of_survivors() -> None:
    written = page([Verdict(MUTANTS[0], MUTANTS[0].tests), Verdict(MUTANTS[1], ())])
    assert "**1 of 2 mutants are caught.**" in written
    assert written.count("**not caught**") == 1


def test_the_runner_catches_mutants_and_notices_what_is_not_caught() -> None:
    """A change of nothing survives, and a broken import says nothing about a test; the tree stays as it is."""
    before = {mutant.file: (ROOT / PACKAGE / mutant.file).read_bytes() for mutant in MUTANTS}
    survivor, broken = (mutant.name for mutant in SEEDED)
    wanted = [f"--only={name}" for name in (*PROVEN, survivor, broken)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", *wanted],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line.split(":")[0].split() for line in done.stdout.splitlines()]
    assert said[:-1] == [
        *(["caught", name] for name in PROVEN),
        ["SURVIVED", survivor],
        ["ERROR", broken],
    ], done
    assert done.stdout.endswith("3 of 5 mutants are caught\n")
    assert done.returncode == 1
    assert before == {file: (ROOT / PACKAGE / file).read_bytes() for file in before}
