"""The cyclic garbage collector while workers run."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def collector(threshold: tuple[int, int, int] | None) -> Generator[None]:
    """Set its threshold, unless that is None, and put it back at the end."""
    before = gc.get_threshold()
    if threshold is not None:
        gc.set_threshold(*threshold)
    try:
        yield
    finally:
        gc.set_threshold(*before)
