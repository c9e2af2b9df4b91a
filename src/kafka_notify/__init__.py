"""Notifications over Apache Kafka that do not get lost: in order per user, retried in order, with a way back.

A service calls `Producer.send`; a `Worker` runs a team's `Consumer`, whose `send` hands each notification to a
provider. See the README for the guarantees.
"""

from __future__ import annotations

from kafka_notify._base.units import Seconds
from kafka_notify._kafka.config import Config, ConfigValue, config_from_env
from kafka_notify.admin import Finding, check_topics, create_topics
from kafka_notify.classify import classify_exception, classify_http, classify_smtp
from kafka_notify.codec import Codec, CodecContext, JsonCodec
from kafka_notify.consumer import Consumer
from kafka_notify.deadletters import DeadLetter, DeadLetters, RedriveProgress, RedriveReport, SourceRecord
from kafka_notify.errors import (
    CodecUnavailableError,
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
from kafka_notify.events import Event
from kafka_notify.limits import CircuitBreaker, Grant, Limiter, Quota, RateLimit, SeenInMemory, SeenStore
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
from kafka_notify.outcome import Dead, Middleware, Outcome, Retry, SendContext, Sent, Skipped
from kafka_notify.pauses import Pause, Pauses
from kafka_notify.policy import Ordering, RetryPolicy
from kafka_notify.producer import PendingSend, Producer, RecordMetadata
from kafka_notify.topology import Lane, Topology
from kafka_notify.worker import Health, Worker, WorkerStats, run

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "Category",
    "CircuitBreaker",
    "Codec",
    "CodecContext",
    "CodecUnavailableError",
    "Config",
    "ConfigError",
    "ConfigValue",
    "Consumer",
    "Dead",
    "DeadLetter",
    "DeadLetters",
    "Defer",
    "DeliveryError",
    "Event",
    "Finding",
    "Grant",
    "Health",
    "InvalidNotificationError",
    "InvalidRecipientError",
    "JsonCodec",
    "Lane",
    "Limiter",
    "Middleware",
    "Notification",
    "NotifyError",
    "Ordering",
    "Outcome",
    "Pause",
    "Pauses",
    "PendingSend",
    "PermanentError",
    "ProduceError",
    "Producer",
    "ProviderUnavailableError",
    "QueueFullError",
    "Quota",
    "RateLimit",
    "Receipt",
    "RecordMetadata",
    "RedriveProgress",
    "RedriveReport",
    "Retry",
    "RetryPolicy",
    "Seconds",
    "SeenInMemory",
    "SeenStore",
    "Send",
    "SendContext",
    "Sent",
    "Skip",
    "Skipped",
    "SourceRecord",
    "ThrottledError",
    "Topology",
    "TransientError",
    "UnknownOutcomeError",
    "Verdict",
    "Worker",
    "WorkerStats",
    "check_topics",
    "classify_exception",
    "classify_http",
    "classify_smtp",
    "config_from_env",
    "create_topics",
    "run",
]
