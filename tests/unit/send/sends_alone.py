"""A worker's sends without Kafka: the real `Sends`, partition, attempts, threads and copies on a test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Container, Mapping
from typing import Any, cast

from kafka_notify import Category, Consumer, Notification, RetryPolicy
from kafka_notify._base.clock import Clock
from kafka_notify._decision.context import Context
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.entry import Assignment, Entry, UserQueue
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.wide import Spill
from kafka_notify._send.sends import Host, MakePace, Sender, Sends
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._wire.pause import Paused
from kafka_notify.codec import Codec, JsonCodec
from kafka_notify.events import Event
from kafka_notify.outcome import Middleware
from kafka_notify.wire import Headers, encode

CATEGORIES: Mapping[str, Category[Any]] = {"otp": Category("otp", "l")}


class Record:
    """A record as the broker gives it."""

    def __init__(self, key: bytes | None, value: bytes | None, headers: Headers, timestamp: int = 1) -> None:
        self._parts = key, value, headers, timestamp

    def key(self) -> bytes | None:
        return self._parts[0]

    def value(self) -> bytes | None:
        return self._parts[1]

    def headers(self) -> Headers:
        return self._parts[2]

    def timestamp(self) -> tuple[int, int]:
        return 1, self._parts[3]


class Acknowledged:
    """A delivery report."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset


class Alone:
    """One partition's work on the running loop; the lease never ends, copies are acknowledged at once, or never while
    `acknowledges` is false.

    Args:
        consumer: The team's.
        middleware: Outermost first.
        send_timeout: Seconds.
        max_attempts: Of the retry policy, whose delays are short.
        pace: Makes the rate limit.
    """

    def __init__(
        self,
        consumer: Consumer,
        middleware: tuple[Middleware, ...] = (),
        *,
        send_timeout: float = 30.0,
        max_attempts: int = 3,
        codec: Codec | None = None,
        pace: MakePace = lambda clock, kick: None,
    ) -> None:
        self.lease_until = float("inf")
        self.acknowledges = True
        self._unacknowledged: list[Any] = []
        self._end = 0
        """Of the topics, as one."""
        self.written: list[tuple[str, Headers]] = []
        self.failed: list[BaseException] = []
        self.handled: list[BaseException | None] = []
        """The exception that was being handled at each write, which a client that refuses it would keep for ever."""
        self.room: list[Assignment] = []
        """Of each source record that made room for others."""
        self.events: list[Event] = []
        self.loop = asyncio.get_running_loop()
        self.clock = Clock()
        self.consumer = consumer
        self._tasks: set[asyncio.Future[Any]] = set()
        self.context = Context(
            loop=self.loop,
            clock=self.clock,
            source="source",
            retry_topic="retry",
            dead_letter_topic="dlq",
            group="group",
            categories=CATEGORIES,
            codec=codec or JsonCodec(),
            retry=RetryPolicy(max_attempts, initial_delay=0.01, multiplier=1, jitter=0),
            send_timeout=send_timeout,
            concurrency=consumer.concurrency,
            unknown=consumer.unknown_outcome,
            on_event=self.events.append,
        )
        handle = cast(Any, self)
        self.sends = Sends(
            self.context,
            Sender(consumer, middleware, 1, pace),
            CopyWriter(handle, self.loop, None, reopen=lambda: handle),
            Host(
                lease=self,
                paused=Paused("l", "", frozenset()),
                budget=PayloadBudget(10**6),
                load=lambda load: None,
                spawn=lambda coroutine: self._tasks.add(asyncio.ensure_future(coroutine)),
                on_room=self.room.append,
                fail=self.failed.append,
            ),
        )
        self.threads = self.sends.threads
        self.send = self.sends.add
        self.partition = self.assign()
        self.position = 0

    def assign(self) -> Partition:
        """A new assignment of the partition."""
        none = Committed(0)
        self.partition = Partition(
            Epoch(0, "w"), Half(none), Half(none), effects=self, budget=PayloadBudget(10**6)
        )
        self.position = 0
        self.sends.slots.keep_blocked(self.partition)
        self.partition.confirmed(none, self.clock.now())
        return self.partition

    def lose(self) -> None:
        """The partition is given away."""
        self.partition.close()
        self.sends.slots.cancel(lambda p: not p.alive)

    def put(self, notification: Notification[Any]) -> None:
        """Read it from the source."""
        self.put_record(Record(*encode(notification, JsonCodec(), "source", None)))

    def put_record(self, record: Record) -> None:
        """Read a record from the source."""
        offset, self.position = self.position, self.position + 1
        self.partition.on_source(offset, record.key(), record, None, 100, lambda: ("", 0), self.clock.now())
        self.sends.kick()

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Turn the worker's clockwork until a condition holds."""
        deadline = self.clock.monotonic() + seconds
        while not condition():
            assert self.clock.monotonic() < deadline, (self.sends.counts, self.failed)
            self.turn()
            await asyncio.sleep(0.001)

    def turn(self) -> None:
        """One tick."""
        self.sends.pool.check_deadlines()
        self.partition.confirmed(self.partition.snapshot()[0], self.clock.now())
        self.sends.kick()

    async def close(self) -> None:
        """End the sends."""
        await self.sends.close()
        for task in self._tasks:
            with contextlib.suppress(BaseException):
                await task

    # -- effects of the partition, lease, and producer handle --------------------------------------------

    def tell_lease(self) -> None:
        """Never."""

    def park(self, entry: Entry) -> None:
        self.sends.publisher.park(entry, will_be_sent=self.sends.decoder.will_be_sent)

    def load(self, entry: Entry, *, to_copy: bool = False) -> None:
        raise AssertionError("nothing is evicted")

    def recall(self, partition: Partition, entries: Container[Entry]) -> list[Entry]:
        return self.sends.ready.recall(partition, entries)

    def dead_letter(self, entry: Entry) -> None:
        raise AssertionError("all retry headers can be read")

    def wake(self, lane: UserQueue, at: int) -> None:
        self.loop.call_later(max(0, at - self.clock.now()) / 1000, self._step, lane)

    def identity(self, entry: Entry, /) -> tuple[str, int]:
        raise AssertionError("an identity is asked for only when letters of another topic are redriven")

    def spill(self, partition: Partition, written: Spill, /) -> None:
        raise AssertionError("nothing commits here")

    def _step(self, lane: UserQueue) -> None:
        lane.timer = 0
        if lane.partition.alive:
            lane.partition.step(lane, self.clock.now())
            self.sends.kick()

    def produce(
        self, topic: str, value: Any, key: Any, headers: Headers, partition: int = -1, on_delivery: Any = None
    ) -> None:
        """Take a copy."""
        self.handled.append(sys.exc_info()[1])
        self.written.append((topic, headers))
        self._unacknowledged.append(on_delivery)
        if self.acknowledges:
            self.acknowledge()

    def acknowledge(self) -> None:
        """From now on the broker acknowledges copies, those that were written before included."""
        self.acknowledges = True
        for answer in self._unacknowledged:
            self.loop.call_soon(answer, None, Acknowledged(self._end))
            self._end += 1
        self._unacknowledged.clear()
