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
from kafka_notify._base import codes
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._base.runtime import SYSTEM, Runtime
from kafka_notify._base.units import UTC, clamped
from kafka_notify._base.where import class_name, detail, name_of, origin
from kafka_notify._decision.trusted import check_error, check_outcome, check_receipt, is_error, unhandled
from kafka_notify._send.remember import Remember
from kafka_notify._send.threads import SendThreads
from kafka_notify._wire.send_key import send_key
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
from kafka_notify.notification import Attempt, Defer, Notification, Send, Skip
from kafka_notify.outcome import Dead, Middleware, Outcome, Retry, SendContext, Sent, Skipped
from kafka_notify.policy import RetryPolicy, deferred

log = logging.getLogger("kafka_notify.send")

SendCall = Callable[[Notification[Any], Attempt], Awaitable[Outcome]]

THROTTLE_WAIT = 5.0
"""Seconds to wait after a throttle that does not say how long."""
FALLBACK_DELAY = 60.0
"""Seconds to wait when a team's own retry policy cannot compute its backoff."""


def outcome_of(
    error: BaseException,
    attempts_made: int,
    retry: RetryPolicy,
    classify: Callable[[Exception], DeliveryError | None],
    tell: Callable[[str], object],
) -> Outcome:
    """The outcome of a send that raised.

    Args:
        error: The exception.
        attempts_made: Counted attempts, this one included.
        retry: Computes the backoff.
        classify: Turns an exception that is not a `DeliveryError` into one, or returns None.
        tell: Called with a sentence when user code raised or returned something invalid.
    """
    found, wrong = check_error(error if is_error(error) else _classified(error, classify, tell))
    if wrong:
        tell(wrong)
    if isinstance(found, ThrottledError):
        return Retry(THROTTLE_WAIT if found.retry_after is None else found.retry_after, False, found)
    if isinstance(found, ProviderUnavailableError):
        return Retry(_delay(retry, 1, None, tell), False, found)
    if isinstance(found, InvalidRecipientError):
        return Dead("invalid_recipient", found)
    if isinstance(found, PermanentError):
        return Dead("permanent", found)
    after = found.retry_after if isinstance(found, TransientError) else None
    return Retry(_delay(retry, attempts_made, after, tell), True, found)


def _classified(
    error: BaseException,
    classify: Callable[[Exception], DeliveryError | None],
    tell: Callable[[str], object],
) -> DeliveryError:
    if not issubclass(type(error), Exception):  # such as SystemExit: the send failed, the worker goes on
        tell(f"raised {origin(error)}, which counts as a failed attempt")
        return TransientError(unhandled(error))
    try:
        found: Any = classify(cast(Exception, error))
    except BaseException as e:  # a bug in the team's classify must not hide the failure it was asked about
        tell(f"classify raised {origin(e)}")
        return TransientError(f"{codes.CLASSIFY}{name_of(e)[:50]}")
    if found is not None and not is_error(found):
        tell(f"classify returned a {name_of(found)}, not a DeliveryError or None")
        found = None
    if found is None:
        found = classify_exception(error)
    if found is None:
        tell(f"raised {origin(error)}, which is not classified and counts as a failed attempt")
        return TransientError(unhandled(error))
    return cast(DeliveryError, found)


def _delay(
    retry: RetryPolicy, attempts_made: int, after: float | None, tell: Callable[[str], object]
) -> float:
    wrong = "did not return a duration up to 366 days"
    try:
        delay = clamped(retry.delay(attempts_made, after))
    except BaseException as e:  # a team's own subclass of RetryPolicy
        delay, wrong = None, f"raised {origin(e)}"
    if delay is not None:
        return delay
    tell(f"{name_of(retry)}.delay {wrong}, so the retry waits {FALLBACK_DELAY:g} s; fix it")
    return FALLBACK_DELAY


class AttemptRunner:
    """Runs the attempts of one consumer.

    Args:
        consumer: The team's consumer.
        retry: Computes the backoff.
        middleware: The middleware, outermost first.
        threads: Run plain (not async) functions.
        topic: Name of the lane's source topic, for `SendContext`.
        group: Name of the consumer group, for `SendContext` and the keys of `dedupe`.
        runtime: The time of `Defer` and of `dedupe`.
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
        runtime: Runtime = SYSTEM,
    ) -> None:
        self.group = group
        self._wall = runtime.wall
        self._consumer = consumer
        self._retry = retry
        self._threads = threads
        self._wrong = LimitedLog(log)
        self._kind = class_name(type(consumer))
        self._async = inspect.iscoroutinefunction(consumer.send)
        call: SendCall = self._send_async if self._async else self._send_plain
        if middleware:
            call = self._chain(middleware, call, topic, group)
        if "should_send" in consumer._overridden:
            call = self._asking(call)
        if consumer.dedupe is not None:
            call = self._once(call, Remember(consumer.dedupe, runtime.monotonic))
        self.run: SendCall = call
        """Make one attempt; `checked` takes what it returns, `failed` what it raises."""
        plain = call == self._send_async
        self.send: Callable[[Notification[Any], Attempt], Awaitable[object]] | None = (
            cast(Any, consumer.send) if plain else None
        )
        """The consumer's own `send` when nothing wraps it, else None: each layer costs 1 us per record."""

    def failed(self, error: BaseException, attempt: Attempt) -> Outcome:
        """The outcome of an attempt that raised. Its fields can be trusted, whatever was raised."""
        if not is_error(error):
            detail(log, error)
        return outcome_of(error, attempt.number, self._retry, self._consumer.classify, self._tell)

    def checked(self, outcome: object, attempt: Attempt) -> Outcome:
        """The outcome that `run` returned, with fields that can be trusted; a failure when it is not an outcome."""
        found, wrong = check_outcome(outcome)
        if wrong:
            self._tell(wrong)
        return self.failed(UnknownOutcomeError(codes.INVALID_OUTCOME), attempt) if found is None else found

    def sent(self, receipt: object, attempt: Attempt) -> Outcome:
        """The outcome of a `send` that returned; anything but a `Receipt` is a bug whose outcome is unknown."""
        try:
            return self._sent(receipt)
        except UnknownOutcomeError as e:
            return self.failed(e, attempt)

    def _sent(self, receipt: object) -> Sent:
        found, wrong = check_receipt(receipt)
        if wrong:
            self._tell(f"send returned {wrong}" if found is None else wrong)
        if found is None:
            raise UnknownOutcomeError(codes.NO_RECEIPT, detail=f"send returned {wrong}")
        return Sent(found)

    def _tell(self, wrong: str) -> None:
        self._wrong.warning(f"{self._kind}: {wrong}")

    def backoff(self, attempts_made: int) -> float:
        """Seconds that the retry policy waits after `attempts_made` counted attempts."""
        return _delay(self._retry, attempts_made, None, self._tell)

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
        return self._sent(await self._consumer.send(notification, attempt))  # type: ignore[misc]

    async def _send_plain(self, notification: Notification[Any], attempt: Attempt) -> Outcome:
        result = await self._on_thread(self._consumer.send, notification, attempt)
        return self._sent(await result if inspect.isawaitable(result) else result)

    def _asking(self, call: SendCall) -> SendCall:
        async def ask(notification: Notification[Any], attempt: Attempt) -> Outcome:
            verdict = await self.call(self._consumer.should_send, notification)
            if isinstance(verdict, Send):
                return await call(notification, attempt)
            if isinstance(verdict, Skip) and isinstance(verdict.reason, str):
                return Skipped(verdict.reason)
            wrong = "which is not a verdict"
            if isinstance(verdict, (Skip, Defer)):
                wrong = "whose reason is not a str"
            if isinstance(verdict, Defer) and isinstance(verdict.reason, str):
                wait = clamped(verdict.until - dt.datetime.fromtimestamp(self._wall(), UTC))
                if wait is not None:
                    return Retry(wait, False, deferred(verdict.reason))
                wrong = "whose until is more than 366 days away"
            self._tell(f"should_send returned a {name_of(verdict)}, {wrong}")
            return self.failed(TransientError(codes.NO_VERDICT), attempt)

        return ask

    def _once(self, call: SendCall, remember: Remember) -> SendCall:
        async def once(notification: Notification[Any], attempt: Attempt) -> Outcome:
            parts = attempt._key  # parts in a worker, which knows the topic
            if isinstance(parts, str):  # in `testing.deliver`
                parts = (self.group, notification.user_id, notification.id)
            key = send_key(parts)
            if await remember.seen(key):
                return Skipped("duplicate")
            outcome = self.checked(await call(notification, attempt), attempt)
            if isinstance(outcome, Sent):
                await remember.add(key)
            return outcome

        return once

    def _chain(self, middleware: Sequence[Middleware], send: SendCall, topic: str, group: str) -> SendCall:
        async def innermost(context: SendContext) -> Outcome:
            try:
                return await send(context.notification, context.attempt)
            except (
                asyncio.CancelledError,
                GeneratorExit,
            ):  # the task ends, or `Delivery` finds out that it does not
                raise
            except BaseException as e:  # a middleware sees an outcome, whatever the sender raised
                return self.failed(e, context.attempt)

        call: Callable[[SendContext], Awaitable[Outcome]] = innermost
        for layer in reversed(middleware):
            call = _wrap(layer, call)

        async def run(notification: Notification[Any], attempt: Attempt) -> Outcome:
            return await call(SendContext(notification, attempt, topic, group))

        return run


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
        return kind, None if error is None else error.provider, None if error is None else error.code
    assert_never(outcome)
