"""Gauges and counters of workers, read when Prometheus asks. Needs prometheus_client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kafka_notify._base.names import of_group
from kafka_notify.worker import Worker, WorkerStats


def consumer_of(worker: Worker) -> str:
    """The name of a worker's consumer, once it has started."""
    return of_group(worker.group or "")[1]


_Read = Callable[[WorkerStats], float]
_GAUGES: Final[tuple[tuple[str, str, _Read], ...]] = (
    ("in_flight", "Sends under way.", lambda s: s.in_flight),
    ("buffered", "Source records in memory, those in flight included.", lambda s: s.buffered),
    ("waiting", "Notifications that live in the retry topic.", lambda s: s.waiting_retries),
    (
        "wide_partitions",
        "Partitions whose retries need more than the commit of an older version can say.",
        lambda s: s.wide_partitions,
    ),
    (
        "longest_window",
        "Offsets between the oldest waiting retry and the last that ended, in the widest partition.",
        lambda s: s.longest_window,
    ),
    ("stuck_sends", "Sends that outlived their deadline and still run.", lambda s: s.stuck),
    ("partitions", "Partitions that are being sent.", lambda s: len(s.partitions)),
    (
        "memory_buffered_bytes",
        "Source records in memory, those polled and not looked at yet included.",
        lambda s: s.buffered_bytes,
    ),
    ("memory_waiting_bytes", "Payloads that waiting retries keep.", lambda s: s.waiting_bytes),
    ("memory_loading_bytes", "Payloads read again for their send.", lambda s: s.loading_bytes),
    ("memory_table_bytes", "The table of waiting retries, without payloads.", lambda s: s.table_bytes),
    ("memory_limit_bytes", "What all budgets allow together.", lambda s: s.memory_limit),
    ("lane_held", "Workers whose lane is held.", lambda s: s.circuit_open),
    ("destinations_held", "Destinations that are held alone.", lambda s: s.destinations_held),
    ("circuit_score", "Score of the lane's circuit: at `failures` it is held.", lambda s: s.circuit_score),
)
_COUNTERS: Final[tuple[tuple[str, str, _Read], ...]] = (
    (
        "unknown_outcomes",
        "Attempts that may have been sent: where duplicates come from.",
        lambda s: s.unknown,
    ),
    ("parked", "Put behind an earlier notification of their user.", lambda s: s.parked),
    (
        "carried_window",
        "Waiting retries written again, as no wide retries are allowed.",
        lambda s: s.carried_window,
    ),
    (
        "carried_retention",
        "Waiting retries written again before retention ends.",
        lambda s: s.carried_retention,
    ),
    ("carried_sparse", "Waiting retries written again in a sparse partition.", lambda s: s.carried_sparse),
    ("spills", "Records that say what is finished in a retry partition.", lambda s: s.spills),
    (
        "spill_failures",
        "Those that were not acknowledged; they are written again.",
        lambda s: s.spill_failures,
    ),
    ("passed_over", "Records of other consumers' channels.", lambda s: s.passed_over),
    ("probes", "Sends that were to find out whether a provider works again.", lambda s: s.probes),
    ("probes_failed", "Those of them that failed.", lambda s: s.probes_failed),
)


class WorkerCollector(Collector):
    """Asks the workers when Prometheus does. Those of one lane and consumer are added up: a series is there once."""

    def __init__(self, workers: list[Worker]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics: Prometheus asks for them."""
        groups: dict[tuple[str, str], list[Worker]] = {}
        for worker in tuple(self._workers):
            if worker.group is not None:
                groups.setdefault((worker.lane, consumer_of(worker)), []).append(worker)
        stats = {labels: [worker.stats() for worker in workers] for labels, workers in groups.items()}
        names = ("lane", "consumer")
        for name, text, read in _GAUGES:
            gauge = GaugeMetricFamily(f"kafka_notify_{name}", text, labels=names)
            for labels, each in stats.items():
                gauge.add_metric(labels, sum(map(read, each)))
            yield gauge
        for name, text, read in _COUNTERS:
            counter = CounterMetricFamily(f"kafka_notify_{name}", text, labels=names)
            for labels, each in stats.items():
                counter.add_metric(labels, sum(map(read, each)))
            yield counter
        shares = GaugeMetricFamily(
            "kafka_notify_retry_success_ratio",
            "Share of retries that are accepted, by counted attempts before.",
            labels=(*names, "attempts"),
        )
        for labels, each in stats.items():
            for attempts, values in enumerate(zip(*(s.retry_shares for s in each), strict=False)):
                shares.add_metric((*labels, str(attempts)), sum(values) / len(values))
        yield shares
        for name, text, look in _LOOKS:
            gauge = GaugeMetricFamily(f"kafka_notify_{name}", text, labels=names)
            for labels, workers in groups.items():
                gauge.add_metric(labels, look(workers))
            yield gauge


_LOOKS: Final[tuple[tuple[str, str, Callable[[list[Worker]], float]], ...]] = (
    ("workers", "Workers of this process that were started.", len),
    (
        "healthy",
        "1 when all of them do their work, 0 when one does not.",
        lambda workers: all(worker.health().ok for worker in workers),
    ),
    (
        "concurrency_limit",
        "Sends that they allow at once.",
        lambda workers: sum(worker.concurrency or 0 for worker in workers),
    ),
    (
        "oldest_open_age_seconds",
        "Since the creation of the oldest notification that is neither sent nor given up; 0 without one.",
        lambda workers: max(worker.oldest_age() or 0.0 for worker in workers),
    ),
)
