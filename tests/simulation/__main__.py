"""Print the figures of all worlds, and which goals they miss: `python -m tests.simulation --seeds 20`."""

from __future__ import annotations

import argparse
import statistics
import sys

from tests.simulation.run import FIGURES, Simulation, missed
from tests.simulation.worlds import WORLDS


def main() -> int:
    """Run; 1 when a goal was missed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--world", default=",".join(WORLDS), help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    args = parser.parse_args()
    print(f"{'world':21}" + "".join(f"{n:>9}" for n in FIGURES) + "  (medians; goals: of every seed)")
    failed = 0
    for name in args.world.split(","):
        runs = [Simulation(WORLDS[name], args.first + i).run() for i in range(args.seeds)]
        cells = "".join(f"{statistics.median(r[figure] for r in runs):9.4g}" for figure in FIGURES)
        wrong = missed(WORLDS[name].goals, runs)
        failed += bool(wrong)
        print(f"{name:21}{cells}  {'missed: ' + ' '.join(wrong) if wrong else 'met'}", flush=True)
    print(f"{failed} of {len(args.world.split(','))} worlds missed a goal")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
