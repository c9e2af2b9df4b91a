"""librdkafka properties: from the environment, sorted by kind of handle, with the settings that keep promises.

A shared `config` may hold client-wide, producer and consumer properties side by side; each handle gets its own.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVar

import attrs
from confluent_kafka import KafkaException

from kafka_notify._base.limited_log import Calm
from kafka_notify._kafka.client_errors import noted
from kafka_notify.errors import ConfigError

ConfigValue = str | int | float | bool | Callable[..., object]
Config = Mapping[str, ConfigValue]

_Profile = Literal["latency", "throughput"]
_Client = TypeVar("_Client")

NOTHING: Final[Config] = {}
LIBRDKAFKA_LOG: Final = logging.getLogger("kafka_notify.librdkafka")
LIBRDKAFKA_LOG.addFilter(Calm())  # while brokers are away it writes tens of lines a second
# A copy is its source record and headers: it must fit where the source record did.
COPY_MAX_BYTES: Final = 2_000_000

_CLIENT: Final[Config] = {
    "client.id": "kafka-notify",
    "socket.keepalive.enable": True,
    "log.connection.close": False,  # brokers close idle connections all day
    # A missing topic must not come into being with the broker's default number of partitions, and is
    # reported after 10 s: before a record's own time is up.
    "allow.auto.create.topics": False,
    "topic.metadata.propagation.max.ms": 10_000,
    "reconnect.backoff.max.ms": 2_000,
}
_PRODUCER: Final[Config] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    # With more, the first batch to a partition can be refused by an election while the next one is accepted. The
    # retry of the first is then out of order at best, and at worst answered as a duplicate and lost (seen).
    "max.in.flight.requests.per.connection": 1,
}
# Copies have no order among themselves, and one without an offset is written again.
_COPIES: Final[Config] = {"message.max.bytes": COPY_MAX_BYTES, "max.in.flight.requests.per.connection": 5}
_PRODUCER_PROFILE: Final[Mapping[_Profile, Config]] = {
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
    "fetch.queue.backoff.ms": 10,  # the default of 1,000 shows as hiccups of a second
}
_CONSUMER_PROFILE: Final[Mapping[_Profile, Config]] = {
    "latency": {"queued.min.messages": 500, "queued.max.messages.kbytes": 4_096, "fetch.wait.max.ms": 100},
    "throughput": {
        "queued.min.messages": 5_000,
        "queued.max.messages.kbytes": 16_384,
        "fetch.wait.max.ms": 500,
        # a megabyte of one partition holds records of few users, and fills the buffers with them: with less of
        # each partition twice as many sends are in flight on a backlog (measured); larger records still arrive
        "fetch.message.max.bytes": 32_768,
    },
}
_SESSION_TIMEOUT_MS: Final[Mapping[_Profile, int]] = {"latency": 10_000, "throughput": 30_000}
# Members hear of a rebalance by it: at 1,000 a rolling restart delays one in a hundred by 0.9 s, at 300 by 0.27 s.
_HEARTBEAT_MS: Final[Mapping[_Profile, int]] = {"latency": 300, "throughput": 3_000}


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

DRAIN_MARGIN: Final = 5.0
"""Seconds that a hand-over may take beside its drain: for the answer of the event loop, and the last commit."""
MAX_POLL_INTERVAL_MS: Final = 300_000
"""librdkafka's default."""
_SECRET: Final = re.compile(r"password|secret|token|key|oauthbearer\.config|jaas", re.IGNORECASE)
_YES: Final = frozenset({"true", "1", "t"})
_NO: Final = frozenset({"false", "0", "f"})


@attrs.frozen
class _Rule:
    """A property that may only have these values (in lower case), and why."""

    name: str
    allowed: frozenset[str]
    reason: str


_NEVER: Final[frozenset[str]] = frozenset()
_TOPIC_CONFIG: Final = tuple(
    _Rule(name, _NEVER, "write its properties beside the others, so that they can be checked")
    for name in ("default.topic.config", "default_topic_conf")
)
_CREATED: Final = _Rule(
    "allow.auto.create.topics",
    _NO,
    "a missing topic would come into being with the broker's number of partitions, and source and retry topic with "
    "different ones lose the order of users",
)
_ONE_IN_FLIGHT: Final = _Rule(
    "max.in.flight.requests.per.connection",
    frozenset({"1"}),
    "with more, a batch that an election refused is written after the next one, or is answered as a duplicate and lost",
)
_PRODUCER_RULES: Final = (
    _Rule(
        "acks",
        frozenset({"all", "-1"}),
        "a record that one broker alone acknowledged is lost with that broker",
    ),
    _Rule(
        "enable.idempotence", _YES, "without it the client's own retries can duplicate and reorder records"
    ),
    _Rule(
        "partitioner",
        frozenset({"murmur2_random", "murmur2"}),
        "producers in every language must put a user into the same partition, or his order is lost",
    ),
    _Rule(
        "transactional.id",
        _NEVER,
        "transactions delay every consumer and are not needed: a send stands alone",
    ),
    _Rule("delivery.report.only.error", _NO, "send() could never report success"),
    *_TOPIC_CONFIG,
)
_CONSUMER_RULES: Final = (
    _CREATED,
    _Rule(
        "enable.auto.commit",
        _NO,
        "it commits notifications that were not sent; the worker commits those that were",
    ),
    _Rule("enable.auto.offset.store", _NO, "it marks notifications as done when they are read"),
    _Rule(
        "auto.offset.reset",
        frozenset({"earliest", "smallest", "beginning", "error"}),
        "a new group or partition would skip what was written before it was first read",
    ),
    _Rule(
        "isolation.level",
        frozenset({"read_uncommitted"}),
        "an open transaction would hide acknowledged retries",
    ),
    _Rule(
        "partition.assignment.strategy",
        frozenset({"range"}),
        "only range gives source and retry partitions of one number to the same worker",
    ),
    _Rule(
        "group.remote.assignor",
        frozenset({"range"}),
        "only range gives source and retry partitions of one number to the same worker",
    ),
    _Rule("group.id", _NEVER, "the group follows from the lane and Consumer.name"),
    _Rule("enable.partition.eof", _YES, "the worker waits for the end of a retry partition before it sends"),
    *_TOPIC_CONFIG,
)
_BROKERS_TO_SET: Final = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")


_SERVICE_LINK: Final = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)
"""What Kubernetes adds to the name of a Service; no property of librdkafka ends so."""


def config_from_env(
    environ: Mapping[str, str] = os.environ, *, prefix: str = "KAFKA_NOTIFY_"
) -> dict[str, ConfigValue]:
    """The librdkafka properties that the environment names: `KAFKA_NOTIFY_SASL_PASSWORD` is `sasl.password`.

    Args:
        environ: The environment.
        prefix: What the names begin with. `<prefix>TEST_...` belongs to test suites, `<prefix>CLI_...` to the command
            `kafka-notify`; both are left out. So are the variables that Kubernetes sets in every container of a
            namespace with a Service called `kafka-notify` (`KAFKA_NOTIFY_SERVICE_HOST`, `KAFKA_NOTIFY_PORT`, …).

    Returns:
        Properties for `Producer`, `Worker` and the rest; each of them refuses names that librdkafka does not know.
    """
    others = (f"{prefix}TEST_", f"{prefix}CLI_")
    return {
        name[len(prefix) :].lower().replace("_", "."): value
        for name, value in environ.items()
        if name.startswith(prefix)
        and not name.startswith(others)
        and name != prefix
        and not _SERVICE_LINK.search("_" + name[len(prefix) :])
    }


def redacted(config: Config) -> dict[str, ConfigValue]:
    """`config` with the values of secrets replaced by `***`: for a repr or a log."""
    return {name: "***" if _SECRET.search(name) else value for name, value in config.items()}


def client_config(config: Config) -> dict[str, Any]:
    """Properties for an AdminClient: the client-wide ones of `config`.

    Raises:
        ConfigError: `bootstrap.servers` is missing, or a property stands twice under two names.
    """
    given = _without(_canonical(config), PRODUCER_ONLY | CONSUMER_ONLY)
    _check(given, (_CREATED,))
    return _logged({**_CLIENT, **given})


def producer_config(
    config: Config, profile: _Profile, overlay: Config = NOTHING, *, copies: bool = False
) -> dict[str, Any]:
    """Properties for a producer handle.

    Args:
        config: Shared by all handles; consumer properties in it are left out.
        profile: Of the lane.
        overlay: For this producer alone; goes before `config`.
        copies: It writes retry copies and dead letters, which are larger than what they copy.

    Raises:
        ConfigError: A property would break a promise (the text says which), or is a consumer's in `overlay`.
    """
    given = _given(config, overlay, CONSUMER_ONLY, "consumer")
    # a producer alone may have its topics made: on librdkafka's mock there is no other way
    _check(given, (*_PRODUCER_RULES, _CREATED if copies else _ONE_IN_FLIGHT))
    for_copies = _COPIES if copies else NOTHING
    return _logged({**_CLIENT, **_PRODUCER, **_PRODUCER_PROFILE[profile], **for_copies, **given})


def consumer_config(
    config: Config, profile: _Profile, group: str, overlay: Config = NOTHING
) -> dict[str, Any]:
    """Properties for a consumer handle of `group`, classic protocol unless `group.protocol` says `consumer`.

    Args:
        config: Shared by all handles; producer properties in it are left out.
        profile: Of the lane.
        group: The consumer group's id.
        overlay: For this consumer alone; goes before `config`.

    Raises:
        ConfigError: A property would break a promise (the text says which), or is a producer's in `overlay`.
    """
    given = _given(config, overlay, PRODUCER_ONLY, "producer")
    _check(given, _CONSUMER_RULES)
    if str(given.get("group.protocol", "classic")).lower() == "consumer":
        for name in _BROKERS_TO_SET:
            if name in given:
                raise ConfigError(
                    f"{name} cannot be set with group.protocol=consumer: the brokers decide it "
                    "(group.consumer.session.timeout.ms and its neighbours); remove it"
                )
        membership: Config = {"group.remote.assignor": "range"}
    else:
        if "group.remote.assignor" in given:
            raise ConfigError("group.remote.assignor needs group.protocol=consumer; remove it or add that")
        membership = {
            "partition.assignment.strategy": "range",
            "session.timeout.ms": _SESSION_TIMEOUT_MS[profile],
            "heartbeat.interval.ms": _HEARTBEAT_MS[profile],
        }
    defaults = {**_CLIENT, **_CONSUMER, **_CONSUMER_PROFILE[profile], **membership}
    return _logged({**defaults, **given, "group.id": group})


def with_drain(config: dict[str, Any], drain_timeout: float) -> dict[str, Any]:
    """A consumer's properties with a `max.poll.interval.ms` that a hand-over does not exceed: the thread that polls
    waits for the drain, and a member that is expelled meanwhile sends beside the next owner.

    Args:
        config: As `consumer_config` made it.
        drain_timeout: Seconds for running sends.

    Raises:
        ConfigError: The property is given, and shorter.
    """
    needed = round((drain_timeout + DRAIN_MARGIN) * 1000)
    given = config.get("max.poll.interval.ms")
    if given is None:
        return {**config, "max.poll.interval.ms": needed} if needed > MAX_POLL_INTERVAL_MS else config
    try:
        enough = int(given) >= needed
    except (TypeError, ValueError):
        return config  # librdkafka says what is wrong with it
    if not enough:
        raise ConfigError(
            f"max.poll.interval.ms cannot be set so: a hand-over takes up to drain_timeout ({drain_timeout:g} s) and "
            f"{DRAIN_MARGIN:g} s, and a worker that is expelled meanwhile sends beside the next owner; raise it to "
            f"{needed}, or shorten drain_timeout"
        )
    return config


def client_bytes(reading: Mapping[str, Any], writing: Mapping[str, Any]) -> int:
    """Bytes that librdkafka buffers at most: its prefetch, one fetch beyond that, and the queue of copies, of which
    Python holds the other half until they are acknowledged."""
    queued = int(reading["queued.max.messages.kbytes"]) * 1_024
    # what librdkafka makes of a limit that nobody has set
    fetch = max(min(52_428_800, queued), int(reading.get("message.max.bytes", 1_000_000)))
    return (
        queued
        + int(reading.get("fetch.max.bytes", fetch))
        + 2 * int(writing["queue.buffering.max.kbytes"]) * 1_024
    )


def opened(factory: Callable[[dict[str, Any]], _Client], config: dict[str, Any]) -> _Client:
    """A client made by `factory`, such as `confluent_kafka.Producer`.

    Raises:
        ConfigError: librdkafka refuses a property or its value; the text holds no secret.
    """
    try:
        return factory(config)
    except (KafkaException, TypeError, ValueError) as e:
        text = e.args[0].str() if isinstance(e, KafkaException) else str(e)
        for name, value in config.items():
            if _SECRET.search(name) and isinstance(value, str) and value:
                text = text.replace(value, "***")
        # `from None`: a traceback must not show what the text above leaves out
        raise ConfigError(f"librdkafka refuses this configuration: {text}") from None


def _refuse_green_threads() -> None:
    """Under gevent's or eventlet's patched threading, the thread that serves librdkafka would be a greenlet: its first
    wait, which is C code, stops the whole process."""
    for module, asks, asked, remedy in _GREEN:
        patcher: Any = sys.modules.get(module)
        if patcher is not None and getattr(patcher, asks)(asked):
            raise ConfigError(
                f"{module.partition('.')[0]} has replaced Python's threads, which this library needs for librdkafka: "
                f"patch without them ({remedy}), or send from a process that is not patched"
            )


_GREEN: Final = (
    ("gevent.monkey", "is_module_patched", "threading", "monkey.patch_all(thread=False)"),
    ("eventlet.patcher", "is_monkey_patched", "thread", "eventlet.monkey_patch(thread=False)"),
)


def _given(config: Config, overlay: Config, foreign: frozenset[str], kind: str) -> dict[str, ConfigValue]:
    own = _canonical(overlay, complete=False)
    for name in own:
        if name in foreign:
            raise ConfigError(
                f"{name} is a {kind} property: it has no effect here, put it where the {kind} gets it"
            )
    return {**_without(_canonical(config, complete="bootstrap.servers" not in own), foreign), **own}


def _canonical(config: Config, *, complete: bool = True) -> dict[str, ConfigValue]:
    result: dict[str, ConfigValue] = {}
    for name, value in config.items():
        if not isinstance(name, str):
            raise ConfigError(f"a librdkafka property is named by a str, not by a {type(name).__name__}")
        known = ALIASES.get(name, name)
        if known in result:
            raise ConfigError(f"{known} is given twice: {name} is another name of it")
        result[known] = value
    if complete and not ({"bootstrap.servers", "test.mock.num.brokers"} & result.keys()):
        raise ConfigError(
            "bootstrap.servers is missing: write {'bootstrap.servers': 'host:9092'}, or set "
            "KAFKA_NOTIFY_BOOTSTRAP_SERVERS and use config_from_env()"
        )
    return result


_MEMBERSHIP: Final = frozenset({"group.protocol", "group.remote.assignor", "group.instance.id"})


def _without(config: Mapping[str, ConfigValue], names: frozenset[str]) -> dict[str, ConfigValue]:
    return {name: value for name, value in config.items() if name not in names}


def _check(config: Config, rules: tuple[_Rule, ...]) -> None:
    for rule in rules:
        if rule.name not in config:
            continue
        if str(config[rule.name]).lower() not in rule.allowed:
            instead = f"leave it at {' or '.join(sorted(rule.allowed))}" if rule.allowed else "remove it"
            raise ConfigError(f"{rule.name} cannot be set so: {rule.reason}; {instead}")


def _logged(config: Mapping[str, ConfigValue]) -> dict[str, Any]:
    _refuse_green_threads()  # here, as every client's configuration passes by
    error_cb: Any = config.get("error_cb")
    return {"logger": LIBRDKAFKA_LOG, **config, "error_cb": noted(error_cb, config)}


def outside_group(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same consumer configuration for one that assigns itself what it reads, beside a member of the group."""
    return {name: value for name, value in config.items() if name not in _MEMBERSHIP}


def is_secured(config: Config) -> bool:
    """Whether its clients encrypt or authenticate, so that Kafka's own tools need a `--command-config`."""
    return str(config.get("security.protocol", "plaintext")).lower() != "plaintext"
