"""Traces across the hops, on real Apache Kafka: the SDK of OpenTelemetry keeps the spans in memory."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from kafka_notify import (
    Attempt,
    Category,
    Config,
    Consumer,
    Lane,
    Notification,
    PermanentError,
    Receipt,
    RetryPolicy,
    Topology,
    TransientError,
    Worker,
)
from kafka_notify.admin import create_topics
from kafka_notify.deadletters import DeadLetters
from kafka_notify.otel import TracedProducer, Tracing
from kafka_notify.testing import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

SECRETS = ("canary-payload", "canary-recipient", "canary-user", "canary-detail", "canary-baggage")


class Spans:
    """What the SDK was told."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._kept = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer = self.provider.get_tracer("the team's own")

    def ended(self, name: str) -> list[ReadableSpan]:
        """Spans of that name, in the order of their ends."""
        return [span for span in self._kept.get_finished_spans() if span.name == name]

    def ours(self) -> str:
        """The library's spans, as an exporter would write them."""
        kept = self._kept.get_finished_spans()
        return "\n".join(s.to_json() for s in kept if s.name != "POST /messages")


@pytest.fixture
def spans() -> Iterator[Spans]:
    """An SDK of the test's own; the process's stays as it is."""
    kept = Spans()
    yield kept
    kept.provider.shutdown()


@pytest.fixture
def topology() -> Topology:
    """A topology of the test's own."""
    return Topology(
        lanes=[Lane("quick", partitions=2)],
        categories=[Category("otp", "quick")],
        channels=["sms"],
        prefix=f"t{uuid.uuid4().hex[:12]}",
    )


@pytest.fixture
def config(local_kafka: LocalKafka, topology: Topology) -> Config:
    """Client settings; the topics exist."""
    config: Config = {"bootstrap.servers": local_kafka.bootstrap_servers}
    create_topics(topology, config, consumers=[""])
    return config


class Flaky(Consumer):
    """Fails twice, then sends; a span of its client's around each call."""

    retry = RetryPolicy(3, initial_delay=0.1, multiplier=1)

    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        self.notifications: list[Notification[Any]] = []
        self.done = threading.Event()

    def call(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """The provider's client."""
        with self.spans.tracer.start_as_current_span("POST /messages"):
            self.notifications.append(notification)
            if attempt.number < 3:
                raise TransientError("http.503", detail="canary-detail", provider="acme")
            self.done.set()
            return Receipt("acme")


class FlakyAsync(Flaky):
    """On the event loop."""

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        return self.call(notification, attempt)


class FlakyPlain(Flaky):
    """On a thread."""

    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        return self.call(notification, attempt)


def note(**fields: Any) -> Notification[Any]:
    """A notification full of what no span may show."""
    return Notification(
        user_id="canary-user",
        category="otp",
        channel="sms",
        recipient="canary-recipient",
        data={"code": "canary-payload"},
        **fields,
    )


def ids(span: ReadableSpan) -> tuple[int, int]:
    """Trace and span id."""
    found = span.get_span_context()
    assert found is not None
    return found.trace_id, found.span_id


@pytest.mark.parametrize("consumer", [FlakyAsync, FlakyPlain])
def test_one_notification_across_two_retries(
    config: Config, topology: Topology, spans: Spans, consumer: type[Flaky]
) -> None:
    """Each attempt is a span that links to the producing one; the sender's own span is its child, on a thread too."""
    flaky = consumer(spans)
    worker = Worker(flaky, config, lane="quick", topology=topology, middleware=[Tracing(spans.provider)])
    with worker, TracedProducer(config, topology=topology, tracer_provider=spans.provider) as producer:
        with spans.tracer.start_as_current_span("GET /login") as request:
            token = context.attach(baggage.set_baggage("who", "canary-baggage"))
            written = producer.send(note()).result(30)
            context.detach(token)
        assert flaky.done.wait(60)

    source = topology.source_topic("quick")
    (sent,) = spans.ended(f"send {source}")
    attempts = spans.ended(f"process {source}")
    calls = spans.ended("POST /messages")

    assert sent.kind is SpanKind.PRODUCER
    assert sent.parent is not None
    assert sent.parent.span_id == request.get_span_context().span_id
    assert sent.attributes is not None
    assert sent.attributes["messaging.destination.partition.id"] == str(written.partition)
    assert sent.attributes["messaging.kafka.offset"] == written.offset

    assert len(attempts) == 3
    assert {ids(span)[0] for span in [*attempts, *calls]} == {ids(sent)[0]}
    for attempt, call in zip(attempts, calls, strict=True):
        assert attempt.kind is SpanKind.CONSUMER
        assert [link.context.span_id for link in attempt.links] == [ids(sent)[1]]
        assert attempt.parent is not None
        assert attempt.parent.span_id == ids(sent)[1]
        assert call.parent is not None
        assert call.parent.span_id == ids(attempt)[1]
    told = [span.attributes or {} for span in attempts]
    assert [each["kafka_notify.attempt"] for each in told] == [1, 2, 3]
    assert [each["kafka_notify.outcome"] for each in told] == ["retry", "retry", "sent"]
    assert [each.get("error.type") for each in told] == ["http.503", "http.503", None]
    assert [span.status.status_code for span in attempts] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    assert {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": source,
        "messaging.consumer.group.name": topology.group("quick"),
    }.items() <= told[0].items()

    headers = [dict(notification.headers) for notification in flaky.notifications]
    assert headers[0] == headers[1] == headers[2]
    assert set(headers[0]) == {"traceparent"}
    assert "http.503" in spans.ours()
    assert [secret for secret in SECRETS if secret in spans.ours()] == []


def test_redrive_links_back(config: Config, topology: Topology, spans: Spans) -> None:
    """A dead letter that is redriven still links to where its notification was made."""
    refused, accepted = threading.Event(), threading.Event()

    class Choosy(Consumer):
        refuses = True

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            if self.refuses:
                raise PermanentError("http.400")
            accepted.set()
            return Receipt("acme")

        def on_dead_letter(self, letter: object) -> None:
            self.refuses = False
            refused.set()

    with (
        Worker(Choosy(), config, lane="quick", topology=topology, middleware=[Tracing(spans.provider)]),
        TracedProducer(config, topology=topology, tracer_provider=spans.provider) as producer,
    ):
        producer.send(note())
        assert refused.wait(60)
        letters = DeadLetters(config, topology=topology)
        assert letters.redrive(letters.find(), dry_run=False).redriven == 1
        assert accepted.wait(60)

    (sent,) = spans.ended(f"send {topology.source_topic('quick')}")
    attempts = spans.ended(f"process {topology.source_topic('quick')}")
    assert [span.attributes and span.attributes["kafka_notify.outcome"] for span in attempts] == [
        "dead",
        "sent",
    ]
    assert [link.context.span_id for span in attempts for link in span.links] == [ids(sent)[1]] * 2


def test_context_of_the_callers_own(config: Config, topology: Topology, spans: Spans) -> None:
    """A `traceparent` that the caller wrote stays; every span links to it, in a trace of its own if told."""
    flaky = FlakyAsync(spans)
    origin = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tracing = Tracing(spans.provider, new_trace=True)
    with (
        Worker(flaky, config, lane="quick", topology=topology, middleware=[tracing]),
        TracedProducer(config, topology=topology, tracer_provider=spans.provider) as producer,
    ):
        producer.send(note(headers={"traceparent": origin, "tracestate": "vendor=1"}))
        assert flaky.done.wait(60)

    source = topology.source_topic("quick")
    (sent,) = spans.ended(f"send {source}")
    attempts = spans.ended(f"process {source}")
    assert dict(flaky.notifications[-1].headers) == {"traceparent": origin, "tracestate": "vendor=1"}
    assert {link.context.span_id for span in [sent, *attempts] for link in span.links} == {0xB7AD6B7169203331}
    assert {link.context.trace_state.get("vendor") for span in attempts for link in span.links} == {"1"}
    assert all(span.parent is None for span in [sent, *attempts])
    assert len({ids(span)[0] for span in attempts}) == 3


async def test_asend(config: Config, topology: Topology, spans: Spans) -> None:
    """An awaited send is a span with the place of its record, and the current span is put back."""
    with spans.tracer.start_as_current_span("request") as request:
        async with TracedProducer(config, topology=topology, tracer_provider=spans.provider) as producer:
            written = await producer.asend(note())
            assert trace.get_current_span() is request

    (sent,) = spans.ended(f"send {topology.source_topic('quick')}")
    assert sent.attributes is not None
    assert sent.attributes["messaging.kafka.offset"] == written.offset
    assert sent.status.status_code is StatusCode.UNSET
