"""Alarms about losses that cannot be undone: each stays in the worker's health until a person acknowledges it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_SHOWN: Final = 10
"""Partitions that one sentence names at most."""

UNREAD: Final = (
    "retention removed up to {count:,} records of {topic}{where} before they were read: their notifications are lost; "
    "lengthen retention.ms, and see why they waited so long"
)
WAITING: Final = (
    "retention removed up to {count:,} records of {topic}{where} that waited for a retry: what this worker could not "
    "save is lost; lengthen retention.ms"
)
NO_OFFSETS: Final = (
    "the group had no committed offset for {topic}{where}, which holds {count:,} records: it expired or was deleted, "
    "so they are all sent again, those that were finished too"
)
ACKNOWLEDGE: Final = "; acknowledge this with Worker.acknowledge() or POST /acknowledge"


class Alarms:
    """Counts by kind, topic and partition, which bound their number. Read from any thread."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], dict[int, int]] = {}

    def ring(self, kind: str, topic: str, partition: int, count: int) -> str:
        """Add `count` to the alarm of a partition, and return the sentence for the log."""
        counts = dict(self._counts.get((kind, topic), {}))
        counts[partition] = counts.get(partition, 0) + count
        self._counts[kind, topic] = counts
        return kind.format(count=count, topic=topic, where=f"[{partition}]")

    def acknowledge(self) -> None:
        """Clear all alarms: a person has seen them."""
        self._counts = {}

    def sentences(self) -> Sequence[str]:
        """The alarms that nobody has acknowledged."""
        found: list[str] = []
        for (kind, topic), counts in tuple(self._counts.items()):
            numbers = sorted(counts)
            where = f"[{', '.join(map(str, numbers[:_SHOWN]))}{', ...' if len(numbers) > _SHOWN else ''}]"
            found.append(kind.format(count=sum(counts.values()), topic=topic, where=where) + ACKNOWLEDGE)
        return found
