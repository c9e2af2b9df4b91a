"""The values in which a worker reports its counts and its health."""

from __future__ import annotations

from typing import Final

import attrs

from kafka_notify._wire.pause import Pause

TABLE_ENTRY_BYTES: Final = 900
"""Bytes of a waiting retry without its payload: entry, queue of its user, wake-up, places in tables (measured)."""


@attrs.frozen
class WorkerStats:
    """Counts since a worker's start, and its contents now."""

    sent: int = 0
    retried: int = 0
    """Attempts that failed and are tried again."""
    dead: int = 0
    """Dead letters, without those of expired notifications."""
    expired: int = 0
    skipped: int = 0
    passed_over: int = 0
    """Notifications of other consumers' channels."""
    parked: int = 0
    """Notifications that were put behind an earlier one of their user in the retry topic."""
    unknown: int = 0
    """Attempts with an unknown outcome."""
    in_flight: int = 0
    buffered: int = 0
    """Source records in memory, those in flight included."""
    waiting_retries: int = 0
    """Notifications that live in the retry topic."""
    carried_window: int = 0
    """Waiting retries that were written again because the commit could not reach beyond them: without wide retries."""
    carried_retention: int = 0
    """Waiting retries that were written again because they neared the end of the retry topic's retention."""
    carried_sparse: int = 0
    """Waiting retries that were written again because a restart would have read mostly finished records."""
    spills: int = 0
    """Records written to the retry topic that say which of its offsets are finished, as the commit has no room."""
    spill_failures: int = 0
    """Spills that were not acknowledged; they are written again."""
    wide_partitions: int = 0
    """Partitions whose retries need a commit that older versions cannot read: see operations.md."""
    longest_window: int = 0
    """Offsets of a retry partition between the oldest waiting retry and the last that ended, in the widest one."""
    stuck: int = 0
    """Sends that outlived their deadline and still run."""
    circuit_open: bool = False
    """The provider is unavailable: nothing but a probe is sent."""
    destinations_held: int = 0
    """Destinations (channels, or what `Consumer.destination` names) that are held alone."""
    circuit_score: float = 0.0
    """Score of the lane's circuit: at `CircuitBreaker.failures` the lane is held."""
    probes: int = 0
    """Sends that tested if a held provider works again, and were answered or failed."""
    probes_failed: int = 0
    retry_shares: tuple[float, ...] = ()
    """Share of retries that are accepted, by counted attempts: 0, 1, 2, and 3 or more."""
    partitions: tuple[int, ...] = ()
    paused: tuple[Pause, ...] = ()
    """The pauses that apply now: see `Pauses`."""
    buffered_bytes: int = 0
    """Bytes of `buffered`, and of polled records that the event loop has not taken yet."""
    waiting_bytes: int = 0
    """Bytes of payloads that waiting retries keep; payloads that do not fit are read again before their send."""
    loading_bytes: int = 0
    """Bytes of payloads that are being read again, or were and whose send has not ended."""
    table_bytes: int = 0
    """Bytes of the table of waiting retries without their payloads, by `TABLE_ENTRY_BYTES`."""
    memory_limit: int = 0
    """Bytes that the four above, the client's prefetch and the queue of copies can reach together at most. Data that
    running sends have decoded, and the sender's own memory, come on top."""

    @property
    def memory_bytes(self) -> int:
        """Bytes that the budgets count now: `memory_limit` bounds them."""
        return self.buffered_bytes + self.waiting_bytes + self.loading_bytes + self.table_bytes


@attrs.frozen
class Health:
    """The health of a worker: `ok` is True while it does its work."""

    ok: bool
    problems: tuple[str, ...] = ()
    """Sentences about what is wrong, worst first."""
    live: bool = True
    """False when only a restart of the process helps: for a liveness probe."""
    notes: tuple[str, ...] = ()
    """Sentences about what others have to look after while the worker does its work, such as held destinations."""
