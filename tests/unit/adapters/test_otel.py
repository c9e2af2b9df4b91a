"""Spans of single sends, without Kafka: how they end, and what they keep to themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, StatusCode

from kafka_notify import (
    Attempt,
    Config,
    InvalidNotificationError,
    InvalidRecipientError,
    Notification,
    Producer,
    Receipt,
    ThrottledError,
)
from kafka_notify.notification import with_headers
from kafka_notify.otel import TracedProducer, Tracing
from kafka_notify.outcome import Dead, Outcome, SendContext, Sent
from kafka_notify.testing import MockKafka

ORIGIN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CallNext = Callable[[SendContext], Awaitable[Outcome]]


class Spans:
    """What the SDK was told."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._kept = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))

    def only(self) -> ReadableSpan:
        """The one span that ended."""
        (span,) = self._kept.get_finished_spans()
        return span


@pytest.fixture
def spans() -> Spans:
    """An SDK of the test's own."""
    return Spans()


def note(**fields: Any) -> Notification[Any]:
    """A notification."""
    return Notification(user_id="u1", category="otp", channel="sms", data={"code": "canary"}, **fields)


async def attempt(spans: Spans, call_next: CallNext, **headers: str) -> Outcome:
    """One attempt through the middleware."""
    notification = note(headers=headers)
    context = SendContext(
        notification,
        Attempt(1, 4, notification.id, 10, None),
        "notif.high_priority",
        "notif.high_priority.sms",
    )
    return await Tracing(spans.provider)(context, call_next)


async def test_an_outcome_is_handed_on(spans: Spans) -> None:
    """The outcome comes back as it was; a failed one makes the span an error with its code."""
    dead = Dead("invalid_recipient", InvalidRecipientError("http.410", detail="canary", provider="acme"))

    async def refused(context: SendContext) -> Outcome:
        return dead

    assert await attempt(spans, refused) is dead
    span = spans.only()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert span.attributes is not None
    assert span.attributes["error.type"] == "http.410"
    assert span.attributes["kafka_notify.provider"] == "acme"
    assert "canary" not in span.to_json()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("canary"), "unhandled.ValueError"),
        (ThrottledError("http.429", detail="canary"), "http.429"),
    ],
)
async def test_what_another_middleware_raises(spans: Spans, error: Exception, code: str) -> None:
    """An exception goes on to the worker; the span has its code, and neither its text nor its traceback."""

    async def broken(context: SendContext) -> Outcome:
        raise error

    with pytest.raises(type(error)):
        await attempt(spans, broken)
    span = spans.only()
    assert span.attributes is not None
    assert span.attributes["error.type"] == code
    assert span.events == ()
    assert "canary" not in span.to_json()


async def test_a_cancelled_send(spans: Spans) -> None:
    """A send that is cancelled, past its deadline for one, ends its span; the current span is put back."""
    running = asyncio.Event()

    async def hang(context: SendContext) -> Outcome:
        running.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(attempt(spans, hang))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    span = spans.only()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "cancelled"
    assert span.events == ()
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize(
    "traceparent", ["", "canary", "00-0-0-00", "ff" + ORIGIN[2:], ORIGIN + "x", "é" * 600]
)
async def test_a_malformed_context(spans: Spans, traceparent: str) -> None:
    """What is no context is no link, and no error: anyone can write to a topic."""

    async def send(context: SendContext) -> Outcome:
        return Sent(Receipt("acme"))

    await attempt(spans, send, traceparent=traceparent, tracestate="=,=,,;")
    span = spans.only()
    assert span.links == ()
    assert span.parent is None


def test_a_refused_notification(spans: Spans) -> None:
    """A notification that the producer does not take ends its span as an error, at once."""
    with (
        TracedProducer({"bootstrap.servers": "127.0.0.1:1"}, tracer_provider=spans.provider) as producer,
        pytest.raises(InvalidNotificationError),
    ):
        producer.send(Notification(user_id="u1", category="invented", channel="sms", data={}))
    span = spans.only()
    assert span.name == "send unknown"
    assert span.attributes is not None
    assert span.attributes["error.type"] == "InvalidNotificationError"


async def test_a_refused_notification_is_awaited(spans: Spans) -> None:
    """The same when it is awaited."""
    async with TracedProducer(
        {"bootstrap.servers": "127.0.0.1:1"}, tracer_provider=spans.provider
    ) as producer:
        with pytest.raises(InvalidNotificationError):
            await producer.asend(Notification(user_id="u1", category="invented", channel="sms", data={}))
    assert spans.only().status.status_code is StatusCode.ERROR


def test_not_acknowledged(spans: Spans) -> None:
    """A record that no broker acknowledges ends its span as an error, when that is known."""
    config: Config = {
        "bootstrap.servers": "127.0.0.1:1",
        "delivery.timeout.ms": 100,
        "request.timeout.ms": 50,
    }
    with TracedProducer(config, tracer_provider=spans.provider) as producer:
        pending = producer.send(note())
        with pytest.raises(Exception, match="not acknowledged"):
            pending.result(30)
        producer.flush()
    span = spans.only()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ProduceError"


def test_without_an_sdk(mock_kafka: MockKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an SDK a send works as before, and writes no header."""
    sent: list[Notification[Any]] = []
    send = Producer.send

    def seen(self: Producer, notification: Notification[Any], /) -> Any:
        sent.append(notification)
        return send(self, notification)

    monkeypatch.setattr(Producer, "send", seen)
    config: Config = {"bootstrap.servers": mock_kafka.bootstrap_servers, "allow.auto.create.topics": True}
    with TracedProducer(config, tracer_provider=NoOpTracerProvider()) as producer:
        producer.send(note(headers={"mine": "1"})).result(30)

    assert dict(sent[0].headers) == {"mine": "1"}


def test_more_headers() -> None:
    """A notification with more headers is the same one in everything else."""
    before = note(recipient="+15550100", collapse_key="k", correlation_id="c", headers={"mine": "1"})
    after = with_headers(before, {"traceparent": ORIGIN})

    assert dict(after.headers) == {"mine": "1", "traceparent": ORIGIN}
    assert dict(before.headers) == {"mine": "1"}
    names = (
        "user_id category channel recipient id collapse_key correlation_id data created_at expires_at".split()
    )
    assert [getattr(after, name) for name in names] == [getattr(before, name) for name in names]
