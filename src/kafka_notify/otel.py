"""Traces with OpenTelemetry; needs the extra `otel` (its API alone: your service brings and sets up the SDK).

    producer = TracedProducer(CONFIG)
    worker = Worker(Sms, CONFIG, lane="high_priority", middleware=[Tracing()])

`TracedProducer` writes the context of its span into the notification's headers (`traceparent`, `tracestate`; no
baggage), and every hop keeps them: retries, dead letters and redrives link back to where the notification was made.
Names and attributes follow OpenTelemetry's semantic conventions for messaging. No attribute holds data, recipient,
user id, key or exception text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from kafka_notify._base import codes
from kafka_notify._base.extras import missing

try:
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        Link,
        Span,
        SpanKind,
        Status,
        StatusCode,
        Tracer,
        TracerProvider,
        get_current_span,
        get_tracer,
        set_span_in_context,
        use_span,
    )
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as _e:
    raise missing(_e, "otel") from None

from kafka_notify import __version__
from kafka_notify._base.units import Seconds
from kafka_notify._kafka.config import Config
from kafka_notify._kafka.pending import PendingSend, RecordMetadata
from kafka_notify._send.attempt import describe
from kafka_notify.codec import Codec
from kafka_notify.errors import DeliveryError, NotifyError
from kafka_notify.events import OnEvent
from kafka_notify.notification import Notification, with_headers
from kafka_notify.outcome import Outcome, SendContext
from kafka_notify.producer import Producer
from kafka_notify.topology import Topology

# The W3C headers alone, whatever propagators the process has: baggage would travel to every reader of the topic.
_W3C: Final = TraceContextTextMapPropagator()
_TRACEPARENT: Final = "traceparent"


class TracedProducer(Producer):
    """A `Producer` whose sends are spans, from the call to the brokers' acknowledgement.

    A span `send notif.high_priority` (kind PRODUCER) is a child of the span that is current at the call. A
    notification that brings a `traceparent` of its own keeps it; the span then links to it. Ending a span runs the
    span processors on the lane's serving thread: use one that hands over (`BatchSpanProcessor`).

    Args:
        config: As for `Producer`.
        topology: As for `Producer`.
        lane_config: As for `Producer`.
        codec: As for `Producer`.
        max_block: As for `Producer`.
        on_event: As for `Producer`.
        tracer_provider: Makes the tracer; by default the process's own provider.
    """

    def __init__(
        self,
        config: Config,
        *,
        topology: Topology | None = None,
        lane_config: Mapping[str, Config] = {},
        codec: Codec | None = None,
        max_block: Seconds = 1.0,
        on_event: OnEvent | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        super().__init__(
            config,
            topology=topology,
            lane_config=lane_config,
            codec=codec,
            max_block=max_block,
            on_event=on_event,
        )
        self._tracer = _tracer(tracer_provider)

    def send(self, notification: Notification[Any], /) -> PendingSend:
        """Send as `Producer.send` does; the span ends with the acknowledgement.

        Args: As for `Producer.send`.
        """
        span, notification = self._started(notification)
        try:
            pending = super().send(notification)
        except BaseException as e:
            _fail(span, type(e).__name__)
            span.end()
            raise
        pending.add_done_callback(lambda done: _acknowledged(span, done))
        return pending

    async def asend(
        self, notification: Notification[Any], /, *, timeout: Seconds | None = None
    ) -> RecordMetadata:
        """Send as `Producer.asend` does; the span ends when the call does.

        Args: As for `Producer.asend`.
        """
        span, notification = self._started(notification)
        try:
            written = await super().asend(notification, timeout=timeout)
        except BaseException as e:
            _fail(span, type(e).__name__)
            raise
        else:
            _describe_record(span, written)
            return written
        finally:
            span.end()

    def _started(self, notification: Notification[Any]) -> tuple[Span, Notification[Any]]:
        route = self._routes.get(notification.category)
        topic = route[0] if route is not None else "unknown"
        span = self._tracer.start_span(
            f"send {topic}",
            kind=SpanKind.PRODUCER,
            links=_links(_made_in(notification)),
            attributes={**_attributes("send", topic), **_of_notification(notification)},
        )
        if _TRACEPARENT in notification.headers:
            return span, notification
        headers: dict[str, str] = {}
        _W3C.inject(headers, set_span_in_context(span, Context()))
        return span, with_headers(notification, headers) if headers else notification


def _acknowledged(span: Span, pending: PendingSend) -> None:
    try:
        _describe_record(span, pending.result(0))
    except NotifyError as e:
        _fail(span, type(e).__name__)
    finally:
        span.end()


def _describe_record(span: Span, written: RecordMetadata) -> None:
    span.set_attribute("messaging.destination.partition.id", str(written.partition))
    span.set_attribute("messaging.kafka.offset", written.offset)


class Tracing:
    """Middleware for a `Worker`: each attempt is a span that is current while `send` runs, on a thread too.

    A span `process notif.high_priority` (kind CONSUMER) links to the one that produced the notification, and is its
    child unless told otherwise: then all attempts are in the trace of the request that caused them. Put it first, so
    that the other middleware runs inside. What `should_send` skips or defers, and what expires, makes no span.

    Args:
        tracer_provider: Makes the tracer; by default the process's own provider.
        new_trace: Let each attempt begin a trace of its own that only links: for back ends that take no spans hours
            after the trace began.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None, *, new_trace: bool = False) -> None:
        self._tracer = _tracer(tracer_provider)
        self._new_trace = new_trace

    async def __call__(
        self, context: SendContext, call_next: Callable[[SendContext], Awaitable[Outcome]], /
    ) -> Outcome:
        """Make one attempt within a span."""
        notification, attempt = context.notification, context.attempt
        made_in = _made_in(notification)
        span = self._tracer.start_span(
            f"process {context.topic}",
            context=Context() if self._new_trace else made_in,
            kind=SpanKind.CONSUMER,
            links=_links(made_in),
            attributes={
                **_attributes("process", context.topic),
                **_of_notification(notification),
                "messaging.consumer.group.name": context.group,
                "kafka_notify.attempt": attempt.number,
                "kafka_notify.maybe_sent": attempt.maybe_sent,
            },
        )
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                outcome = await call_next(context)
        except asyncio.CancelledError:  # past its deadline, or handed over
            _fail(span, codes.CANCELLED)
            raise
        except BaseException as e:
            _fail(span, e.code if isinstance(e, DeliveryError) else f"{codes.UNHANDLED}{type(e).__name__}")
            raise
        else:
            _tell(span, outcome)
            return outcome
        finally:
            span.end()


def _tell(span: Span, outcome: Outcome) -> None:
    kind, provider, code = describe(outcome)
    span.set_attribute("kafka_notify.outcome", kind)
    if provider is not None:
        span.set_attribute("kafka_notify.provider", provider)
    if kind in ("retry", "dead"):
        _fail(span, code or kind)


def _fail(span: Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR))


def _tracer(provider: TracerProvider | None) -> Tracer:
    return get_tracer("kafka_notify", __version__, provider)


def _made_in(notification: Notification[Any]) -> Context:
    """With the span that made the notification, as its headers tell; empty without them."""
    return _W3C.extract(notification.headers, Context())


def _links(made_in: Context) -> Sequence[Link]:
    span = get_current_span(made_in).get_span_context()
    return [Link(span)] if span.is_valid else []


def _attributes(operation: str, topic: str) -> dict[str, str]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }


def _of_notification(notification: Notification[Any]) -> dict[str, str]:
    return {
        "messaging.message.id": notification.id,
        "kafka_notify.category": notification.category,
        "kafka_notify.channel": notification.channel,
    }
