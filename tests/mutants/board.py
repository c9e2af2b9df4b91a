"""A board of mutants: defects that others had, or that this library had, as small patches on its code."""

from __future__ import annotations

import ast
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
PACKAGE = "src/kafka_notify"


@attrs.frozen
class Mutant:
    """A defect as one replacement in one file, and the tests that must fail with it."""

    name: str
    """Its name on the board, and for `--only`."""
    defect: str
    """The defect in one sentence: what went wrong where it happened."""
    source: str
    """Where it happened: `owner/repository#number`, or the threat in `docs/design.md`, "Invariants that once broke"."""
    file: str
    """The file that it changes, below `src/kafka_notify`."""
    old: str
    """Text that occurs in it once."""
    new: str
    """Text that takes its place."""
    tests: tuple[str, ...]
    """IDs of the tests that must fail, below `tests`; parameters are left out."""
    pull: bool = False
    """True when the number is that of a pull request."""

    @property
    def url(self) -> str:
        """Address of the source."""
        repository, number = self.source.split("#")
        return f"https://github.com/{repository}/{'pull' if self.pull else 'issues'}/{number}"

    @property
    def is_own(self) -> bool:
        """True for a defect of this library."""
        return "#" not in self.source

    def apply(self, root: Path) -> str:
        """Change the file below `root`. Return its text before.

        Raises:
            StaleMutant: The old text does not occur exactly once.
        """
        path = root / PACKAGE / self.file
        before = path.read_text(encoding="utf-8")
        path.write_text(self.patched(before), encoding="utf-8")
        return before

    def patched(self, text: str) -> str:
        """Return the text of its file with the defect.

        Raises:
            StaleMutant: The old text does not occur exactly once.
        """
        if (count := text.count(self.old)) != 1:
            raise StaleMutant(
                f"{self.name}: the old text occurs {count} times in {self.file}; write the mutant again for the code "
                "as it is now"
            )
        return text.replace(self.old, self.new)


class StaleMutant(Exception):
    """The code has changed, so that a mutant cannot be applied any more."""


def names_of_tests(path: Path) -> set[str]:
    """Return the names of the tests of a file as the last part of their IDs: `test_a`, `TestB::test_c`, `TestD`."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):  # a state machine: TestX = Machine.TestCase
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
            methods = (
                each for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
            )
            found.update(f"{node.name}::{method.name}" for method in methods)
    return {name for name in found if name.startswith(("test_", "Test"))}
