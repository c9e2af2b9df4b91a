"""Bugs that the checkers must catch: each breaks the library in this process, as an honest mistake would."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from kafka_notify._fetch import backpressure, partition_feed
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.offsets import OffsetTracker
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._send.ready import Ready
from kafka_notify._settle.publisher import CopyPublisher


def commit_highest_polled() -> None:
    """What was read counts as finished."""
    snapshot = Partition.snapshot

    def hasty(self: Partition) -> tuple[Committed, Committed]:
        return Committed(self.source.position), snapshot(self)[1]

    Partition.snapshot = hasty  # type: ignore[method-assign]


def complete_before_acknowledgement() -> None:
    """A record is finished as soon as its copy is on its way."""
    copy: Any = CopyPublisher._copy

    def hasty(self: CopyPublisher, entry: Any, *args: Any, **kwargs: Any) -> Any:
        if entry.retry is None:
            entry.partition.source.complete(entry.origin)
        return copy(self, entry, *args, **kwargs)

    CopyPublisher._copy = hasty  # type: ignore[method-assign]


def restart_attempts() -> None:
    """A copy that is read again has no attempts behind it."""
    module: Any = partition_feed
    read = module.read_retry

    def forgetful(*args: Any) -> Any:
        state = read(*args)
        if state is None:
            return None
        return attrs.evolve(state, history=attrs.evolve(state.history, attempts=0))

    module.read_retry = forgetful


def trust_zombies() -> None:
    """Every copy below the restore's end counts, whoever wrote it."""
    partition: Any = Partition
    on_retry = partition.on_retry

    def trusting(self: Partition, *args: Any) -> None:
        self.writers.before = None
        on_retry(self, *args)

    partition.on_retry = trusting


def skip_restore() -> None:
    """Copies of earlier assignments are passed over."""
    partition: Any = Partition
    on_retry = partition.on_retry

    def skipping(self: Partition, offset: int, *args: Any) -> None:
        if offset < self.restore_end:
            if self.retry.observe(offset):
                self.retry.complete(offset)
        else:
            on_retry(self, offset, *args)

    partition.on_retry = skipping


def overtake() -> None:
    """Every notification has a queue of its own, so nobody waits for an earlier one."""
    partition_feed.PartitionFeed._order_key = lambda self, key, headers, origin: (key, origin)  # type: ignore[method-assign]
    partition: Any = Partition
    on_source = partition.on_source

    def alone(self: Partition, offset: int, lane_key: Any, *args: Any) -> None:
        on_source(self, offset, (lane_key, offset), *args)

    partition.on_source = alone


def forget_finished() -> None:
    """The gap bitmap is not written, and the frontier stays behind."""
    snapshot = OffsetTracker.snapshot

    def lazy(self: OffsetTracker) -> Committed:
        return Committed(max(snapshot(self).frontier - 20, 0))

    OffsetTracker.snapshot = lazy  # type: ignore[method-assign]


def stop_reading_for_all() -> None:
    """All partitions share one room: once it is full, none is read until it is nearly empty."""
    publish = backpressure.Backpressure.publish_wanted
    full = False

    def selfish(self: backpressure.Backpressure) -> None:
        nonlocal full
        publish(self)
        full = sum(p.open + len(p.pending) for p in self._partitions.values()) > (100 if full else 1_000)
        if full:
            self._flow.wanted = frozenset()

    backpressure.Backpressure.publish_wanted = selfish  # type: ignore[method-assign]


def keep_every_payload() -> None:
    """The payloads of waiting retries stay in memory whether they fit or not."""

    def generous(self: PayloadBudget, retry: RetryRecord, size: int) -> bool:
        retry.bytes = retry.size = size
        self.used += size
        return True

    PayloadBudget.keep = generous  # type: ignore[method-assign]


def keep_what_was_given_away() -> None:
    """Something still refers to the notifications of a partition after it was handed over."""
    close, kept = Partition.close, list[Any]()

    def forgetful(self: Partition) -> None:
        kept.append([entry.record for entry in self.pending.values()])
        close(self)

    Partition.close = forgetful  # type: ignore[method-assign, assignment]


def count_known_failures() -> None:
    """Every failure is evidence of an outage, whoever failed before and whatever else is accepted, and what failed
    before is the probe."""
    circuit: Any = importlib.import_module("kafka_notify._decision.circuit").Circuit
    ready: Any = Ready
    failed, accepted, pop = circuit.failed, circuit.accepted, ready.pop

    def alarmed(self: Any, sent: Any, *args: Any, **kwargs: Any) -> Any:
        self.failing.clear()
        return failed(self, sent._replace(tried=False, attempts=0), *args, **kwargs)

    def unmoved(self: Any, *args: Any, **kwargs: Any) -> Any:
        score = self.score
        disbelieved = accepted(self, *args, **kwargs)
        if not self.held:
            self.score = score
        return disbelieved

    def known_first(self: Any, *, probe: bool = False) -> Any:
        if not probe or not self.failed:
            return pop(self, probe=probe)
        new, due = self.new, self.due
        self.new = self.due = deque()
        try:
            return pop(self, probe=True)
        finally:
            self.new, self.due = new, due

    circuit.failed, circuit.accepted, ready.pop = alarmed, unmoved, known_first


def keep_queued_what_was_given_away() -> None:
    """The queue of attempts keeps what is queued of a partition that was handed over: until its turn, which does not
    come while the lane is held."""
    Ready.drop = lambda self, partition: None  # type: ignore[method-assign]


def never_release_a_destination() -> None:
    """A destination that is held learns nothing from accepted sends, so that it is held for good."""
    destinations: Any = importlib.import_module("kafka_notify._decision.destinations").Destinations
    destinations.accepted = lambda self, of, *args, **kwargs: False


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        commit_highest_polled,
        complete_before_acknowledgement,
        restart_attempts,
        trust_zombies,
        skip_restore,
        overtake,
        forget_finished,
        stop_reading_for_all,
        keep_every_payload,
        keep_what_was_given_away,
        keep_queued_what_was_given_away,
        never_release_a_destination,
        count_known_failures,
    )
}
