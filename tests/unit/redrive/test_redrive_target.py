"""A letter goes back only where somebody reads it."""

from __future__ import annotations

import pytest

from kafka_notify._fetch.channels import ALL, digest
from kafka_notify._redrive.target import Reader, refusal

SMS = frozenset({digest("sms")})


@pytest.mark.parametrize(
    ("own", "other", "says"),
    [
        (Reader("old", True, True, SMS), Reader("new", True, True, SMS), None),
        (Reader("old", False, True, SMS), Reader("new", False, True, SMS), None),
        (Reader("old", False, True, SMS), Reader("new", True, True, frozenset({digest("push")})), None),
        (Reader("old", False, True, SMS), Reader("new", True, True, None), None),
        (Reader("old", False, True, SMS), Reader("new", True, True, SMS), "new sends its channel now"),
        (Reader("old", False, True, None), Reader("new", True, True, frozenset({ALL})), "new sends its channel"),
        (Reader("old", False, False, None), Reader("new", False, True, SMS), "neither workers nor committed offsets"),
        (Reader("old", False, False, None), Reader("new", True, True, None), "perhaps to new"),
    ],
    ids=[
        "works", "all are stopped", "another channel", "nobody can tell", "renamed", "everything is sent", "never ran",
        "never ran, perhaps renamed",
    ],
)  # fmt: skip
def test_who_reads(own: Reader, other: Reader, says: str | None) -> None:
    """Refused is a consumer that never ran, and one without workers whose channel another one sends now; one whose
    workers are merely stopped gets its letters."""
    said = refusal(own, {other.name: other}, "sms")
    assert said == "" if says is None else says in said
