"""The schedule of commits, their answers, and the lease that confirmed commits give. Runs on the event loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Final

from kafka_notify import events
from kafka_notify._base.clock import Clock
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._fetch.exchange import CommitRequest, CommitResult
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.partition import Partition

log = logging.getLogger("kafka_notify.fetch")

INTERVAL: Final = 0.1
"""Seconds between commits: bounds how much is sent again after a crash."""


class Commits:
    """Requests commits of the partitions that changed, every 100 ms, with at most one request in flight.

    The lease: when no commit was confirmed for a session timeout, the group may have given our partitions to
    another worker without our noticing. So no send starts until a commit is confirmed.

    Args:
        partitions: The worker's partitions, by number.
        clock: Epoch milliseconds, and monotonic seconds.
        request: Hands a request to the fetch thread.
        session_timeout: Seconds that a confirmed commit is good for.
        on_event: Told of each event, never raises; None when nobody listens.
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
        """Seconds after a confirmed commit during which the group certainly leaves our partitions to us."""
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
        """Error of the last commit; None when it succeeded."""

    def learn_lease(self, seconds: float) -> None:
        """Set how many seconds a confirmed commit is good for, as the brokers say. Call it before the first commit."""
        self._session_timeout = seconds

    def late(self) -> float:
        """Seconds since the last confirmed commit if the lease has run out, else 0."""
        if self._over:
            return 0.0
        over = self._clock.boottime() - self.lease_until
        return over + self._session_timeout if self._partitions and self.lease_until and over > 0 else 0.0

    def tell_lease(self) -> None:
        """Say once that the lease has run out; called when a send waits for it."""
        late = self.late()
        if late and not self._told:
            self._told = True
            log.error("no commit was confirmed for %.1f s: sends wait for one", late)
            if self._on_event:
                self._on_event(events.LeaseExpired(late))

    def end(self) -> None:
        """End the lease and all commits: the worker has failed, and state may be half-changed. From any thread."""
        self._over = True
        self.lease_until = -math.inf

    def forget(self, number: int) -> None:
        """Forget the last commit of a partition that starts or ends: the next assignment commits in any case."""
        self._last.pop(number, None)

    def soon(self) -> None:
        """Commit now unless a request is in flight: a restored partition waits for its fence."""
        self._requested_at = 0.0
        self.tick()

    def tick(self) -> None:
        """Request a commit of the partitions that changed, or of an unchanged one when the lease is due for renewal."""
        now = self._clock.monotonic()
        if self._over or self._in_flight is not None or now - self._requested_at < INTERVAL:
            return
        pairs: dict[int, tuple[Committed, Committed]] = {}
        for number, partition in self._partitions.items():
            if not partition.closing and (partition.active or partition.restored):
                pair = partition.snapshot()
                if self._last.get(number) != pair:
                    pairs[number] = pair
        if not pairs and self._clock.boottime() > self.lease_until - self._session_timeout * 2 / 3:
            for number, partition in self._partitions.items():
                if partition.active and not partition.closing:
                    pairs[number] = partition.snapshot()
                    break
        if pairs:
            self._requested_at = now
            self._in_flight = CommitRequest(pairs, {n: self._partitions[n].epoch for n in pairs})
            self._request(self._in_flight)

    def answered(self, result: CommitResult) -> None:
        """Take in a result, and tell the partitions which of their commits are stored."""
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
                continue  # the commit of an assignment that has ended
            self._last[number] = pair
            if not partition.active and self._on_event:
                lag = partition.source_end - partition.source.frontier
                self._on_event(events.PartitionStarted(number, len(partition.pending), lag))
            partition.confirmed(pair[0], now)
