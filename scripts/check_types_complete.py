"""Checks that the types of the package are complete for those who use it: `pyright --verifytypes` on the wheel.

    python scripts/check_types_complete.py

Pyright looks for `py.typed` where a package is installed, so the wheel is built and unpacked into a temporary folder.
Nothing is downloaded: the build backend is the installed one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = "kafka_notify"
FOLLOWS = "is partially unknown"
"""How the text ends for a symbol that uses one whose type is incomplete: told only when no cause is found."""


def main() -> int:
    """Print what lacks a type; the exit status is 0 when nothing does."""
    with tempfile.TemporaryDirectory() as folder:
        installed = unpacked(ROOT, Path(folder))
        problems = incomplete(installed, PACKAGE)
    for problem in problems:
        print(problem)
    print(f"{len(problems)} public symbols of {PACKAGE} without a complete type")
    return 1 if problems else 0


def unpacked(project: Path, folder: Path) -> Path:
    """The folder below `folder` that holds what an installation of the project's wheel would."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=project,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    installed = folder / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    return installed


def incomplete(installed: Path, package: str) -> list[str]:
    """What pyright says of public symbols whose type is missing, unknown or left to be inferred."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable),
            *("--ignoreexternal", "--verifytypes", package),
        ],
        cwd=installed,  # not the project, whose configuration and sources pyright would read
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report: Any = json.loads(done.stdout)["typeCompleteness"]
    except (ValueError, KeyError):
        raise SystemExit(f"pyright did not report: {done.stdout}{done.stderr}") from None
    if not report["symbols"]:
        raise SystemExit(f"pyright found no public symbols of {package}: {done.stdout}")
    found = {
        f"{symbol['name']}: {each['message'].splitlines()[0]}": None
        for symbol in report["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
        for each in symbol["diagnostics"] or [{"message": FOLLOWS}]
        if "docstring" not in each["message"]
    }
    if not found and report["completenessScore"] != 1:
        raise SystemExit(f"pyright's score is {report['completenessScore']:.1%}")
    causes = [problem for problem in found if not problem.endswith(FOLLOWS)]
    return causes or list(found)


if __name__ == "__main__":
    sys.exit(main())
