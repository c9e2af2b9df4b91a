"""Intake of records into their partitions, with a share of the memory for each partition.

A producer's batches hold thousands of records of one partition, and a poll hands them over together. Let in as
they come, the records of two or three partitions would fill the memory while hundreds of other users had nothing to
send. So a partition that has enough to send lets its records wait here. A partition that has much in memory is paused,
it alone: one that has little is always read, whatever the others have.

A user's notifications behind their first one are let in: they are not ready to be sent, and other users may be behind
them. If they keep others out all the same, because they fill the window of the commit or the memory, they are parked.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError, Message

from kafka_notify._base.clock import Clock
from kafka_notify._base.turn import InTurns, Turn
from kafka_notify._fetch.loop import BATCH
from kafka_notify._partition.budget import PayloadBudget, record_size
from kafka_notify._partition.entry import Assignment
from kafka_notify._partition.offsets import OffsetRewound, TopicRecreated
from kafka_notify._partition.partition import Partition
from kafka_notify._wire.headers import headers_of
from kafka_notify._wire.pause import Paused
from kafka_notify.policy import Ordering
from kafka_notify.wire import Headers, channel_of, identity, read_retry

MAX_HELD: Final = 200_000
"""Waiting retries per worker; beyond that the source is not read."""
BUFFER_BYTES: Final = 256 * 2**20
"""Bytes of source records in memory beyond which reading stops."""
MAX_RECORDS: Final = 64_000
"""Source records in memory per worker: as they came from the broker, or in users' queues."""
USUAL_RECORDS: Final = 32_000
"""The same while all senders are busy, or 32 for each sender if that is more: records that are read further ahead have
left the processor's caches when they are sent. Free senders may have to look past a busy user's."""
SCARCE: Final = 16
"""A partition lets in more than its share while less than one in so many of the share is ready to be sent."""
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
"""The same while all senders are busy: none could send more. From 10,000 sends a second on nothing is paused."""
MAX_PARKED: Final = 50_000
"""Waiting retries of a partition beyond which no backlog is parked for others: then all wait for the busy user."""
POLL_BYTES: Final = 8 * 2**20
"""Bytes of one poll, roughly, by the size of the records before it."""
CHUNK: Final = 64
"""Waiting records of a partition let in before the next partition has its turn."""
CHECK_AFTER: Final = 4 * 2**20
"""Bytes read since the last look at what is in memory before there is another one."""

SAMPLE: Final = 16
"""One record in so many is measured, and stands for all: reading headers is a tenth of all work, and makes a dozen
objects that stay in memory until the record is sent."""

Unread = tuple[Message, Headers | None, int]
"""A waiting record or end-of-partition mark, its headers if they were read, and its size in bytes."""


def _unasked() -> tuple[str, int]:
    raise AssertionError("an identity is asked for only where copies wait")


class Waiting(deque[Unread]):
    """Records of a partition that were read and wait for room in its share."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0


class Reading(Protocol):
    """The fetch thread, as the loop sees it: ints and references, atomic under the GIL."""

    taken: int
    batch: int
    polling_suspended: bool
    wanted: frozenset[int]

    def wake_thread(self) -> None:
        """Wake the thread if it waits for room."""


class Intake:
    """Takes batches of records apart, and decides which partitions are read on. Runs on the event loop.

    Args:
        partitions: The worker's partitions, by number.
        budget: Records and bytes that all of them hold in memory.
        reading: The fetch thread.
        concurrency: Sends under way at most.
        source: Name of the source topic.
        channels: Channels that the consumer sends; empty means all.
        ordering: The consumer's ordering.
        paused: The pauses that apply now: while everything is paused, nothing is read.
        clock: Epoch milliseconds, and monotonic seconds.
        facts: Returns id, creation, expiry and collapse key of the notification in a retry record, given (headers,
            partition, origin, timestamp).
        passed_over: Called for each record that another consumer sends.
        halt: Stops a partition, and says so.
        kafka_error: Takes the errors that librdkafka reports among the records.
        fed: Called after records of these partitions were taken in.
        soon: Calls its argument in the next turn of the event loop.
    """

    def __init__(
        self,
        partitions: Mapping[int, Partition],
        budget: PayloadBudget,
        reading: Reading,
        *,
        concurrency: int,
        source: str,
        channels: frozenset[str],
        ordering: Ordering,
        paused: Paused,
        clock: Clock,
        facts: Callable[[Headers, int, int, int], tuple[str, int, int | None, str]],
        passed_over: Callable[[], object],
        halt: Callable[[Partition, str], object],
        kafka_error: Callable[[KafkaError, str], object],
        fed: Callable[[Iterable[Partition]], object],
        soon: Callable[[Callable[[], object]], object],
    ) -> None:
        self._partitions = partitions
        self._budget = budget
        self._reading = reading
        self._source = source
        self._channels = channels
        self._ordering = ordering
        self._paused = paused
        self._reads_headers = bool(channels) or ordering is not Ordering.USER
        self._clock = clock
        self._facts = facts
        self._passed_over = passed_over
        self._halt = halt
        self._kafka_error = kafka_error
        self._fed = fed
        # 8 x: among 2 x as many as may be sent at once too few belong to different users (measured)
        self._high = min(max(8 * concurrency, 4_000), 40_000)
        self._low = self._high // 2
        self._share = self._high
        """Records of a partition in memory from which on it lets in no more, once all together have `_low`."""
        self._scarce = self._share // SCARCE
        """Queued attempts of a partition below which it lets in more than its share."""
        self._usual = min(max(32 * concurrency, USUAL_RECORDS), MAX_RECORDS)
        self._most, self._patience = MAX_RECORDS, PATIENCE
        """Limit of source records in memory now, `MAX_RECORDS` or `_usual`; seconds that polling may be suspended."""
        self._unread: dict[int, Waiting] = {}
        self._copies: dict[int, deque[Message]] = {}
        """Records of retry partitions that wait only for the next turn of the loop."""
        self._rest = InTurns(soon, self._let_in, clock.monotonic)
        self._unchecked = 0
        """Bytes read since the last look at what is in memory."""
        self._heavy: frozenset[int] = frozenset()
        """Partitions that have so much in memory that they are not read."""
        self._mark = (0, 0.0)
        """Count of polled records, and monotonic seconds, when librdkafka's queue had last surely turned over."""

    @property
    def buffered(self) -> int:
        """Source records in memory that are not finished and have no copy yet."""
        return self._budget.open + self._waiting

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the `buffered` records."""
        partitions, unread = tuple(self._partitions.values()), tuple(self._unread.values())
        return sum(p.open_bytes for p in partitions) + sum(waiting.bytes for waiting in unread)

    @property
    def _waiting(self) -> int:
        return sum(map(len, tuple(self._unread.values())))

    # -- records in -----------------------------------------------------------------------------------

    def feed(self, batch: list[Message], total: int | None = None) -> None:
        """Take in the records that there is room and time for; the others wait.

        Args:
            batch: Records and end-of-partition marks, in order.
            total: Bytes of their values, if they were added up already.
        """
        reading = self._reading
        if not batch:
            return
        polled = reading.taken + len(batch)
        if len(batch) < reading.batch or polled - self._mark[0] >= TURNOVER:
            self._mark = polled, self._clock.monotonic()
        now = self._clock.now()
        partitions, source, budget, unread = self._partitions, self._source, self._budget, self._unread
        low, share, turn = self._low, self._share, Turn(self._clock.monotonic)
        take, take_copy, reads_headers = self._take, self._take_copy, self._reads_headers
        scarce = self._scarce
        late = self._rest.pending
        touched: dict[Partition, bool] = {}
        """The partitions in this batch; True for those whose window has room."""
        before: Partition | None = None
        waiting: Waiting | None = None
        copies: deque[Message] | None = None
        room = False
        later = 0
        mean = (sum(map(len, batch)) if total is None else total) // len(batch)
        size = mean
        for index, message in enumerate(batch):
            number: Any = message.partition()
            partition = partitions.get(number)
            if partition is None:
                if (error := message.error()) is not None:
                    self._take_error(None, message, error)
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
        if self._unread or self._copies:
            self._rest()
        self._unchecked += size * len(batch)
        if self._unread or self._heavy or reading.polling_suspended or self._unchecked >= CHECK_AFTER:
            self._check_room()
        reading.taken += (
            len(batch) - later
        )  # a copy counts once it is taken out: what waits here is bounded, too
        reading.batch = min(max(POLL_BYTES // max(size, 1), 1), BATCH)
        self._fed(touched)
        reading.wake_thread()

    def _take(
        self, partition: Partition, message: Message, headers: Headers | None, size: int, now: int
    ) -> None:
        """Take in a source record, or the end of the source."""
        if (error := message.error()) is not None:
            self._take_error(partition, message, error)
            return
        offset: Any = message.offset()
        order_key: Any = message.key()
        try:
            if self._reads_headers:
                channel = channel_of(headers)
                if self._channels and channel is not None and channel not in self._channels:
                    partition.pass_over(offset)
                    self._passed_over()
                    return
                order_key = self._order_key(order_key, headers, offset)
            partition.on_source(
                offset,
                order_key,
                message,
                headers,
                size,
                functools.partial(self._identity, message, headers) if partition.pending else _unasked,
                now,
            )
        except (OffsetRewound, TopicRecreated) as e:
            self._halt(partition, f"{message.topic()} was re-created or truncated: {e}")

    def _take_copy(self, partition: Partition, message: Message, headers: Headers | None, now: int) -> None:
        """Take in a record of the retry topic, or its end."""
        if (error := message.error()) is not None:
            self._take_error(partition, message, error)
            return
        offset: Any = message.offset()
        try:
            if not partition.reads_own(offset):
                self._take_retry(
                    partition, offset, message, headers_of(message) if headers is None else headers, now
                )
        except (OffsetRewound, TopicRecreated) as e:
            self._halt(partition, f"{message.topic()} was re-created or truncated: {e}")

    def _identity(self, message: Message, headers: Headers | None) -> tuple[str, int]:
        number: Any = message.partition()
        offset: Any = message.offset()
        if headers is None:
            headers = headers_of(message)
        return identity(headers, self._source, number, offset, message.timestamp()[1])

    def _take_retry(
        self, partition: Partition, offset: int, message: Message, headers: Headers, now: int
    ) -> None:
        state = read_retry(headers, self._source, partition.number)
        if state is not None and state.is_spill:
            partition.on_spill(offset)
            return
        origin = -1 if state is None else state.origin.offset
        partition.on_retry(
            offset,
            self._order_key(message.key(), headers, origin),
            state,
            message,
            headers,
            lambda: self._facts(headers, partition.number, origin, message.timestamp()[1]),
            now,
        )

    def _order_key(self, key: bytes | None, headers: Headers | None, origin: int) -> Hashable:
        if self._ordering is Ordering.USER:
            return key
        return (key, channel_of(headers)) if self._ordering is Ordering.USER_CHANNEL else origin

    def _take_error(self, partition: Partition | None, message: Message, error: KafkaError) -> None:
        offset = message.offset()
        if error.code() != KafkaError._PARTITION_EOF:
            self._kafka_error(error, message.topic() or "")
        elif partition is None or offset is None:
            return
        elif message.topic() == self._source:
            partition.on_source_end(offset)
        else:
            partition.on_retry_end(offset)

    # -- the room of each partition -------------------------------------------------------------------

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
            if self._reading.polling_suspended:
                self._check_room()

    def look(self, *, idle: bool) -> None:
        """Take in waiting records, and decide which partitions are read on. Called with every tick.

        Args:
            idle: True while senders have nothing to send: then a busy user must not keep others out.
        """
        self._divide()
        self._rest()
        self._most, self._patience = (MAX_RECORDS, PATIENCE) if idle else (self._usual, BUSY_PATIENCE)
        self._check_room()
        few = self._few()
        for number, partition in self._partitions.items():
            partition.makes_room = (
                idle
                and partition.has_backlog
                # records that wait only for their turn need no room
                and (not partition.has_window if number in self._unread else number in self._heavy)
                and len(partition.pending) < min(few, MAX_PARKED)
            )
            if partition.makes_room:
                partition.park_more(self._clock.now())
        self.publish_wanted()

    def _divide(self) -> None:
        busy = sum(partition.open > 0 or not partition.at_end for partition in self._partitions.values())
        self._share = self._high // max(busy, 1)
        self._scarce = max(self._share // SCARCE, 1)

    def _let_in(self, turn: Turn) -> bool:
        """Let in waiting records, the partitions in turns. Return True if more could be let in."""
        now = self._clock.now()
        touched: dict[Partition, None] = {}
        left = False
        while (copies := next(iter(self._copies.items()), None)) is not None and not left:
            number, records = copies
            partition = self._partitions.get(number)
            if partition is None:
                self.forget(number)
                continue
            touched[partition] = None
            while records and partition.alive and not left:
                message = records.popleft()
                self._reading.taken += 1
                self._take_copy(partition, message, None, now)
                left = turn.over()
            if not records:
                self._copies.pop(number, None)  # gone already when the partition was halted
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
            self._reading.wake_thread()
        return left

    def _let_in_some(self, number: int, now: int) -> bool:
        """Let in a few waiting records of a partition. Return True if more could be let in."""
        partition, unread, budget = self._partitions[number], self._unread[number], self._budget
        share, low, scarce, ready = self._share, self._low, self._scarce, partition.new
        for _ in range(min(CHUNK, len(unread))):
            room = partition.open < share or budget.open < low or len(ready) < scarce
            if not partition.alive or not partition.wants_source(room=room):
                return False
            message, headers, size = unread.popleft()
            unread.bytes -= size
            self._take(partition, message, headers, size, now)
        if not unread:
            self._unread.pop(number, None)
        return bool(unread)

    def forget(self, number: int) -> None:
        """Drop the waiting records of a partition that has ended: its next owner reads them again."""
        self._unread.pop(number, None)
        self._reading.taken += len(self._copies.pop(number, ()))

    # -- back-pressure --------------------------------------------------------------------------------

    def _check_room(self) -> None:
        """Decide which partitions hold too much to be read on; suspend all polling for a short time before that."""
        reading, unread, heavy = self._reading, self._unread, self._heavy
        self._unchecked = 0
        light = sum(len(w) for n, w in unread.items() if n not in heavy)
        full = light >= self._low or self._is_large(heavy)
        moves = self._clock.monotonic() - self._mark[1] < self._patience
        heavier = self._heavier(heavy if moves and full else None)
        suspended = full and moves
        if heavier != heavy:
            self._heavy = heavier
            self.publish_wanted()
        if suspended != reading.polling_suspended:
            reading.polling_suspended = suspended
            if not suspended:
                reading.wake_thread()

    def _is_large(self, heavy: frozenset[int]) -> bool:
        parts, unread = self._partitions, self._unread
        return (
            sum(p.open_bytes for n, p in parts.items() if n not in heavy)
            + sum(w.bytes for n, w in unread.items() if n not in heavy)
            >= BUFFER_BYTES // 2
        )

    def _heavier(self, only: frozenset[int] | None) -> frozenset[int]:
        """Partitions that hold too much to be read; with `only`, none but those of it that still do."""
        partitions, unread, before = self._partitions, self._unread, self._heavy
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

    def _few(self) -> int:
        """Waiting retries of a partition from which on it is not read."""
        held = sum(len(p.pending) for p in self._partitions.values())
        return MAX_HELD // (FLOOR * max(len(self._partitions), 1)) if held >= MAX_HELD else MAX_HELD

    def publish_wanted(self) -> None:
        """Publish the source partitions that are to be read now. One whose commit window is full is read on until it
        holds too much, as a pause discards the prefetch: `Partition.wants_source` keeps its records waiting."""
        few, heavy, whole = self._few(), self._heavy, self._paused.whole
        self._reading.wanted = frozenset(
            n
            for n, p in self._partitions.items()
            if p.active
            and not p.closing
            and (p.must_read or (not whole and n not in heavy and len(p.pending) < few))
        )


def _most(budget: int, used: list[int]) -> int:
    """The part of a budget that one partition may use: its even part of the divided half, and half of what is left of
    the rest."""
    even = budget // (FLOOR * max(len(used), 1))
    free = budget - budget // FLOOR - sum(n - even for n in used if n > even)
    return even + max(free, 0) // 2
