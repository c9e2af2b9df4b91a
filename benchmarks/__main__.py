"""`python -m benchmarks`: measure, print a table and write JSON. Nothing here asserts a time."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from benchmarks import (
    isolation,
    latency,
    mixes,
    producing,
    queues,
    reloads,
    retrying,
    scaling,
    throughput,
    waits,
)
from benchmarks.bench import Bench
from benchmarks.cluster import Cluster
from benchmarks.peers.rows import peers
from benchmarks.report import Row, line, machine, write
from kafka_notify.testing import LocalKafka

ROWS: Final[Mapping[str, Callable[[Bench], Iterator[Row]]]] = {
    "noop": throughput.noop,
    "inflight-1000": throughput.inflight_1000,
    "inflight-5000": throughput.inflight_5000,
    "threads-200": throughput.threads_200,
    "producer": producing.producer,
    "retries": retrying.retries,
    "otp": latency.otp,
    "cost": scaling.cost,
    "scaling": scaling.scaling,
    "backlogs": scaling.backlogs,
    "partitions": throughput.partitions,
    "users": throughput.users,
    "latencies": throughput.by_latency,
    "isolation": isolation.isolation,
    "queues": queues.queues,
    "mixes": mixes.mixes,
    **{f"mix-{mix}": functools.partial(mixes.mixes, only=(mix,)) for mix in mixes.MIXES},
    "waits": waits.waits,
    "reloads": reloads.reloads,
    "peers": peers,
}


def main() -> None:
    """Run the selected rows."""
    options = _options()
    where = {**machine(), **({"note": options.note} if options.note else {})}
    print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)
    rows: list[Row] = []
    names = options.only or [name for name in ROWS if name != "peers" and not name.startswith("mix-")]
    for name in [*names, *(["peers"] if options.peers and "peers" not in names else [])]:
        began = time.monotonic()
        # Each row has a cluster of its own, so that the log and topics of one row do not slow down another.
        with LocalKafka(java_options=["-Xmx2g"]) as kafka:
            bench = Bench(
                Cluster(kafka.bootstrap_servers), options.repeat, options.scale,
                uvloop=options.uvloop, gc=options.gc, profile=options.profile,
            )  # fmt: skip
            for row in ROWS[name](bench):
                rows.append(row)
                print(line(row), flush=True)
        print(f"  ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        write(options.output, where, {k: v for k, v in vars(options).items() if k != "output"}, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", type=_names, metavar="ROW[,ROW]", help=f"some of: {', '.join(ROWS)}")
    add("--repeat", type=int, default=5, metavar="N", help="runs of each side (default: 5)")
    add("--scale", type=float, default=1.0, metavar="F", help="share of the records (default: 1)")
    add("--output", type=Path, default=Path("benchmarks/results/latest.json"), metavar="FILE")
    add(
        "--peers",
        action="store_true",
        help="also measure sentry-arroyo, FastStream and aiokafka (installs them)",
    )
    add("--note", default="", metavar="TEXT", help="what else the machine does; kept with the results")
    add("--uvloop", action="store_true", help="run the worker of the first rows on uvloop")
    add("--gc", choices=["run", "on", "freeze", "off"], default="run", help="the cyclic collector of workers")
    add("--profile", type=Path, metavar="FILE", help="let py-spy write a raw profile of the last worker")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; rows: {', '.join(ROWS)}")
    return names


if __name__ == "__main__":
    main()
