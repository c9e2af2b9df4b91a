"""Rows about size: backlogs, worker processes, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence

from benchmarks.bench import Bench, facts
from benchmarks.cluster import Child, apart, until
from benchmarks.load import PARTITIONS
from benchmarks.report import Fact, Row, in_turns
from benchmarks.sending import drain, drain_until_told


def backlogs(bench: Bench) -> Iterator[Row]:
    """Measure no-op sends from backlogs of different sizes: neither rate nor memory should depend on the size.

    A backlog of 10,000 fits into the buffers and is gone immediately, so only its memory means something.
    """
    for name, size in (("backlog-10k", 10_000), ("backlog-100k", 100_000), ("backlog-1M", 1_000_000)):
        records = max(int(size * bench.scale), 10_000)
        runs = [apart(drain, bench.work(records)) for _ in range(bench.repeat)]
        yield Row(name, "/s", [run.rate for run in runs], facts=facts(runs))


def scaling(bench: Bench) -> Iterator[Row]:
    """Measure 1, 2 and 4 worker processes in one group, each with 500 × 100 ms in flight."""
    seconds = max(10 * bench.scale, 3)
    for workers in (1, 2, 4):
        rates = [_together(bench, workers, seconds) for _ in range(bench.repeat)]
        yield Row(f"workers-{workers}", "/s", rates, "arithmetic ceiling", [workers * 500 / 0.1])


def _together(bench: Bench, workers: int, seconds: float) -> float:
    work = bench.work(int(workers * 5000 * (seconds + 15)), concurrency=500, latency=0.1)
    children = [Child(drain_until_told, work) for _ in range(workers)]
    until(lambda: all(_has(child, PARTITIONS // workers) for child in children), "an even assignment")
    time.sleep(1)
    begin = time.perf_counter()
    time.sleep(seconds)
    end = time.perf_counter()
    ended: list[Sequence[float]] = [child.end() for child in children]
    return sum(begin < at <= end for times in ended for at in times) / seconds


def _has(child: Child, partitions: int) -> bool:
    return abs(len(child.ask("partitions")) - partitions) <= 1


def cost(bench: Bench) -> Iterator[Row]:
    """Measure the memory that 10,000 sends in flight need, compared with 100."""
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
    until(lambda: bool(child.ask("in_flight") >= in_flight), f"{in_flight} in flight")
    time.sleep(2)  # the buffers behind the sends also fill
    rss = child.rss()
    child.end()
    return rss
