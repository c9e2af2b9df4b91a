"""What opens the client library's objects: the one seam through which a worker reaches Kafka, on its runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
from confluent_kafka import Consumer, Producer

from kafka_notify._base.runtime import SYSTEM, Runtime
from kafka_notify._kafka.admin_client import shared_admin
from kafka_notify._kafka.config import Config, opened


@attrs.frozen
class Clients:
    """Factories of clients. Those of tests need no Kafka.

    Args:
        consumers: Makes a consumer, also one outside a group, of a complete configuration.
        producers: Makes a producer of a complete configuration.
        admin: Returns an AdminClient for librdkafka properties.
        runtime: Time, threads and waits of whoever uses the clients.
    """

    consumers: Callable[[dict[str, Any]], Consumer] = Consumer
    producers: Callable[[dict[str, Any]], Producer] = Producer
    admin: Callable[[Config], Any] = shared_admin
    runtime: Runtime = SYSTEM

    def consumer(self, config: dict[str, Any]) -> Consumer:
        """Open a consumer.

        Raises:
            ConfigError: librdkafka refuses the configuration; the text holds no secret.
        """
        return opened(self.consumers, config)

    def producer(self, config: dict[str, Any]) -> Producer:
        """Open a producer.

        Raises:
            ConfigError: librdkafka refuses the configuration; the text holds no secret.
        """
        return opened(self.producers, config)


LIBRDKAFKA: Final = Clients()
"""The clients of confluent-kafka."""
