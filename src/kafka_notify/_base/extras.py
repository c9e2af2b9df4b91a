"""What is said when an extra is not installed."""

from __future__ import annotations


def missing(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """The error to raise instead of `error`: it names what to install."""
    text = f"{error.name} is not installed; this module needs an extra: pip install 'kafka-notify[{extra}]'"
    return ModuleNotFoundError(text, name=error.name, path=error.path)
