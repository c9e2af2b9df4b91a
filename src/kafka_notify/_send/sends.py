"""The sending half of a worker: makes the parts of `_send` and connects them."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from kafka_notify._base.clock import Clock
from kafka_notify._decision.context import Context
from kafka_notify._decision.counts import Counts
from kafka_notify._decision.destinations import Circuits, Destinations
from kafka_notify._fetch.loader import Load, Loader
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.entry import Assignment, Entry
from kafka_notify._send.attempt import AttemptRunner
from kafka_notify._send.decoder import Decoder
from kafka_notify._send.delivery import Delivery
from kafka_notify._send.guard import Guard
from kafka_notify._send.hooks import Hooks
from kafka_notify._send.outcomes import Outcomes
from kafka_notify._send.pace import Pace
from kafka_notify._send.permits import Lease, Permits
from kafka_notify._send.place import Senders
from kafka_notify._send.pool import SenderPool
from kafka_notify._send.ready import Ready
from kafka_notify._send.slots import Slots
from kafka_notify._send.threads import SendThreads
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._settle.dead_letters import Spawn
from kafka_notify._settle.publisher import CopyPublisher
from kafka_notify._wire.pause import Paused
from kafka_notify.consumer import Consumer
from kafka_notify.outcome import Middleware

MakePace = Callable[[Clock, Callable[[], object]], Pace | None]


@attrs.frozen
class Sender:
    """The parts that a team provides.

    Args:
        consumer: The team's consumer.
        middleware: The middleware, outermost first.
        channels: Number of channels that the consumer sends.
        pace: Makes the rate limit, or None, from the clock and a function that wakes the senders.
    """

    consumer: Consumer
    middleware: tuple[Middleware, ...]
    channels: int
    pace: MakePace


@attrs.frozen
class Host:
    """The interface of the rest of the worker.

    Args:
        lease: The lease on the partitions.
        paused: The pauses in force.
        budget: The budget of payloads in memory.
        load: Requests that an evicted payload be read again.
        spawn: Runs a coroutine as a task that is kept alive.
        on_room: Called with its assignment after a source record was finished.
        fail: Called with the exception after which the worker cannot go on.
    """

    lease: Lease
    paused: Paused
    budget: PayloadBudget
    load: Callable[[Load], object]
    spawn: Spawn
    on_room: Callable[[Assignment], object]
    fail: Callable[[BaseException], object]


class Sends:
    """Sends queued notifications, and settles them.

    Args:
        context: The worker's context.
        sender: The parts that the team provides.
        writer: Writes copies until the broker acknowledges them.
        host: The rest of the worker.
    """

    def __init__(self, context: Context, sender: Sender, writer: CopyWriter, host: Host) -> None:
        consumer = sender.consumer
        self.counts = Counts()
        self.ready = Ready()
        self.add = self.ready.add
        """Queue an attempt; `kick` after the last of a batch."""
        self.threads = SendThreads(context.concurrency, context.loop, host.fail, context.runtime)
        runner = AttemptRunner(
            consumer,
            context.retry,
            sender.middleware,
            self.threads,
            topic=context.source,
            group=context.group,
            runtime=context.runtime,
        )
        self.hooks = Hooks(consumer, runner, context.send_timeout, context.on_event)
        told = self.hooks.dead_letter if self.hooks.on_dead_letter is not None else None
        self.publisher = CopyPublisher(context, writer, told, host.spawn)
        self.slots = Slots(context, self.threads, self.hooks, self._wake)
        self.pace = sender.pace(context.clock, self._wake)
        """The rate limit; None when the consumer has none."""
        circuits = Circuits(
            consumer.breaker,
            context.clock.monotonic(),
            context.concurrency,
            _destinations(consumer, sender.channels),
        )
        throttled = _nothing if self.pace is None else self.pace.throttled
        self.guard = Guard(
            context,
            circuits,
            consumer.destination if "destination" in consumer._overridden else None,
            self.publisher,
            self.ready,
            Senders(self.slots.running, self.counts.accepted, runner.backoff, throttled, self._wake),
        )
        permits = Permits(self.guard, self.pace, host.paused, host.lease, context.clock.boottime)
        self.outcomes = Outcomes(context, permits, self.publisher, self.hooks, self.counts, host.on_room)
        self.decoder = Decoder(context, self.outcomes, self.guard, self.ready)
        delivery = Delivery(context, permits, runner, self.decoder, self.outcomes, self.slots, self._again)
        self.loader = Loader(host.budget, host.load, lambda: self.pool.loads_wanted())
        """Reads evicted payloads again before their attempts are queued."""
        self.pool = SenderPool(context, self.ready, self.loader, self.slots, permits, delivery, host.fail)
        self.kick = self.pool.kick
        """Wake senders for what is queued."""

    def _wake(self) -> None:
        # for the parts that are made before the pool
        self.pool.kick()

    def _again(self, entry: Entry) -> None:
        if entry.queue.partition.alive:
            self.ready.add(entry)
            self.kick()

    async def close(self) -> None:
        """End all tasks, run the consumer's `teardown`, and let the threads end."""
        await self.pool.close()
        if self.pace is not None:
            await self.pace.close()
        await self.hooks.teardown()
        self.threads.close()


def _nothing() -> None:
    return None


def _destinations(consumer: Consumer, channels: int) -> Destinations[Entry] | None:
    """The destinations that can be held alone: those that the consumer names, else its channels if it has several."""
    named = "destination" in consumer._overridden
    if not named and channels < 2:
        return None
    return Destinations(consumer.breaker, consumer.concurrency, consumer.destination_share, named=named)
