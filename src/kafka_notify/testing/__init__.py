"""What a team needs to test its notifications: `deliver`, and brokers that start from Python.

`deliver` runs one attempt of a consumer without Kafka; `MockKafka` is a mock inside the process, `LocalKafka` is
Apache Kafka itself. The fixtures `mock_kafka`, `local_kafka` and `local_kafka_cluster` come with the pytest plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kafka_notify.testing._deliver import deliver
    from kafka_notify.testing._kafka_distribution import LocalKafkaUnavailable
    from kafka_notify.testing._local_kafka import LocalKafka
    from kafka_notify.testing._mock_kafka import MockKafka

__all__ = ["LocalKafka", "LocalKafkaUnavailable", "MockKafka", "deliver"]

# Imported on first use, because pytest loads this package in every run of everyone who installs us.
_HOME: Final = {
    "LocalKafka": "_local_kafka",
    "LocalKafkaUnavailable": "_kafka_distribution",
    "MockKafka": "_mock_kafka",
    "deliver": "_deliver",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
