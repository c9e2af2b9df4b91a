"""The board, and the mutants by which the runner itself is checked."""

from __future__ import annotations

from typing import Final

import attrs

from tests.mutants.own import OWN
from tests.mutants.peers import PEERS

MUTANTS: Final = (*PEERS, *OWN)
_FIRST: Final = MUTANTS[0]
SEEDED: Final = (
    attrs.evolve(_FIRST, name="seeded-survivor", new=f"{_FIRST.old}  # as before"),
    attrs.evolve(_FIRST, name="seeded-import-error", old="import annotations\n", new="import no_such_name\n"),
)
"""One that changes nothing, and one that breaks every import: neither counts as caught."""
