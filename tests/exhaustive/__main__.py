"""Visit every state of small worlds: `python -m tests.exhaustive --states 1000000`."""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import resource
import sys

from tests.exhaustive.scenario import plan
from tests.exhaustive.search import Report, search
from tests.exhaustive.table import render


def main() -> int:
    """Run; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.exhaustive", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--states", type=int, default=1_000_000, help="of each world, at most")
    parser.add_argument("--notifications", type=int, default=3, help="in the source")
    parser.add_argument("--users", type=int, default=2, help="whose they are, at most")
    parser.add_argument("--faults", type=int, default=2, help="in one history, at most")
    parser.add_argument("--takeovers", type=int, default=2, help="of the partition in one history, at most")
    parser.add_argument("--processes", type=int, default=1, help="worlds that are searched at once")
    args = parser.parse_args()
    worlds = plan(args.notifications, args.users, args.faults, args.takeovers)
    run = functools.partial(search, most=args.states)
    print(HEAD)
    states = 0
    with multiprocessing.get_context("spawn").Pool(args.processes, maxtasksperchild=1) as pool:
        for report in pool.imap(run, worlds, chunksize=1):
            print(line(report), flush=True)
            states += report.states
            if report.broken is not None:
                print(render(report))
                return 1
    memory = max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"{states:,} states, no promise broken; {memory // 1024:,} MB at most")
    return 0


_NUMBERS = f"{'ends':>9}{'of owners':>10}{'of brokers':>11}{'runs':>11}{'CPU s':>7}"
HEAD = f"{'world':18}{'states':>12}{'steps':>12}{'depth':>7}  {'':10}{_NUMBERS}"


def line(report: Report) -> str:
    """What a search has found."""
    whole = "all" if report.exhausted else "cut off"
    return (
        f"{report.scenario.name:18}{report.states:12,}{report.transitions:12,}{report.depth:7}  {whole:10}"
        f"{report.ends:9,}{report.owners:10,}{report.brokers:11,}{report.runs:11,}{report.cpu:7.0f}"
    )


if __name__ == "__main__":
    sys.exit(main())
