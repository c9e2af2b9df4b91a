"""One attempt of a consumer without Kafka, for a team's tests of its own `send`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from kafka_notify._base import codes
from kafka_notify._base.arguments import to_seconds
from kafka_notify._base.clock import Clock
from kafka_notify._decision.what_follows import GiveUp, Rules, decide
from kafka_notify._send.attempt import AttemptRunner
from kafka_notify._send.threads import SendThreads
from kafka_notify._wire.payload_fields import is_payload_class
from kafka_notify.codec import Codec, JsonCodec
from kafka_notify.consumer import Consumer, check_consumer
from kafka_notify.errors import UnknownOutcomeError
from kafka_notify.notification import Attempt, Category, Notification
from kafka_notify.outcome import Dead, Outcome, Skipped
from kafka_notify.policy import LATENCY_RETRY
from kafka_notify.topology import Topology
from kafka_notify.wire import History, decode, encode


async def deliver(
    consumer: Consumer,
    notification: Notification[Any],
    /,
    *,
    attempt: int = 1,
    maybe_sent: bool = False,
    topology: Topology | None = None,
    codec: Codec | None = None,
) -> Outcome:
    """Run one attempt of `consumer` as a worker would, and return what would follow for the notification.

        async def test_a_busy_provider_is_asked_again() -> None:
            outcome = await deliver(Sms(client_answering(503)), notification)
            assert isinstance(outcome, Retry) and outcome.counted

    It asks `should_send`, calls `send` within its deadline, and reads what was raised as the worker does. There
    is no Kafka, and no delay is waited for: `Retry.after` says how long it would be. The notification is encoded and
    decoded as on its way through Kafka, so that `send` is given what a worker would give it. `setup`, `teardown`,
    `on_sent` and `on_dead_letter` are not called.

    Runs on the caller's event loop; plain functions run on a thread, with the caller's context variables. A send
    that ignores its cancellation is waited for; a plain one that outlives its deadline is left behind. Cancelling
    this call cancels the send.

    Args:
        consumer: The consumer. Without a `retry` of its own it gets the policy of a latency lane.
        notification: The notification. One that has expired is dead without a send.
        attempt: Number of this attempt, from 1. A counted failure of the last one is dead and not a retry.
        maybe_sent: True when an earlier attempt ended with an unknown outcome.
        topology: The topology, for the payload class of the notification's category; by default the class of the data.
        codec: The codec, as for `Producer` and `Worker`; JSON when None.

    Returns:
        `Sent`; `Retry`; `Dead` with the reason that the dead letter would have; or `Skipped`, also
        (`other_channel`) when the notification's channel is not one of the consumer's.

    Raises:
        ConfigError: A worker would refuse this consumer, or a `Category` the class of the data.
        InvalidNotificationError: `Producer.send` would refuse the data.
        ValueError: `attempt` is below 1 or above the consumer's `max_attempts`.
    """
    check_consumer(consumer, Topology.default().extend(channels=consumer.channels))
    retry = consumer.retry or LATENCY_RETRY
    if not 1 <= attempt <= retry.max_attempts:
        raise ValueError(
            f"attempt must be between 1 and max_attempts, which is {retry.max_attempts}, not {attempt}"
        )
    if consumer.channels and notification.channel not in consumer.channels:
        return Skipped("other_channel")
    notification = travelled(notification, topology, codec or JsonCodec())
    timeout = to_seconds(consumer.send_timeout, "send_timeout")
    clock = Clock()
    expires = notification._expires_ms
    remaining = None if expires is None else (expires - clock.now()) / 1000
    if remaining is not None:
        if remaining <= 0:
            return Dead("expired")
        timeout = min(timeout, remaining)
    this = Attempt(attempt, retry.max_attempts, notification.id, timeout, remaining, maybe_sent)
    threads = SendThreads(consumer.concurrency, asyncio.get_running_loop())
    try:
        outcome = await _run(AttemptRunner(consumer, retry, (), threads), notification, this)
    finally:
        threads.close()
    rules = Rules.of(retry, consumer.unknown_outcome, in_lane=False)
    follows = decide(outcome, History(attempt - 1), expires, rules, clock.now())
    return Dead(follows.reason, follows.outcome.error) if isinstance(follows, GiveUp) else follows.outcome


def travelled(notification: Notification[Any], topology: Topology | None, codec: Codec) -> Notification[Any]:
    """Return the notification as a worker would get it from its record.

    Args:
        topology: The topology, for the payload class of the category; when None, the class of the data.

    Raises:
        InvalidNotificationError, ConfigError: As for `deliver`.
    """
    category: Category[Any] | None = None
    data: object = notification.data
    kind = type(data)
    if topology is not None:
        category = topology.categories.get(notification.category)
    elif is_payload_class(kind) or not issubclass(kind, Mapping):
        category = Category("data", "lane", payload=kind)
    key, value, headers = encode(notification, codec, _TOPIC, category)
    categories = {} if category is None else {notification.category: category}
    return decode(key, value, headers, _TOPIC, 0, 0, 0, codec, categories)


_TOPIC: Final = "deliver"


async def _run(runner: AttemptRunner, notification: Notification[Any], attempt: Attempt) -> Outcome:
    """Run the attempt within its deadline."""
    task = asyncio.ensure_future(_attempt(runner, notification, attempt))
    try:
        _, overdue = await asyncio.wait({task}, timeout=attempt.timeout)
        if overdue:
            task.cancel()
            await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.cancelled():
        return runner.failed(UnknownOutcomeError(codes.TIMEOUT if overdue else codes.CANCELLED), attempt)
    return task.result()


async def _attempt(runner: AttemptRunner, notification: Notification[Any], attempt: Attempt) -> Outcome:
    """Run the attempt; return an outcome whatever user code raises. asyncio would let SystemExit end the caller's
    loop."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    try:
        return runner.checked(await runner.run(notification, attempt), attempt)
    except asyncio.CancelledError:
        raise
    except BaseException as e:
        if issubclass(type(e), GeneratorExit) and asyncio.current_task(loop) is not this:
            raise  # this coroutine is being closed, together with its loop
        return runner.failed(e, attempt)
