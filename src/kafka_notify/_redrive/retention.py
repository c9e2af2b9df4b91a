"""How far back a retry topic reaches, by its retention."""

from __future__ import annotations

from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

from kafka_notify._kafka.admin_client import shared_admin
from kafka_notify._kafka.config import Config
from kafka_notify._kafka.handle import reason
from kafka_notify.errors import NotifyError

CLOCK_SKEW_MS: Final = 3_600_000
"""The largest difference between the clocks of workers, brokers and this machine that is allowed for."""
_REQUEST_SECONDS: Final = 30.0


class Retention:
    """The age of the oldest records of retry topics, by their configuration.

    Args:
        config: librdkafka properties.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._horizons: dict[str, int] = {}

    def horizon(self, topic: str, now_ms: int) -> int:
        """The time (epoch ms) from which on nothing can have been deleted.

        Raises:
            NotifyError: The topic's configuration cannot be read.
        """
        if topic not in self._horizons:
            self._horizons[topic] = self._asked(topic, now_ms)
        return self._horizons[topic]

    def _asked(self, topic: str, now_ms: int) -> int:
        admin: Any = shared_admin(self._config)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            entries = admin.describe_configs([resource], request_timeout=_REQUEST_SECONDS)[resource].result()
        except KafkaException as e:
            raise NotifyError(
                f"{topic}: its retention cannot be read ({reason(e.args[0])}), so it is unknown whether a dead letter "
                "was redriven before; allow DescribeConfigs on the topic, or pass allow_unproven=True"
            ) from None
        milliseconds = int(entries["retention.ms"].value)
        if int(entries["retention.bytes"].value) >= 0:
            return now_ms + CLOCK_SKEW_MS  # records are deleted as the topic grows, whatever their age
        return 0 if milliseconds < 0 else now_ms - milliseconds + CLOCK_SKEW_MS
