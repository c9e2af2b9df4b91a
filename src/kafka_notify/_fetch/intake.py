"""What was read goes into its partition, and each partition gets its share of the room.

A producer's batches hold thousands of records of one partition, and a poll hands them over together. Let in as
they come, the records of two or three partitions, or of one busy user, would fill the memory while hundreds of
other users had nothing to send. So beyond its share a partition's records wait here; when many wait, the partition
is paused, and when too much is in memory altogether, so is all reading.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError, Message

from kafka_notify._clock import Clock
from kafka_notify._fetch.loop import BATCH
from kafka_notify._fetch.offsets import OffsetRewound
from kafka_notify._headers import headers_of
from kafka_notify._lanes.entry import record_size
from kafka_notify._lanes.partition import Partition, PayloadBudget, TopicRecreated
from kafka_notify._pause import Paused
from kafka_notify.policy import Ordering
from kafka_notify.wire import Headers, channel_of, identity, read_retry

MAX_HELD: Final = 200_000
"""Waiting retries per worker; beyond that the source is not read."""
BUFFER_BYTES: Final = 256 * 2**20
"""Bytes of source records in memory beyond which reading stops."""
MAX_UNREAD: Final = 40_000
"""Records that wait for their partition's share beyond which reading stops."""
PAUSE_AT: Final = 4_000
"""Records of one partition that wait when it is paused at the latest. A pause throws away what librdkafka had
prefetched, so not for a few."""
FLOOR: Final = 2
"""A partition that has less than its even share of a budget, divided by this, is read whatever the others have."""
TURNOVER: Final = 10_000
"""Records that librdkafka's one queue for all partitions may hold: once so many were polled, or a poll came back short,
what lay in it for others is here."""
PATIENCE: Final = 0.3
"""Seconds that polls may be held without that before the partitions that are to blame are paused instead: a hold keeps
what was prefetched, and is harmless as long as the queue moves on."""
KEEP: Final = 8
"""Notifications of one user that stay in memory when he keeps others out; the rest are parked."""
MAX_CROWD: Final = 50_000
"""Waiting retries of a partition beyond which nobody's are parked for others: then all wait for the busy user."""
PARK: Final = 500
"""Records that one look parks for others at most."""
CHUNK: Final = 250
"""Waiting records taken in at once: the loop must go on breathing."""

SAMPLE: Final = 16
"""One record in so many is measured, for all of them: reading the headers is a tenth of all work, and a dozen
objects a record that would lie in memory until it is sent."""

Unread = tuple[Message, Headers | None, int]
"""A record that waits, or an end of partition, with its headers if they were read, and its size in bytes."""


def _unasked() -> tuple[str, int]:
    raise AssertionError("an identity is asked for only where copies wait")


class Waiting(deque[Unread]):
    """What was read of a partition and waits for its share."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0


class Reading(Protocol):
    """The fetch thread, as the loop sees it: ints and references, atomic under the GIL."""

    taken: int
    hold: bool
    wanted: frozenset[int]

    def open_gate(self) -> None:
        """Wake it if it waits for room."""


class Intake:
    """Takes batches of records apart, and says what is to be read on. Runs on the event loop.

    Args:
        partitions: The engine's, by number.
        budget: What all of them hold in memory.
        reading: The fetch thread.
        concurrency: Sends under way at most.
        source: Name of the source topic.
        channels: What the consumer sends; empty is everything.
        ordering: Whose order is kept.
        paused: When it is everything, nothing is read.
        clock: Epoch milliseconds, and monotonic seconds.
        facts: Id, creation, expiry and collapse key of the notification in a retry record: (headers, partition,
            origin, timestamp).
        passed_over: Called for each record that another consumer sends.
        halt: Stops a partition, loudly.
        kafka_error: Takes what librdkafka reports among the records.
        kick: Called after records were taken in.
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
        kafka_error: Callable[[KafkaError], object],
        kick: Callable[[], object],
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
        self._kick = kick
        # 8 x: among 2 x as many as may be sent at once too few are of different users (measured)
        self._high = min(max(8 * concurrency, 4_000), 40_000)
        self._low = self._high // 2
        self._share = self._high
        """Records in memory above which a partition takes in no more, once `_low` are there in all."""
        self._unread: dict[int, Waiting] = {}
        self._heavy: frozenset[int] = frozenset()
        """Partitions that have so much in memory that they are not read."""
        self._mark = (0, 0.0)
        """When, and at which count of records, librdkafka's queue was last known to have been turned over."""

    @property
    def buffered(self) -> int:
        """Source records in memory that are not finished and have no copy yet."""
        return self._budget.open + self._waiting

    @property
    def _waiting(self) -> int:
        return sum(map(len, tuple(self._unread.values())))

    # -- records in -----------------------------------------------------------------------------------

    def feed(self, batch: list[Message]) -> None:
        """Take in what there is room for; the rest waits."""
        self._reading.taken += len(batch)
        if len(batch) < BATCH or self._reading.taken - self._mark[0] >= TURNOVER:
            self._mark = self._reading.taken, self._clock.monotonic()
        now = self._clock.now()
        self._divide()
        partitions, source, unread, budget = self._partitions, self._source, self._unread, self._budget
        low, share, take = self._low, self._share, self._take
        for full in [n for n, p in partitions.items() if not p.has_window]:
            unread.setdefault(full, Waiting())
        mean = sum(map(len, batch)) // len(batch) if batch else 0
        size = mean
        for index, message in enumerate(batch):
            number: Any = message.partition()
            partition = partitions.get(number)
            if partition is None:
                if (error := message.error()) is not None:
                    self._take_error(None, message, error)
                continue  # handed over, or halted
            headers = None
            if index % SAMPLE == 0 or self._reads_headers:
                headers = headers_of(message)
                size = mean + record_size(message.key(), None, headers)
            if message.topic() != source or (
                number not in unread and (budget.open < low or partition.open < share)
            ):
                take(partition, message, headers, size, now)
            else:
                waiting = unread.get(number)
                if waiting is None:
                    waiting = unread[number] = Waiting()
                waiting.append((message, headers, size))
                waiting.bytes += size
        self._let_in(now)
        self._check_room()
        self._reading.open_gate()

    def _take(
        self, partition: Partition, message: Message, headers: Headers | None, size: int, now: int
    ) -> None:
        if (error := message.error()) is not None:
            self._take_error(partition, message, error)
            return
        offset: Any = message.offset()
        lane_key: Any = message.key()
        try:
            if message.topic() != self._source:
                if not partition.reads_own(offset):
                    self._take_retry(
                        partition, offset, message, headers_of(message) if headers is None else headers, now
                    )
                return
            if self._reads_headers:
                channel = channel_of(headers)
                if self._channels and channel is not None and channel not in self._channels:
                    partition.pass_over(offset)
                    self._passed_over()
                    return
                lane_key = self._lane_key(lane_key, headers, offset)
            partition.on_source(
                offset,
                lane_key,
                message,
                headers,
                size,
                functools.partial(self._identity, message, headers) if partition.pending else _unasked,
                now,
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
        origin = -1 if state is None else state.origin
        partition.on_retry(
            offset,
            self._lane_key(message.key(), headers, origin),
            state,
            message,
            headers,
            lambda: self._facts(headers, partition.number, origin, message.timestamp()[1]),
            now,
        )

    def _lane_key(self, key: bytes | None, headers: Headers | None, origin: int) -> Hashable:
        if self._ordering is Ordering.USER:
            return key
        return (key, channel_of(headers)) if self._ordering is Ordering.USER_CHANNEL else origin

    def _take_error(self, partition: Partition | None, message: Message, error: KafkaError) -> None:
        offset = message.offset()
        if error.code() != KafkaError._PARTITION_EOF:
            self._kafka_error(error)
        elif partition is None or offset is None:
            return
        elif message.topic() == self._source:
            partition.on_source_end(offset)
        else:
            partition.on_retry_end(offset)

    # -- the room of each partition -------------------------------------------------------------------

    def on_room(self, partition: Partition) -> None:
        """A source record of `partition` was finished: others may have waited for that."""
        if partition.number in self._unread and partition.open <= self._share - min(CHUNK, self._share // 2):
            self._let_in_one(partition.number, self._clock.now())
            self._kick()
            if self._reading.hold:
                self._check_room()

    def look(self, *, idle: bool) -> None:
        """Take in what waited, and see how much is to be read on: with every tick.

        Args:
            idle: Whether more could be sent than there is to send: then a busy user must not keep others out.
        """
        if idle:
            for number, unread in self._unread.items():
                self._make_room(self._partitions.get(number), unread)
        self._divide()
        self._let_in(self._clock.now())
        self._check_room()
        self.publish_wanted()

    def _make_room(self, partition: Partition | None, unread: Waiting) -> None:
        """Park what a user has too much of, when users who have nothing in memory wait behind it."""
        if (
            partition is None
            or not partition.crowds
            or (partition.has_window and partition.open < self._share - min(CHUNK, self._share // 2))
            or len(partition.pending) >= MAX_CROWD
        ):
            return
        partition.park_crowds(KEEP, PARK)

    def _divide(self) -> None:
        busy = sum(partition.open > 0 or not partition.at_end for partition in self._partitions.values())
        self._share = self._high // max(busy, 1)

    def _let_in(self, now: int) -> None:
        for number in tuple(self._unread):
            self._let_in_one(number, now)

    def _let_in_one(self, number: int, now: int) -> None:
        partition = self._partitions.get(number)
        if partition is None:
            self.forget(number)
            return
        unread, budget = self._unread[number], self._budget
        for _ in range(CHUNK):
            if not unread:
                break
            if not partition.alive or not (
                partition.must_read
                or (partition.has_window and (partition.open < self._share or budget.open < self._low))
            ):
                break
            message, headers, size = unread.popleft()
            unread.bytes -= size
            self._take(partition, message, headers, size, now)
        if not unread:
            self._unread.pop(number, None)

    def forget(self, number: int) -> None:
        """A partition is not ours any more: its next owner reads again what waited."""
        self._unread.pop(number, None)

    # -- back-pressure --------------------------------------------------------------------------------

    def _check_room(self) -> None:
        """Which partitions have so much in memory that they are not read; a short hold of all polls first."""
        reading, unread, heavy = self._reading, self._unread, self._heavy
        light = sum(len(w) for n, w in unread.items() if n not in heavy)
        full = light >= self._low or self._is_large(heavy)
        moves = self._clock.monotonic() - self._mark[1] < PATIENCE
        heavier = self._heavier(heavy if moves and full else None)
        hold = full and moves
        if heavier != heavy:
            self._heavy = heavier
            self.publish_wanted()
        if hold != reading.hold:
            reading.hold = hold
            if not hold:
                reading.open_gate()

    def _is_large(self, heavy: frozenset[int]) -> bool:
        parts, unread = self._partitions, self._unread
        return (
            sum(p.open_bytes for n, p in parts.items() if n not in heavy)
            + sum(w.bytes for n, w in unread.items() if n not in heavy)
            >= BUFFER_BYTES // 2
        )

    def _heavier(self, only: frozenset[int] | None) -> frozenset[int]:
        """Partitions that are not to be read: of `only` those that still have too much, or any that have."""
        partitions, unread = self._partitions, self._unread
        owned = max(len(partitions), 1)
        records_at, bytes_at = min(MAX_UNREAD // (FLOOR * owned), PAUSE_AT), BUFFER_BYTES // (FLOOR * owned)
        found: list[int] = []
        for number in partitions if only is None else only:
            if (partition := partitions.get(number)) is None:
                continue
            size, waiting = partition.open_bytes, 0
            if (records := unread.get(number)) is not None:
                size, waiting = size + records.bytes, len(records)
            if number in self._heavy:  # a quarter of the records, half of the bytes, before it is read on
                if waiting > records_at // 4 or size >= bytes_at // 2:
                    found.append(number)
            elif waiting >= records_at or size >= bytes_at:
                found.append(number)
        return frozenset(found)

    def publish_wanted(self) -> None:
        """Say which source partitions are to be read now."""
        partitions = self._partitions
        held = sum(len(p.pending) for p in partitions.values())
        few = MAX_HELD // (FLOOR * max(len(partitions), 1)) if held >= MAX_HELD else MAX_HELD
        room = not self._paused.whole
        heavy = self._heavy
        self._reading.wanted = frozenset(
            n
            for n, p in partitions.items()
            if p.active
            and not p.closing
            and p.wants_source(room=room and n not in heavy and len(p.pending) < few)
        )
