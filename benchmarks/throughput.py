"""Rows about throughput: sends that do nothing, many in flight, threads."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import attrs

from benchmarks.cluster import Cluster, apart
from benchmarks.load import Mix
from benchmarks.report import Fact, Row, in_turns
from benchmarks.sending import Drained, Work, drain, drain_raw


@attrs.frozen
class Bench:
    """What every row is given."""

    cluster: Cluster
    repeat: int
    scale: float
    uvloop: bool = False
    gc: Literal["on", "freeze", "off"] = "on"
    profile: Path | None = None

    def count(self, at_full_scale: int, at_least: int = 20_000) -> int:
        """How many records, at this scale."""
        return max(int(at_full_scale * self.scale), at_least)

    def work(self, records: int, *, mix: Mix = "even", **how: Any) -> Work:
        """Work on a backlog that is larger than what is measured, for a consumer that has not read any of it."""
        prefix = self.cluster.backlog(records * 5 // 4 + 20_000, mix)
        name = self.cluster.consumer(prefix)
        return Work(self.cluster.bootstrap, prefix, name, records, mix=mix, **how)

    @property
    def loop(self) -> dict[str, Any]:
        """The switches of rows 1 and 2."""
        return {"uvloop": self.uvloop, "gc": self.gc, "profile": self.profile}


def facts(runs: list[Drained]) -> dict[str, Fact]:
    """What all throughput rows say beside their rate."""
    return {
        "µs CPU": statistics.median(run.cpu for run in runs),
        "MB RSS": max(run.rss for run in runs) >> 20,
        "out of order": sum(run.order.violations + run.order.overlaps for run in runs if run.order),
    }


def noop(bench: Bench) -> Iterator[Row]:
    """Sends that do nothing, beside the loop that a team would write with confluent_kafka alone."""
    records = bench.count(400_000, 50_000)
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
    """1,000 sends of 100 ms in flight."""
    yield from _in_flight(bench, "inflight-1000", bench.count(100_000), 1000, 0.1, **bench.loop)


def inflight_5000(bench: Bench) -> Iterator[Row]:
    """5,000 sends of 100 ms in flight."""
    yield from _in_flight(bench, "inflight-5000", bench.count(400_000, 100_000), 5000, 0.1, **bench.loop)


def threads_200(bench: Bench) -> Iterator[Row]:
    """200 plain sends that sleep 50 ms, in threads."""
    yield from _in_flight(bench, "threads-200", bench.count(40_000, 10_000), 200, 0.05, threads=True)
