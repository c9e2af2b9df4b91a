"""Results as a table for people and as JSON for comparisons."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import confluent_kafka

import kafka_notify

Fact = float | int | str


@attrs.frozen
class Row:
    """One line of the table: several runs, each compared with a run of its baseline or with an arithmetic ceiling."""

    name: str
    unit: str
    values: Sequence[float]
    beside: str = ""
    baseline: Sequence[float] = ()
    """As many as `values`, measured alternately with them; a single number if it is arithmetic."""
    facts: Mapping[str, Fact] = attrs.field(factory=dict)

    @property
    def ratios(self) -> list[float]:
        """Ratio of each run to the neighbouring run of the baseline."""
        if not self.baseline:
            return []
        beside = self.baseline if len(self.baseline) > 1 else [self.baseline[0]] * len(self.values)
        return [value / base for value, base in zip(self.values, beside, strict=True)]


def in_turns(repeat: int, *sides: Callable[[], Any]) -> list[list[Any]]:
    """Run A B, B A, A B, …: other load on the machine then affects both sides."""
    results: list[list[Any]] = [[] for _ in sides]
    for turn in range(repeat):
        order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))
        for side in order:
            results[side].append(sides[side]())
    return results


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p99 and, if there are enough values, p99.9."""
    ordered = sorted(values)
    shares = {"p50": 0.5, "p99": 0.99, **({"p99.9": 0.999} if len(ordered) >= 3000 else {})}
    return {name: ordered[min(int(len(ordered) * share), len(ordered) - 1)] for name, share in shares.items()}


def line(row: Row) -> str:
    """Return a row as text: median, baseline, median ratio with its spread, facts."""
    cells = [f"{row.name:<22}", f"{_number(statistics.median(row.values)):>10} {row.unit:<6}"]
    if row.ratios:
        ratios = sorted(row.ratios)
        spread = f" ({ratios[0]:.2f}–{ratios[-1]:.2f})" if len(ratios) > 1 else ""
        cells.append(
            f"{statistics.median(ratios):.2f}{spread} of {_number(statistics.median(row.baseline))}, {row.beside}"
        )
    cells += [f"{name} {_number(fact)}" for name, fact in row.facts.items()]
    return "  ".join(cells[:2]) + "  " + "; ".join(cells[2:])


def _number(value: Fact) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or isinstance(value, int) else f"{value:.3g}"


def machine() -> dict[str, Fact]:
    """Describe the machine."""
    model = next(
        (
            text.partition(":")[2].strip()
            for text in Path("/proc/cpuinfo").read_text().splitlines()
            if text.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "kafka-notify": kafka_notify.__version__,
        "confluent-kafka": str(confluent_kafka.version()),
        "librdkafka": confluent_kafka.libversion()[0],
        "load average before": round(os.getloadavg()[0], 2),
    }


SCHEMA: Final = 1


def write(path: Path, where: Mapping[str, Fact], options: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write all results, including each run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "schema": SCHEMA,
        "machine": where,
        "options": options,
        "rows": [{**attrs.asdict(row), "ratios": row.ratios} for row in rows],
    }
    path.write_text(json.dumps(found, indent=1, default=str) + "\n")
