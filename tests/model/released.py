"""What the version before wide halves makes of commits."""

from __future__ import annotations

from kafka_notify._partition import commit_metadata
from kafka_notify._partition.commit_metadata import MAX_METADATA, Committed, Fence


def released_decode(frontier: int, metadata: str, group: str, topic: str, partition: int) -> Committed:
    """How the version before wide halves reads metadata, word for word."""
    plain = Committed(frontier)
    if not metadata or len(metadata) > MAX_METADATA:
        return plain
    text, _, checksum = metadata.rpartition("|")
    fields = text.split("|")
    if fields[0] not in ("kn1", "kn2") or len(fields) < 4:
        return plain
    if checksum != commit_metadata._checksum(text, frontier, group, topic, partition):
        return plain
    try:
        gaps = commit_metadata._decode_bits(fields[1])
        fence = None
        for end, writer in reversed(list(zip(fields[2].split(","), fields[3].split(","), strict=True))):
            fence = Fence(int(end), writer, fence) if writer else None
    except ValueError:
        return plain
    return Committed(frontier, gaps, fence, tuple(fields[4].split(",")) if len(fields) > 4 else ())
