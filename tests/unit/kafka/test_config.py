"""librdkafka properties: who gets which, and which are refused."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from kafka_notify import ConfigError, config_from_env
from kafka_notify._kafka.config import (
    Config,
    client_config,
    consumer_config,
    opened,
    producer_config,
    redacted,
    with_drain,
)
from kafka_notify._kafka.property_rules import ALIASES, CONSUMER_ONLY, PRODUCER_ONLY

SERVERS: Config = {"bootstrap.servers": "127.0.0.1:1"}
# Somebody's one config for everything.
SHARED: Config = {
    **SERVERS,
    "client.id": "checkout",
    "queue.buffering.max.ms": 7,
    "message.timeout.ms": 9_000,
    "fetch.min.bytes": 2,
    "session.timeout.ms": 7_000,
    "group.instance.id": "worker-1",
    "sasl.username": "u",
}


def test_each_kind_of_handle_gets_its_own_part_of_a_shared_config() -> None:
    """Producer and consumer properties in one config reach only the handle they are for, aliases included."""
    producer = producer_config(SHARED, "latency")
    consumer = consumer_config(SHARED, "latency", "g")
    client = client_config(SHARED)
    assert (producer["linger.ms"], producer["delivery.timeout.ms"]) == (7, 9_000)
    assert (consumer["fetch.min.bytes"], consumer["session.timeout.ms"]) == (2, 7_000)
    assert consumer["group.instance.id"] == "worker-1"
    assert not producer.keys() & CONSUMER_ONLY
    assert not consumer.keys() & PRODUCER_ONLY
    assert not client.keys() & (PRODUCER_ONLY | CONSUMER_ONLY)
    assert {c["client.id"] for c in (producer, consumer, client)} == {"checkout"}
    assert not (producer.keys() | consumer.keys() | client.keys()) & ALIASES.keys()


@pytest.mark.parametrize("profile", ["latency", "throughput"])
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_librdkafka_takes_what_we_make_and_warns_of_nothing(
    profile: str, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every handle opens with our defaults, and librdkafka's log holds no warning about a property."""
    config = {**SERVERS, "group.protocol": protocol, "linger.ms": 3, "fetch.min.bytes": 2}
    with caplog.at_level(logging.DEBUG, "kafka_notify.librdkafka"):
        producer = opened(Producer, producer_config(config, profile))  # type: ignore[arg-type]
        producer.poll(0)
        consumer = opened(Consumer, consumer_config(config, profile, "g"))  # type: ignore[arg-type]
        consumer.poll(0)
        consumer.close()
        opened(AdminClient, client_config(config)).poll(0)
    assert not [r.getMessage() for r in caplog.records if "CONFWARN" in r.getMessage()]


# What librdkafka 2.16 lists as C and as P, with values that it takes; callbacks and deprecated ones left out.
CONSUMERS: Config = {
    "auto.commit.interval.ms": 5_000,
    "check.crcs": True,
    "coordinator.query.interval.ms": 600_000,
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "fetch.error.backoff.ms": 500,
    "fetch.max.bytes": 52_428_800,
    "fetch.message.max.bytes": 1_048_576,
    "fetch.min.bytes": 1,
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 500,
    "group.id": "g",
    "group.instance.id": "i",
    "group.protocol": "classic",
    "group.protocol.type": "consumer",
    "heartbeat.interval.ms": 3_000,
    "isolation.level": "read_uncommitted",
    "max.poll.interval.ms": 300_000,
    "partition.assignment.strategy": "range",
    "queued.max.messages.kbytes": 65_536,
    "queued.min.messages": 100_000,
    "session.timeout.ms": 7_000,
}
PRODUCERS: Config = {
    "acks": -1,
    "batch.num.messages": 10_000,
    "batch.size": 1_000_000,
    "compression.level": -1,
    "compression.type": "none",
    "delivery.report.only.error": False,
    "delivery.timeout.ms": 300_000,
    "enable.gapless.guarantee": False,
    "enable.idempotence": False,
    "linger.ms": 5,
    "partitioner": "murmur2_random",
    "queue.buffering.backpressure.threshold": 1,
    "queue.buffering.max.kbytes": 1_048_576,
    "queue.buffering.max.messages": 100_000,
    "queuing.strategy": "fifo",
    "request.timeout.ms": 30_000,
    "retries": 5,
    "sticky.partitioning.linger.ms": 10,
    "transaction.timeout.ms": 60_000,
}


def warned(caplog: pytest.LogCaptureFixture, kind: str) -> set[str]:
    """The properties that librdkafka called properties of `kind`."""
    found = (re.search(rf"property (\S+) is a {kind} property", r.getMessage()) for r in caplog.records)
    return {ALIASES.get(match[1], match[1]) for match in found if match}


def test_librdkafka_agrees_on_which_properties_are_whose(caplog: pytest.LogCaptureFixture) -> None:
    """Given everything, librdkafka warns of those properties that our lists keep from that kind of handle."""
    logger = logging.getLogger("kafka_notify.librdkafka")
    with caplog.at_level(logging.DEBUG, logger.name):
        Producer({**SERVERS, **CONSUMERS, "logger": logger}).poll(0)
        consumer = Consumer({**SERVERS, **PRODUCERS, "group.id": "g", "logger": logger})
        consumer.poll(0)
        consumer.close()
    assert warned(caplog, "consumer") == CONSUMERS.keys()
    assert warned(caplog, "producer") == PRODUCERS.keys()
    assert CONSUMERS.keys() <= CONSUMER_ONLY
    assert PRODUCERS.keys() <= PRODUCER_ONLY


def test_librdkafkas_log_goes_to_pythons(caplog: pytest.LogCaptureFixture) -> None:
    """What librdkafka has to say is logged by kafka_notify.librdkafka instead of being printed."""
    with caplog.at_level(logging.DEBUG, "kafka_notify.librdkafka"):
        producer = opened(Producer, producer_config({**SERVERS, "debug": "conf"}, "latency"))
        producer.poll(0)
    assert "initialized" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("acks", "0"),
        ("acks", 1),
        ("request.required.acks", 1),
        ("enable.idempotence", False),
        ("enable.idempotence", "false"),
        ("partitioner", "consistent_random"),
        ("partitioner", hash),
        ("transactional.id", "t"),
        ("delivery.report.only.error", True),
        ("default.topic.config", "acks=0"),
    ],
)
def test_a_producer_setting_that_breaks_a_promise_is_refused(name: str, value: object) -> None:
    """What would lose, duplicate or reorder records is refused with the property's name and the reason."""
    with pytest.raises(
        ConfigError,
        match=rf"^{ALIASES.get(name, name)} cannot (have this value|be set): .+; (set it to|remove it)",
    ):
        producer_config({**SERVERS, name: value}, "latency")  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable.auto.commit", True),
        ("enable.auto.commit", "true"),
        ("auto.commit.enable", "true"),
        ("enable.auto.offset.store", True),
        ("auto.offset.reset", "latest"),
        ("auto.offset.reset", "largest"),
        ("isolation.level", "read_committed"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("partition.assignment.strategy", "range,roundrobin"),
        ("group.remote.assignor", "uniform"),
        ("group.id", "mine"),
        ("enable.partition.eof", False),
    ],
)
@pytest.mark.parametrize("where", ["config", "overlay"])
def test_a_consumer_setting_that_breaks_a_promise_is_refused(name: str, value: object, where: str) -> None:
    """What would lose notifications or separate co-partitions is refused, wherever it is written."""
    config: Config = {**SERVERS, name: value} if where == "config" else SERVERS  # type: ignore[dict-item]
    overlay: Config = {name: value} if where == "overlay" else {}  # type: ignore[dict-item]
    with pytest.raises(
        ConfigError,
        match=rf"^{ALIASES.get(name, name)} cannot (have this value|be set): .+; (set it to|remove it)",
    ):
        consumer_config(config, "latency", "g", overlay)


@pytest.mark.parametrize(
    "harmless",
    [
        {"acks": "-1"},
        {"acks": "ALL"},
        {"acks": -1},
        {"enable.idempotence": "True"},
        {"partitioner": "murmur2"},
        {"enable.auto.commit": "False"},
        {"auto.offset.reset": "error"},
        {"group.instance.id": "i"},
        {"partition.assignment.strategy": "range"},
    ],
)
def test_a_setting_that_repeats_ours_is_accepted(harmless: Config) -> None:
    """A config that says what we say anyway is no mistake."""
    producer_config({**SERVERS, **harmless}, "latency")
    consumer_config({**SERVERS, **harmless}, "latency", "g")


@pytest.mark.parametrize(
    "name", ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"]
)
def test_the_consumer_protocol_leaves_timeouts_to_the_brokers(name: str) -> None:
    """With group.protocol=consumer nothing is set that librdkafka refuses there, and a user's own is refused."""
    config: Config = {**SERVERS, "group.protocol": "consumer"}
    made = consumer_config(config, "latency", "g")
    assert name not in made
    assert made["group.remote.assignor"] == "range"
    with pytest.raises(ConfigError, match=f"^{name} cannot be set with group.protocol=consumer"):
        consumer_config({**config, name: "range"}, "latency", "g")


def test_the_classic_protocol_is_the_default() -> None:
    """Without group.protocol the range assignor and the profile's session timeout are set."""
    for profile, session in (("latency", 10_000), ("throughput", 30_000)):
        made = consumer_config(SERVERS, profile, "g")  # type: ignore[arg-type]
        assert (made["partition.assignment.strategy"], made["session.timeout.ms"]) == ("range", session)
        assert "group.remote.assignor" not in made
    with pytest.raises(ConfigError, match=r"group\.remote\.assignor needs group\.protocol=consumer"):
        consumer_config({**SERVERS, "group.remote.assignor": "range"}, "latency", "g")


def test_an_overlay_goes_before_the_config_and_holds_its_own_kind_only() -> None:
    """An overlay wins under either name of a property, and one of the other kind in it is an error."""
    assert (
        producer_config({**SERVERS, "linger.ms": 1}, "latency", {"queue.buffering.max.ms": 2})["linger.ms"]
        == 2
    )
    assert producer_config({}, "latency", SERVERS)["bootstrap.servers"] == "127.0.0.1:1"
    with pytest.raises(ConfigError, match=r"session\.timeout\.ms is a consumer property"):
        producer_config(SERVERS, "latency", {"session.timeout.ms": 1})
    with pytest.raises(ConfigError, match=r"linger\.ms is a producer property"):
        consumer_config(SERVERS, "latency", "g", {"linger.ms": 1})


def test_a_property_given_under_two_names_is_refused() -> None:
    """A property and its alias side by side contradict each other or say nothing: refused."""
    with pytest.raises(ConfigError, match=r"linger\.ms is given twice"):
        producer_config({**SERVERS, "linger.ms": 1, "queue.buffering.max.ms": 2}, "latency")


def test_the_brokers_must_be_named() -> None:
    """A config without bootstrap.servers is refused, with what to write."""
    with pytest.raises(ConfigError, match=r"bootstrap\.servers is missing.+KAFKA_NOTIFY_BOOTSTRAP_SERVERS"):
        producer_config({}, "latency")


def test_copies_may_be_larger_than_what_they_copy() -> None:
    """A handle for retry copies takes records that are a source record and more headers."""
    assert producer_config(SERVERS, "latency", copies=True)["message.max.bytes"] == 2_000_000
    assert "message.max.bytes" not in producer_config(SERVERS, "latency")


@pytest.mark.parametrize(
    "config",
    [
        {"no.such.property": 1},
        {"linger.ms": "hunter2"},
        {"security.protocol": "hunter2", "sasl.password": "hunter2"},
        {"ssl.key.pem": "hunter2", "security.protocol": "ssl"},
    ],
)
def test_what_librdkafka_refuses_is_a_config_error_without_secrets(config: Config) -> None:
    """librdkafka's own refusals become ConfigError, and no secret's value is in its text or its causes."""
    with pytest.raises(ConfigError, match=r"^librdkafka refuses") as caught:
        opened(Producer, producer_config({**SERVERS, **config}, "latency"))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_redacted_config_shows_no_secret() -> None:
    """Passwords, secrets, tokens and keys are masked, addresses are not."""
    secrets: Config = {
        "sasl.password": "s",
        "ssl.key.pem": "s",
        "ssl.keystore.password": "s",
        "sasl.oauthbearer.client.secret": "s",
        "sasl.oauthbearer.config": "s",
    }
    assert set(redacted(secrets).values()) == {"***"}
    assert redacted(SERVERS) == SERVERS


def test_the_environment_gives_properties() -> None:
    """KAFKA_NOTIFY_A_B becomes a.b; other variables and those of test suites are left out."""
    environ = {
        "KAFKA_NOTIFY_BOOTSTRAP_SERVERS": "k:9092",
        "KAFKA_NOTIFY_SASL_PASSWORD": "p",
        "KAFKA_NOTIFY_TEST_BOOTSTRAP": "localhost:1",
        "PATH": "/bin",
        "MY_LINGER_MS": "3",
    }
    assert config_from_env(environ) == {"bootstrap.servers": "k:9092", "sasl.password": "p"}
    assert config_from_env(environ, prefix="MY_") == {"linger.ms": "3"}
    opened(
        Producer,
        producer_config({**config_from_env(environ), **config_from_env(environ, prefix="MY_")}, "latency"),
    )


def test_a_typo_in_the_environment_is_found() -> None:
    """A variable that names no librdkafka property makes the handle refuse to open, and is named."""
    config = config_from_env({"KAFKA_NOTIFY_BOOTSTRAP_SERVERS": "k:9092", "KAFKA_NOTIFY_LINGER": "3"})
    with pytest.raises(ConfigError, match='"linger"'):
        opened(Producer, producer_config(config, "latency"))


@pytest.mark.parametrize(
    "name",
    [
        "KAFKA_NOTIFY_SERVICE_HOST",
        "KAFKA_NOTIFY_SERVICE_PORT",
        "KAFKA_NOTIFY_SERVICE_PORT_HTTP",
        "KAFKA_NOTIFY_PORT",
        "KAFKA_NOTIFY_PORT_8080_TCP",
        "KAFKA_NOTIFY_PORT_8080_TCP_ADDR",
        "KAFKA_NOTIFY_WORKER_SERVICE_HOST",
        "KAFKA_NOTIFY_WORKER_PORT",
    ],
)
def test_variables_of_a_kubernetes_service_are_no_properties(name: str) -> None:
    """A Service called `kafka-notify` must not stop everything at its next restart."""
    environ = {name: "tcp://10.0.0.1:80", "KAFKA_NOTIFY_BOOTSTRAP_SERVERS": "a:1"}
    assert config_from_env(environ) == {"bootstrap.servers": "a:1"}


@pytest.mark.skipif(sys.platform != "linux", reason="gevent is installed for the tests on Linux")
@pytest.mark.parametrize(("patch", "said"), [("", "ConfigError"), ("thread=False", "notif.high_priority")])
def test_green_threads_are_refused(patch: str, said: str) -> None:
    """Where gevent has replaced threads, a sentence comes instead of a process that hangs; without them it works."""
    code = f"""if True:
        from gevent import monkey
        monkey.patch_all({patch})
        from kafka_notify import ConfigError, Notification, Producer
        from kafka_notify.testing import MockKafka
        otp = Notification(user_id="u", category="otp", channel="sms", data={{}})
        try:
            Producer({{"bootstrap.servers": "127.0.0.1:1"}}).close(0)
        except ConfigError as e:
            print(type(e).__name__, e)
        else:
            with MockKafka() as kafka, Producer({{"bootstrap.servers": kafka.bootstrap_servers}}) as producer:
                print(producer.send(otp).result(30).topic)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.startswith(said), done
    assert "thread=False" in done.stdout or patch


def test_a_hand_over_never_outlives_the_poll_interval() -> None:
    """A drain that is longer than the default raises it; one that is longer than what somebody set is refused."""
    config = consumer_config(SERVERS, "latency", "g")
    name = "max.poll.interval.ms"

    assert name not in with_drain(config, 20)
    assert with_drain(config, 600)[name] == 605_000
    assert with_drain({**config, name: 26_000}, 20)[name] == 26_000
    with pytest.raises(ConfigError, match="raise it to 25000, or shorten drain_timeout"):
        with_drain({**config, name: 24_000}, 20)


def test_topics_do_not_come_into_being_under_a_worker() -> None:
    """Whoever lets the broker make topics has source and retry topic with different numbers of partitions."""
    config = {**SERVERS, "allow.auto.create.topics": True}

    producer_config(config, "latency")  # the mock has no other way
    refused = pytest.raises(ConfigError, match="with the broker's number of partitions")
    with refused:
        consumer_config(config, "latency", "g")
    with refused:
        producer_config(config, "latency", copies=True)
    with refused:
        client_config(config)
