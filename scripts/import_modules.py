"""Import modules of the installed kafka_notify and all below them: `import_modules.py NAME... [--without NAME...]`.

Proves that a wheel, and the extras installed with it, bring what these modules need.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src"


def names(name: str, without: frozenset[str]) -> Iterator[str]:
    """The module, and if it is ours all below it, but for `without` and what is below that; `__main__` would run."""
    if name in without or name.endswith(".__main__"):
        return
    yield name
    module = importlib.import_module(name)
    if name.startswith("kafka_notify"):
        for below in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
            yield from names(below.name, without)


def main() -> None:
    """Import them, and print how many they were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="+", metavar="NAME")
    parser.add_argument("--without", nargs="+", default=(), metavar="NAME")
    options = parser.parse_args()
    found = Path(str(importlib.import_module("kafka_notify").__file__))
    if found.is_relative_to(SOURCES):
        raise SystemExit(f"this is {found}, not an installed wheel")
    imported = [name for top in options.modules for name in names(top, frozenset(options.without))]
    print(f"imported {len(imported)} modules from {found.parent}")


if __name__ == "__main__":
    main()
