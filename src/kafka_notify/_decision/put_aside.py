"""What is asked of a notification that waits for its destination."""

from __future__ import annotations

from typing import Final

from kafka_notify._partition.entry import Busy, Entry
from kafka_notify._partition.source_offsets import READ_WINDOW

FAR: Final = READ_WINDOW // 2
"""Records of its partition after which one that waits in memory for a probe is copied: it pins the frontier."""


def waits(entry: Entry) -> bool:
    """Whether it still waits: it may have expired, or be elsewhere."""
    if not entry.partition.alive:
        return False
    return entry.queue.paused is entry or (entry.retry is None and entry.busy is Busy.SENDING)


def is_copied(entry: Entry) -> bool:
    """Whether a copy of it is on its way."""
    return entry.busy is Busy.COPYING and entry.partition.alive


def too_far(entry: Entry) -> bool:
    """Whether so much of its partition was read since that it must not pin the frontier any more."""
    return entry.partition.source.position - entry.origin > FAR
