"""Predicates on an entry that waits for its destination. Pure."""

from __future__ import annotations

from typing import Final

from kafka_notify._partition.entry import Busy, Entry
from kafka_notify._partition.source_offsets import READ_WINDOW

FAR: Final = READ_WINDOW // 2
"""Records of its partition after which an entry that waits in memory is copied, as it pins the frontier."""


def waits(entry: Entry) -> bool:
    """True while an entry still waits: it may have expired or been handed over meanwhile."""
    if not entry.partition.alive:
        return False
    return entry.queue.paused is entry or (entry.retry is None and entry.busy is Busy.SENDING)


def is_copied(entry: Entry) -> bool:
    """True while a copy of an entry is on its way."""
    return entry.busy is Busy.COPYING and entry.partition.alive


def too_far(entry: Entry) -> bool:
    """True when so much of the partition was read after an entry that it must not pin the frontier any longer."""
    return entry.partition.source.position - entry.origin > FAR
