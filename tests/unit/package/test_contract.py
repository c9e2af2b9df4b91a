"""The list of tests that `make contract` runs on other versions of Kafka."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
MOST = 25


def test_the_contract_names_tests() -> None:
    """Each line is a test that exists, and there are few of them."""
    lines = (ROOT / "tests" / "contract.txt").read_text().splitlines()
    assert len(set(lines)) == len(lines) <= MOST
    for line in lines:
        file, _, name = line.partition("::")
        test = name.partition("[")[0]
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), line
