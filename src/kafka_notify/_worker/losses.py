"""Losses of a worker's partitions, to retention and with committed offsets, and the records that can be saved.

Runs on the event loop.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from kafka_notify import events
from kafka_notify._base.retention import DAY_MS
from kafka_notify._decision.context import Context
from kafka_notify._decision.what_follows import Kept
from kafka_notify._fetch.exchange import Start
from kafka_notify._fetch.removed import Removed
from kafka_notify._partition.entry import Busy, Entry
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.wide import LongWaits
from kafka_notify._send.sends import Sends
from kafka_notify._worker import alarms
from kafka_notify._worker.alarms import Alarms

log = logging.getLogger("kafka_notify.worker")

SAVE_BATCH: Final = 5_000
"""Copies that one look at the log starts writes at most, when retention overtakes waiting retries."""


class Losses:
    """Compares the log starts with what is unfinished, reports removed records, and saves those that are in memory.

    Args:
        context: The worker's surroundings.
        partitions: Its partitions, by number.
        sends: The sending half of the worker: writes the saved records, and dead letters of the lost ones.
        long_waits: State of long waits that all partitions share.
    """

    def __init__(
        self, context: Context, partitions: Mapping[int, Partition], sends: Sends, long_waits: LongWaits
    ) -> None:
        self.alarms = Alarms()
        self._topics = context.source, context.retry_topic
        self._longest_backoff_ms = context.retry.longest_ms
        self._on_event = context.on_event
        self._partitions = partitions
        self._counts = sends.counts
        self._publisher = sends.publisher
        self._outcomes = sends.outcomes
        self._long_waits = long_waits
        self._removed: dict[int, tuple[Removed, Removed]] = {}
        """Counts of removed records of source and retry partition, by number."""

    def look_at_start(self, start: Start, partition: Partition) -> None:
        """Report what a starting partition misses: unfinished records below the log start, and committed offsets."""
        number = start.number
        trackers, ranges = (partition.source, partition.retry), (start.source_range, start.retry_range)
        self._removed[number] = (
            Removed(trackers[0], ranges[0][0]),
            Removed(trackers[1], ranges[1][0]),
        )
        in_use = start.retry_range[1] > 0 or not all(start.uncommitted)
        for topic, kind, committed, uncommitted, (low, high) in zip(
            self._topics,
            (alarms.UNREAD, alarms.WAITING),
            (start.source, start.retry),
            start.uncommitted,
            ranges,
            strict=True,
        ):
            if gone := committed.open_below(low):
                self._tell(kind, topic, number, gone)
            if uncommitted and in_use and high > 0:
                log.error("%s", self.alarms.ring(alarms.NO_OFFSETS, topic, number, high - low))
                if self._on_event:
                    self._on_event(events.OffsetsMissing(topic, number, high - low))

    def look(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Take the first offsets of partitions, by topic and number; report removed records and save waiting ones."""
        for number, partition in tuple(self._partitions.items()):
            for topic, kind, removed in zip(
                self._topics,
                (alarms.UNREAD, alarms.WAITING),
                self._removed.get(number, ()),
                strict=False,
            ):
                if gone := removed.look(starts.get((topic, number), 0)):
                    self._tell(kind, topic, number, gone)
            start = starts.get((self._topics[1], number), 0)
            if partition.active and start > partition.retry.frontier:
                self._save_waiting(partition, start)

    def _tell(self, kind: str, topic: str, number: int, count: int) -> None:
        log.error("%s", self.alarms.ring(kind, topic, number, count))
        if self._on_event:
            self._on_event(events.RecordsRemoved(topic, number, count))

    def _save_waiting(self, partition: Partition, start: int) -> None:
        """Write waiting retries below the log start again if they are in memory, and dead-letter the others."""
        removed: list[Entry] = []
        saved = 0
        for entry in tuple(partition.pending.values()):
            held = entry.retry
            if held is None or held.at >= start or entry.busy or partition.closing:
                continue
            if entry.record is None:
                removed.append(entry)
            elif saved < SAVE_BATCH:
                saved += 1
                entry.busy = Busy.COPYING
                self._publisher.carry(entry)
        if saved:
            log.error(
                "%s[%d]: retention removed %d records that wait for a retry; they are in memory and are written again",
                self._topics[1],
                partition.number,
                saved,
            )
        self.dead_letter(removed)

    def dead_letter(self, entries: Sequence[Entry]) -> None:
        """Dead-letter waiting retries whose records are gone, with their payloads."""
        for number, count in Counter(entry.partition.number for entry in entries).items():
            self._tell(alarms.WAITING, self._topics[1], number, count)
        for entry in entries:
            self._counts.dead += 1
            self._publisher.dead_letter(entry, "removed")

    def learn_retention(self, milliseconds: int) -> None:
        """Take the `retention.ms` of the retry topic; negative means no limit."""
        self._long_waits.retention_ms = None if milliseconds < 0 else milliseconds
        before, kept = self._outcomes.kept, Kept.by(milliseconds)
        self._outcomes.learn(kept)
        longest = kept.longest_wait_ms
        if longest == before.longest_wait_ms:
            return
        if longest is not None and self._longest_backoff_ms > longest and not kept.any_wait:
            log.error(
                "%s keeps records for %.3g days, so a retry may wait for %.3g days at most: the longest wait of the "
                "RetryPolicy is %.3g days, and what waits longer is dead-lettered; lengthen retention.ms",
                self._topics[1],
                milliseconds / DAY_MS,
                longest / DAY_MS,
                self._longest_backoff_ms / DAY_MS,
            )

    def drop(self, partition: Partition) -> None:
        """Forget a partition whose assignment has ended."""
        self._removed.pop(partition.number, None)
