"""What every row is given: a cluster, how often and how much; and what most rows say."""

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
    """What every row is given."""

    cluster: Cluster
    repeat: int
    scale: float
    uvloop: bool = False
    gc: Literal["run", "on", "freeze", "off"] = "run"
    profile: Path | None = None

    def count(self, at_full_scale: int, at_least: int = 20_000) -> int:
        """How many records, at this scale."""
        return max(int(at_full_scale * self.scale), at_least)

    def work(self, records: int, *, mix: Mix = "even", partitions: int = PARTITIONS, **how: Any) -> Work:
        """Work on a backlog that is larger than what is measured, for a consumer that has not read any of it."""
        prefix = self.cluster.backlog(records * 5 // 4 + 20_000, mix, partitions)
        name = self.cluster.consumer(prefix, partitions)
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
