"""Topologies and producers for the tests of this folder."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from kafka_notify import Category, Config, Lane, Notification, Producer, Topology
from kafka_notify.testing import MockKafka

NOWHERE: Config = {"bootstrap.servers": "127.0.0.1:1"}
"""No broker listens there."""


def new_topology() -> Topology:
    """Two lanes under a prefix that no other test uses."""
    return Topology(
        prefix=f"t-{uuid.uuid4().hex[:12]}",
        lanes=[
            Lane("high", partitions=4, profile="latency"),
            Lane("low", partitions=4, profile="throughput"),
        ],
        categories=[Category("otp", "high"), Category("marketing", "low")],
        channels=["sms", "email"],
    )


def note(user_id: str = "u1", category: str = "otp", **fields: Any) -> Notification[Any]:
    """A notification."""
    return Notification(user_id=user_id, category=category, channel="sms", data={"text": "hello"}, **fields)


@pytest.fixture
def topology() -> Topology:
    """A topology of the test's own."""
    return new_topology()


@pytest.fixture
def config(mock_kafka: MockKafka) -> Config:
    """A mock cluster, which creates topics when they are first used."""
    return {"bootstrap.servers": mock_kafka.bootstrap_servers, "allow.auto.create.topics": True}


@pytest.fixture
def producer(config: Config, topology: Topology) -> Iterator[Producer]:
    """A producer on a mock cluster."""
    with Producer(config, topology=topology) as opened:
        yield opened
