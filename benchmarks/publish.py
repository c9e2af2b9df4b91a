"""`python -m benchmarks.publish FILE`: write results into docs/benchmarks.md and the plot next to it."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from kafka_notify.testing._kafka_distribution import KAFKA_VERSION

DOCS: Final = Path(__file__).parents[1] / "docs"
BEGIN: Final = "<!-- results: written by benchmarks.publish -->"
END: Final = "<!-- end of results -->"

WIDTH: Final = 640
HEIGHT: Final = 360
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 40, 48
MAX_LATENCY: Final = 300

Point = tuple[float, float]


def main() -> None:
    """Write the table and the plot."""
    found = json.loads(Path(sys.argv[1]).read_text())
    page = DOCS / "benchmarks.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{table(found)}\n{END}{after}")
    points = [
        (float(row["name"].removeprefix("latency-").removesuffix("ms")), statistics.median(row["values"]))
        for row in found["rows"]
        if row["name"].startswith("latency-")
    ]
    if points:
        (DOCS / "benchmarks.svg").write_text(plot(points))


# -- table -----------------------------------------------------------------------------------------


def table(found: Any) -> str:
    """Return machine, date and rows as Markdown."""
    where = found["machine"]
    lines = [
        f"{where['date']}; {where['processor']}, {where['cores']} cores; Python {where['python']}, "
        f"confluent-kafka {where['confluent-kafka']} (librdkafka {where['librdkafka']}), Apache Kafka {KAFKA_VERSION} "
        f"on the same cores; load average before the start: {where['load average before']}. {where.get('note', '')} "
        f"Scale {found['options']['scale']:g}, median of {found['options']['repeat']} runs, "
        "in brackets the smallest and the largest.",
        "",
        "| row | measured | beside | ratio | more |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        ratios = sorted(row["ratios"])
        beside = f"{_number(statistics.median(row['baseline']))} {row['beside']}" if ratios else ""
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})" if ratios else ""
        more = "; ".join(f"{name} {_number(fact)}" for name, fact in row["facts"].items())
        value = f"{_number(statistics.median(row['values']))} {row['unit']}"
        lines.append(f"| `{row['name']}` | {value} | {beside} | {ratio} | {more} |")
    return "\n".join([*lines, ""])


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


# -- plot ------------------------------------------------------------------------------------------


def plot(points: Sequence[Point]) -> str:
    """Return an SVG plot of sends per second against the provider's latency, on logarithmic scales."""
    ceiling = [(ms, min(1000 / ms * 1000, 100_000)) for ms in (10, *range(15, MAX_LATENCY + 1, 5))]
    one = [(ms, 1000 / ms) for ms in range(1, 21)] + [(ms, 1000 / ms) for ms in range(25, MAX_LATENCY + 1, 5)]
    marks = "".join(
        f'<circle cx="{_x(ms):.1f}" cy="{_y(rate):.1f}" r="3.5" fill="#0b62c4"/>' for ms, rate in points
    )
    grid = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(rate):.1f}" y2="{_y(rate):.1f}" stroke="#ddd"/>'
        + _text(LEFT - 8, _y(rate) + 4, f"{rate:,}", "end")
        for rate in (1, 10, 100, 1_000, 10_000, 100_000)
    ) + "".join(_text(_x(ms), HEIGHT - BOTTOM + 18, f"{ms}") for ms in range(0, MAX_LATENCY + 1, 50))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'font-family="system-ui, sans-serif" font-size="12" fill="#333">',
            "<title>Notifications per second against the latency of the provider</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            grid,
            _line(ceiling, "#999", 'stroke-dasharray="5 4"'),
            _line(one, "#c4540b", ""),
            _line(points, "#0b62c4", 'stroke-width="2"'),
            marks,
            _text(_x(MAX_LATENCY), _y(1000 / 300 * 1000) - 22, "arithmetic ceiling: 1,000 in flight", "end"),
            _text(
                _x(MAX_LATENCY),
                _y(1000 / 300 * 1000) + 18,
                "kafka-notify, concurrency 1,000, one process",
                "end",
            ),
            _text(_x(MAX_LATENCY), _y(1000 / 300) - 16, "one after the other: 1 / latency", "end"),
            _text(WIDTH / 2, HEIGHT - 10, "provider latency in ms"),
            _text(LEFT, TOP - 18, "notifications per second, logarithmic", "start"),
            "</svg>",
            "",
        ]
    )


def _x(ms: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * ms / MAX_LATENCY


def _y(rate: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log10(rate) / 5


def _line(points: Sequence[Point], colour: str, more: str) -> str:
    path = " ".join(f"{_x(ms):.1f},{_y(rate):.1f}" for ms, rate in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" {more}/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


if __name__ == "__main__":
    main()
