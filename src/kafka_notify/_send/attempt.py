"""One attempt: ask `should_send`, go through the middleware, call `send`, and say how it ended.

Whatever user code does, the answer is an `Outcome`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from typing_extensions import assert_never

from kafka_notify import events
from kafka_notify._send.threads import SendThreads
from kafka_notify._units import UTC
from kafka_notify.classify import classify_exception
from kafka_notify.consumer import Consumer
from kafka_notify.errors import (
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify.limits import SeenStore
from kafka_notify.notification import Attempt, Defer, Notification, Receipt, Send, Skip
from kafka_notify.outcome import Dead, Middleware, Outcome, Retry, SendContext, Sent, Skipped
from kafka_notify.policy import RetryPolicy, deferred

log = logging.getLogger("kafka_notify.send")

SendCall = Callable[[Notification[Any], Attempt], Awaitable[Outcome]]

THROTTLE_WAIT = 5.0
"""Seconds to wait after a throttle that does not say how long."""


def outcome_of(
    error: Exception,
    attempts_made: int,
    retry: RetryPolicy,
    classify: Callable[[Exception], DeliveryError | None],
) -> Outcome:
    """How an exception of a send ends it.

    Args:
        error: What was raised.
        attempts_made: Counted attempts including this one.
        retry: Gives the backoff.
        classify: Turns an exception that is no `DeliveryError` into one, or None.
    """
    if not isinstance(error, DeliveryError):
        error = _classified(error, classify)
    if isinstance(error, ThrottledError):
        return Retry(THROTTLE_WAIT if error.retry_after is None else error.retry_after, False, error)
    if isinstance(error, ProviderUnavailableError):
        return Retry(retry.delay(1), False, error)
    if isinstance(error, InvalidRecipientError):
        return Dead("invalid_recipient", error)
    if isinstance(error, PermanentError):
        return Dead("permanent", error)
    after = error.retry_after if isinstance(error, TransientError) else None
    return Retry(retry.delay(attempts_made, after), True, error)


def _classified(error: Exception, classify: Callable[[Exception], DeliveryError | None]) -> DeliveryError:
    try:
        found = classify(error) or classify_exception(error)
    except Exception as e:  # a bug in the team's classify must not hide the failure it was asked about
        return TransientError(f"classify.{type(e).__name__}")
    return found if isinstance(found, DeliveryError) else TransientError(f"unhandled.{type(error).__name__}")


class AttemptRunner:
    """Runs attempts of one consumer.

    Args:
        consumer: The team's.
        retry: Its backoff.
        middleware: Outermost first.
        threads: Where plain functions run.
        topic: The lane's source topic, for middleware; likewise `group`.
    """

    def __init__(
        self,
        consumer: Consumer,
        retry: RetryPolicy,
        middleware: Sequence[Middleware],
        threads: SendThreads,
        *,
        topic: str = "",
        group: str = "",
    ) -> None:
        self._consumer = consumer
        self._retry = retry
        self._threads = threads
        self._async = inspect.iscoroutinefunction(consumer.send)
        call: SendCall = self._send_async if self._async else self._send_plain
        if middleware:
            call = self._chain(middleware, call, topic, group)
        if "should_send" in consumer._overridden:
            call = self._asking(call)
        if consumer.dedupe is not None:
            call = _once(call, consumer.dedupe)
        self.run: SendCall = call
        """Make one attempt; raises only what `failed` takes."""
        plain = call == self._send_async
        self.send: Callable[[Notification[Any], Attempt], Awaitable[object]] | None = (
            cast(Any, consumer.send) if plain else None
        )
        """The consumer's own `send` when nothing is wrapped around it: each layer costs 1 us per record."""

    def failed(self, error: Exception, attempt: Attempt) -> Outcome:
        """The outcome of an attempt that raised."""
        return outcome_of(error, attempt.number, self._retry, self._consumer.classify)

    def backoff(self, attempts_made: int) -> float:
        """Seconds of the retry policy after so many counted attempts."""
        return self._retry.delay(attempts_made)

    async def call(self, hook: Callable[..., Any], *args: Any) -> Any:
        """Call a hook of the consumer: on the loop when it is async, else on a thread."""
        if inspect.iscoroutinefunction(hook):
            return await hook(*args)
        result = await self._on_thread(hook, *args)
        return await result if inspect.isawaitable(result) else result

    async def _on_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        future = self._threads.run(call, *args)
        try:
            return await future
        except asyncio.CancelledError:
            self._threads.give_up(future, asyncio.current_task())
            raise

    async def _send_async(self, notification: Notification[Any], attempt: Attempt) -> Outcome:
        return sent(await self._consumer.send(notification, attempt))  # type: ignore[misc]

    async def _send_plain(self, notification: Notification[Any], attempt: Attempt) -> Outcome:
        result = await self._on_thread(self._consumer.send, notification, attempt)
        return sent(await result if inspect.isawaitable(result) else result)

    def _asking(self, call: SendCall) -> SendCall:
        async def ask(notification: Notification[Any], attempt: Attempt) -> Outcome:
            verdict = await self.call(self._consumer.should_send, notification)
            if isinstance(verdict, Send):
                return await call(notification, attempt)
            if isinstance(verdict, Skip):
                return Skipped(verdict.reason)
            if isinstance(verdict, Defer):
                wait = (verdict.until - dt.datetime.now(UTC)).total_seconds()
                return Retry(max(wait, 0.0), False, deferred(verdict.reason))
            return self.failed(TransientError("should_send.no_verdict"), attempt)

        return ask

    def _chain(self, middleware: Sequence[Middleware], send: SendCall, topic: str, group: str) -> SendCall:
        async def innermost(context: SendContext) -> Outcome:
            try:
                return await send(context.notification, context.attempt)
            except Exception as e:  # a middleware sees outcomes, whatever the sender did
                return self.failed(e, context.attempt)

        call: Callable[[SendContext], Awaitable[Outcome]] = innermost
        for layer in reversed(middleware):
            call = _wrap(layer, call)

        async def run(notification: Notification[Any], attempt: Attempt) -> Outcome:
            outcome = await call(SendContext(notification, attempt, topic, group))
            if not isinstance(outcome, (Sent, Retry, Dead, Skipped)):
                raise UnknownOutcomeError("middleware.no_outcome")
            return outcome

        return run


def _once(call: SendCall, store: SeenStore) -> SendCall:
    """Skip what was accepted before. A store that fails costs a duplicate at most, never a notification."""

    async def once(notification: Notification[Any], attempt: Attempt) -> Outcome:
        try:
            if await store.seen(notification.id):
                return Skipped("duplicate")
        except Exception as e:
            log.warning(
                "dedupe: seen() raised %s: notification %s is sent", type(e).__name__, notification.id
            )
        outcome = await call(notification, attempt)
        if isinstance(outcome, Sent):
            try:
                await store.add(notification.id)
            except Exception as e:
                log.warning("dedupe: add() raised %s for notification %s", type(e).__name__, notification.id)
        return outcome

    return once


def sent(receipt: object) -> Sent:
    """The outcome of a `send` that returned; anything but a `Receipt` is a bug whose outcome is unknown."""
    if isinstance(receipt, Receipt):
        return Sent(receipt)
    raise UnknownOutcomeError("no_receipt", detail=f"send returned {type(receipt).__name__}, not a Receipt")


def _wrap(
    layer: Middleware, call_next: Callable[[SendContext], Awaitable[Outcome]]
) -> Callable[[SendContext], Awaitable[Outcome]]:
    async def call(context: SendContext) -> Outcome:
        return await layer(context, call_next)

    return call


def describe(outcome: Outcome) -> tuple[events.OutcomeKind, str | None, str | None]:
    """Kind, provider and error code of an outcome, for events."""
    if isinstance(outcome, Sent):
        return "sent", outcome.receipt.provider, None
    if isinstance(outcome, Skipped):
        return "skipped", None, outcome.reason
    if isinstance(outcome, (Retry, Dead)):
        error = outcome.error
        kind: events.OutcomeKind = "retry" if isinstance(outcome, Retry) else "dead"
        return kind, error.provider if error else None, error.code if error else None
    assert_never(outcome)
