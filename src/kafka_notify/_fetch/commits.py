"""When to commit, what was confirmed, and the lease that follows from it. Runs on the event loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Final

from kafka_notify import events
from kafka_notify._base.clock import Clock, boottime
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._fetch.loop import CommitRequest, CommitResult
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.partition import Partition

log = logging.getLogger("kafka_notify.fetch")

INTERVAL: Final = 0.1
"""Seconds between commits: bounds what is sent again after a crash."""


class Commits:
    """At most one commit request in flight; snapshots of whatever changed, every 100 ms.

    The lease: when no commit was confirmed for a session timeout, the group may have given our partitions to
    somebody else without our noticing. So no send starts until one is.

    Args:
        partitions: Those of the engine, by number.
        clock: Epoch milliseconds, and monotonic seconds.
        request: Hands a request to the fetch thread.
        session_timeout: Seconds.
        on_event: Guarded.
    """

    def __init__(
        self,
        partitions: Mapping[int, Partition],
        clock: Clock,
        request: Callable[[CommitRequest], object],
        *,
        session_timeout: float,
        on_event: events.OnEvent | None,
    ) -> None:
        self._partitions = partitions
        self._clock = clock
        self._request = request
        self._session_timeout = session_timeout
        """Seconds after a confirmed commit for which our partitions are surely ours."""
        self._on_event = on_event
        self._in_flight: CommitRequest | None = None
        self._last: dict[int, tuple[Committed, Committed]] = {}
        self._requested_at = 0.0
        self._told = False
        self._failures = LimitedLog(log)
        self._over = False
        self.lease_until = 0.0
        """`boottime` until which sends may start; 0 before the first confirmed commit."""
        self.error: str | None = None
        """Why the last commit failed; None when it did not."""

    def learn_lease(self, seconds: float) -> None:
        """The brokers say for how long a confirmed commit is good; before the first one."""
        self._session_timeout = seconds

    def late(self) -> float:
        """Seconds since the last confirmed commit when that is longer than the lease, else 0."""
        if self._over:
            return 0.0
        over = boottime() - self.lease_until
        return over + self._session_timeout if self._partitions and self.lease_until and over > 0 else 0.0

    def tell_lease(self) -> None:
        """A send would have started without the lease: say so once."""
        late = self.late()
        if late and not self._told:
            self._told = True
            log.error("no commit was confirmed for %.1f s: sends wait for one", late)
            if self._on_event:
                self._on_event(events.LeaseExpired(late))

    def end(self) -> None:
        """The worker has failed: no lease any more, and no commit of what may be half-changed. From any thread."""
        self._over = True
        self.lease_until = -math.inf

    def forget(self, number: int) -> None:
        """A partition begins or ends: what was committed of it says nothing about the next time."""
        self._last.pop(number, None)

    def soon(self) -> None:
        """Commit now unless a request is in flight: a restored partition waits for its fence."""
        self._requested_at = 0.0
        self.tick()

    def tick(self) -> None:
        """Request a commit of what changed; of something unchanged when the lease wants to be renewed."""
        now = self._clock.monotonic()
        if self._over or self._in_flight is not None or now - self._requested_at < INTERVAL:
            return
        pairs: dict[int, tuple[Committed, Committed]] = {}
        for number, partition in self._partitions.items():
            if not partition.closing and (partition.active or partition.restored):
                pair = partition.snapshot()
                if self._last.get(number) != pair:
                    pairs[number] = pair
        if not pairs and boottime() > self.lease_until - self._session_timeout * 2 / 3:
            for number, partition in self._partitions.items():
                if partition.active and not partition.closing:
                    pairs[number] = partition.snapshot()
                    break
        if pairs:
            self._requested_at = now
            self._in_flight = CommitRequest(pairs, {n: self._partitions[n].epoch for n in pairs})
            self._request(self._in_flight)

    def answered(self, result: CommitResult) -> None:
        """Note a result, and tell the partitions what of theirs is stored."""
        if result.request is self._in_flight:
            self._in_flight = None
        if result.error is not None:
            self.error = result.error
            self._failures.warning(f"a commit failed: {result.error}")
            if self._on_event:
                self._on_event(events.CommitFailed(result.error, result.epoch_ended))
        elif result.confirmed:
            self.error = None
        if not result.confirmed or self._over:
            return
        self.lease_until = max(self.lease_until, result.sent_at + self._session_timeout)
        self._told = False
        now = self._clock.now()
        for number in result.confirmed:
            partition = self._partitions.get(number)
            pair = result.request.pairs[number]
            fence = pair[1].fence
            if partition is None or fence is None or fence.writer != partition.writer:
                continue  # of an assignment that has ended
            self._last[number] = pair
            if not partition.active and self._on_event:
                lag = partition.source_end - partition.source.frontier
                self._on_event(events.PartitionStarted(number, len(partition.pending), lag))
            partition.confirmed(pair[0], now)
