"""Settings that every row gets (cluster, repetitions, scale), and the facts that most rows report."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, Literal

import attrs

from benchmarks.cluster import Cluster
from benchmarks.load import PARTITIONS, Mix
from benchmarks.report import Fact
from benchmarks.sending import Drained, Work


@attrs.frozen
class Bench:
    """Settings that every row gets."""

    cluster: Cluster
    repeat: int
    scale: float
    uvloop: bool = False
    gc: Literal["run", "on", "freeze", "off"] = "run"
    profile: Path | None = None

    def count(self, at_full_scale: int, at_least: int = 20_000) -> int:
        """Number of records at this scale."""
        return max(int(at_full_scale * self.scale), at_least)

    def work(self, records: int, *, mix: Mix = "even", partitions: int = PARTITIONS, **how: Any) -> Work:
        """Create work: a backlog larger than what is measured, for a new consumer."""
        prefix = self.cluster.backlog(records * 5 // 4 + 20_000, mix, partitions)
        name = self.cluster.consumer(prefix, partitions)
        return Work(self.cluster.bootstrap, prefix, name, records, mix=mix, **how)

    @property
    def loop(self) -> dict[str, Any]:
        """Options of `noop` and `inflight-*`."""
        return {"uvloop": self.uvloop, "gc": self.gc, "profile": self.profile}


def facts(runs: list[Drained]) -> dict[str, Fact]:
    """Facts that all throughput rows report next to their rate."""
    return {
        "µs CPU": statistics.median(run.cpu for run in runs),
        "MB RSS": max(run.rss for run in runs) >> 20,
        "out of order": sum(run.order.violations + run.order.overlaps for run in runs if run.order),
    }
