"""The doubles as the library's factories of clients."""

from __future__ import annotations

import functools
from typing import Any, Final

from kafka_notify._kafka.clients import Clients
from tests.simulation.kafka.admin import SimulatedAdmin
from tests.simulation.kafka.cluster import Cluster
from tests.simulation.kafka.consumer import SimulatedConsumer
from tests.simulation.kafka.producer import SimulatedProducer

SERVERS: Final = {"bootstrap.servers": "simulated:9092"}
"""What a configuration needs that is checked before a client is made."""


def clients_of(cluster: Cluster, host: str = "") -> Clients:
    """Factories of clients that all belong to one host, and its runtime."""
    consumers, producers, admin = (
        functools.partial(_made, double, cluster, host)
        for double in (SimulatedConsumer, SimulatedProducer, SimulatedAdmin)
    )
    return Clients(consumers, producers, admin, cluster.time.runtime(host))


def _made(double: Any, cluster: Cluster, host: str, config: dict[str, Any]) -> Any:
    return double(cluster, config, host)
