"""How tests are spread over processes (`pytest -n auto --dist loadgroup`): which go together, and in what order.

Each process has a broker of its own, started by the first test that asks for it. Tests that need a cluster of
three brokers, or that start and end brokers all the time, share one process: no two of those clusters exist
at the same time, so their memory is bounded and none takes the machine from another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

MOST: Final = 3
"""Processes that `-n auto` starts at most: a broker takes about 700 MB, the cluster three times as much."""
ROOT: Final = Path(__file__).parent
CLUSTER: Final = "cluster"
CLUSTER_FIXTURES: Final = frozenset({"cluster_fleet", "local_kafka_cluster"})
BROKER_FILES: Final = frozenset(
    {"cli/test_status_watch.py", "guarantees/test_network.py", "testing/test_local_kafka.py"}
)
"""Files whose tests start brokers of their own."""
ONE_BY_ONE: Final = ("guarantees/", "model/", "simulation/")
"""Folders of long tests that share nothing in their files."""


def processes() -> int:
    """How many `-n auto` means: the tests wait more than they compute."""
    asked = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return int(asked) if asked else min(MOST, (os.cpu_count() or 1) + 1)


def spread(items: list[pytest.Item]) -> None:
    """Group tests, and begin with the groups that take long: what is short fills the processes at the end."""
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: _rank(item, groups[item]))


def _group(item: pytest.Item) -> str | None:
    file = item.path.relative_to(ROOT).as_posix()
    if file in BROKER_FILES or CLUSTER_FIXTURES & set(_fixtures(item)):
        return CLUSTER
    return None if file.startswith(ONE_BY_ONE) else file


def _rank(item: pytest.Item, group: str | None) -> int:
    if group == CLUSTER:
        return 0
    if item.get_closest_marker("kafka") is not None:
        return 1
    return 2 if group is None else 3


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else ()
