"""The page `docs/proof/mutants.md`, made of the verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from tests.mutants.runner import Verdict

HEAD = """# Mutant board

Defects that other libraries had, and defects that this one had, are put back into a copy of the code one at a time. For
each of them the tests named in its row have to fail, and have to pass without it. `make mutants` does that and writes
this page; `make test` checks that each patch still fits the code.
"""
PEERS = """
## Defects of other projects

The defect is described as its source tells it. The patch re-creates it in the part of this library that does the same
work.

| mutant | defect | source | patched | caught by |
|---|---|---|---|---|
"""
OWN = """
## Defects that this library had

The source is a row of "Invariants that once broke" in the [design](../design.md#invariants-that-once-broke).

| mutant | defect | row | patched | caught by |
|---|---|---|---|---|
"""


def page(verdicts: Sequence[Verdict]) -> str:
    """Return the page."""
    caught = sum(verdict.is_caught for verdict in verdicts)
    peers = [_row(verdict) for verdict in verdicts if not verdict.mutant.is_own]
    own = [_row(verdict) for verdict in verdicts if verdict.mutant.is_own]
    total = f"\n**{caught} of {len(verdicts)} mutants are caught.**\n"
    return HEAD + total + PEERS + "".join(peers) + OWN + "".join(own)


def _row(verdict: Verdict) -> str:
    mutant = verdict.mutant
    source = mutant.source if mutant.is_own else f"[{mutant.source}]({mutant.url})"
    return f"| `{mutant.name}` | {mutant.defect} | {source} | `{mutant.file}` | {_caught(verdict)} |\n"


def _caught(verdict: Verdict) -> str:
    if not verdict.is_caught:
        return "**not caught**"
    return "<br>".join(f"`{test}`" for test in verdict.mutant.tests)
