"""IDs of notifications whose producer set none, derived from the place of their record."""

from __future__ import annotations

import uuid
from typing import Final

_NAMESPACE: Final = uuid.UUID("5f0c1b52-7a0e-4c1c-9a53-2f1f7a1f5c3d")


class DerivedId(str):
    """An ID that is known to be derived. An ID from a copy's headers is a plain `str`, derived or not."""

    __slots__ = ()


def derived_id(topic: str, partition: int, offset: int) -> str:
    """The ID of a notification whose producer set none: the same for every reader, at any time."""
    return str(uuid.uuid5(_NAMESPACE, f"{topic}/{partition}/{offset}"))
