"""Ids of notifications whose producer gave none: derived from where their record is."""

from __future__ import annotations

import uuid
from typing import Final

_NAMESPACE: Final = uuid.UUID("5f0c1b52-7a0e-4c1c-9a53-2f1f7a1f5c3d")


class DerivedId(str):
    """An id that is known to be derived. One that was read from a copy's headers is a plain `str`, derived or not."""

    __slots__ = ()


def derived_id(topic: str, partition: int, offset: int) -> str:
    """The id of a notification whose producer gave none: the same whenever and by whomever it is read."""
    return str(uuid.uuid5(_NAMESPACE, f"{topic}/{partition}/{offset}"))
