"""Text that came from Kafka, made safe to show: on a terminal, in a line of a log, in a line of JSON.

Whoever may write to a topic chooses ids, headers, error codes and the reason of a pause. Shown as they are, escape
sequences rewrite a terminal, newlines forge lines of a log, and a lone surrogate cannot be written at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

# C0 and C1 controls (terminals obey U+009B like ESC [), marks that change the direction of writing, line and paragraph
# separators, and surrogates, which no encoding accepts.
_CLASS: Final = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_UNSAFE: Final = re.compile(f"[{_CLASS}]")
_UNSAFE_BUT_NEWLINE: Final = re.compile(f"(?!\n)[{_CLASS}]")
_UNSAFE_IN_JSON: Final = re.compile(
    r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

MAX_SHOWN: Final = 1_000
"""Characters of one text."""


def printable(text: str, most: int = MAX_SHOWN) -> str:
    """Return `text` on one line: what a terminal obeys is escaped, and text that is too long is cut with `…`."""
    if len(text) > most:
        text = text[: most - 1] + "…"
    return text if text.isprintable() else _UNSAFE.sub(_escape, text)


def printable_lines(text: str) -> str:
    """Escape what a terminal obeys in a text of this library, which may quote Kafka. Newlines stay; nothing is cut."""
    return _UNSAFE_BUT_NEWLINE.sub(_escape, text)


def either(choices: Iterable[object]) -> str:
    """`'a', 'b' or 'c'`: the values that an argument may have."""
    *first, last = map(repr, choices)
    return f"{', '.join(first)} or {last}" if first else last


def json_line(value: object, **how: Any) -> str:
    """`value` as JSON on one line, safe for any terminal and encoding; letters of every language stay readable."""
    return _UNSAFE_IN_JSON.sub(_escape_json, json.dumps(value, ensure_ascii=False, **how))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _escape_json(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"  # inside strings alone: what surrounds them is ASCII
