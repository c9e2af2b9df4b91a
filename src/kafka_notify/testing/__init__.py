"""The test kit for teams: `deliver`, providers, and brokers that start from Python.

`deliver` runs one attempt of a consumer without Kafka. `check_sender` checks the requirements that every sender has to
meet. `HttpStub` is a provider for it over HTTP, `FakeProvider` one without a network. `MockKafka` is a mock inside the
process, `LocalKafka` is Apache Kafka itself. The fixtures `mock_kafka`, `local_kafka` and `local_kafka_cluster` come
with the pytest plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kafka_notify.testing._check_sender import SenderReport, check_sender
    from kafka_notify.testing._deliver import deliver
    from kafka_notify.testing._fake_clock import FakeClock, ProviderClock
    from kafka_notify.testing._fake_provider import FakeDelivery, FakeProvider, FakeReply, Outage, lognormal
    from kafka_notify.testing._http_stub import HttpAnswer, HttpRequest, HttpStub
    from kafka_notify.testing._kafka_distribution import LocalKafkaUnavailable
    from kafka_notify.testing._local_kafka import LocalKafka
    from kafka_notify.testing._mock_kafka import MockKafka
    from kafka_notify.testing._sender_trial import ProviderStub, SenderFinding

__all__ = [
    "FakeClock",
    "FakeDelivery",
    "FakeProvider",
    "FakeReply",
    "HttpAnswer",
    "HttpRequest",
    "HttpStub",
    "LocalKafka",
    "LocalKafkaUnavailable",
    "MockKafka",
    "Outage",
    "ProviderClock",
    "ProviderStub",
    "SenderFinding",
    "SenderReport",
    "check_sender",
    "deliver",
    "lognormal",
]

# Imported on first use, because pytest loads this package in every run of everyone who installs the library.
_HOME: Final = {
    "FakeClock": "_fake_clock",
    "FakeDelivery": "_fake_provider",
    "FakeProvider": "_fake_provider",
    "FakeReply": "_fake_provider",
    "HttpAnswer": "_http_stub",
    "HttpRequest": "_http_stub",
    "HttpStub": "_http_stub",
    "LocalKafka": "_local_kafka",
    "LocalKafkaUnavailable": "_kafka_distribution",
    "MockKafka": "_mock_kafka",
    "Outage": "_fake_provider",
    "ProviderClock": "_fake_clock",
    "ProviderStub": "_sender_trial",
    "SenderFinding": "_sender_trial",
    "SenderReport": "_check_sender",
    "check_sender": "_check_sender",
    "deliver": "_deliver",
    "lognormal": "_fake_provider",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
