"""Windows so small that a few records fill them."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from unittest import mock

import kafka_notify._partition
from kafka_notify._partition import commit_metadata, offsets


def _with_a_window() -> Iterator[ModuleType]:
    package = kafka_notify._partition
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        if hasattr(module, "WINDOW"):
            yield module


EVERYWHERE = tuple(_with_a_window())
"""The modules that know how far a bitmap reaches."""
DECIDING = tuple(module for module in EVERYWHERE if module not in (commit_metadata, offsets))
"""Those of them that decide by it: the others read and write bitmaps."""


def windows(size: int, modules: tuple[ModuleType, ...] = EVERYWHERE) -> contextlib.ExitStack:
    """A bitmap covers as many offsets, until the result is closed."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, "WINDOW", size))
        return stack.pop_all()
