"""Rows about throughput: no-op sends, many in flight, threads, unevenly distributed users."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.bench import Bench, facts
from benchmarks.cluster import apart
from benchmarks.load import Mix
from benchmarks.report import Row, in_turns
from benchmarks.sending import asyncio_alone, drain, drain_raw


def noop(bench: Bench) -> Iterator[Row]:
    """Compare no-op sends with the loop that a team would write with confluent_kafka alone."""
    records = bench.count(600_000, 200_000)  # far more than what is fetched before the first send
    raw, ours = in_turns(
        bench.repeat,
        lambda: apart(drain_raw, bench.work(records)),
        lambda: apart(drain, bench.work(records, **bench.loop)),
    )
    yield Row(
        "noop", "/s", [r.rate for r in ours], "raw loop", [r.rate for r in raw],
        {**facts(ours), "µs CPU raw": statistics.median(r.cpu for r in raw)},
    )  # fmt: skip


def _in_flight(
    bench: Bench, name: str, records: int, concurrency: int, latency: float, **how: Any
) -> Iterator[Row]:
    runs = [
        apart(drain, bench.work(records, concurrency=concurrency, latency=latency, **how))
        for _ in range(bench.repeat)
    ]
    rates = [run.rate for run in runs]
    yield Row(name, "/s", rates, "arithmetic ceiling", [concurrency / latency], facts(runs))


def inflight_1000(bench: Bench) -> Iterator[Row]:
    """Measure 1,000 sends of 100 ms in flight."""
    yield from _in_flight(bench, "inflight-1000", bench.count(100_000), 1000, 0.1, **bench.loop)


def inflight_5000(bench: Bench) -> Iterator[Row]:
    """Measure 5,000 sends of 100 ms in flight."""
    yield from _in_flight(bench, "inflight-5000", bench.count(400_000, 100_000), 5000, 0.1, **bench.loop)


def threads_200(bench: Bench) -> Iterator[Row]:
    """Measure 200 plain sends that sleep 50 ms in threads."""
    yield from _in_flight(bench, "threads-200", bench.count(40_000, 10_000), 200, 0.05, threads=True)


def by_latency(bench: Bench) -> Iterator[Row]:
    """Measure 1,000 in flight with providers of different latencies: the data of the plot."""
    for milliseconds in (1, 5, 10, 20, 50, 100, 200, 300):
        ceiling = 1000 / (milliseconds / 1000)
        records = bench.count(int(min(ceiling, 40_000) * 8), 10_000)
        yield from _in_flight(bench, f"latency-{milliseconds}ms", records, 1000, milliseconds / 1000)


def partitions(bench: Bench) -> Iterator[Row]:
    """Measure 1,000 sends of 100 ms in flight from topics of 1 to 100 partitions: the number should not matter."""
    for count in (1, 5, 30, 100):
        name = f"partitions-{count}"
        yield from _in_flight(bench, name, bench.count(100_000), 1000, 0.1, partitions=count)


def users(bench: Bench) -> Iterator[Row]:
    """Measure unevenly distributed users, with 5 ms per send.

    Sends of one user never overlap, so the busiest users limit the rate. The baseline is asyncio alone: as many tasks
    as there are busy users, sleeping as often.
    """
    yield _of_few(bench, "users-hot", "hot", 1, 0.2)
    yield _of_few(bench, "users-few", "few", 30, 1.0)


def _of_few(bench: Bench, name: str, mix: Mix, busy: int, share: float) -> Row:
    """Measure a mix in which `busy` users have this share of all notifications."""
    latency = 0.005
    records = bench.count(int(busy / latency / share * 40), 10_000)
    alone, ours = in_turns(
        bench.repeat,
        lambda: apart(asyncio_alone, busy, latency, 3.0) / share,
        lambda: apart(drain, bench.work(records, mix=mix, concurrency=1000, latency=latency)),
    )
    return Row(name, "/s", [run.rate for run in ours], "asyncio alone", alone, facts(ours))
