"""A worker knows for how long its partitions are its own, whoever decides that."""

from __future__ import annotations

import pytest

from kafka_notify._fetch.lease import DEFAULT, consumer_protocol_lease
from kafka_notify.testing import LocalKafka, MockKafka


@pytest.mark.kafka
def test_asked_for(local_kafka: LocalKafka) -> None:
    """With the new protocol brokers say it, per group: what they kick members out after, less one heartbeat."""
    config = {"bootstrap.servers": local_kafka.bootstrap_servers}
    assert consumer_protocol_lease(config, "some.group") == 5.5


def test_not_answered(mock_kafka: MockKafka) -> None:
    """A cluster that does not say gets the default of Kafka's brokers."""
    config = {"bootstrap.servers": mock_kafka.bootstrap_servers}
    assert consumer_protocol_lease(config, "some.group") == DEFAULT
