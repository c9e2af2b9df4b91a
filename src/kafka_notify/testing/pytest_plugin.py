"""Fixtures for tests that need Kafka: `mock_kafka`, `local_kafka`, `local_kafka_cluster`.

pytest loads this module in every run of everyone who installs us, so brokers are imported where they start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from kafka_notify.testing import LocalKafka, MockKafka

# Never the variable that production reads.
BOOTSTRAP_VARIABLE: Final = "KAFKA_NOTIFY_TEST_BOOTSTRAP"


@dataclass(frozen=True)
class ExternalKafka:
    """A cluster that somebody else runs: it can be used, not started or killed."""

    bootstrap_servers: str


@pytest.fixture
def mock_kafka() -> Iterator[MockKafka]:
    """A mock cluster with one broker and no topics, for this test alone."""
    from kafka_notify.testing import MockKafka

    with MockKafka() as kafka:
        yield kafka


@pytest.fixture(scope="session")
def local_kafka() -> Iterator[LocalKafka | ExternalKafka]:
    """Apache Kafka with one broker, for the whole session: use topics and groups of the test's own.

    The cluster that `KAFKA_NOTIFY_TEST_BOOTSTRAP` names is used instead when that variable is set.
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
    """Apache Kafka with three brokers, for the whole session: a test that stops one starts it again."""
    from kafka_notify.testing import LocalKafka

    with LocalKafka(brokers=3) as kafka:
        yield kafka
