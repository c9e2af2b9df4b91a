"""Limits of the records in memory: when polling is suspended, and which partitions are paused.

Each partition has a share of every limit. A partition with much in memory is paused, it alone; a partition with little
is always read, however much the others have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kafka_notify._fetch.flow import Flow
from kafka_notify._fetch.settings import IntakeSettings
from kafka_notify._fetch.waiting import Waiting
from kafka_notify._partition.partition import Partition

MAX_WAITING_RETRIES: Final = 200_000
"""Waiting retries per worker; beyond that the source is not read."""
BUFFER_BYTES: Final = 256 * 2**20
"""Bytes of source records in memory beyond which reading stops."""
MAX_RECORDS: Final = 64_000
"""Source records in memory per worker: as they came from the broker, or in users' queues."""
USUAL_RECORDS: Final = 32_000
"""Source records in memory while all senders are busy, or 32 for each sender if that is more: records that are read
further ahead have left the processor's caches when they are sent. Free senders may have to look past a busy user's."""
PAUSE_AT: Final = 4_000
"""Waiting records at which a partition is paused at the latest: a pause discards the prefetch."""
FLOOR: Final = 2
"""One part in so many of each budget is divided evenly: a partition that has less than its even part is always read.
Each may also take half of what is left of the rest, so that one partition alone has most of it."""
TURNOVER: Final = 10_000
"""Records that librdkafka's one queue for all partitions may hold: once so many were polled, or a poll came back short,
all that the queue held for other partitions has been polled."""
PATIENCE: Final = 0.3
"""Seconds that polling may be suspended without such a turnover; then the partitions that cause it are paused instead.
A suspension keeps the prefetch, and is harmless as long as the queue moves on."""
BUSY_PATIENCE: Final = 1.0
"""`PATIENCE` while all senders are busy: none could send more. From 10,000 sends a second on nothing is paused."""
CHECK_AFTER: Final = 4 * 2**20
"""Bytes read since the last look at what is in memory before there is another one."""


class Backpressure:
    """Decides what the fetch thread reads on. Runs on the event loop.

    Args:
        partitions: The worker's partitions, by number.
        unread: Records that wait for their share, by partition; shared with intake.
        flow: Tells the fetch thread.
        settings: The settings of intake.
    """

    def __init__(
        self,
        partitions: Mapping[int, Partition],
        unread: Mapping[int, Waiting],
        flow: Flow,
        settings: IntakeSettings,
    ) -> None:
        self._partitions = partitions
        self._unread = unread
        self._flow = flow
        self._paused = settings.paused
        self._clock = settings.clock
        self._low = settings.records_in_queues // 2
        self._usual = min(max(32 * settings.concurrency, USUAL_RECORDS), MAX_RECORDS)
        self._most, self._patience = MAX_RECORDS, PATIENCE
        """Limit of source records in memory now, `MAX_RECORDS` or `_usual`; seconds that polling may be suspended."""
        self._unchecked = 0
        """Bytes read since the last look at what is in memory."""
        self.heavy: frozenset[int] = frozenset()
        """Partitions that have so much in memory that they are not read."""
        self._mark = (0, 0.0)
        """Count of polled records, and monotonic seconds, when librdkafka's queue had last surely turned over."""

    def polled(self, count: int) -> None:
        """Note that one poll returned so many records, which are not counted as taken yet."""
        polled = self._flow.taken + count
        if count < self._flow.batch or polled - self._mark[0] >= TURNOVER:
            self._mark = polled, self._clock.monotonic()

    def fed(self, size: int) -> None:
        """Check the limits if they may be near, after so many bytes more were taken in."""
        self._unchecked += size
        if self._unread or self.heavy or self._flow.polling_suspended or self._unchecked >= CHECK_AFTER:
            self.check()

    def set_idle(self, idle: bool) -> None:
        """Choose the limits for senders that have nothing to send, or are all busy."""
        self._most, self._patience = (MAX_RECORDS, PATIENCE) if idle else (self._usual, BUSY_PATIENCE)

    def check(self) -> None:
        """Decide which partitions hold too much to be read on; suspend all polling for a short time before that."""
        flow, unread, heavy = self._flow, self._unread, self.heavy
        self._unchecked = 0
        light = sum(len(w) for n, w in unread.items() if n not in heavy)
        full = light >= self._low or self._is_large(heavy)
        moves = self._clock.monotonic() - self._mark[1] < self._patience
        heavier = self._heavier(heavy if moves and full else None)
        suspended = full and moves
        if heavier != heavy:
            self.heavy = heavier
            self.publish_wanted()
        if suspended != flow.polling_suspended:
            flow.polling_suspended = suspended
            if not suspended:
                flow.wake()

    def retries_allowed(self) -> int:
        """Waiting retries of a partition from which on it is not read."""
        waiting = sum(len(p.pending) for p in self._partitions.values())
        if waiting < MAX_WAITING_RETRIES:
            return MAX_WAITING_RETRIES
        return MAX_WAITING_RETRIES // (FLOOR * max(len(self._partitions), 1))

    def publish_wanted(self) -> None:
        """Publish the source partitions that are to be read now.

        A partition whose commit window is full is read on until it holds too much, as a pause discards the prefetch:
        `Partition.wants_source` keeps its records waiting.
        """
        allowed, heavy, whole = self.retries_allowed(), self.heavy, self._paused.whole
        self._flow.wanted = frozenset(
            n
            for n, p in self._partitions.items()
            if p.active
            and not p.closing
            and (p.must_read or (not whole and n not in heavy and len(p.pending) < allowed))
        )

    def _is_large(self, heavy: frozenset[int]) -> bool:
        parts, unread = self._partitions, self._unread
        return (
            sum(p.open_bytes for n, p in parts.items() if n not in heavy)
            + sum(w.bytes for n, w in unread.items() if n not in heavy)
            >= BUFFER_BYTES // 2
        )

    def _heavier(self, only: frozenset[int] | None) -> frozenset[int]:
        """Partitions that hold too much to be read; with `only`, none but those of it that still do."""
        partitions, unread, before = self._partitions, self._unread, self.heavy
        nothing = Waiting()
        found: list[tuple[int, int, int, int]] = []
        for number, partition in partitions.items():
            waiting = unread.get(number, nothing)
            records, size = partition.open + len(waiting), partition.open_bytes + waiting.bytes
            found.append((number, len(waiting), records, size))
        most = _most(self._most, [records for _, _, records, _ in found])
        most_bytes = _most(BUFFER_BYTES, [size for _, _, _, size in found])
        return frozenset(
            number
            for number, waits, records, size in found
            if (only is None or number in only)
            and (
                waits > PAUSE_AT // 4 or records >= most // 2 or size >= most_bytes // 2
                if number in before  # hysteresis: each pause discards the prefetch
                else waits >= PAUSE_AT or records >= most or size >= most_bytes
            )
        )


def _most(budget: int, used: list[int]) -> int:
    """The part of a budget that one partition may use: its even part of the divided half, and half of what is left of
    the rest."""
    even = budget // (FLOOR * max(len(used), 1))
    free = budget - budget // FLOOR - sum(n - even for n in used if n > even)
    return even + max(free, 0) // 2
