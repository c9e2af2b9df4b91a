"""librdkafka properties: from the environment, sorted by kind of handle, with the settings that delivery depends on.

A shared `config` may contain client-wide, producer and consumer properties; each handle gets those that apply to it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException

from kafka_notify._base.limited_log import Calm
from kafka_notify._kafka.client_errors import Noted
from kafka_notify._kafka.defaults import (
    NOTHING,
    Profile,
    classic_membership,
    client_defaults,
    consumer_defaults,
    producer_defaults,
)
from kafka_notify._kafka.defaults import Config as Config
from kafka_notify._kafka.defaults import ConfigValue as ConfigValue
from kafka_notify._kafka.property_rules import (
    ALIASES,
    BROKERS_TO_SET,
    CONSUMER_ONLY,
    CONSUMER_RULES,
    NO_AUTO_CREATE,
    ONE_IN_FLIGHT,
    PRODUCER_ONLY,
    PRODUCER_RULES,
    check,
)
from kafka_notify.errors import ConfigError

_Client = TypeVar("_Client")

LIBRDKAFKA_LOG: Final = logging.getLogger("kafka_notify.librdkafka")
LIBRDKAFKA_LOG.addFilter(Calm())  # while brokers are unavailable it writes tens of lines a second
DRAIN_MARGIN: Final = 5.0
"""Seconds that a hand-over may take in addition to its drain: for the event loop's answer and the last commit."""
MAX_POLL_INTERVAL_MS: Final = 300_000
"""librdkafka's default."""
_SECRET: Final = re.compile(r"password|secret|token|key|oauthbearer\.config|jaas", re.IGNORECASE)
_SERVICE_LINK: Final = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)
"""Suffixes that Kubernetes adds to the name of a Service; no librdkafka property ends like this."""


def config_from_env(
    environ: Mapping[str, str] = os.environ, *, prefix: str = "KAFKA_NOTIFY_"
) -> dict[str, ConfigValue]:
    """Read librdkafka properties from the environment: `KAFKA_NOTIFY_SASL_PASSWORD` sets `sasl.password`.

    Args:
        environ: The environment.
        prefix: Prefix of the variables. `<prefix>TEST_...` belongs to test suites, `<prefix>CLI_...` to the command
            `kafka-notify`; both are ignored. So is `<prefix>DEBUG=1`, which switches assertions on (docs/testing.md);
            any other value sets librdkafka's `debug`. So are the variables that Kubernetes sets in every container of a
            namespace with a Service called `kafka-notify` (`KAFKA_NOTIFY_SERVICE_HOST`, `KAFKA_NOTIFY_PORT`, …).

    Returns:
        Properties for `Producer`, `Worker` and the other classes, which refuse names that librdkafka does not know.
    """
    others = (f"{prefix}TEST_", f"{prefix}CLI_")
    return {
        name[len(prefix) :].lower().replace("_", "."): value
        for name, value in environ.items()
        if name.startswith(prefix)
        and not name.startswith(others)
        and (name, value) != (f"{prefix}DEBUG", "1")
        and name != prefix
        and not _SERVICE_LINK.search("_" + name[len(prefix) :])
    }


def redacted(config: Config) -> dict[str, ConfigValue]:
    """Return `config` with the values of secrets replaced by `***`, for a repr or a log."""
    return {name: "***" if _SECRET.search(name) else value for name, value in config.items()}


def client_config(config: Config) -> dict[str, Any]:
    """Return the properties for an AdminClient: the client-wide properties of `config`.

    Raises:
        ConfigError: `bootstrap.servers` is missing, or a property is given twice under two names.
    """
    given = _without(_canonical(config), PRODUCER_ONLY | CONSUMER_ONLY)
    check(given, (NO_AUTO_CREATE,))
    return _logged({**client_defaults(), **given})


def producer_config(
    config: Config, profile: Profile, overlay: Config = NOTHING, *, copies: bool = False
) -> dict[str, Any]:
    """Return the properties for a producer handle.

    Args:
        config: Shared by all handles; its consumer properties are ignored.
        profile: The lane's profile.
        overlay: Properties of this producer alone; they take precedence over `config`.
        copies: The producer writes retry copies and dead letters, which are larger than their source records.

    Raises:
        ConfigError: A property would break a promise (the text says which), or `overlay` contains a consumer property.
    """
    given = _given(config, overlay, CONSUMER_ONLY, "consumer")
    # only a producer may create its topics automatically: librdkafka's mock offers no other way
    check(given, (*PRODUCER_RULES, NO_AUTO_CREATE if copies else ONE_IN_FLIGHT))
    return _logged({**producer_defaults(profile, copies=copies), **given})


def consumer_config(
    config: Config, profile: Profile, group: str, overlay: Config = NOTHING
) -> dict[str, Any]:
    """Return the properties for a consumer handle, with the classic protocol unless `group.protocol` is `consumer`.

    Args:
        config: Shared by all handles; its producer properties are ignored.
        profile: The lane's profile.
        group: The consumer group's ID.
        overlay: Properties of this consumer alone; they take precedence over `config`.

    Raises:
        ConfigError: A property would break a promise (the text says which), or `overlay` contains a producer property.
    """
    given = _given(config, overlay, PRODUCER_ONLY, "producer")
    check(given, CONSUMER_RULES)
    if str(given.get("group.protocol", "classic")).lower() == "consumer":
        for name in BROKERS_TO_SET:
            if name in given:
                raise ConfigError(
                    f"{name} cannot be set with group.protocol=consumer: the brokers decide it "
                    "(group.consumer.session.timeout.ms and related settings); remove it"
                )
        membership: Config = {"group.remote.assignor": "range"}
    else:
        if "group.remote.assignor" in given:
            raise ConfigError("group.remote.assignor needs group.protocol=consumer; set both, or remove it")
        membership = classic_membership(profile)
    return _logged({**consumer_defaults(profile), **membership, **given, "group.id": group})


def with_drain(config: dict[str, Any], drain_timeout: float) -> dict[str, Any]:
    """Return a consumer's properties with a `max.poll.interval.ms` that no hand-over exceeds.

    The thread that polls waits for the drain. A member that is removed from its group meanwhile would send at the same
    time as the next owner.

    Args:
        config: The result of `consumer_config`.
        drain_timeout: Seconds for running sends.

    Raises:
        ConfigError: The property is given, and too short.
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
            f"max.poll.interval.ms is too short: a hand-over takes up to drain_timeout ({drain_timeout:g} s) and "
            f"{DRAIN_MARGIN:g} s, and a worker that is removed from its group meanwhile sends at the same time as the "
            f"next owner; raise it to {needed}, or shorten drain_timeout"
        )
    return config


def client_bytes(reading: Mapping[str, Any], writing: Mapping[str, Any]) -> int:
    """The limit of what librdkafka buffers, in bytes: its prefetch, one more fetch, and twice the queue of copies, as
    Python holds each copy as well until it is acknowledged."""
    queued = int(reading["queued.max.messages.kbytes"]) * 1_024
    # librdkafka's own limit where none is set
    fetch = max(min(52_428_800, queued), int(reading.get("message.max.bytes", 1_000_000)))
    return (
        queued
        + int(reading.get("fetch.max.bytes", fetch))
        + 2 * int(writing["queue.buffering.max.kbytes"]) * 1_024
    )


def opened(factory: Callable[[dict[str, Any]], _Client], config: dict[str, Any]) -> _Client:
    """Return the client that `factory`, such as `confluent_kafka.Producer`, makes of `config`.

    Raises:
        ConfigError: librdkafka refuses a property or its value; the text contains no secret.
    """
    try:
        return factory(config)
    except (KafkaException, TypeError, ValueError) as e:
        text = e.args[0].str() if isinstance(e, KafkaException) else str(e)
        for name, value in config.items():
            if _SECRET.search(name) and isinstance(value, str) and value:
                text = text.replace(value, "***")
        # `from None`: the cause's traceback would show the secrets that the text leaves out
        raise ConfigError(f"librdkafka refuses this configuration: {text}") from None


def _refuse_green_threads() -> None:
    """Raise where gevent or eventlet has replaced threads: the thread that serves librdkafka would be a greenlet, and
    its first wait, in C, would stop the whole process."""
    for module, asks, asked, remedy in _GREEN:
        patcher: Any = sys.modules.get(module)
        if patcher is not None and getattr(patcher, asks)(asked):
            raise ConfigError(
                f"{module.partition('.')[0]} has replaced Python's threads, which this library needs for librdkafka; "
                f"leave threads out of the patch ({remedy}), or send from a process that is not patched"
            )


_GREEN: Final = (
    ("gevent.monkey", "is_module_patched", "threading", "monkey.patch_all(thread=False)"),
    ("eventlet.patcher", "is_monkey_patched", "thread", "eventlet.monkey_patch(thread=False)"),
)


def _given(config: Config, overlay: Config, foreign: frozenset[str], kind: str) -> dict[str, ConfigValue]:
    own = _canonical(overlay, complete=False)
    for name in own:
        if name in foreign:
            raise ConfigError(f"{name} is a {kind} property, which has no effect here; set it for the {kind}")
    return {**_without(_canonical(config, complete="bootstrap.servers" not in own), foreign), **own}


def _canonical(config: Config, *, complete: bool = True) -> dict[str, ConfigValue]:
    result: dict[str, ConfigValue] = {}
    for name, value in config.items():
        if not isinstance(name, str):
            raise ConfigError(f"names of librdkafka properties must be str, not {type(name).__name__}")
        known = ALIASES.get(name, name)
        if known in result:
            raise ConfigError(f"{known} is given twice: {name} is an alias of it; remove one of them")
        result[known] = value
    if complete and not ({"bootstrap.servers", "test.mock.num.brokers"} & result.keys()):
        raise ConfigError(
            "bootstrap.servers is missing; write {'bootstrap.servers': 'host:9092'}, or set "
            "KAFKA_NOTIFY_BOOTSTRAP_SERVERS and use config_from_env()"
        )
    return result


def _without(config: Mapping[str, ConfigValue], names: frozenset[str]) -> dict[str, ConfigValue]:
    return {name: value for name, value in config.items() if name not in names}


def _logged(config: Mapping[str, ConfigValue]) -> dict[str, Any]:
    _refuse_green_threads()  # here, because the configuration of every client passes through
    error_cb: Any = config.get("error_cb")
    if isinstance(error_cb, Noted):  # the configuration is complete already
        error_cb = error_cb.theirs
    return {"logger": LIBRDKAFKA_LOG, **config, "error_cb": Noted(error_cb, config)}


_MEMBERSHIP: Final = frozenset({"group.protocol", "group.remote.assignor", "group.instance.id"})


def outside_group(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a consumer's properties for a second consumer that assigns its own partitions and joins no group."""
    return {name: value for name, value in config.items() if name not in _MEMBERSHIP}


def is_secured(config: Config) -> bool:
    """Return whether clients with `config` encrypt or authenticate, so that Kafka's tools need a `--command-config`."""
    return str(config.get("security.protocol", "plaintext")).lower() != "plaintext"
