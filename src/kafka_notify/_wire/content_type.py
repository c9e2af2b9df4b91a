"""The content types that a codec reads."""

from __future__ import annotations

import fnmatch
from typing import Final

from kafka_notify._base.text import printable
from kafka_notify._wire.headers import ContentTypeUnread
from kafka_notify.codec import Codec

MAX_READERS: Final = 1_000

readers: dict[bytes | None, Codec] = {}
"""Content types, as in the header, and the codec that read them last: looked up for every record."""
_SAYS_NOTHING: Final = frozenset({"application/octet-stream", "binary/octet-stream", "text/plain"})


def check_content_type(raw: bytes, codec: Codec) -> None:
    """Raise `ContentTypeUnread` unless `codec` reads this content type; remember that it does."""
    written = codec.content_type
    found = _media_type(raw.decode(errors="replace"))
    reads = [written, *getattr(codec, "reads", ())]
    is_any = "/" not in found or found in _SAYS_NOTHING  # no media type, or any
    if not is_any and not any(_is_read(found, _media_type(each)) for each in reads):
        raise ContentTypeUnread(printable(found, 100), ", ".join(reads))
    if len(readers) < MAX_READERS or raw in readers:  # a flood of invented types must not fill the memory
        readers[raw] = codec


def _media_type(text: str) -> str:
    """Without parameters, such as a charset."""
    return text.partition(";")[0].strip().lower()


def _is_read(found: str, pattern: str) -> bool:
    return found == pattern or ("*" in pattern and fnmatch.fnmatchcase(found, pattern))
