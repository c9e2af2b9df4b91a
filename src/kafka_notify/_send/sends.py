"""Everything that sends of one worker need, put together: the pool of senders, one delivery, and what becomes of it."""

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
    """What the team brings.

    Args:
        consumer: Its consumer.
        middleware: Outermost first.
        channels: How many channels the consumer sends.
        pace: Makes the rate limit, if there is one, from what wakes the senders.
    """

    consumer: Consumer
    middleware: tuple[Middleware, ...]
    channels: int
    pace: MakePace


@attrs.frozen
class Host:
    """What sends need of the rest of their worker.

    Args:
        lease: Until when sends may start.
        paused: What must not be sent now.
        budget: Of payloads in memory.
        load: Requests that an evicted payload is read again.
        spawn: Runs a coroutine, and keeps it alive.
        on_room: Called after a source record was finished.
        fail: Called when the worker cannot go on.
    """

    lease: Lease
    paused: Paused
    budget: PayloadBudget
    load: Callable[[Load], object]
    spawn: Spawn
    on_room: Callable[[Assignment], object]
    fail: Callable[[BaseException], object]


class Sends:
    """The sending half of a worker: what is queued is sent, and what became of it is settled.

    Args:
        context: Of the worker.
        sender: What the team brings.
        writer: Writes copies until acknowledged.
        host: What this needs of the rest of the worker.
    """

    def __init__(self, context: Context, sender: Sender, writer: CopyWriter, host: Host) -> None:
        consumer = sender.consumer
        self.counts = Counts()
        self.ready = Ready()
        self.add = self.ready.add
        """Queue an attempt; `kick` after the last of a batch."""
        self.threads = SendThreads(context.concurrency, context.loop, host.fail)
        runner = AttemptRunner(
            consumer,
            context.retry,
            sender.middleware,
            self.threads,
            topic=context.source,
            group=context.group,
        )
        self.hooks = Hooks(consumer, runner, context.send_timeout, context.on_event)
        told = self.hooks.dead_letter if self.hooks.on_dead_letter is not None else None
        self.publisher = CopyPublisher(context, writer, told, host.spawn)
        self.slots = Slots(context, self.threads, self.hooks, self._wake)
        self.pace = sender.pace(context.clock, self._wake)
        """The rate limit, when the consumer has one."""
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
        permits = Permits(self.guard, self.pace, host.paused, host.lease)
        self.outcomes = Outcomes(context, permits, self.publisher, self.hooks, self.counts, host.on_room)
        self.decoder = Decoder(context, self.outcomes, self.guard, self.ready)
        delivery = Delivery(context, permits, runner, self.decoder, self.outcomes, self.slots, self._again)
        self.loader = Loader(host.budget, host.load, lambda: self.pool.loads_wanted())
        """Reads evicted payloads again before they are queued here."""
        self.pool = SenderPool(context, self.ready, self.loader, self.slots, permits, delivery, host.fail)
        self.kick = self.pool.kick
        """See that somebody works."""

    def _wake(self) -> None:
        # for those that are made before the pool
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
    """What the answers of a provider hold alone: what the consumer names, or its channels when it has several."""
    named = "destination" in consumer._overridden
    if not named and channels < 2:
        return None
    return Destinations(consumer.breaker, consumer.concurrency, consumer.destination_share, named=named)
