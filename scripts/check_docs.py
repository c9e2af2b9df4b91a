"""Run and type-check the Python blocks of README.md and docs/, so that what a reader copies works.

The blocks of one document, read from top to bottom, are one module; `<!-- clear-namespace -->` begins a new
one, and `<!-- skip: next "reason" -->` leaves a block out. Each module is imported in a process of its own, with the
address localhost:9092 leading to a mock cluster. What would block belongs under `if __name__ == "__main__":`.

A long line of prose that occurs twice in a document is an error too: a merge may keep both versions of a paragraph.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from sybil import Document, Example
from sybil.parsers.markdown import ClearNamespaceParser, CodeBlockParser, SkipParser
from sybil.typing import Parser

from kafka_notify.testing import MockKafka

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "docs"
BROKER = "localhost:9092"
BLOCKED = 'is not done after {} s: what blocks belongs under `if __name__ == "__main__":`'
TIMEOUT = 60
REPEATED = 40
"""Characters from which a line must not occur twice in a document."""


def modules_of(path: Path) -> list[str]:
    """The source of each module of a document; each block stands on the lines it has in the document."""
    modules: list[list[str]] = []

    def add(block: Example) -> None:
        # Sybil keeps one namespace per document and empties it at `clear-namespace`.
        if "module" not in block.namespace:
            block.namespace["module"] = []
            modules.append(block.namespace["module"])
        lines: list[str] = block.namespace["module"]
        first = block.line + block.parsed.line_offset
        lines.extend([""] * (first - len(lines)))
        lines.extend(block.parsed.splitlines())

    parsers: list[Parser] = [CodeBlockParser("python", add), ClearNamespaceParser(), SkipParser()]
    for example in Document.parse(str(path), *parsers).examples():
        try:
            example.evaluate()
        except SkipTest as reason:
            print(f"skips  {path.relative_to(ROOT)}:{example.line}: {reason}")
    return ["\n".join(lines) + "\n" for lines in modules]


def repeated_lines(path: Path) -> list[str]:
    """Return the long lines outside code blocks that a document contains more than once."""
    first: dict[str, int] = {}
    found: list[str] = []
    in_code = False
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if text.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and len(text) >= REPEATED and first.setdefault(text, number) != number:
            found.append(f"{path.relative_to(ROOT)}:{number} repeats line {first[text]}: {text[:60]}…")
    return found


def run(name: str, source: str, bootstrap: str) -> str | None:
    """Import the module in a process of its own; returns what went wrong."""
    target = BUILD / "run" / f"{name}.py"
    target.write_text(source.replace(BROKER, bootstrap))
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            cwd=target.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{name} " + BLOCKED.format(TIMEOUT)
    return done.stdout + done.stderr if done.returncode else None


def main() -> int:
    """Check all documents; returns the exit status."""
    for folder in (BUILD / "types", BUILD / "run"):
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("*.py"):
            stale.unlink()

    documents: dict[str, str] = {}
    failures = [
        repeated
        for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
        for repeated in repeated_lines(path)
    ]
    with MockKafka() as kafka:
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
            document = str(path.relative_to(ROOT))
            for number, source in enumerate(modules_of(path), 1):
                name = f"{re.sub('[^a-z0-9]+', '_', document.lower())}_{number}"
                documents[name] = document
                (BUILD / "types" / f"{name}.py").write_text(source)
                failure = run(name, source, kafka.bootstrap_servers)
                print(f"{'failed' if failure else 'ran':7}{document} ({number})")
                if failure:
                    failures.append(failure)

    typed = subprocess.run(
        [sys.executable, "-m", "mypy", *sorted(map(str, (BUILD / "types").glob("*.py")))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if typed.returncode:
        failures.append(typed.stdout + typed.stderr)
    for failure in failures:
        print(
            "\n" + re.sub(r'[^\s"]*?(\w+)\.py', lambda m: documents.get(m[1], m[0]), failure), file=sys.stderr
        )
    print(f"{len(documents)} modules in {len(set(documents.values()))} documents, {len(failures)} failures")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
