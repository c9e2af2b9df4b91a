"""The command `kafka-notify`, for the person on call; needs the extra `cli`. One module per group of commands."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit code (docs/operations.md lists them).

    Args:
        arguments: The arguments without the program's name; by default those of the process.
    """
    try:
        for needed in ("click", "rich"):
            importlib.import_module(needed)
    except ModuleNotFoundError as e:
        print(
            f"kafka-notify: {e.name} is not installed; the command needs an extra: pip install 'kafka-notify[cli]'",
            file=sys.stderr,
        )
        return 3
    from kafka_notify.cli._app import run

    return run(sys.argv[1:] if arguments is None else arguments)
