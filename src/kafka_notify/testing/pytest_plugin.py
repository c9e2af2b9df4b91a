"""Fixtures for tests that need Kafka: `mock_kafka`, `local_kafka`, `local_kafka_cluster`.

pytest loads this module in every run of everyone who installs the library, so brokers are imported where they start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from kafka_notify.testing import LocalKafka, MockKafka

# A variable of its own, so that tests never use the cluster of production.
BOOTSTRAP_VARIABLE: Final = "KAFKA_NOTIFY_TEST_BOOTSTRAP"


@dataclass(frozen=True)
class ExternalKafka:
    """A cluster that somebody else runs. Tests can use it, and cannot start or kill it."""

    bootstrap_servers: str


@pytest.fixture
def mock_kafka() -> Iterator[MockKafka]:
    """A mock cluster with one broker and no topics, for this test alone."""
    from kafka_notify.testing import MockKafka

    with MockKafka() as kafka:
        yield kafka


@pytest.fixture(scope="session")
def local_kafka() -> Iterator[LocalKafka | ExternalKafka]:
    """Apache Kafka with one broker, for the whole session. Each test uses topics and groups of its own.

    When `KAFKA_NOTIFY_TEST_BOOTSTRAP` is set, the cluster that it names is used instead.
    """
    bootstrap_servers = os.environ.get(BOOTSTRAP_VARIABLE)
    if bootstrap_servers:
        yield ExternalKafka(bootstrap_servers)
        return
    from kafka_notify.testing import LocalKafka

    with LocalKafka() as kafka:
        yield kafka


@pytest.fixture(scope="session")
def local_kafka_cluster() -> Iterator[LocalKafka]:
    """Apache Kafka with three brokers, for the whole session. A test that stops a broker starts it again."""
    from kafka_notify.testing import LocalKafka

    with LocalKafka(brokers=3) as kafka:
        yield kafka
