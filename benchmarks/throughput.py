"""Rows about throughput: sends that do nothing, many in flight, threads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from benchmarks.cluster import Child, Cluster, apart
from benchmarks.load import PARTITIONS, Mix
from benchmarks.report import Fact, Row, in_turns
from benchmarks.sending import Drained, Work, drain, drain_raw, drain_until_told


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


def by_latency(bench: Bench) -> Iterator[Row]:
    """1,000 in flight, with providers of different speed: what the plot shows."""
    for milliseconds in (1, 5, 10, 20, 50, 100, 200, 300):
        ceiling = 1000 / (milliseconds / 1000)
        records = bench.count(int(min(ceiling, 40_000) * 8), 10_000)
        yield from _in_flight(bench, f"latency-{milliseconds}ms", records, 1000, milliseconds / 1000)


def users(bench: Bench) -> Iterator[Row]:
    """Users who are unlike each other; 5 ms per send, and one user's sends never overlap."""
    mixes: dict[Mix, tuple[str, float]] = {
        "hot": ("one user with 20 % bounds all", 1 / 0.005 / 0.2),
        "few": ("30 users, one at a time", 30 / 0.005),
    }
    for mix, (reason, ceiling) in mixes.items():
        records = bench.count(int(ceiling * 10), 10_000)
        runs = [
            apart(drain, bench.work(records, mix=mix, concurrency=1000, latency=0.005))
            for _ in range(bench.repeat)
        ]
        yield Row(f"users-{mix}", "/s", [run.rate for run in runs], reason, [ceiling], facts(runs))


def backlogs(bench: Bench) -> Iterator[Row]:
    """Sends that do nothing, from backlogs of different size: the rate and the memory should not care."""
    for name, size in (("backlog-10k", 10_000), ("backlog-100k", 100_000), ("backlog-1M", 1_000_000)):
        records = bench.count(size, 10_000)
        runs = [apart(drain, bench.work(records)) for _ in range(bench.repeat)]
        yield Row(name, "/s", [run.rate for run in runs], facts=facts(runs))


def scaling(bench: Bench) -> Iterator[Row]:
    """1, 2 and 4 worker processes in one group, each with 500 × 100 ms in flight."""
    alone: list[float] = []
    seconds = max(10 * bench.scale, 3)
    for workers in (1, 2, 4):
        rates = [_together(bench, workers, seconds) for _ in range(bench.repeat)]
        alone = alone or rates
        yield Row(f"workers-{workers}", "/s", rates, "arithmetic ceiling", [workers * 500 / 0.1])


def _together(bench: Bench, workers: int, seconds: float) -> float:
    work = bench.work(int(workers * 5000 * (seconds + 15)), concurrency=500, latency=0.1)
    children = [Child(drain_until_told, work) for _ in range(workers)]
    while any(not _has(child, PARTITIONS // workers) for child in children):
        time.sleep(0.1)
    time.sleep(1)
    begin = time.perf_counter()
    time.sleep(seconds)
    end = time.perf_counter()
    ended: list[Sequence[float]] = [child.end() for child in children]
    return sum(begin < at <= end for times in ended for at in times) / seconds


def _has(child: Child, partitions: int) -> bool:
    return abs(len(child.ask("partitions")) - partitions) <= 1


def cost(bench: Bench) -> Iterator[Row]:
    """What 10,000 sends in flight add to the memory of a worker with 100 in flight."""
    few, many = in_turns(
        bench.repeat,
        lambda: _memory(bench, 100),
        lambda: _memory(bench, 10_000),
    )
    more = [(b - a) / 2**20 for a, b in zip(few, many, strict=True)]
    found: dict[str, Fact] = {
        "MB RSS at 100": statistics.median(few) / 2**20,
        "MB RSS at 10,000": statistics.median(many) / 2**20,
    }
    yield Row("cost", "MB", more, facts=found)


def _memory(bench: Bench, in_flight: int) -> int:
    work = bench.work(80_000, mix="many", concurrency=in_flight, latency=1000)
    child = Child(drain_until_told, work)
    buffered = -1
    # Until the buffers behind the sends are full, too.
    while child.ask("in_flight") < in_flight or (now := child.ask("buffered")) != buffered:
        buffered = now if child.ask("in_flight") >= in_flight else -1
        time.sleep(1)
    rss = child.rss()
    child.end()
    return rss
