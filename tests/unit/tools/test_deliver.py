"""`deliver`: one attempt of a consumer without Kafka, read as a worker would read it."""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from kafka_notify import (
    Attempt,
    ConfigError,
    Consumer,
    Defer,
    DeliveryError,
    InvalidRecipientError,
    Notification,
    PermanentError,
    ProviderUnavailableError,
    Receipt,
    RetryPolicy,
    Send,
    Skip,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
    Verdict,
    classify_http,
)
from kafka_notify.outcome import Dead, Outcome, Retry, Sent, Skipped
from kafka_notify.testing import deliver

RECEIPT = Receipt("acme", "m-1")
Action = Callable[[Notification[Any], Attempt], Awaitable[object]]


class Sms(Consumer):
    """What a team writes; each test brings what the provider does."""

    name = "sms"
    channels = frozenset({"sms"})
    retry = RetryPolicy(3, initial_delay=2, multiplier=4, jitter=0)

    def __init__(self, action: Action) -> None:
        self.action = action

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        return await self.action(notification, attempt)  # type: ignore[return-value]


def raising(error: BaseException) -> Sms:
    async def action(notification: Notification[Any], attempt: Attempt) -> object:
        raise error

    return Sms(action)


async def accept(notification: Notification[Any], attempt: Attempt) -> Receipt:
    return RECEIPT


def hello(**fields: Any) -> Notification[Any]:
    return Notification(**{"user_id": "u1", "category": "otp", "channel": "sms", "data": {}, **fields})


def ago(**delta: float) -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc) - dt.timedelta(**delta)


def soon(**delta: float) -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc) + dt.timedelta(**delta)


# -- what the documentation shows


async def test_a_busy_provider_is_asked_again() -> None:
    """The example of the docstring: a client that answers 503 makes a counted retry."""

    class Api(Consumer):
        def __init__(self, client: httpx.AsyncClient) -> None:
            self.client = client

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            response = await self.client.post("/messages", timeout=attempt.timeout)
            if error := classify_http(response.status_code, response.headers):
                raise error
            return RECEIPT

    busy = httpx.MockTransport(lambda request: httpx.Response(503))
    async with httpx.AsyncClient(transport=busy, base_url="https://sms.example") as client:
        outcome = await deliver(Api(client), hello())

    assert isinstance(outcome, Retry)
    assert outcome.counted


# -- what a send says


async def test_sent() -> None:
    """A receipt is `Sent`, with that receipt."""
    assert await deliver(Sms(accept), hello()) == Sent(RECEIPT)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TransientError("http.503"), lambda e: Retry(2, True, e)),
        (TransientError("http.503", retry_after=9), lambda e: Retry(9, True, e)),
        (UnknownOutcomeError("http.504"), lambda e: Retry(2, True, e)),
        (ThrottledError("http.429", retry_after=11), lambda e: Retry(11, False, e)),
        (ThrottledError("http.429", retry_after=1, scope="recipient"), lambda e: Retry(1, False, e)),
        (ProviderUnavailableError("http.401"), lambda e: Retry(2, False, e)),
        (PermanentError("http.400"), lambda e: Dead("permanent", e)),
        (InvalidRecipientError("smtp.550"), lambda e: Dead("invalid_recipient", e)),
    ],
)
async def test_delivery_error(error: DeliveryError, outcome: Callable[[DeliveryError], Outcome]) -> None:
    """Each `DeliveryError` becomes its outcome, and is kept in it."""
    assert await deliver(raising(error), hello()) == outcome(error)


async def test_known_exception() -> None:
    """A client library's exception is classified: an unread answer of httpx is an unknown outcome."""
    outcome = await deliver(raising(httpx.ReadTimeout("")), hello())

    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, UnknownOutcomeError)


async def test_own_classify() -> None:
    """The consumer's own `classify` goes before the built-in table."""

    class Picky(Sms):
        def classify(self, exc: Exception) -> DeliveryError | None:
            return PermanentError("too_long") if isinstance(exc, ValueError) else None

    async def fail(notification: Notification[Any], attempt: Attempt) -> object:
        raise ValueError

    assert told(await deliver(Picky(fail), hello())) == (Dead, None, PermanentError, "too_long")


def told(outcome: Outcome) -> tuple[object, ...]:
    """What it is, and what its error says."""
    assert isinstance(outcome, (Retry, Dead))
    assert outcome.error is not None
    counted = outcome.counted if isinstance(outcome, Retry) else None
    return type(outcome), counted, type(outcome.error), outcome.error.code


async def test_bug() -> None:
    """A bug in `send` is a counted retry with the exception's class as code."""
    outcome = await deliver(raising(KeyError("nothing")), hello())

    assert told(outcome) == (Retry, True, TransientError, "unhandled.KeyError")


async def test_forgotten_receipt() -> None:
    """A `send` that returns nothing is an unknown outcome, never sent."""

    async def forget(notification: Notification[Any], attempt: Attempt) -> None:
        return None

    assert told(await deliver(Sms(forget), hello())) == (Retry, True, UnknownOutcomeError, "no_receipt")


# -- attempts


async def test_attempt() -> None:
    """`send` is told the attempt it is, as a worker tells it."""
    seen: list[Attempt] = []

    async def look(notification: Notification[Any], attempt: Attempt) -> Receipt:
        seen.append(attempt)
        return RECEIPT

    notification = hello()
    await deliver(Sms(look), notification)
    await deliver(Sms(look), notification, attempt=2, maybe_sent=True)

    first, second = seen
    assert first == Attempt(1, 3, notification.id, timeout=30, remaining_ttl=None)
    assert second == Attempt(2, 3, notification.id, timeout=30, remaining_ttl=None, maybe_sent=True)


async def test_last_attempt() -> None:
    """A counted failure of the last attempt is dead; one that is not counted waits."""
    lost, throttled = TransientError("http.503"), ThrottledError("http.429", scope="recipient", retry_after=1)

    assert await deliver(raising(lost), hello(), attempt=2) == Retry(8, True, lost)
    assert await deliver(raising(lost), hello(), attempt=3) == Dead("max_attempts", lost)
    assert await deliver(raising(throttled), hello(), attempt=3) == Retry(1, False, throttled)


@pytest.mark.parametrize("attempt", [0, 4])
async def test_impossible_attempt(attempt: int) -> None:
    """An attempt that no worker would make is refused."""
    with pytest.raises(ValueError, match=f"between 1 and max_attempts, which is 3, not {attempt}"):
        await deliver(Sms(accept), hello(), attempt=attempt)


async def test_default_policy() -> None:
    """A consumer without a policy of its own has that of a latency lane: four attempts."""

    def fail() -> Receipt:
        raise TransientError("http.503")

    class Unset(Plain):
        retry = None

    assert told(await deliver(Unset(fail), hello(), attempt=3)) == (Retry, True, TransientError, "http.503")
    assert told(await deliver(Unset(fail), hello(), attempt=4)) == (Dead, None, TransientError, "http.503")


# -- time


async def test_expired() -> None:
    """An expired notification is dead without a send."""
    consumer = raising(AssertionError("it was sent"))

    outcome = await deliver(consumer, hello(created_at=ago(minutes=2), expires_at=ago(minutes=1)))

    assert outcome == Dead("expired")


async def test_retry_past_expiry() -> None:
    """A retry that would be due after the expiry is dead at once; a wait of the whole lane is not."""
    error, gone = TransientError("http.503", retry_after=60), ProviderUnavailableError("http.401")

    assert await deliver(raising(error), hello(expires_at=soon(seconds=30))) == Dead("expired", error)
    assert await deliver(raising(gone), hello(expires_at=soon(seconds=1))) == Retry(2, False, gone)


async def test_remaining_ttl() -> None:
    """`send` never gets more time than the notification has left."""
    seen: list[Attempt] = []

    async def look(notification: Notification[Any], attempt: Attempt) -> Receipt:
        seen.append(attempt)
        return RECEIPT

    await deliver(Sms(look), hello(expires_at=soon(seconds=20)))

    (attempt,) = seen
    assert attempt.remaining_ttl is not None
    assert attempt.timeout == attempt.remaining_ttl <= 20


async def test_deadline() -> None:
    """A send that outlives its deadline is cancelled and an unknown outcome."""
    cancelled = asyncio.Event()

    async def hang(notification: Notification[Any], attempt: Attempt) -> object:
        try:
            return await asyncio.Event().wait()
        finally:
            cancelled.set()

    consumer = Sms(hang)
    consumer.send_timeout = 0.001

    assert told(await deliver(consumer, hello())) == (Retry, True, UnknownOutcomeError, "timeout")
    assert cancelled.is_set()


async def test_own_cancellation() -> None:
    """A cancellation that comes out of the sender's own code is an unknown outcome."""
    outcome = await deliver(raising(asyncio.CancelledError()), hello())

    assert told(outcome) == (Retry, True, UnknownOutcomeError, "cancelled")


async def test_cancelled_caller() -> None:
    """Cancelling `deliver` cancels the send."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang(notification: Notification[Any], attempt: Attempt) -> object:
        started.set()
        try:
            return await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(deliver(Sms(hang), hello()))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await ended.wait()


# -- plain senders


class Plain(Consumer):
    """A sender without async; each test brings what the provider does."""

    retry: RetryPolicy | None = RetryPolicy(3, initial_delay=2, jitter=0)

    def __init__(self, action: Callable[[], Receipt]) -> None:
        self.action = action

    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        return self.action()


async def test_plain() -> None:
    """A plain `send` runs on a thread of its own, with the caller's context variables."""
    tenant = contextvars.ContextVar[str]("tenant")
    tenant.set("acme")
    seen: list[tuple[threading.Thread, str]] = []

    def action() -> Receipt:
        seen.append((threading.current_thread(), tenant.get()))
        return RECEIPT

    assert await deliver(Plain(action), hello()) == Sent(RECEIPT)
    ((thread, name),) = seen
    assert thread is not threading.current_thread()
    assert name == "acme"


async def test_plain_failure() -> None:
    """What a plain `send` raises is read like that of an async one."""
    error = PermanentError("http.400")

    def action() -> Receipt:
        raise error

    assert await deliver(Plain(action), hello()) == Dead("permanent", error)


async def test_plain_deadline() -> None:
    """A plain send that outlives its deadline is left behind, and an unknown outcome."""
    release = threading.Event()

    def hang() -> Receipt:
        release.wait()
        return RECEIPT

    consumer = Plain(hang)
    consumer.send_timeout = 0.001
    try:
        outcome = await deliver(consumer, hello())
    finally:
        release.set()

    assert told(outcome) == (Retry, True, UnknownOutcomeError, "timeout")


# -- should_send


class Asking(Sms):
    """Asks first; each test brings the answer."""

    def __init__(self, verdict: Verdict | Exception) -> None:
        super().__init__(accept)
        self.verdict = verdict

    def should_send(self, notification: Notification[Any]) -> Verdict:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


async def test_verdicts() -> None:
    """`should_send` lets it pass, skips it, or defers it without counting an attempt."""
    until = soon(minutes=10)

    assert await deliver(Asking(Send()), hello()) == Sent(RECEIPT)
    assert await deliver(Asking(Skip("unsubscribed")), hello()) == Skipped("unsubscribed")
    deferred = await deliver(Asking(Defer(until, "quiet_hours")), hello(), attempt=3)
    assert isinstance(deferred, Retry)
    assert not deferred.counted
    assert 0 < deferred.after <= 600


async def test_verdict_that_raises() -> None:
    """An exception of `should_send` counts like one of `send`."""
    error = TransientError("preferences.away")

    assert await deliver(Asking(error), hello()) == Retry(2, True, error)


# -- what a worker would not take


async def test_other_channel() -> None:
    """A notification of another consumer's channel is passed over."""
    assert await deliver(Sms(accept), hello(channel="email")) == Skipped("other_channel")


async def test_own_channel_names() -> None:
    """The channels need not be those of the default topology."""

    class Fax(Sms):
        name = "fax"
        channels = frozenset({"fax"})

    assert await deliver(Fax(accept), hello(channel="fax")) == Sent(RECEIPT)


async def test_refused_consumer() -> None:
    """A consumer that a worker refuses is refused here."""
    consumer = Sms(accept)
    consumer.name = ""

    with pytest.raises(ConfigError, match="needs a `name`"):
        await deliver(consumer, hello())
