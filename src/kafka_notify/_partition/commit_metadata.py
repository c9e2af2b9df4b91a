"""Commit metadata: the finished offsets of a partition, as text.

A commit holds a frontier (every offset below it is finished) and a gap bitmap (the finished offsets beyond it). A
forgotten bit is a duplicate, an invented bit is a loss. So decoding is strict: any doubt means no gaps.
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
"""Prefix of the topic ids of both halves while the retry half is wide. A worker that cannot read such a half takes the
topics for other ones and halts the partition, instead of sending again what it cannot know to be finished."""
_MAX_FENCES: Final = 8  # of at most 53 characters each, beside the bits
_CHANNELS: Final = "c:"
_FIELDS: Final = frozenset({"d:", "s:", _CHANNELS})
"""The beginnings of the fields after the topic ids."""
_READABLE: Final = ("kn1", "kn2")  # a newer neighbour may append fields; it keeps these


@attrs.frozen
class Fence:
    """The writers whose copies count in a retry partition: from `end` on only `writer`, below it those that `before`
    admits."""

    end: int
    writer: str
    before: Fence | None = None
    """The fence of the assignment before, for as long as the bitmap cannot say which copies it kept out."""

    def admits(self, offset: int, writer: str) -> bool:
        """Tell whether a copy at `offset` by `writer` counts."""
        if offset >= self.end:
            return writer == self.writer
        return self.before is None or self.before.admits(offset, writer)


@attrs.frozen
class Wide:
    """All finished offsets of a retry partition that has some beyond the window."""

    delta: str = ""
    """The offsets finished since the spill, or all finished ones when there is no spill: see `spill.encode_runs`."""
    spill: SpillName | None = None


@attrs.frozen
class Committed:
    """The committed state of one partition, as the broker holds it."""

    frontier: int
    gaps: bytes = b""
    """One byte per offset from the frontier on: `1` finished, `0` not; ends with a `1`. In a wide half that was read,
    the bits of the delta, and those of the spill after `with_spill`. A wide half that is to be written has none."""
    fence: Fence | None = None
    topic_ids: tuple[str, ...] = ()
    """IDs of source and retry topic at the commit; empty when they are not known."""
    channels: tuple[str, ...] = ()
    """Digests of the channels that the committing worker sends (`_fetch.channels`); empty when they are not known."""
    wide: Wide | None = None
    marked: bool = False
    """True when the retry half of the same commit was wide."""

    def open_below(self, offset: int) -> int:
        """Count the unfinished offsets below `offset`."""
        size = max(offset - self.frontier, 0)
        return size - self.gaps[:size].count(_DONE)

    def with_spill(self, writer: str, value: bytes | None) -> Committed:
        """Return this with the bits of its spill if a record is that spill; otherwise without the spill.

        Args:
            writer: Writer of the record at the spill's offset, from its header; empty when there is no record.
            value: Value of that record.
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
    """Write the metadata of one half of a commit: ASCII, at most 4,095 characters, empty when there is nothing to say.

    Args:
        committed: The half.
        group: Consumer group of the commit; like `topic`, `partition` and the frontier it is part of the checksum.
        topic: Topic of the half.
        partition: Partition of the half.
        topic_ids: IDs of source and retry topic.
        channels: Digests of the channels that this worker sends.
        marked: True when the retry half of this commit is wide.
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
    while fence is not None and len(ends) < _MAX_FENCES:  # forgetting the oldest costs at most a duplicate
        ends.append(str(fence.end))
        writers.append(fence.writer)
        fence = fence.before
    text = f"{_VERSION if wide is None else _WIDE}|{bits}|{','.join(ends)}|{','.join(writers)}"
    if topic_ids or channels or wide is not None:
        # older versions take the fourth field for topic ids whatever it holds, so it is written even when empty
        text += f"|{','.join(_MARK + id if marked else id for id in topic_ids)}"
    if wide is not None:
        text += f"|d:{wide.delta}"
        if wide.spill is not None:
            text += f"|s:{wide.spill}"
    if channels and len(field := f"|{_CHANNELS}{'.'.join(channels)}") + len(text) + 9 <= MAX_METADATA:
        text += field
    return f"{text}|{_checksum(text, committed.frontier, group, topic, partition)}"


def decode_metadata(frontier: int, metadata: str | None, group: str, topic: str, partition: int) -> Committed:
    """Read the commit at `frontier`. Metadata that is corrupt, foreign or copied from another partition gives the
    frontier alone."""
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
            wide = Wide()  # in doubt neither delta nor spill counts, but the half is wide all the same
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
