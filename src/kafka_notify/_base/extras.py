"""The error for an extra that is not installed."""

from __future__ import annotations


def missing(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """Return the error to raise instead of `error`; it names the extra to install."""
    text = f"{error.name} is not installed; this module needs an extra: pip install 'kafka-notify[{extra}]'"
    return ModuleNotFoundError(text, name=error.name, path=error.path)
