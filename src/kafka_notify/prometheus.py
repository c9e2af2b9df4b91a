"""Metrics for Prometheus; needs the extra `prometheus`.

    metrics = Metrics()
    metrics.watch(worker)
    metrics.serve(9464)

Counters and histograms come from events, gauges from the worker itself when Prometheus asks. No label is unbounded:
names that the topology does not know and codes that nobody listed read `other`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable
from typing import Final, get_args
from wsgiref.simple_server import WSGIServer

import attrs

from kafka_notify._base.extras import missing

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server

    from kafka_notify._metrics.collector import WorkerCollector, consumer_of
except ModuleNotFoundError as _e:
    raise missing(_e, "prometheus") from None

from kafka_notify import events
from kafka_notify._classify.metric_labels import DEFERRED, PROVIDERS, Codes, FirstFew, OneOf
from kafka_notify._wire.hops import DlqReason
from kafka_notify.events import Event
from kafka_notify.producer import Producer
from kafka_notify.worker import Worker

SEND_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds; those of OpenTelemetry's messaging metrics up to 10, thinned out."""
AGE_BUCKETS: Final = (
    0.01,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    1800.0,
    7200.0,
    86400.0,
)
"""Seconds; from an OTP's milliseconds to the longest wait of a retry."""


class Metrics:
    """The metrics of all workers and producers of a process, on one registry.

    Make one per registry: Prometheus refuses a name twice.

    Args:
        registry: Registry of the metrics; by default the process's own.
        codes: Error codes of your own senders that get a label of their own. Known without that: `http.504`, `smtp.451`
            (without the enhanced code), the providers' codes and the client libraries' exceptions that `classify`
            knows, and the library's own. `unhandled.SomeError` counts as `unhandled`.

    Raises:
        ValueError: The registry has metrics of these names already.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, codes: Iterable[str] = ()) -> None:
        self._registry = registry
        self._code = Codes(codes)
        self._provider = FirstFew(PROVIDERS)
        self._workers: list[Worker] = []

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"kafka_notify_{name}", text, labels, registry=registry)

        worker = ("lane", "consumer")
        self._produced = counter(
            "produced", "Notifications acknowledged by the brokers, or not.", "topic", "category", "outcome"
        )
        self._produce_seconds = Histogram(
            "kafka_notify_produce_duration_seconds",
            "From send to the brokers' acknowledgement.",
            ("topic",),
            buckets=SEND_BUCKETS,
            registry=registry,
        )
        self._attempts = counter(
            "attempts", "Calls of send that ended.", *worker, "category", "channel", "outcome"
        )
        self._errors = counter(
            "attempt_errors", "Attempts that failed, by code.", *worker, "provider", "code"
        )
        self._send_seconds = Histogram(
            "kafka_notify_send_duration_seconds",
            "How long a call of send took.",
            (*worker, "provider"),
            buckets=SEND_BUCKETS,
            registry=registry,
        )
        self._age = Histogram(
            "kafka_notify_end_to_end_latency_seconds",
            "From the creation of a notification until its provider accepted it.",
            (*worker, "category"),
            buckets=AGE_BUCKETS,
            registry=registry,
        )
        self._copies = counter(
            "retry_copies",
            "Copies in the retry topic: failed, parked or carried forward.",
            *worker,
            "category",
        )
        self._letters = counter("dead_letters", "Dead letters, by reason.", *worker, "category", "reason")
        self._copy_failures = counter(
            "copy_failures", "Copies not acknowledged; they are written again.", *worker
        )
        self._commit_failures = counter("commit_failures", "Commits that failed.", *worker)
        self._leases = counter("lease_expirations", "Times without a confirmed commit for too long.", *worker)
        self._holds = counter("lane_holds", "Times the lane was held, by cause.", *worker, "cause")
        self._destination_holds = counter(
            "destination_holds", "Times a destination was held, by cause.", *worker, "cause"
        )
        self._uncounted = counter("uncounted_failures", "Failures that cost no attempt.", *worker, "code")
        self._disbelieved = counter("refusals_disbelieved", "Refusals that were not the account's.", *worker)
        self._halts = counter("partition_halts", "Partitions that need a person.", *worker)
        self._removed = counter("records_removed", "Removed by retention before they were finished.", *worker)
        self._offsets_missing = counter("offsets_missing", "Partitions whose offsets were gone.", *worker)
        self._hooks = counter("hook_failures", "Hooks of the consumer that raised.", *worker, "hook")
        self._rebalances = counter("rebalances", "Partitions that came and went, by kind.", *worker, "kind")
        self._client_errors = counter("client_errors", "Errors that librdkafka reported.", *worker, "code")
        registry.register(WorkerCollector(self._workers))

    def watch(self, *sources: Worker | Producer) -> None:
        """Count the events of workers and producers. Call it before they start.

        Several workers may share lane and consumer. A stopped worker is still reported, as unhealthy.

        Args:
            *sources: Workers and producers.

        Raises:
            NotifyError: One of them was started already.
        """
        for source in sources:
            if isinstance(source, Worker):
                source.listen(functools.partial(self._on_worker_event, _Labels(source)))
                self._workers.append(source)
            else:
                source.listen(self._on_producer_event)

    def serve(self, port: int, host: str = "127.0.0.1") -> MetricsServer:
        """Answer `GET /metrics` from a thread of its own, until it is closed or the process ends.

        Args:
            port: Number of the port; 0 takes a free one: see `MetricsServer.port`.
            host: Address to listen on; by default only this machine reaches it, as metrics tell how often who sends
                what. In a container give the pod's address or `0.0.0.0`, and keep it off the internet.

        Returns:
            The server, to close it.

        Raises:
            OSError: The port is taken.
        """
        return MetricsServer(*start_http_server(port, host, self._registry))

    # -- events -----------------------------------------------------------------------------------

    def _on_producer_event(self, event: Event) -> None:
        match event:
            case events.Produced():
                self._produced.labels(event.topic, event.category, "acknowledged").inc()
                self._produce_seconds.labels(event.topic).observe(event.seconds)
            case events.ProduceFailed():
                self._produced.labels(event.topic, event.category, "failed").inc()
            case _:
                pass

    def _on_worker_event(self, of: _Labels, event: Event) -> None:
        worker = of.worker
        match event:
            case events.AttemptEnded():
                self._on_attempt(of, event)
            case events.RetryScheduled():
                self._copies.labels(*worker, of.category(event.category)).inc()
            case events.DeadLettered():
                self._letters.labels(*worker, of.category(event.category), event.reason).inc()
            case events.CopyFailed():
                self._copy_failures.labels(*worker).inc()
            case events.CommitFailed():
                self._commit_failures.labels(*worker).inc()
            case events.LeaseExpired():
                self._leases.labels(*worker).inc()
            case events.LaneHeld():
                self._holds.labels(*worker, event.cause).inc()
            case events.DestinationHeld():
                self._destination_holds.labels(*worker, event.cause).inc()
            case events.RefusalDisbelieved():
                self._disbelieved.labels(*worker).inc()
            case events.PartitionHalted():
                self._halts.labels(*worker).inc()
            case events.RecordsRemoved():
                self._removed.labels(*worker).inc(event.count)
            case events.OffsetsMissing():
                self._offsets_missing.labels(*worker).inc()
            case events.HookFailed():
                self._hooks.labels(*worker, event.hook).inc()
            case events.PartitionsAssigned():
                self._begin_at_zero(of)
                self._rebalances.labels(*worker, "assigned").inc(len(event.partitions))
            case events.PartitionsRevoked():
                kind = "lost" if event.lost else "revoked"
                self._rebalances.labels(*worker, kind).inc(len(event.partitions))
            case events.KafkaError():
                self._client_errors.labels(*worker, event.code).inc()
            case _:
                pass

    def _begin_at_zero(self, of: _Labels) -> None:
        """Show what should stay at zero before it happens: `increase` does not see a series' first value."""
        worker = of.worker
        for counter in (
            self._copy_failures,
            self._commit_failures,
            self._leases,
            self._disbelieved,
            self._halts,
        ):
            counter.labels(*worker)
        for cause in get_args(events.HoldCause):
            self._holds.labels(*worker, cause)
            self._destination_holds.labels(*worker, cause)
        for category in of.own_categories:
            for reason in get_args(DlqReason):
                self._letters.labels(*worker, category, reason)

    def _on_attempt(self, of: _Labels, event: events.AttemptEnded) -> None:
        code = self._code(event.code)
        asked = event.outcome == "skipped" or code == DEFERRED  # of should_send; nothing was sent
        key = (
            of.category(event.category),
            of.channel(event.channel),
            DEFERRED if code == DEFERRED else event.outcome,
            self._provider(event.provider),
        )
        series = of.attempts.get(key)
        if series is None:
            series = of.attempts[key] = self._attempt_series(of.worker, *key)
        series.count.inc()
        if asked:
            return
        series.seconds.observe(event.seconds)
        if event.outcome == "sent":
            series.age.observe(event.age)
        else:
            self._errors.labels(*of.worker, key[-1], code).inc()
            if not event.counted:
                self._uncounted.labels(*of.worker, code).inc()

    def _attempt_series(
        self, worker: tuple[str, str], category: str, channel: str, outcome: str, provider: str
    ) -> _AttemptSeries:
        return _AttemptSeries(
            self._attempts.labels(*worker, category, channel, outcome),
            self._send_seconds.labels(*worker, provider),
            self._age.labels(*worker, category),
        )


class MetricsServer:
    """Answers `GET /metrics` until `close`. `Metrics.serve` makes it."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """Number of the port on which it listens."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@attrs.frozen
class _AttemptSeries:
    """The series that an attempt changes; looked up once, as that costs more than counting."""

    count: Counter
    seconds: Histogram
    age: Histogram


class _Labels:
    """The label values of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.category = OneOf(worker.topology.categories)
        self.channel = OneOf(worker.topology.channels)
        self.own_categories = {c.name for c in worker.topology.categories.values() if c.lane == worker.lane}
        """Names of the categories of the worker's lane."""
        self.attempts: dict[tuple[str, str, str, str], _AttemptSeries] = {}
        """By category, channel, outcome and provider: labels, so they are bounded."""

    @functools.cached_property
    def worker(self) -> tuple[str, str]:
        """Lane and consumer; the consumer is known once the worker has started."""
        return self._worker.lane, consumer_of(self._worker)
