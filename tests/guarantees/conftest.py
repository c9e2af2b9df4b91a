"""A fleet for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kafka_notify.testing import LocalKafka
from tests.guarantees.fleet import Fleet


@pytest.fixture
def fleet(local_kafka: LocalKafka, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Makes fleets on the shared broker; they end with the test."""
    with ExitStack() as open_fleets:

        def make(**options: Any) -> Fleet:
            return open_fleets.enter_context(Fleet(local_kafka.bootstrap_servers, tmp_path, **options))

        yield make


@pytest.fixture
def cluster_fleet(local_kafka_cluster: LocalKafka, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Makes fleets on the shared cluster of three brokers; they end with the test."""
    with ExitStack() as open_fleets:

        def make(**options: Any) -> Fleet:
            return open_fleets.enter_context(
                Fleet(local_kafka_cluster.bootstrap_servers, tmp_path, **options)
            )

        yield make
