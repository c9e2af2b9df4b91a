"""Chaos for as long as you like: `python -m tests.guarantees.soak --minutes 30`, `--runs 10 --protocol consumer`.

Each run has a seed and a report; the last lines are a table of all of them. A run that
broke a guarantee leaves its logs where it says, and makes the exit code 1. What a seed decides is what is done and
what is produced; when exactly, the machine decides, so a replay may need a few tries.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import confluent_kafka

from kafka_notify.testing import LocalKafka
from kafka_notify.testing._judgement import judged
from kafka_notify.testing.history import HistoryFile
from tests.guarantees.chaos import Chaos, Report, variant
from tests.guarantees.fleet import Fleet
from tests.guarantees.memory import MEGABYTE, long_handovers
from tests.guarantees.production import Mix

CALM: Final = 20.0
"""Seconds of traffic after the last disturbance."""


def main() -> int:
    """Run until the time or the runs are over; 1 when a guarantee was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after the run that passes this")
    parser.add_argument("--runs", type=int, help="stop after so many runs instead")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the first run; then the next numbers"
    )
    parser.add_argument("--protocol", choices=("classic", "consumer"), help="by default they take turns")
    parser.add_argument("--actions", type=int, default=25, help="disturbances in each run")
    parser.add_argument("--rate", type=int, default=100, help="notifications produced each second")
    parser.add_argument("--brokers", type=int, default=3, choices=(1, 3))
    parser.add_argument(
        "--debug", help="librdkafka's debug contexts for the workers' consumers, such as cgrp"
    )
    parser.add_argument("--report", type=Path, help="a JSON file, written anew after each run")
    parser.add_argument(
        "--histories",
        type=Path,
        help="a directory for the history of each run, for `kafka-notify check`; without it only those of runs that "
        "broke a guarantee are kept",
    )
    parser.add_argument(
        "--handovers",
        type=int,
        help="no chaos: so many hand-overs with payloads of 100 kB during an outage, and the memory that they take",
    )
    options = parser.parse_args()
    if options.handovers:
        with LocalKafka() as kafka:
            seen = long_handovers(kafka, options.handovers)
        say(str(seen))
        return int(seen.peak > 1.2 * seen.allowed)
    deadline = time.monotonic() + options.minutes * 60
    reports: list[tuple[str, Report]] = []
    with LocalKafka(brokers=options.brokers) as kafka:
        seed = options.seed
        while len(reports) < options.runs if options.runs else time.monotonic() < deadline:
            protocol, report = run(kafka, seed, options)
            reports.append((protocol, report))
            if options.report:
                write(options.report, reports)
            seed += 1
    say(table(reports))
    return 1 if any(report.violations for _, report in reports) else 0


def run(kafka: LocalKafka, seed: int, options: argparse.Namespace) -> tuple[str, Report]:
    """One run; its protocol and its report."""
    settings = variant(seed, options.protocol)
    protocol = settings["consumer_config"].get("group.protocol", "classic")
    if options.debug:
        settings["consumer_config"] = {**settings["consumer_config"], "debug": options.debug}
    replay = (
        f'make soak ARGS="--seed {seed} --runs 1 --protocol {protocol} --actions {options.actions} '
        f'--rate {options.rate} --brokers {options.brokers}"'
    )
    say(f"seed {seed}, {settings}; again: {replay}")
    directory = Path(tempfile.mkdtemp(prefix="kafka-notify-soak-"))
    history = directory / "history.jsonl"
    with Fleet(kafka.bootstrap_servers, directory, **settings) as fleet:
        chaos = Chaos(fleet, kafka, seed, Mix(resumed=float(options.actions)))
        report = chaos.run(options.actions, options.rate, calm=CALM, history=history)
    say(f"  {report}")
    again = judged(HistoryFile(history, max_bytes=1 << 34))
    say(f"  judged again by its history: {again['count']} violations {again['anomalies']}")
    if options.histories:
        options.histories.mkdir(parents=True, exist_ok=True)
        shutil.copy(history, options.histories / f"{seed}-{protocol}.jsonl")
    if report.violations:
        say(f"  again: kafka-notify check {history}")
        (directory / "violations.txt").write_text("\n\n".join(report.violations))
        for text in report.violations[:5]:
            say(f"  broken: {text[:300]}")
        say(f"  everything that was logged is in {directory}")
    else:
        shutil.rmtree(directory)
    return protocol, report


def say(text: str) -> None:
    """Print a line at once: a soak takes long."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(reports: Sequence[tuple[str, Report]]) -> str:
    """One line for each run."""
    heads = (
        "seed",
        "protocol",
        "faults",
        "notifications",
        "attempts",
        "duplicates",
        "bound",
        "longest wait (s)",
        "memory (MB)",
        "of allowed (MB)",
        "wrongly held (s)",
        "lag 0 (s)",
        "violations",
    )
    rows = [
        (
            report.seed, protocol, sum(report.faults.values()), report.notifications, report.attempts,
            report.duplicates, report.exposed, f"{report.longest_wait:.2f}",
            *(f"{size / MEGABYTE:.0f}" for size in report.memory), f"{report.wrongly_held:.1f}",
            "never" if report.caught_up is None else f"{report.caught_up:.1f}", len(report.violations),
        )
        for protocol, report in reports
    ]  # fmt: skip
    return "\n".join("  ".join(f"{cell!s:>16}" for cell in row) for row in (heads, *rows))


def write(path: Path, reports: Sequence[tuple[str, Report]]) -> None:
    """All reports so far, for a machine to read."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "librdkafka": confluent_kafka.libversion()[0],
        "runs": [{"protocol": protocol, **attrs.asdict(report)} for protocol, report in reports],
    }
    path.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.exit(main())
