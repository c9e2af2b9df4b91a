"""Run simulated worlds of workers, and say what was broken: `python -m tests.simulation.workers --seeds 30`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.workers.plan import draw, hour
from tests.simulation.workers.world import replay


def main() -> int:
    """Run; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.workers", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seed", type=int, help="run this one, and print all that happened")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--hour", action="store_true", help="an hour of 10,000 notifications, of --first")
    args = parser.parse_args()
    if args.seed is not None:
        plan = draw(args.seed)
        result = replay(plan)
        print("\n".join([str(plan), *result.trace, *result.violations]))
        return bool(result.violations)
    plans = [hour(args.first)] if args.hour else [draw(args.first + n) for n in range(args.seeds)]
    broken, began = 0, time.process_time()
    turns = seconds = sent = 0.0
    for plan in plans:
        result = replay(plan)
        turns += result.counts["turns"]
        seconds += result.seconds
        sent += result.counts.get("Accepted", 0)
        if result.violations:
            broken += 1
            print(f"seed {plan.seed}: {len(result.violations)} violations; replay: python -m "
                  f"tests.simulation.workers --seed {plan.seed}")  # fmt: skip
            print("\n".join(f"    {text}" for text in result.violations[:5]), flush=True)
    print(
        f"{len(plans)} worlds, {broken} broken; {seconds:,.0f} virtual seconds, {sent:,.0f} accepted, {turns:,.0f} "
        f"turns in {time.process_time() - began:.1f} s of CPU"
    )
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
