"""What Prometheus is told about workers that run on real Apache Kafka."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from kafka_notify import (
    Attempt,
    Category,
    Config,
    Consumer,
    InvalidRecipientError,
    Lane,
    Notification,
    Producer,
    ProviderUnavailableError,
    Receipt,
    RetryPolicy,
    Topology,
    TransientError,
    Worker,
    events,
)
from kafka_notify.admin import create_topics
from kafka_notify.events import Event
from kafka_notify.prometheus import Metrics, MetricsServer
from kafka_notify.testing import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture
def topology() -> Topology:
    """Two lanes of the test's own."""
    return Topology(
        lanes=[Lane("quick", partitions=2), Lane("slow", partitions=2)],
        categories=[Category("otp", "quick"), Category("marketing", "slow")],
        channels=["sms", "email"],
        prefix=f"t{uuid.uuid4().hex[:12]}",
    )


@pytest.fixture
def config(local_kafka: LocalKafka, topology: Topology) -> Config:
    """Client settings; the topics exist."""
    config: Config = {"bootstrap.servers": local_kafka.bootstrap_servers}
    create_topics(topology, config, consumers=["sms", ""])
    return config


@pytest.fixture
def metrics() -> Metrics:
    """On a registry of the test's own."""
    return Metrics(CollectorRegistry())


@pytest.fixture
def endpoint(metrics: Metrics) -> Iterator[MetricsServer]:
    """They are served on loopback."""
    server = metrics.serve(0)
    yield server
    server.close()


class Scrape:
    """One answer of /metrics."""

    def __init__(self, server: MetricsServer) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
            self.text = answer.read().decode()
        self._samples = [s for f in text_string_to_metric_families(self.text) for s in f.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of all series of that name that have these labels."""
        found = [
            s.value
            for s in self._samples
            if s.name == f"kafka_notify_{name}" and labels.items() <= s.labels.items()
        ]
        assert found, f"no series {name} {labels}"
        return sum(found)


def watched(worker: Worker, kind: type[Event], count: int) -> threading.Event:
    """Is set when that many events of a kind were counted: listeners hear in the order in which they came."""
    enough = threading.Event()
    numbers = itertools.count(1)

    def on_event(event: Event) -> None:
        if isinstance(event, kind) and next(numbers) == count:
            enough.set()

    worker.listen(on_event)
    return enough


def note(number: int, category: str = "otp", channel: str = "sms") -> Notification[Any]:
    """The `number`th notification, of a user of its own."""
    return Notification(
        user_id=f"canary-user-{number}",
        category=category,
        channel=channel,
        recipient="canary-recipient",
        id=f"canary-id-{number}",
        data={"n": number},
    )


def test_every_attempt_is_counted(
    config: Config, topology: Topology, metrics: Metrics, endpoint: MetricsServer
) -> None:
    """Of 30 notifications 10 need a second attempt and 5 have no recipient: the scrape says just that."""

    class Sms(Consumer):
        name = "sms"
        channels = frozenset({"sms"})
        retry = RetryPolicy(3, initial_delay=0.1, multiplier=1)
        breaker = None  # ten failures before anything is accepted may hold the lane, and then each counts no attempt

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            number = notification.data["n"]
            if number < 10 and attempt.number == 1:
                raise TransientError("http.503", provider="acme")
            if number >= 25:
                raise InvalidRecipientError(f"user-{number}", provider="acme")  # a code that no list knows
            return Receipt("acme")

    class Everything(Consumer):
        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            return Receipt("post")

    quick = Worker(Sms(), config, lane="quick", topology=topology)
    slow = Worker(Everything(), config, lane="slow", topology=topology)
    producer = Producer(config, topology=topology)
    metrics.watch(quick, slow, producer)
    sent = watched(quick, events.AttemptEnded, 40)
    dead = watched(quick, events.DeadLettered, 5)
    mailed = watched(slow, events.AttemptEnded, 7)
    with quick, slow, producer:
        for number in range(30):
            producer.send(note(number))
        for number in range(7):
            producer.send(note(number, "marketing", "email"))
        assert sent.wait(60)
        assert dead.wait(60)
        assert mailed.wait(60)
        producer.flush()
        scrape = Scrape(endpoint)

    of = {"lane": "quick", "consumer": "sms"}
    assert scrape.value("attempts_total", **of, category="otp", channel="sms", outcome="sent") == 25
    assert scrape.value("attempts_total", **of, outcome="retry") == 10
    assert scrape.value("attempts_total", **of, outcome="dead") == 5
    assert scrape.value("attempt_errors_total", **of, provider="acme", code="http.503") == 10
    assert scrape.value("attempt_errors_total", **of, provider="acme", code="other") == 5
    assert scrape.value("dead_letters_total", **of, reason="invalid_recipient") == 5
    assert scrape.value("retry_copies_total", **of, category="otp") == 10
    assert scrape.value("send_duration_seconds_count", **of) == 40
    assert scrape.value("end_to_end_latency_seconds_count", **of) == 25
    assert scrape.value("healthy", **of) == 1
    assert scrape.value("partitions", **of) == 2
    assert scrape.value("attempts_total", lane="slow", consumer="workers", outcome="sent") == 7
    assert scrape.value("produced_total", category="otp", outcome="acknowledged") == 30
    assert scrape.value("produce_duration_seconds_count", topic=topology.source_topic("slow")) == 7
    assert "canary" not in scrape.text


def test_names_that_the_topology_does_not_know(
    config: Config, topology: Topology, metrics: Metrics, endpoint: MetricsServer
) -> None:
    """A producer in another language that invents categories makes no new series: they are all `other`."""

    class Everything(Consumer):
        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            return Receipt("acme")

    worker = Worker(Everything(), config, lane="quick", topology=topology)
    metrics.watch(worker)
    sent = watched(worker, events.AttemptEnded, 20)
    foreign = confluent_kafka.Producer({"bootstrap.servers": config["bootstrap.servers"]})
    with worker:
        for number in range(20):
            headers: dict[str, str | bytes | None] = {
                "notif-category": f"invented-{number}",
                "notif-channel": f"pigeon-{number}",
            }
            foreign.produce(topology.source_topic("quick"), b"{}", f"u{number}", headers=headers)
        foreign.flush()
        assert sent.wait(60)
        scrape = Scrape(endpoint)

    assert scrape.value("attempts_total", category="other", channel="other", outcome="sent") == 20
    assert "invented" not in scrape.text
    assert "pigeon" not in scrape.text


def test_a_lane_whose_provider_is_away(
    config: Config, topology: Topology, metrics: Metrics, endpoint: MetricsServer
) -> None:
    """While the lane waits, gauges say so and the age of the oldest grows; when it goes on, they say that."""
    back = threading.Event()

    class Sms(Consumer):
        name = "sms"
        channels = frozenset({"sms"})

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            if not back.is_set():
                raise ProviderUnavailableError("http.401", provider="acme")
            return Receipt("acme")

    told: list[Event] = []
    worker = Worker(Sms(), config, lane="quick", topology=topology, on_event=told.append)
    metrics.watch(worker)
    held, resumed = watched(worker, events.LaneHeld, 1), watched(worker, events.LaneResumed, 1)
    with worker, Producer(config, topology=topology) as producer:
        for number in range(5):
            producer.send(note(number))
        assert held.wait(60)
        away = Scrape(endpoint)
        back.set()
        assert resumed.wait(60)

    assert away.value("lane_held") == 1
    assert away.value("healthy") == 0
    assert away.value("oldest_open_age_seconds") > 0
    assert away.value("lane_holds_total", cause="account") == 1
    assert away.value("attempt_errors_total", provider="acme", code="http.401") >= 1
    assert Scrape(endpoint).value("lane_held") == 0
    lane = [e for e in told if isinstance(e, (events.LaneHeld, events.LaneResumed))]
    assert [type(e) for e in lane] == [events.LaneHeld, events.LaneResumed]
    assert isinstance(lane[0], events.LaneHeld)
    assert lane[0].reason == "http.401"


def test_age_of_the_oldest(
    config: Config, topology: Topology, metrics: Metrics, endpoint: MetricsServer
) -> None:
    """A notification made an hour ago that waits for its retry is an hour old; without one the age is 0."""

    class Sms(Consumer):
        retry = RetryPolicy(3, initial_delay=600)

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            raise TransientError("http.503", provider="acme")

    worker = Worker(Sms(), config, lane="quick", topology=topology)
    metrics.watch(worker)
    started = watched(worker, events.PartitionStarted, 2)
    waits = watched(worker, events.RetryScheduled, 1)
    assert worker.oldest_age() is None
    with worker, Producer(config, topology=topology) as producer:
        assert started.wait(60)
        empty = Scrape(endpoint)
        producer.send(
            Notification(
                user_id="u1",
                category="otp",
                channel="sms",
                data={},
                created_at=dt.datetime.now(dt.timezone.utc) - dt.timedelta(hours=1),
            )
        )
        assert waits.wait(60)
        waiting = Scrape(endpoint)

    assert empty.value("oldest_open_age_seconds") == 0
    assert 3600 <= waiting.value("oldest_open_age_seconds") < 3800
    assert waiting.value("waiting") == 1


def test_two_workers_in_one_process(
    config: Config, topology: Topology, metrics: Metrics, endpoint: MetricsServer
) -> None:
    """Workers of one lane and consumer are one series each: partitions and limits are added up."""

    class Sms(Consumer):
        concurrency = 7

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            return Receipt("acme")

    first = Worker(Sms, config, lane="quick", topology=topology)
    second = Worker(Sms, config, lane="quick", topology=topology)
    metrics.watch(first, second)
    started = watched(first, events.PartitionStarted, 2)
    with first:
        assert started.wait(60)
        alone = Scrape(endpoint)
        with second:
            both = Scrape(endpoint)

    assert alone.value("partitions", lane="quick") == 2
    assert (alone.value("workers"), both.value("workers")) == (1, 2)
    assert (alone.value("concurrency_limit"), both.value("concurrency_limit")) == (7, 14)
    assert alone.value("rebalances_total", kind="assigned") >= 2
