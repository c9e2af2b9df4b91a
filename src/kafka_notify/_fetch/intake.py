"""Intake of records into their partitions, with a share of the memory for each partition.

A producer's batches hold thousands of records of one partition, and a poll hands them over together. Let in as
they come, the records of two or three partitions would fill the memory while hundreds of other users had nothing to
send. So a partition that has enough to send lets its records wait here; `Backpressure` pauses it if many wait.

A user's notifications behind their first one are let in: they are not ready to be sent, and other users may be behind
them. If they keep others out all the same, because they fill the window of the commit or the memory, they are parked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Message

from kafka_notify._base.turn import InTurns, Turn
from kafka_notify._fetch.backpressure import Backpressure
from kafka_notify._fetch.flow import BATCH, Flow
from kafka_notify._fetch.partition_feed import PartitionFeed
from kafka_notify._fetch.settings import IntakeCallbacks, IntakeSettings
from kafka_notify._fetch.waiting import Waiting
from kafka_notify._partition.budget import PayloadBudget, record_size
from kafka_notify._partition.entry import Assignment
from kafka_notify._partition.partition import Partition
from kafka_notify._wire.headers import headers_of

SCARCE: Final = 16
"""A partition lets in more than its share while less than one in so many of the share is ready to be sent."""
MAX_PARKED: Final = 50_000
"""Waiting retries of a partition beyond which no backlog is parked for others: then all wait for the busy user."""
POLL_BYTES: Final = 8 * 2**20
"""Bytes of one poll, roughly, by the size of the records before it."""
CHUNK: Final = 64
"""Waiting records of a partition let in before the next partition has its turn."""
SAMPLE: Final = 16
"""One record in so many is measured, and stands for all: reading headers is a tenth of all work, and makes a dozen
objects that stay in memory until the record is sent."""


class Intake:
    """Takes batches of records apart, and decides which partitions are read on. Runs on the event loop.

    Args:
        partitions: The worker's partitions, by number.
        budget: Records and bytes that all of them hold in memory.
        flow: The state shared with the fetch thread.
        settings: The settings of intake.
        callbacks: Told of what was read.
    """

    def __init__(
        self,
        partitions: Mapping[int, Partition],
        budget: PayloadBudget,
        flow: Flow,
        settings: IntakeSettings,
        callbacks: IntakeCallbacks,
    ) -> None:
        self._partitions = partitions
        self._budget = budget
        self._flow = flow
        self._source = settings.source
        self._clock = settings.clock
        self._fed = callbacks.fed
        self._into = PartitionFeed(settings, callbacks)
        self._high = settings.records_in_queues
        self._low = self._high // 2
        self._share = self._high
        """Records of a partition in memory from which on it lets in no more, once all together have `_low`."""
        self._scarce = self._share // SCARCE
        """Queued attempts of a partition below which it lets in more than its share."""
        self._unread: dict[int, Waiting] = {}
        self._copies: dict[int, deque[Message]] = {}
        """Records of retry partitions that wait only for the next turn of the loop."""
        self._rest = InTurns(callbacks.soon, self._let_in, settings.clock.monotonic)
        self._pressure = Backpressure(partitions, self._unread, flow, settings)

    @property
    def buffered(self) -> int:
        """Source records in memory that are not finished and have no copy yet."""
        return self._budget.open + sum(map(len, tuple(self._unread.values())))

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the `buffered` records."""
        partitions, unread = tuple(self._partitions.values()), tuple(self._unread.values())
        return sum(p.open_bytes for p in partitions) + sum(waiting.bytes for waiting in unread)

    # -- a batch --------------------------------------------------------------------------------------

    def feed(self, batch: list[Message], total: int | None = None) -> None:
        """Take in the records that there is room and time for; the others wait.

        Args:
            batch: Records and end-of-partition marks, in order.
            total: Bytes of their values, if they were added up already.
        """
        if not batch:
            return
        flow, count = self._flow, len(batch)
        self._pressure.polled(count)
        touched: dict[Partition, bool] = {}
        later, size = self._sort(batch, (sum(map(len, batch)) if total is None else total) // count, touched)
        if self._unread or self._copies:
            self._rest()
        self._pressure.fed(size * count)
        flow.taken += count - later  # a copy counts once it is taken out: what waits here is bounded, too
        flow.batch = min(max(POLL_BYTES // max(size, 1), 1), BATCH)
        self._fed(touched)
        flow.wake()

    def _sort(self, batch: list[Message], mean: int, touched: dict[Partition, bool]) -> tuple[int, int]:
        """Take in the records of a batch, or let them wait.

        Args:
            batch: Records and end-of-partition marks, in order.
            mean: Bytes of their values, on average.
            touched: Filled with the partitions in the batch; True for those whose window has room.

        Returns the number of retry records that wait, and the bytes of the last measured record.
        """
        partitions, source, budget, unread = self._partitions, self._source, self._budget, self._unread
        low, share, scarce, turn = self._low, self._share, self._scarce, Turn(self._clock.monotonic)
        into, now = self._into, self._clock.now()
        take, take_copy, reads_headers = into.source_record, into.retry_record, into.reads_headers
        late = self._rest.pending
        before: Partition | None = None
        waiting: Waiting | None = None
        copies: deque[Message] | None = None
        room = False
        later, size = 0, mean
        for index, message in enumerate(batch):
            number: Any = message.partition()
            partition = partitions.get(number)
            if partition is None:
                if (error := message.error()) is not None:
                    into.error(None, message, error)
                continue  # handed over, or halted
            if partition is not before:
                before = partition
                known = touched.get(partition)
                if known is None:
                    known = touched[partition] = partition.has_window
                room = known
                waiting = unread.get(number) if unread else None
                copies = self._copies.get(number) if self._copies else None
            headers = None
            if reads_headers or not index % SAMPLE:
                headers = headers_of(message)
                size = mean + record_size(message.key(), None, headers)
                late = late or turn.late
            if message.topic() == source:
                if waiting is None:
                    if (
                        room
                        and not late
                        and (budget.open < low or partition.open < share or len(partition.new) < scarce)
                    ):
                        take(partition, message, headers, size, now)
                        continue
                    waiting = unread[number] = Waiting()
                waiting.append((message, headers, size))
                waiting.bytes += size
            elif copies is None and not late:
                take_copy(partition, message, headers, now)
            else:
                if copies is None:
                    copies = self._copies[number] = deque()
                copies.append(message)
                later += 1
        return later, size

    # -- what waited ----------------------------------------------------------------------------------

    def on_room(self, partition: Assignment) -> None:
        """Let in waiting records of `partition`, of which a source record was finished."""
        if (
            partition.number in self._unread
            and (
                partition.open <= self._share - min(CHUNK, self._share // 2)
                or len(partition.new) < self._scarce
            )
            and not self._rest.pending
        ):
            touched = self._partitions[partition.number]
            self._let_in_some(touched.number, self._clock.now())
            self._fed((touched,))
            if self._flow.polling_suspended:
                self._pressure.check()

    def _let_in(self, turn: Turn) -> bool:
        """Let in waiting records, the partitions in turns. Return True if more could be let in."""
        now = self._clock.now()
        touched: dict[Partition, None] = {}
        left = self._let_in_copies(turn, now, touched)
        able = deque(self._unread)
        while able and not left:
            number = able.popleft()
            partition = self._partitions.get(number)
            if partition is None:
                self._unread.pop(number, None)
                continue
            touched[partition] = None
            if self._let_in_some(number, now):
                able.append(number)
            if number in self._unread:  # the next turn begins with another one
                self._unread[number] = self._unread.pop(number)
            left = turn.late
        if touched:
            self._fed(touched)
            self._flow.wake()
        return left

    def _let_in_copies(self, turn: Turn, now: int, touched: dict[Partition, None]) -> bool:
        """Let in waiting retry records. Return True if the turn is over."""
        over = False
        while (copies := next(iter(self._copies.items()), None)) is not None and not over:
            number, records = copies
            partition = self._partitions.get(number)
            if partition is None:
                self.forget(number)
                continue
            touched[partition] = None
            while records and partition.alive and not over:
                message = records.popleft()
                self._flow.taken += 1
                self._into.retry_record(partition, message, None, now)
                over = turn.over()
            if not records:
                self._copies.pop(number, None)  # gone already when the partition was halted
        return over

    def _let_in_some(self, number: int, now: int) -> bool:
        """Let in a few waiting records of a partition. Return True if more could be let in."""
        partition, unread, budget = self._partitions[number], self._unread[number], self._budget
        share, low, scarce, ready = self._share, self._low, self._scarce, partition.new
        take = self._into.source_record
        for _ in range(min(CHUNK, len(unread))):
            room = partition.open < share or budget.open < low or len(ready) < scarce
            if not partition.alive or not partition.wants_source(room=room):
                return False
            message, headers, size = unread.popleft()
            unread.bytes -= size
            take(partition, message, headers, size, now)
        if not unread:
            self._unread.pop(number, None)
        return bool(unread)

    def forget(self, number: int) -> None:
        """Drop the waiting records of a partition that has ended: its next owner reads them again."""
        self._unread.pop(number, None)
        self._flow.taken += len(self._copies.pop(number, ()))

    # -- with every tick ------------------------------------------------------------------------------

    def look(self, *, idle: bool) -> None:
        """Take in waiting records, and decide which partitions are read on. Called with every tick.

        Args:
            idle: True while senders have nothing to send: then a busy user must not keep others out.
        """
        self._divide()
        self._rest()
        self._pressure.set_idle(idle)
        self._pressure.check()
        self._park_backlogs(idle)
        self.publish_wanted()

    def _divide(self) -> None:
        busy = sum(partition.open > 0 or not partition.at_end for partition in self._partitions.values())
        self._share = self._high // max(busy, 1)
        self._scarce = max(self._share // SCARCE, 1)

    def _park_backlogs(self, idle: bool) -> None:
        """Park more of the backlogs that keep other users' records out while senders have nothing to send."""
        allowed, heavy = self._pressure.retries_allowed(), self._pressure.heavy
        for number, partition in self._partitions.items():
            partition.makes_room = (
                idle
                and partition.has_backlog
                # records that wait only for their turn need no room
                and (not partition.has_window if number in self._unread else number in heavy)
                and len(partition.pending) < min(allowed, MAX_PARKED)
            )
            if partition.makes_room:
                partition.park_more(self._clock.now())

    def publish_wanted(self) -> None:
        """Publish the source partitions that are to be read now."""
        self._pressure.publish_wanted()
