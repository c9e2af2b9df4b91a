"""Notifications over Apache Kafka that do not get lost: in order per user, retried in order, with a way back.

A service calls `Producer.send`; a `Worker` runs a team's `Consumer`, whose `send` hands each notification to a
provider. See the README for the guarantees.

Here is what such a service and such a team write every day. The rest is imported from its module: outcomes and
middleware from `kafka_notify.outcome`, events from `.events`, stores and shared limits from `.limits`, and so on.
"""

from __future__ import annotations

from kafka_notify._base.units import Seconds
from kafka_notify._kafka.config import Config, ConfigValue, config_from_env
from kafka_notify._wire.dead_letter import DeadLetter
from kafka_notify.admin import check_topics, create_topics
from kafka_notify.classify import classify_exception, classify_http, classify_smtp
from kafka_notify.consumer import Consumer
from kafka_notify.errors import (
    ConfigError,
    DeliveryError,
    InvalidNotificationError,
    InvalidRecipientError,
    NotifyError,
    PermanentError,
    ProduceError,
    ProviderUnavailableError,
    QueueFullError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify.limits import CircuitBreaker, RateLimit
from kafka_notify.notification import (
    Attempt,
    Category,
    Defer,
    Notification,
    Receipt,
    Send,
    Skip,
    Verdict,
)
from kafka_notify.policy import Ordering, RetryPolicy
from kafka_notify.producer import PendingSend, Producer
from kafka_notify.topology import Lane, Topology
from kafka_notify.worker import Worker, run

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "Category",
    "CircuitBreaker",
    "Config",
    "ConfigError",
    "ConfigValue",
    "Consumer",
    "DeadLetter",
    "Defer",
    "DeliveryError",
    "InvalidNotificationError",
    "InvalidRecipientError",
    "Lane",
    "Notification",
    "NotifyError",
    "Ordering",
    "PendingSend",
    "PermanentError",
    "ProduceError",
    "Producer",
    "ProviderUnavailableError",
    "QueueFullError",
    "RateLimit",
    "Receipt",
    "RetryPolicy",
    "Seconds",
    "Send",
    "Skip",
    "ThrottledError",
    "Topology",
    "TransientError",
    "UnknownOutcomeError",
    "Verdict",
    "Worker",
    "check_topics",
    "classify_exception",
    "classify_http",
    "classify_smtp",
    "config_from_env",
    "create_topics",
    "run",
]

_MOVED = {
    name: module
    for module, names in {
        "admin": ("Finding",),
        "codec": ("Codec", "CodecContext", "JsonCodec"),
        "deadletters": ("DeadLetters", "RedriveProgress", "RedriveReport", "SourceRecord"),
        "errors": ("CodecUnavailableError",),
        "events": ("Event",),
        "limits": ("Grant", "Limiter", "Quota", "SeenInMemory", "SeenStore"),
        "outcome": ("Dead", "Middleware", "Outcome", "Retry", "SendContext", "Sent", "Skipped"),
        "pauses": ("Pause", "Pauses"),
        "producer": ("RecordMetadata",),
        "worker": ("Health", "WorkerStats"),
    }.items()
    for name in names
}
"""Names that the package had before, and the module that has them now."""


def __getattr__(name: str) -> object:
    if name in _MOVED:
        # `from kafka_notify import Retry` replaces the text of an AttributeError by one of its own
        raise ImportError(
            f"{name} is in kafka_notify.{_MOVED[name]}: from kafka_notify.{_MOVED[name]} import {name}",
            name=__name__,
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
