"""Bugs that the checkers must catch: each breaks the library in this process."""

from __future__ import annotations

from collections.abc import Callable

BUGS: dict[str, Callable[[], None]] = {}
