"""Labels stay bounded, and each event is counted where it belongs."""

from __future__ import annotations

import logging
import re
import string
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from kafka_notify import Consumer, Producer, Worker, events
from kafka_notify._classify.metric_labels import PROVIDERS
from kafka_notify.events import Event, OnEvent
from kafka_notify.prometheus import Metrics

CONFIG = {"bootstrap.servers": "127.0.0.1:1"}
WORKER = {"lane": "high_priority", "consumer": "sms"}


class Sms(Consumer):
    """Never run here."""

    name = "sms"
    channels = frozenset({"sms"})

    async def send(self, notification: Any, attempt: Any) -> Any:
        raise AssertionError


class Told(Worker):
    """A worker that is told what happens, instead of a broker making it happen."""

    group = "notif.high_priority.sms"
    tell: OnEvent

    def listen(self, on_event: OnEvent, /) -> None:
        self.tell = on_event


class Seen:
    """Metrics of one worker on a registry of their own."""

    def __init__(self, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, **options)
        self.worker = Told(Sms, CONFIG, lane="high_priority")
        self.metrics.watch(self.worker)

    def tell(self, *told: Event) -> None:
        for event in told:
            self.worker.tell(event)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"kafka_notify_{name}", {**WORKER, **labels})

    def values(self, name: str, label: str) -> set[str]:
        """All values of a label."""
        return {
            sample.labels[label]
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"kafka_notify_{name}"
        }


def attempt(**fields: Any) -> events.AttemptEnded:
    told: dict[str, Any] = {
        "id": "n1",
        "category": "otp",
        "channel": "sms",
        "attempt": 1,
        "outcome": "sent",
        "provider": "acme",
        "code": None,
        "seconds": 0.2,
        "age": 3.0,
    }
    return events.AttemptEnded(**{**told, **fields})


def test_attempts() -> None:
    """An attempt counts by outcome; one that was sent has a latency, one that failed a code.

    What `should_send` skips or defers is neither a failure nor a call of the provider.
    """
    seen = Seen()
    seen.tell(attempt(), attempt(outcome="retry", code="http.503"), attempt(outcome="skipped", provider=None))

    seen.tell(attempt(outcome="retry", code="deferred.quiet_hours", provider=None))

    for outcome in ("sent", "retry", "skipped", "deferred"):
        assert seen.value("attempts_total", category="otp", channel="sms", outcome=outcome) == 1
    assert seen.value("attempt_errors_total", provider="acme", code="http.503") == 1
    assert seen.values("attempt_errors_total", "code") == {"http.503"}
    assert seen.value("send_duration_seconds_count", provider="acme") == 2
    assert seen.value("send_duration_seconds_bucket", provider="acme", le="0.25") == 2
    assert seen.value("send_duration_seconds_bucket", provider="acme", le="0.1") == 0
    assert seen.value("end_to_end_latency_seconds_sum", category="otp") == 3.0


@pytest.mark.parametrize(
    ("event", "name", "labels"),
    [
        (
            events.RetryScheduled("n", "otp", "sms", 1, 2.0, "t", 0, 0),
            "retry_copies_total",
            {"category": "otp"},
        ),
        (
            events.DeadLettered("n", None, None, "undecodable", "bad_json", "t", 0, 0),
            "dead_letters_total",
            {"category": "other", "reason": "undecodable"},
        ),
        (events.CopyFailed("t", 0, "away", 1), "copy_failures_total", {}),
        (events.CommitFailed("away", False), "commit_failures_total", {}),
        (events.LeaseExpired(11.0), "lease_expirations_total", {}),
        (events.LaneHeld("http.401", 1.0, "account"), "lane_holds_total", {"cause": "account"}),
        (
            events.DestinationHeld("http.429", 1.0, "throttle"),
            "destination_holds_total",
            {"cause": "throttle"},
        ),
        (events.RefusalDisbelieved("http.403"), "refusals_disbelieved_total", {}),
        (
            attempt(outcome="retry", code="http.503", counted=False),
            "uncounted_failures_total",
            {"code": "http.503"},
        ),
        (events.PartitionHalted(1, "truncated"), "partition_halts_total", {}),
        (events.HookFailed("on_sent", "n", "KeyError"), "hook_failures_total", {"hook": "on_sent"}),
        (events.PartitionsAssigned("t", (1,)), "rebalances_total", {"kind": "assigned"}),
        (events.PartitionsRevoked("t", (1,), False), "rebalances_total", {"kind": "revoked"}),
        (events.PartitionsRevoked("t", (1,), True), "rebalances_total", {"kind": "lost"}),
        (events.KafkaError("_TRANSPORT", False), "client_errors_total", {"code": "_TRANSPORT"}),
    ],
)
def test_events(event: Event, name: str, labels: dict[str, str]) -> None:
    """Each kind of event is counted once."""
    seen = Seen()
    seen.tell(event)
    assert seen.value(name, **labels) == 1


@pytest.mark.parametrize(
    ("code", "label"),
    [
        ("http.504", "http.504"),
        ("http.999", "other"),
        ("smtp.550-5.1.1", "smtp.550"),
        ("twilio.21610", "twilio.21610"),
        ("twilio.99999", "other"),
        ("httpx.ReadTimeout", "httpx.ReadTimeout"),
        ("unhandled.KeyError", "unhandled"),
        ("timeout", "timeout"),
        ("quota", "quota"),
        ("order-4711", "other"),
        (None, "other"),
    ],
)
def test_codes(code: str | None, label: str) -> None:
    """A code is a label only when it is one of a known set."""
    seen = Seen(codes=["quota"])
    seen.tell(attempt(outcome="retry", code=code))
    assert seen.values("attempt_errors_total", "code") == {label}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(string.printable, max_size=20), min_size=60, max_size=80, unique=True))
def test_no_label_is_unbounded(words: list[str]) -> None:
    """Whatever senders and foreign producers write, the number of series stays small."""
    seen = Seen()
    for word in words:
        seen.tell(attempt(id=word, category=word, channel=word, provider=word, code=word, outcome="retry"))

    assert len(seen.values("attempts_total", "category")) <= 5
    assert len(seen.values("attempts_total", "channel")) <= 5
    assert len(seen.values("attempt_errors_total", "provider")) <= PROVIDERS + 2
    assert len(seen.values("attempt_errors_total", "code")) <= 5


def test_workers_of_one_lane_and_consumer_are_one_series() -> None:
    """Two workers with the same labels are added up: Prometheus takes no series twice."""
    seen = Seen()
    other = Told(Sms, CONFIG, lane="high_priority")
    seen.metrics.watch(other)
    seen.tell(attempt())
    other.tell(attempt())

    assert seen.value("attempts_total", category="otp", channel="sms", outcome="sent") == 2
    assert seen.value("workers") == 2
    assert seen.value("healthy") == 0  # neither was started
    assert seen.value("oldest_open_age_seconds") == 0


def test_what_should_not_happen_begins_at_zero() -> None:
    """Once a worker has partitions its failures read 0, so that `increase` sees the first one."""
    seen = Seen()
    assert seen.value("copy_failures_total") is None
    seen.tell(events.PartitionsAssigned("notif.high_priority", (0,)))

    assert seen.value("copy_failures_total") == 0
    assert seen.value("dead_letters_total", category="otp", reason="expired") == 0
    assert seen.value("dead_letters_total", category="marketing", reason="expired") is None  # another lane's


def test_documented() -> None:
    """docs/observability.md names every metric, and none that does not exist."""
    text = (Path(__file__).parents[3] / "docs" / "observability.md").read_text()
    named = {
        re.sub("_(total|bucket|count|sum)$", "", name) for name in re.findall(r"kafka_notify_([a-z_]+)", text)
    }
    registry = CollectorRegistry()
    Metrics(registry)
    assert named == {family.name.removeprefix("kafka_notify_") for family in registry.collect()}


def test_producer(caplog: pytest.LogCaptureFixture) -> None:
    """A producer's acknowledgements and failures are counted by topic and category."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    class ToldProducer(Producer):
        tell: OnEvent

        def listen(self, on_event: OnEvent, /) -> None:
            self.tell = on_event

    producer = ToldProducer(CONFIG)
    metrics.watch(producer)
    producer.tell(events.Produced("n", "otp", "sms", "notif.high_priority", 0, 0, 0.004))
    producer.tell(events.ProduceFailed("n", "otp", "sms", "notif.high_priority", "timed out"))

    of = {"topic": "notif.high_priority", "category": "otp"}
    for outcome in ("acknowledged", "failed"):
        assert registry.get_sample_value("kafka_notify_produced_total", {**of, "outcome": outcome}) == 1
    name = "kafka_notify_produce_duration_seconds_bucket"
    assert registry.get_sample_value(name, {"topic": "notif.high_priority", "le": "0.005"}) == 1
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_served_on_loopback() -> None:
    """/metrics is valid exposition, on this machine alone, and the port is free again after `close`."""
    seen = Seen()
    seen.tell(attempt())
    server = seen.metrics.serve(0)
    url = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        families = {family.name for family in text_string_to_metric_families(answer.read().decode())}
    server.close()

    assert {"kafka_notify_attempts", "kafka_notify_healthy", "kafka_notify_waiting"} <= families
    seen.metrics.serve(server.port).close()


def test_a_registry_takes_them_once() -> None:
    """Metrics are made once per registry: two would show each series twice."""
    seen = Seen()
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(seen.registry)
