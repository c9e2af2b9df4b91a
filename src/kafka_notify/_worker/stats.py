"""What a worker tells of itself, as values."""

from __future__ import annotations

from typing import Final

import attrs

from kafka_notify._wire.pause import Pause

TABLE_ENTRY_BYTES: Final = 900
"""What a waiting retry takes without its payload: entry, queue of its user, wake-up, places in tables (measured)."""


@attrs.frozen
class WorkerStats:
    """What a worker did since its start, and what it holds now."""

    sent: int = 0
    retried: int = 0
    """Attempts that failed and are tried again."""
    dead: int = 0
    """Dead letters, those expired not counted."""
    expired: int = 0
    skipped: int = 0
    passed_over: int = 0
    """Of other consumers' channels."""
    parked: int = 0
    """Put behind an earlier notification of their user in the retry topic."""
    unknown: int = 0
    """Attempts with an unknown outcome."""
    in_flight: int = 0
    buffered: int = 0
    """Source records in memory, those in flight included."""
    waiting_retries: int = 0
    """Notifications that live in the retry topic."""
    carried_window: int = 0
    """Waiting retries that were written again as the commit could not reach beyond them: without wide retries."""
    carried_retention: int = 0
    """The same, as they neared the end of the retry topic's retention."""
    carried_sparse: int = 0
    """The same, as a restart would have read mostly finished ones."""
    spills: int = 0
    """Records in the retry topic that say what is finished there, as the commit has no room for it."""
    spill_failures: int = 0
    """Those that were not acknowledged; they are written again."""
    wide_partitions: int = 0
    """Partitions whose retries need more than the commit of an older version can say: see operations.md."""
    longest_window: int = 0
    """Offsets of a retry partition between the oldest waiting retry and the last that ended, in the widest one."""
    stuck: int = 0
    """Sends that outlived their deadline and still run."""
    circuit_open: bool = False
    """The provider is unavailable: nothing but a probe is sent."""
    destinations_held: int = 0
    """Destinations (channels, or what `Consumer.destination` names) that are held alone."""
    circuit_score: float = 0.0
    """Of the lane, up to `CircuitBreaker.failures`, at which it is held."""
    probes: int = 0
    """Sends that were to find out whether a held provider works again, and were answered or failed."""
    probes_failed: int = 0
    retry_shares: tuple[float, ...] = ()
    """Share of retries that are accepted, by counted attempts: 0, 1, 2, and 3 or more."""
    partitions: tuple[int, ...] = ()
    paused: tuple[Pause, ...] = ()
    """What must not be sent now: see `Pauses`."""
    buffered_bytes: int = 0
    """Bytes of `buffered`, and of records that were polled and are not looked at yet."""
    waiting_bytes: int = 0
    """Bytes of payloads that waiting retries keep; those that do not fit are read again before their send."""
    loading_bytes: int = 0
    """Bytes of payloads that were read again, or are being read: until their send has ended."""
    table_bytes: int = 0
    """Bytes of the table of waiting retries without their payloads, by `TABLE_ENTRY_BYTES`."""
    memory_limit: int = 0
    """Bytes that the four above, the client's prefetch and the queue of copies can reach together at most. What sends
    that are under way decode, and what the sender keeps, comes on top."""

    @property
    def memory_bytes(self) -> int:
        """Bytes that the budgets count now: `memory_limit` bounds them."""
        return self.buffered_bytes + self.waiting_bytes + self.loading_bytes + self.table_bytes


@attrs.frozen
class Health:
    """Whether a worker does its work."""

    ok: bool
    problems: tuple[str, ...] = ()
    """What is wrong, worst first; each a sentence for a person."""
    live: bool = True
    """False when only a restart of the process helps: what a liveness probe should ask."""
    notes: tuple[str, ...] = ()
    """What others have to look after while it does its work: destinations that the consumer names are held."""
