"""The properties that this library gives librdkafka: per kind of handle, and per profile of a lane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

ConfigValue = str | int | float | bool | Callable[..., object]
Config = Mapping[str, ConfigValue]
Profile = Literal["latency", "throughput"]

NOTHING: Final[Config] = {}
# A copy is its source record and more headers, and must fit where the source record did.
COPY_MAX_BYTES: Final = 2_000_000


_CLIENT: Final[Config] = {
    "client.id": "kafka-notify",
    "socket.keepalive.enable": True,
    "log.connection.close": False,  # brokers close idle connections all the time
    # A missing topic must not be created with the broker's default number of partitions. It is
    # reported after 10 s, before a record's own timeout.
    "allow.auto.create.topics": False,
    "topic.metadata.propagation.max.ms": 10_000,
    "reconnect.backoff.max.ms": 2_000,
}
_PRODUCER: Final[Config] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    # With more, an election can cause the first batch to a partition to be refused while the next one is accepted. The
    # retry of the first is then out of order at best; at worst it is answered as a duplicate and lost (observed).
    "max.in.flight.requests.per.connection": 1,
}
# Copies need no order among themselves, and a copy that gets no offset is written again.
_COPIES: Final[Config] = {"message.max.bytes": COPY_MAX_BYTES, "max.in.flight.requests.per.connection": 5}
_PRODUCER_PROFILE: Final[Mapping[Profile, Config]] = {
    "latency": {
        "linger.ms": 0,
        "compression.type": "none",
        "delivery.timeout.ms": 30_000,
        "request.timeout.ms": 10_000,  # a broker that hangs leaves time for the next leader
        "batch.size": 65_536,
        "queue.buffering.max.messages": 10_000,
        "queue.buffering.max.kbytes": 16_384,
    },
    "throughput": {
        "linger.ms": 20,
        "compression.type": "zstd",
        "delivery.timeout.ms": 300_000,
        "batch.size": 1_000_000,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 262_144,
    },
}
_CONSUMER: Final[Config] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_uncommitted",
    "enable.partition.eof": True,
    "fetch.queue.backoff.ms": 10,  # the default of 1,000 shows as pauses of a second
}
_CONSUMER_PROFILE: Final[Mapping[Profile, Config]] = {
    "latency": {"queued.min.messages": 500, "queued.max.messages.kbytes": 4_096, "fetch.wait.max.ms": 100},
    "throughput": {
        "queued.min.messages": 5_000,
        "queued.max.messages.kbytes": 16_384,
        "fetch.wait.max.ms": 500,
        # A megabyte of one partition has records of few users, and they fill the buffers. With smaller fetches twice
        # as many sends are in flight on a backlog (measured); larger records still arrive.
        "fetch.message.max.bytes": 32_768,
    },
}
_SESSION_TIMEOUT_MS: Final[Mapping[Profile, int]] = {"latency": 10_000, "throughput": 30_000}
# Members learn of a rebalance by heartbeat: at 1,000 a rolling restart delays one notification in a hundred by 0.9 s,
# at 300 by 0.27 s.
_HEARTBEAT_MS: Final[Mapping[Profile, int]] = {"latency": 300, "throughput": 3_000}


def client_defaults() -> dict[str, ConfigValue]:
    """Properties of every client."""
    return dict(_CLIENT)


def producer_defaults(profile: Profile, *, copies: bool) -> dict[str, ConfigValue]:
    """Properties of a producer; `copies` are retry copies and dead letters."""
    return {**_CLIENT, **_PRODUCER, **_PRODUCER_PROFILE[profile], **(_COPIES if copies else NOTHING)}


def consumer_defaults(profile: Profile) -> dict[str, ConfigValue]:
    """Properties of a consumer, without those of its group membership."""
    return {**_CLIENT, **_CONSUMER, **_CONSUMER_PROFILE[profile]}


def classic_membership(profile: Profile) -> dict[str, ConfigValue]:
    """Properties of a member of a group with the classic protocol."""
    return {
        "partition.assignment.strategy": "range",
        "session.timeout.ms": _SESSION_TIMEOUT_MS[profile],
        "heartbeat.interval.ms": _HEARTBEAT_MS[profile],
    }
