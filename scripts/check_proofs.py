"""Check that what docs/design.md and docs/failures.md say is shown by tests.

- Each numbered invariant of docs/design.md (`| I7 | …`) is cited by at least one test, `@pytest.mark.invariant(n=7)`,
  and no test cites a number that does not exist. `pytest --collect-only -q -m "invariant(n=7)"` lists them.
- Each test that docs/failures.md names exists.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INVARIANT = re.compile(r"^\| I(\d+) \|", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NAME = re.compile(r"`[^`]*\btest_\w+[^`]*`")


def marked(decorator: ast.expr) -> int | None:
    """Return the number that a decorator cites; None when it is another decorator."""
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.invariant":
        return None
    numbers = [word.value for word in decorator.keywords if word.arg == "n"]
    if len(numbers) == 1 and isinstance(numbers[0], ast.Constant) and type(numbers[0].value) is int:
        return numbers[0].value
    return -1


def tests_of(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield the name of each test of a file, and the invariants that it cites."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            cited = (marked(decorator) for decorator in node.decorator_list)
            yield node.name, [number for number in cited if number is not None]


def check(root: Path) -> list[str]:
    """Return what is wrong, one sentence each."""
    found: list[str] = []
    cited: defaultdict[int, list[str]] = defaultdict(list)
    names: set[tuple[str, str]] = set()
    for path in sorted((root / "tests").rglob("test_*.py")):
        where = path.relative_to(root).as_posix()
        for name, numbers in tests_of(path):
            names.add((where, name))
            for number in numbers:
                cited[number].append(f"{where}::{name}")
    numbers = [int(number) for number in INVARIANT.findall((root / "docs" / "design.md").read_text())]
    if numbers != list(range(1, len(numbers) + 1)):
        found.append(f"docs/design.md: the invariants are numbered {numbers}, not 1, 2, 3, …")
    found += [
        f"I{number} is cited by no test: mark one with @pytest.mark.invariant(n={number})"
        for number in numbers
        if number not in cited
    ]
    found += [
        f"{', '.join(tests)}: there is no invariant I{number} in docs/design.md"
        for number, tests in sorted(cited.items())
        if number not in numbers
    ]
    for number, line in enumerate((root / "docs" / "failures.md").read_text().splitlines(), 1):
        where = f"docs/failures.md:{number}"
        tests = [(path, name) for path, name in TEST.findall(line)]
        found += [
            f"{where}: there is no test {path}::{name}" for path, name in tests if (path, name) not in names
        ]
        if len(tests) != len(NAME.findall(line)):
            found.append(f"{where}: a test is named as `tests/…/test_file.py::test_name`")
        if re.match(r"\| (?!situation|-)", line) and not tests:
            found.append(f"{where}: the row names no test")
    return found


def main() -> int:
    """Print what is wrong; returns the exit status."""
    found = check(ROOT)
    for text in found:
        print(text, file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
