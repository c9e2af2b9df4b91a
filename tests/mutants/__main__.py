"""`python -m tests.mutants`: try mutants, say what became of each, and write the page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.mutants.board import Mutant
from tests.mutants.mutants import MUTANTS, SEEDED
from tests.mutants.page import page
from tests.mutants.runner import Verdict, judge_all, workshop


def main() -> int:
    """Return 0 when all were caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this mutant; may be given several times"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page")
    args = parser.parse_args()
    known: dict[str, Mutant] = {mutant.name: mutant for mutant in (*MUTANTS, *SEEDED)}
    names: list[str] = args.only or [mutant.name for mutant in MUTANTS]
    for name in names:
        if name not in known:
            parser.error(f"no mutant is named {name}; the board is tests/mutants/mutants.py")
    with workshop() as shop:
        verdicts = judge_all([known[name] for name in names], shop, _tell)
    if args.write is not None:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text(page(verdicts), encoding="utf-8")
    survivors = [verdict for verdict in verdicts if not verdict.is_caught]
    print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} mutants are caught")
    return 1 if survivors else 0


def _tell(verdict: Verdict) -> None:
    name = verdict.mutant.name
    if verdict.error:
        print(f"ERROR    {name}: {verdict.error}", flush=True)
    elif verdict.survived:
        print(f"SURVIVED {name}: these tests did not fail: {', '.join(verdict.survived)}", flush=True)
    else:
        print(f"caught   {name}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
