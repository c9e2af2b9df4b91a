"""The properties of librdkafka by kind of handle, and the values that would break a promise of this library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from kafka_notify._kafka.defaults import Config
from kafka_notify.errors import ConfigError


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The properties that librdkafka marks P and C, and those of the Python client: tests compare with the library.
PRODUCER_ONLY: Final = _names(
    """
    acks batch.num.messages batch.size compression.level compression.type delivery.report.only.error
    delivery.timeout.ms dr_cb dr_msg_cb enable.gapless.guarantee enable.idempotence linger.ms msg_order_cmp
    on_delivery partitioner partitioner_cb produce.offset.report queue.buffering.backpressure.threshold
    queue.buffering.max.kbytes queue.buffering.max.messages queuing.strategy request.timeout.ms retries
    sticky.partitioning.linger.ms transaction.timeout.ms transactional.id
    """
)
CONSUMER_ONLY: Final = _names(
    """
    auto.commit.interval.ms auto.offset.reset check.crcs consume.callback.max.messages consume_cb
    coordinator.query.interval.ms enable.auto.commit enable.auto.offset.store enable.partition.eof
    fetch.error.backoff.ms fetch.max.bytes fetch.message.max.bytes fetch.min.bytes fetch.queue.backoff.ms
    fetch.wait.max.ms group.id group.instance.id group.protocol group.protocol.type group.remote.assignor
    heartbeat.interval.ms isolation.level max.poll.interval.ms max.poll.records offset.store.method
    offset.store.path offset.store.sync.interval.ms offset_commit_cb on_commit partition.assignment.strategy
    queued.max.messages.kbytes queued.min.messages rebalance_cb session.timeout.ms share.acknowledgement.mode
    """
)
ALIASES: Final[Mapping[str, str]] = {
    "auto.commit.enable": "enable.auto.commit",
    "compression.codec": "compression.type",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes": "fetch.message.max.bytes",
    "message.send.max.retries": "retries",
    "message.timeout.ms": "delivery.timeout.ms",
    "metadata.broker.list": "bootstrap.servers",
    "queue.buffering.max.ms": "linger.ms",
    "request.required.acks": "acks",
    "sasl.mechanism": "sasl.mechanisms",
}


_YES: Final = frozenset({"true", "1", "t"})
_NO: Final = frozenset({"false", "0", "f"})


@attrs.frozen
class Rule:
    """A property, its allowed values in lower case, and the reason for the limit."""

    name: str
    allowed: frozenset[str]
    reason: str


_NEVER: Final[frozenset[str]] = frozenset()
_TOPIC_CONFIG: Final = tuple(
    Rule(name, _NEVER, "write its properties beside the others, so that they can be checked")
    for name in ("default.topic.config", "default_topic_conf")
)
NO_AUTO_CREATE: Final = Rule(
    "allow.auto.create.topics",
    _NO,
    "a missing topic would be created with the broker's number of partitions, and the order per user is lost when "
    "source and retry topic have different numbers",
)
ONE_IN_FLIGHT: Final = Rule(
    "max.in.flight.requests.per.connection",
    frozenset({"1"}),
    "with more, a batch that an election refused is written after the next one, or is answered as a duplicate and lost",
)
PRODUCER_RULES: Final = (
    Rule(
        "acks",
        frozenset({"all", "-1"}),
        "a record that only one broker has acknowledged is lost with that broker",
    ),
    Rule("enable.idempotence", _YES, "without it the client's own retries can duplicate and reorder records"),
    Rule(
        "partitioner",
        frozenset({"murmur2_random", "murmur2"}),
        "producers in every language must choose the same partition for a user, or the user's order is lost",
    ),
    Rule(
        "transactional.id",
        _NEVER,
        "transactions delay every consumer, and a send needs none",
    ),
    Rule("delivery.report.only.error", _NO, "send() could never report success"),
    *_TOPIC_CONFIG,
)
CONSUMER_RULES: Final = (
    NO_AUTO_CREATE,
    Rule(
        "enable.auto.commit",
        _NO,
        "it would commit notifications that were not sent; the worker commits those that were",
    ),
    Rule("enable.auto.offset.store", _NO, "it would mark notifications as done when they are read"),
    Rule(
        "auto.offset.reset",
        frozenset({"earliest", "smallest", "beginning", "error"}),
        "a new group or partition would skip what was written before it was first read",
    ),
    Rule(
        "isolation.level",
        frozenset({"read_uncommitted"}),
        "an open transaction would hide acknowledged retries",
    ),
    Rule(
        "partition.assignment.strategy",
        frozenset({"range"}),
        "only range gives source and retry partitions of one number to the same worker",
    ),
    Rule(
        "group.remote.assignor",
        frozenset({"range"}),
        "only range gives source and retry partitions of one number to the same worker",
    ),
    Rule("group.id", _NEVER, "the group follows from the lane and Consumer.name"),
    Rule("enable.partition.eof", _YES, "the worker waits for the end of a retry partition before it sends"),
    *_TOPIC_CONFIG,
)
BROKERS_TO_SET: Final = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")


def check(config: Config, rules: tuple[Rule, ...]) -> None:
    """Raise `ConfigError` for a property whose value a rule does not allow."""
    for rule in rules:
        if rule.name not in config:
            continue
        if str(config[rule.name]).lower() not in rule.allowed:
            if rule.allowed:
                allowed = " or ".join(sorted(rule.allowed))
                raise ConfigError(f"{rule.name} cannot have this value: {rule.reason}; set it to {allowed}")
            raise ConfigError(f"{rule.name} cannot be set: {rule.reason}; remove it")
