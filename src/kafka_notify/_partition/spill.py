"""Finished offsets that are too many for the commit metadata: in few characters of it, or in a record of their own.

A *spill* is a record of the retry partition itself. The commit metadata names it by offset, writer, base and checksum,
after the broker acknowledged it; no other spill is believed. Forgetting a bit is a duplicate, inventing one is a loss:
so decoding is strict here, too.
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
"""Offsets of a retry partition beyond its frontier that may be finished at most: a spill of 500 kB."""
DELTA_CHARS: Final = 3_200
"""Characters of the commit metadata for what was finished since the spill. What else may be in it (eight fences, marked
topic ids, the name of a spill, and 200 characters for others) fits beside them whatever it is."""

_HEAD: Final = 9  # bytes of a spill before its bits
_runs_of: Final = re.compile(rb"1+").finditer


class Doubt(ValueError):
    """What was read is not what was written."""


@attrs.frozen
class SpillName:
    """Which spill counts: what the commit metadata says of it."""

    offset: int
    writer: str
    """Of the assignment that wrote it."""
    base: int
    """The offset that its bits are counted from."""
    checksum: int
    """CRC-32 of its value."""

    def __str__(self) -> str:
        return f"{self.offset},{self.writer},{self.base},{self.checksum:08x}"

    @classmethod
    def read(cls, text: str) -> SpillName:
        """The name in a text.

        Raises:
            ValueError: It is not the name of a spill.
        """
        offset, writer, base, checksum = text.split(",")
        if not writer or len(checksum) != 8:
            raise Doubt("not the name of a spill")
        return cls(int(offset), writer, int(base), int(checksum, 16))


# -- few offsets, as text -------------------------------------------------------------------------------


def encode_runs(offsets: Iterable[int], frontier: int) -> str | None:
    """Offsets as text; None when that takes more than `DELTA_CHARS`.

    Args:
        offsets: Ascending, each once, none below the frontier.
        frontier: Where they are counted from.
    """
    packed = bytearray()
    start = end = frontier  # of the run so far
    limit = 4 * DELTA_CHARS  # even compressed no more would fit
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
    """The offsets of `encode_runs`, one byte per offset from the frontier on: `1` or `0`; ends with a `1`.

    Raises:
        ValueError, binascii.Error, zlib.error: It is not what `encode_runs` has written.
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
    """The offsets of the ones in `gaps`, ascending."""
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


# -- all of them, as a record ---------------------------------------------------------------------------


def pack(base: int, gaps: bytes) -> bytes:
    """The value of a spill: which offsets from `base` on are finished."""
    bits = b""
    if gaps:
        bits = int(gaps[::-1], 2).to_bytes((len(gaps) + 7) // 8, "little")
    small = zlib.compress(bits, 1) if len(bits) > 64 else bits
    kind, body = (b"z", small) if len(small) < len(bits) else (b"b", bits)
    return base.to_bytes(8, "big") + kind + body


def unpack(value: bytes) -> tuple[int, bytes]:
    """Base and bits of a spill.

    Raises:
        ValueError, zlib.error: It is not a spill.
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
    """The bits of a record, counted from `frontier`, if it is the spill of that name; None when it is not.

    Args:
        name: From the commit metadata.
        writer: Who wrote the record, as its header says.
        value: Of the record.
        frontier: Of the commit that names it.
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
    """What is finished in either; both are counted from the same offset."""
    if not one or not other:
        return one or other
    size = max(len(one), len(other))
    # "0" and "1" differ in the lowest bit alone
    both = int.from_bytes(one.ljust(size, b"0"), "little") | int.from_bytes(other.ljust(size, b"0"), "little")
    return both.to_bytes(size, "little")


def _inflated(body: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    plain = unpacker.decompress(body, limit)
    if unpacker.unconsumed_tail or unpacker.unused_data or not unpacker.eof:
        raise Doubt("longer than what may be written")
    return plain


Errors: Final = (ValueError, binascii.Error, zlib.error)
"""What decoding raises when in doubt."""
