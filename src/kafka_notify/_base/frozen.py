"""Setting the fields of frozen values whose `__init__` checks and converts."""

from __future__ import annotations


def put(value: object, **fields: object) -> None:
    """Set the fields of a frozen value, from its own `__init__`."""
    for name, field in fields.items():
        object.__setattr__(value, name, field)
