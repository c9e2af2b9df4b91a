"""What a cluster stores: topics, and their partitions as logs with offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs
from confluent_kafka import Uuid

Place = tuple[str, int]
"""Topic and partition."""
RETENTION: Final = "604800000"


@attrs.frozen
class Record:
    """A stored record."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int
    """Epoch milliseconds."""


class PartitionLog:
    """Records by offset. Offsets may be missing: compaction and control records leave holes."""

    def __init__(self) -> None:
        self.start = 0
        """The first offset that retention has left."""
        self.end = 0
        """The offset behind the last one."""
        self._records: dict[int, Record] = {}

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        timestamp: int,
    ) -> Record:
        """Store a record at the end."""
        record = Record(self.end, key, value, tuple(headers), timestamp)
        self._records[self.end] = record
        self.end += 1
        return record

    def hole(self, count: int = 1) -> None:
        """Use offsets up without a record, as the markers of transactions do."""
        self.end += count

    def compact(self, *offsets: int) -> None:
        """Remove single records."""
        for offset in offsets:
            self._records.pop(offset, None)

    def delete_before(self, offset: int) -> None:
        """Remove what is older, as retention does."""
        self.start = max(self.start, min(offset, self.end))
        for old in [at for at in self._records if at < self.start]:
            del self._records[old]

    def truncate(self, end: int) -> None:
        """Lose what is at `end` and beyond, as an unclean election does."""
        self.end = max(min(self.end, end), self.start)
        for lost in [at for at in self._records if at >= self.end]:
            del self._records[lost]

    def next(self, offset: int) -> Record | None:
        """The first record at `offset` or beyond it."""
        for at in range(offset, self.end):
            record = self._records.get(at)
            if record is not None:
                return record
        return None

    def at_time(self, timestamp: int) -> Record | None:
        """The first record that is not older."""
        return next((record for record in self if record.timestamp >= timestamp), None)

    def __iter__(self) -> Iterator[Record]:
        return iter([self._records[offset] for offset in sorted(self._records)])

    def __len__(self) -> int:
        return len(self._records)


@attrs.define
class Topic:
    """A topic."""

    name: str
    id: Uuid
    partitions: list[PartitionLog]
    settings: dict[str, str] = attrs.field(factory=lambda: {"retention.ms": RETENTION})
