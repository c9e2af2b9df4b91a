"""Finished offsets too many for a bitmap: as runs in the commit metadata, or in a record of their own.

A *spill* is a record of the retry partition itself. The commit metadata names it by offset, writer, base and checksum
after the broker acknowledged it. No other spill is believed. A forgotten bit is a duplicate, an invented bit is a loss.
So decoding is strict here, too.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterable
from typing import Final

import attrs

from kafka_notify._wire.hops import SPILL_WRITER

MAX_WINDOW: Final = 4_000_000
"""Offsets beyond the frontier of a retry partition among which finished ones are named, at most: a spill of 500 kB."""
DELTA_CHARS: Final = 3_200
"""Characters of the commit metadata for the offsets finished since the spill. Everything else that may be in it (eight
fences, marked topic ids, the name of a spill, and 200 characters for others) always fits beside them."""

_HEAD: Final = 9  # bytes of a spill before its bits
_runs_of: Final = re.compile(rb"1+").finditer


class Doubt(ValueError):
    """The text or record is not as it was written."""


@attrs.frozen
class SpillName:
    """The spill that counts, as the commit metadata names it."""

    offset: int
    writer: str
    """Writer id of the assignment that wrote the spill."""
    base: int
    """Offset of the spill's first bit."""
    checksum: int
    """CRC-32 of the spill's value."""

    def __str__(self) -> str:
        return f"{self.offset},{self.writer},{self.base},{self.checksum:08x}"

    @classmethod
    def read(cls, text: str) -> SpillName:
        """Read a name that `str` has written.

        Raises:
            ValueError: The text is not the name of a spill.
        """
        offset, writer, base, checksum = text.split(",")
        if not writer or len(checksum) != 8:
            raise Doubt("not the name of a spill")
        return cls(int(offset), writer, int(base), int(checksum, 16))


# -- few offsets, as text -------------------------------------------------------------------------------


def encode_runs(offsets: Iterable[int], frontier: int) -> str | None:
    """Encode offsets as text. Return None when that takes more than `DELTA_CHARS`.

    Args:
        offsets: The offsets, ascending, each once, none below the frontier.
        frontier: Offset from which they are counted.
    """
    packed = bytearray()
    start = end = frontier  # the present run
    limit = 4 * DELTA_CHARS  # more would not fit even when compressed
    last = frontier
    for offset in offsets:
        if offset == end:
            end += 1
            continue
        if start < end:
            _put(packed, start - last)
            _put(packed, end - start)
            if len(packed) > limit:
                return None
            last = end
        start, end = offset, offset + 1
    if start < end:
        _put(packed, start - last)
        _put(packed, end - start)
    if not packed:
        return ""
    small = zlib.compress(packed, 6) if len(packed) > 64 else packed
    kind, body = ("z", small) if len(small) < len(packed) else ("r", packed)
    text = kind + base64.b64encode(body).decode()
    return text if len(text) <= DELTA_CHARS else None


def decode_runs(text: str) -> bytes:
    """Decode a text of `encode_runs`: one byte per offset from the frontier on, `1` or `0`; ends with a `1`.

    Raises:
        ValueError, binascii.Error, zlib.error: The text was not written by `encode_runs`.
    """
    if not text:
        return b""
    body = base64.b64decode(text[1:], validate=True)
    if text[0] == "z":
        body = _inflated(body, 4 * DELTA_CHARS + 64)
    elif text[0] != "r":
        raise Doubt("unknown encoding of runs")
    bits = bytearray()
    at = 0
    while at < len(body):
        gap, at = _take(body, at)
        run, at = _take(body, at)
        if run < 1 or len(bits) + gap + run > MAX_WINDOW:
            raise Doubt("runs beyond the window")
        bits += b"0" * gap
        bits += b"1" * run
    return bytes(bits)


def offsets_of(gaps: bytes, frontier: int) -> list[int]:
    """Return the offsets of the `1` bytes in `gaps`, ascending."""
    found: list[int] = []
    for run in _runs_of(gaps):
        found.extend(range(frontier + run.start(), frontier + run.end()))
    return found


def _put(packed: bytearray, number: int) -> None:
    while number > 127:
        packed.append(number & 127 | 128)
        number >>= 7
    packed.append(number)


def _take(body: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(body) or shift > 28:
            raise Doubt("runs end too early")
        byte = body[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


# -- all offsets, as a record ---------------------------------------------------------------------------


def pack(base: int, gaps: bytes) -> bytes:
    """Return the value of a spill that says which offsets from `base` on are finished."""
    bits = b""
    if gaps:
        bits = int(gaps[::-1], 2).to_bytes((len(gaps) + 7) // 8, "little")
    small = zlib.compress(bits, 1) if len(bits) > 64 else bits
    kind, body = (b"z", small) if len(small) < len(bits) else (b"b", bits)
    return base.to_bytes(8, "big") + kind + body


def unpack(value: bytes) -> tuple[int, bytes]:
    """Return base and bits of a spill's value.

    Raises:
        ValueError, zlib.error: The value is not that of a spill.
    """
    if len(value) < _HEAD:
        raise Doubt("too short for a spill")
    kind, body = value[8:_HEAD], value[_HEAD:]
    if kind == b"z":
        body = _inflated(body, MAX_WINDOW // 8)
    elif kind != b"b":
        raise Doubt("unknown encoding of a spill")
    if len(body) > MAX_WINDOW // 8:
        raise Doubt("a spill beyond the window")
    gaps = format(int.from_bytes(body, "little"), "b")[::-1].encode()
    return int.from_bytes(value[:8], "big"), b"" if gaps == b"0" else gaps


def believed(name: SpillName, writer: str, value: bytes | None, frontier: int) -> bytes | None:
    """Return the bits of a record, from `frontier` on, if it is the spill of that name; None when it is not.

    Args:
        name: The name in the commit metadata.
        writer: The record's writer, from its header.
        value: The record's value.
        frontier: Frontier of the commit that names the spill.
    """
    if (
        value is None
        or writer != SPILL_WRITER + name.writer
        or zlib.crc32(value) != name.checksum
        or name.base > frontier
    ):
        return None
    try:
        base, gaps = unpack(value)
    except (ValueError, zlib.error):
        return None
    return gaps[frontier - base :] if base == name.base else None


def union(one: bytes, other: bytes) -> bytes:
    """Return the offsets that are finished in either. Both are counted from the same offset."""
    if not one or not other:
        return one or other
    size = max(len(one), len(other))
    # "0" and "1" differ only in the lowest bit
    both = int.from_bytes(one.ljust(size, b"0"), "little") | int.from_bytes(other.ljust(size, b"0"), "little")
    return both.to_bytes(size, "little")


def _inflated(body: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    plain = unpacker.decompress(body, limit)
    if unpacker.unconsumed_tail or unpacker.unused_data or not unpacker.eof:
        raise Doubt("longer than what may be written")
    return plain


Errors: Final = (ValueError, binascii.Error, zlib.error)
"""The exceptions that decoding raises when in doubt."""
