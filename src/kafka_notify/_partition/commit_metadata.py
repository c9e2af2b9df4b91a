"""Commit metadata: the finished offsets of a partition, as text.

A commit holds a frontier (every offset below it is finished) and a gap bitmap (what is finished beyond
it). Forgetting a bit is a duplicate; inventing one is a loss. So decoding is strict: any doubt means no gaps.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Final

import attrs

from kafka_notify._partition import spill
from kafka_notify._partition.spill import SpillName

WINDOW: Final = 20_000
"""Offsets beyond the frontier that the bitmap covers: 20,000 bits are 3,336 base64 characters, and the
broker takes 4,095 (`offset.metadata.max.bytes`). A retry partition with finished offsets beyond it is *wide*."""
MAX_METADATA: Final = 4_095

_DONE: Final = ord("1")
_VERSION: Final = "kn1"
_WIDE: Final = "kn2"
_MARK: Final = "w:"
"""Before the topic ids of both halves while the retry half is wide: a worker that cannot read such a half takes the
topics for others, and halts the partition instead of sending again what it does not know to be finished."""
_MAX_FENCES: Final = 8  # of at most 53 characters each, beside the bits
_CHANNELS: Final = "c:"
_FIELDS: Final = frozenset({"d:", "s:", _CHANNELS})
"""How the fields after the topic ids begin."""
_READABLE: Final = ("kn1", "kn2")  # a newer neighbour may append fields; it keeps these


@attrs.frozen
class Fence:
    """The writers that count in a retry partition: from `end` on `writer` alone, below it those that `before`
    admits."""

    end: int
    writer: str
    before: Fence | None = None
    """The fence of the assignment before, as long as the bitmap cannot hold which copies it kept out."""

    def admits(self, offset: int, writer: str) -> bool:
        """Tell whether a copy at `offset` by `writer` counts."""
        if offset >= self.end:
            return writer == self.writer
        return self.before is None or self.before.admits(offset, writer)


@attrs.frozen
class Wide:
    """All finished offsets of a retry partition that has some beyond the window."""

    delta: str = ""
    """What was finished since the spill, or all when there is none: see `spill.encode_runs`."""
    spill: SpillName | None = None


@attrs.frozen
class Committed:
    """The committed state of one partition, as the broker holds it."""

    frontier: int
    gaps: bytes = b""
    """One byte per offset from the frontier on: `1` finished, `0` not; ends with a `1`. Of a wide half that was read:
    those of the delta, and those of the spill once `with_spill` was told of it. One to be written has none."""
    fence: Fence | None = None
    topic_ids: tuple[str, ...] = ()
    """Of source and retry topic when it was committed; empty when that is not known."""
    channels: tuple[str, ...] = ()
    """Digests of the channels that the committing worker sends (`_fetch.channels`); empty when that is not known."""
    wide: Wide | None = None
    marked: bool = False
    """True when the retry half of the same commit was wide."""

    def open_below(self, offset: int) -> int:
        """Count the unfinished offsets below `offset`."""
        size = max(offset - self.frontier, 0)
        return size - self.gaps[:size].count(_DONE)

    def with_spill(self, writer: str, value: bytes | None) -> Committed:
        """Return the same with the bits of its spill, if a record is that spill; otherwise without the spill.

        Args:
            writer: Who wrote the record at the spill's offset, as its header says; empty when there is none.
            value: The value of that record.
        """
        wide = self.wide
        if wide is None or wide.spill is None:
            return self
        bits = spill.believed(wide.spill, writer, value, self.frontier)
        if bits is None:
            return attrs.evolve(self, wide=Wide(wide.delta))
        return attrs.evolve(self, gaps=spill.union(self.gaps, bits))

    def covers(self, offset: int) -> bool:
        """Tell whether `offset` is finished."""
        at = offset - self.frontier
        return at < 0 or (at < len(self.gaps) and self.gaps[at] == _DONE)


def encode_metadata(
    committed: Committed,
    group: str,
    topic: str,
    partition: int,
    topic_ids: tuple[str, ...] = (),
    channels: tuple[str, ...] = (),
    *,
    marked: bool = False,
) -> str:
    """Write the commit metadata for `committed`, in topics with these ids, by a worker that sends these channels:
    ASCII, at most 4,095 characters, empty when there is nothing to say.

    Args:
        committed: One half of a commit.
        group: Whose commit it is.
        topic: Of which topic; likewise `partition`.
        topic_ids: Of source and retry topic.
        channels: Their digests.
        marked: Whether the retry half of this commit is wide.
    """
    wide = committed.wide
    said = committed.gaps or committed.fence is not None or topic_ids or channels
    if not said and wide is None:
        return ""
    bits = ""
    if committed.gaps and wide is None:
        packed = int(committed.gaps[::-1], 2).to_bytes((len(committed.gaps) + 7) // 8, "little")
        small = zlib.compress(packed, 1) if len(packed) > 64 else packed
        kind, body = ("z", small) if len(small) < len(packed) else ("b", packed)
        bits = kind + base64.b64encode(body).decode()
    ends: list[str] = []
    writers: list[str] = []
    fence = committed.fence
    while fence is not None and len(ends) < _MAX_FENCES:  # the oldest may be forgotten: a duplicate, no loss
        ends.append(str(fence.end))
        writers.append(fence.writer)
        fence = fence.before
    text = f"{_VERSION if wide is None else _WIDE}|{bits}|{','.join(ends)}|{','.join(writers)}"
    if topic_ids or channels or wide is not None:
        # the versions before take this field for ids, whatever it holds
        text += f"|{','.join(_MARK + id if marked else id for id in topic_ids)}"
    if wide is not None:
        text += f"|d:{wide.delta}"
        if wide.spill is not None:
            text += f"|s:{wide.spill}"
    if channels and len(field := f"|{_CHANNELS}{'.'.join(channels)}") + len(text) + 9 <= MAX_METADATA:
        text += field
    return f"{text}|{_checksum(text, committed.frontier, group, topic, partition)}"


def decode_metadata(frontier: int, metadata: str | None, group: str, topic: str, partition: int) -> Committed:
    """Read what was committed at `frontier`. Metadata that is corrupt, foreign or copied from another partition gives
    the frontier alone."""
    plain = Committed(frontier)
    if not metadata or len(metadata) > MAX_METADATA:
        return plain
    text, _, checksum = metadata.rpartition("|")
    fields = text.split("|")
    if fields[0] not in _READABLE or len(fields) < 4:
        return plain
    if checksum != _checksum(text, frontier, group, topic, partition):
        return plain
    try:
        gaps = _decode_bits(fields[1])
        fence = None
        for end, writer in reversed(list(zip(fields[2].split(","), fields[3].split(","), strict=True))):
            fence = Fence(int(end), writer, fence) if writer else None
    except (ValueError, binascii.Error, zlib.error):
        return plain
    ids = tuple(fields[4].split(",")) if len(fields) > 4 and fields[4] else ()
    marked = any(id.startswith(_MARK) for id in ids)
    ids = tuple(id.removeprefix(_MARK) for id in ids)
    wide = None
    named = {field[:2]: field[2:] for field in fields[5:] if field[:2] in _FIELDS}
    channels = tuple(named[_CHANNELS].split(".")) if _CHANNELS in named else ()
    if fields[0] == _WIDE and "d:" in named:
        try:
            wide = Wide(named["d:"], SpillName.read(named["s:"]) if "s:" in named else None)
            gaps = spill.union(gaps, spill.decode_runs(wide.delta))
        except spill.Errors:
            wide = Wide()  # in doubt neither: it is wide all the same
    return Committed(frontier, gaps, fence, ids, channels, wide, marked)


def _decode_bits(text: str) -> bytes:
    if not text:
        return b""
    body = base64.b64decode(text[1:], validate=True)
    if text[0] == "z":
        unpack = zlib.decompressobj()
        body = unpack.decompress(body, WINDOW // 8)
        if unpack.unconsumed_tail or not unpack.eof:
            raise ValueError("bitmap longer than the window")
    elif text[0] != "b":
        raise ValueError("unknown bitmap encoding")
    gaps = format(int.from_bytes(body, "little"), "b")[::-1].encode()
    if len(gaps) > WINDOW:
        raise ValueError("bitmap longer than the window")
    return b"" if gaps == b"0" else gaps


def _checksum(text: str, frontier: int, group: str, topic: str, partition: int) -> str:
    bound = f"{group}|{topic}|{partition}|{frontier}|{text}"
    return format(zlib.crc32(bound.encode(errors="surrogatepass")), "08x")
