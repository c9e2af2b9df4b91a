"""The origin of an exception, without its text: the text and the values around it may be personal."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

MAX_FRAMES: Final = 12
"""Frames of one exception that are kept: those nearest to where it was raised."""
MAX_CAUSES: Final = 10

# Read past the class: user code may override these attributes.
_TRACEBACK: Final[Any] = vars(BaseException)["__traceback__"].__get__
_CAUSE: Final[Any] = vars(BaseException)["__cause__"].__get__
_CONTEXT: Final[Any] = vars(BaseException)["__context__"].__get__
_SUPPRESSED: Final[Any] = vars(BaseException)["__suppress_context__"].__get__

_not_a_name: Final = re.compile(r"[^A-Za-z0-9_.]").sub
_MAX_NAME: Final = 60

_full = False


def show_tracebacks(show: bool = True) -> None:
    """Log full tracebacks, texts included, of exceptions in senders, hooks and threads. For development alone: the text
    of an exception often quotes an address, a message or a token.

    Args:
        show: False logs classes and frames only, as by default.
    """
    global _full
    _full = show


def name_of(value: object) -> str:
    """The class of a value, as it can be written into codes and logs."""
    return class_name(type(value))


def class_name(kind: type) -> str:
    """The name of a class, as it can be written into codes and logs."""
    try:
        return _not_a_name("_", kind.__name__)[:_MAX_NAME] or "_"
    except BaseException:  # a metaclass of user code
        return "_"


def origin(error: BaseException) -> str:
    """Class and frames: `KeyError at /app/sms.py:12 in send, /app/table.py:3 in find`, then those of its causes.

    Reads no source file: it is called on the event loop.
    """
    return " caused by ".join(_one(each) for each in _causes(error))


def classes(error: BaseException) -> list[str]:
    """Full class names of an exception and of its causes."""
    return [f"{getattr(type(each), '__module__', '')}.{name_of(each)}" for each in _causes(error)]


def frames(error: BaseException) -> list[str]:
    """Frames of one exception, the outermost first, each as `file:line in function`."""
    found: list[str] = []
    at: TracebackType | None = _TRACEBACK(error)
    while at is not None:
        code = at.tb_frame.f_code
        found.append(f"{code.co_filename}:{at.tb_lineno} in {code.co_name}")
        if len(found) > MAX_FRAMES:
            del found[0]
        at = at.tb_next
    return found


def detail(log: logging.Logger, error: BaseException) -> None:
    """Log the full traceback, if `show_tracebacks` is on."""
    if not _full:
        return
    try:
        text = "".join(traceback.format_exception(type(error), error, _TRACEBACK(error)))
    except BaseException as e:  # an exception of user code may raise when it is formatted
        text = f"it cannot be shown: {name_of(e)}"
    log.warning("the traceback:\n%s", text)


def _one(error: BaseException) -> str:
    where = frames(error)
    name = name_of(error)
    return f"{name} at {', '.join(where)}" if where else name


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None:
            return
        yield cause
        cause = _CAUSE(cause) or (None if _SUPPRESSED(cause) else _CONTEXT(cause))
