"""Rows about retries: their cost for other sends, and how late they start."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Final

from benchmarks.bench import Bench, facts
from benchmarks.cluster import apart
from benchmarks.load import Mix
from benchmarks.report import Row, in_turns, percentiles
from benchmarks.sending import Drained, drain

FAILING: Final = 0.1
CONCURRENCY: Final = 500
LATENCY: Final = 0.02
DELAY: Final = 1.0
ROUNDING: Final = 0.001
"""Seconds; due times are sent as whole milliseconds."""


def retries(bench: Bench) -> Iterator[Row]:
    """Compare work of which 10 % of all attempts fail with the same work without failures.

    500 × 20 ms are in flight, and failures are retried after 1 s. Rates count attempts: a failed one takes as long as
    any other. With 10,000 users a backlog contains several notifications of each user per second, so a failure also
    parks what follows it; with 100,000 users this is rare.
    """
    yield _beside_no_failures(bench, "retries", "many")
    yield _beside_no_failures(bench, "retries-parking", "even")


def _beside_no_failures(bench: Bench, name: str, mix: Mix) -> Row:
    def run(failing: float) -> Drained:
        work = bench.work(
            bench.count(200_000), mix=mix, concurrency=CONCURRENCY, latency=LATENCY,
            failing=failing, retry_delay=DELAY,
        )  # fmt: skip
        return apart(drain, work)

    free, failing = in_turns(bench.repeat, lambda: run(0.0), lambda: run(FAILING))
    late = [seconds for run in failing for seconds in run.late]
    return Row(
        name, "/s", [r.rate for r in failing], "no failures", [r.rate for r in free],
        {
            "accepted/s": statistics.median(r.accepted for r in failing),
            **{f"late {p} ms": seconds * 1000 for p, seconds in percentiles(late).items()},
            "early": sum(seconds < -ROUNDING for seconds in late),
            "parked": sum(r.parked for r in failing),
            **facts(failing),
        },
    )  # fmt: skip
