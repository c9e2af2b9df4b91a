"""The topics that a topology should have, and their settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import attrs

from kafka_notify._base.names import consumer_key
from kafka_notify._base.retention import DAY_MS, MAX_WAIT_MS, SOURCE_DEFAULT_MS
from kafka_notify.consumer import Consumer
from kafka_notify.topology import Lane, Topology

ConsumerLike = str | Consumer | type[Consumer]
"""A consumer's name, or the consumer itself, whose channels are then known as well."""

Compression = Literal["uncompressed", "producer"]
"""`compression.type` of topics that workers read: `uncompressed` lets brokers check `max.message.bytes` against the
unpacked size."""

_RECORD_BYTES: Final = 1_048_588  # Kafka's own default
_COPY_BYTES: Final = 2_097_152
"""A copy is its record and more headers, and must fit where the record did."""

Kind = Literal["source", "retry", "dlq", "control"]
UNPACKED: Final = frozenset({"source", "retry"})
"""Kinds of topics whose records a worker keeps in memory."""


@attrs.frozen
class Wanted:
    """A topic with the settings that it should have."""

    name: str
    kind: Kind
    partitions: int
    retention_ms: int
    max_message_bytes: int


def wanted_topics(topology: Topology, names: Iterable[str]) -> dict[str, Wanted]:
    """The source, retry (per consumer name), dead-letter and control topics, by name.

    A dead-letter topic has as many partitions as the largest lane that writes to it, because on a bad day it receives
    all that the lane receives. Dead letters are partitioned by key, so those of one user stay in order whatever the
    number of partitions.
    """
    wanted: dict[str, Wanted] = {}
    for lane in topology.lanes.values():
        source, dlq = topology.source_topic(lane.name), topology.dlq_topic(lane.name)
        wanted[source] = Wanted(source, "source", lane.partitions, SOURCE_DEFAULT_MS, _RECORD_BYTES)
        for name in names:
            retry = topology.retry_topic(lane.name, name)
            wanted[retry] = Wanted(retry, "retry", lane.partitions, retry_retention(lane), _COPY_BYTES)
        other = wanted.get(dlq)
        partitions = max(lane.partitions, other.partitions if other else 0)
        wanted[dlq] = Wanted(dlq, "dlq", partitions, 14 * DAY_MS, _COPY_BYTES)
    control = topology.control_topic
    wanted[control] = Wanted(control, "control", 1, -1, _RECORD_BYTES)
    return wanted


def topic_config(topic: Wanted, replicas: int, compression: Compression = "producer") -> dict[str, str]:
    """The settings with which a topic is created."""
    return {
        **({"compression.type": compression} if topic.kind in UNPACKED else {}),
        # compaction keeps only the newest record of each key: right for the control topic, loss for notifications
        "cleanup.policy": "compact" if topic.kind == "control" else "delete",
        "max.message.bytes": str(topic.max_message_bytes),
        "message.timestamp.type": "CreateTime",
        "min.insync.replicas": "2" if replicas >= 3 else "1",
        "retention.bytes": "-1",
        "retention.ms": str(topic.retention_ms),
        "unclean.leader.election.enable": "false",
    }


def retry_retention(lane: Lane) -> int:
    """The milliseconds for which a lane's retry topic should keep a record."""
    longest = max(MAX_WAIT_MS, round(lane.retry.max_delay * (1 + lane.retry.jitter) * 1000))
    return 2 * longest + 7 * DAY_MS


def name_of(consumer: ConsumerLike) -> str:
    """The consumer's name as topics and groups contain it; "" is the unnamed consumer."""
    name = consumer if isinstance(consumer, str) else consumer.name
    return consumer_key(name)
