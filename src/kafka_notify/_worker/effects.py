"""The effects of partitions' decisions: sends, copies, payloads, wake-ups. Runs on the event loop."""

from __future__ import annotations

from collections.abc import Callable, Container

from kafka_notify._base import codes
from kafka_notify._decision.context import Context
from kafka_notify._partition.entry import Entry, UserQueue
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.wide import LongWaits, Spill
from kafka_notify._send.sends import Sends
from kafka_notify._worker.wakeups import WakeUps
from kafka_notify.wire import identity


class PartitionEffects:
    """Carries out the decisions of one worker's partitions: `_partition.effects.Effects`.

    Args:
        context: The worker's surroundings.
        sends: The sending half of the worker.
        wakeups: Wakes users' queues.
        long_waits: State of long waits that all partitions share.
    """

    def __init__(self, context: Context, sends: Sends, wakeups: WakeUps, long_waits: LongWaits) -> None:
        self._source = context.source
        self._counts = sends.counts
        self._publisher = sends.publisher
        self._decoder = sends.decoder
        self._ready = sends.ready
        self._loader = sends.loader
        self._long_waits = long_waits
        self.send: Callable[[Entry], None] = sends.add
        """Queue an attempt. The attribute is the method of `Sends` itself, which saves a call."""
        self.wake: Callable[[UserQueue, int], None] = wakeups.wake
        """Look at a user's queue again at an epoch ms. Likewise the method of `WakeUps`."""

    def park(self, entry: Entry) -> None:
        """Copy a source entry behind an earlier one of its user."""
        self._counts.parked += 1
        self._publisher.park(entry, will_be_sent=self._decoder.will_be_sent)

    def load(self, entry: Entry, *, to_copy: bool = False) -> None:
        """Read an evicted payload again: for its send once there is room, or to copy it."""
        self._loader.add(entry, to_copy=to_copy)

    def recall(self, partition: Partition, entries: Container[Entry]) -> list[Entry]:
        """Take attempts that have not begun out of their queues."""
        return [*self._ready.recall(partition, entries), *self._loader.recall(partition, entries)]

    def dead_letter(self, entry: Entry) -> None:
        """Dead-letter a retry record that cannot be read."""
        self._counts.dead += 1
        self._publisher.dead_letter(entry, "undecodable", code=codes.BAD_RETRY_HEADERS)

    def spill(self, partition: Partition, written: Spill) -> None:
        """Write a record that says which offsets of a retry partition are finished."""
        self._publisher.spill(partition, written, self._long_waits)

    def identity(self, entry: Entry) -> tuple[str, int]:
        """Id and creation time (epoch ms) of an entry that has no retry record."""
        number, origin = entry.partition.number, entry.origin
        return identity(entry.headers, self._source, number, origin, entry.timestamp)
