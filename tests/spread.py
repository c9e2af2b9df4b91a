"""How tests are spread over processes (`pytest -n auto --dist loadgroup`): which go together, and in what order.

Each process has a broker of its own, started by the first test that asks for it. Tests on the session's cluster of
three brokers share one process, and those that start and end brokers of their own share another: at most two such
clusters exist at the same time, so their memory is bounded. Tests that keep the processors busy share a third, so that
none takes the machine from another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

MOST: Final = 6
"""Processes that `-n auto` starts at most: a broker takes about 700 MB, the cluster three times as much."""
WAITING: Final = 4
"""Processes besides one for each core, because most tests wait: with two, two cores are 60 % busy, with four 75 %."""
ROOT: Final = Path(__file__).parent
CLUSTER: Final = "cluster"
CLUSTER_FIXTURES: Final = frozenset({"cluster_fleet", "local_kafka_cluster"})
BROKERS: Final = "brokers"
BROKER_FILES: Final = frozenset(
    {
        "guarantees/test_network.py",
        "test_demo.py",
        "testing/test_local_kafka.py",
    }
)
"""Files whose tests start brokers of their own."""
BUSY: Final = "busy"
BUSY_FILES: Final = frozenset({"guarantees/test_bugs.py", "guarantees/test_memory.py"})
"""Files whose tests send thousands of notifications, or judge what a worker did in a given time."""
ONE_BY_ONE: Final = ("exhaustive/", "guarantees/", "model/", "simulation/")
"""Folders of long tests that share nothing in their files."""


def processes() -> int:
    """How many `-n auto` means."""
    asked = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return int(asked) if asked else min(MOST, (os.cpu_count() or 1) + WAITING)


def spread(items: list[pytest.Item]) -> None:
    """Group tests, and begin with the groups that take long: what is short fills the processes at the end."""
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: _rank(item, groups[item]))


def check_grouped(item: pytest.Item) -> None:
    """Fail where xdist left its group out: it would run in any process, each with brokers of its own."""
    group = item.get_closest_marker("xdist_group")
    if group is not None and not item.nodeid.endswith(f"@{group.args[0]}"):
        pytest.fail(
            "pytest-xdist ignores the groups of tests: install the pinned pytest (make clean, make test)"
        )


def _group(item: pytest.Item) -> str | None:
    file = item.path.relative_to(ROOT).as_posix()
    if CLUSTER_FIXTURES & set(_fixtures(item)):
        return CLUSTER
    if file in BROKER_FILES:
        return BROKERS
    if file in BUSY_FILES:
        return BUSY
    return None if file.startswith(ONE_BY_ONE) else file


def _rank(item: pytest.Item, group: str | None) -> int:
    if group in (CLUSTER, BROKERS, BUSY) or item.path.parent.name == "exhaustive":
        return 0
    alone = group is None
    if item.get_closest_marker("kafka") is not None:
        return 2 if alone else 1
    return 3 if alone else 4


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else ()
