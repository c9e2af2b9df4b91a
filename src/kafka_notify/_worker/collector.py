"""The cyclic garbage collector while workers run."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def collector(threshold: tuple[int, int, int] | None) -> Generator[None]:
    """Set the collector's threshold, unless it is None, and restore the old one at the end."""
    before = gc.get_threshold()
    if threshold is not None:
        gc.set_threshold(*threshold)
    try:
        yield
    finally:
        gc.set_threshold(*before)
