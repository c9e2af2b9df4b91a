"""One consumer's way through all answers of a provider, for `check_sender`."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import threading
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs

from kafka_notify._base.arguments import to_seconds
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
from kafka_notify.notification import Attempt, Notification, Receipt
from kafka_notify.policy import LATENCY_RETRY
from kafka_notify.testing._canaries import Canaries

KINDS: Final = (
    InvalidRecipientError, PermanentError, ThrottledError, TransientError, UnknownOutcomeError,
    ProviderUnavailableError,
)  # fmt: skip
SHORT: Final = 0.25
"""Seconds that a send has when the provider does not answer."""
TTL: Final = 28_657
"""Seconds of remaining time that are looked for in a request: below every provider's limit, and unlikely by chance."""


class ProviderStub(Protocol):
    """The provider of a sender under test. `HttpStub` is one; write your own for other protocols."""

    def answer(self, kind: str, /) -> object:
        """Give this answer to every request from now on, and forget the requests so far. May be async."""
        ...

    def received(self) -> Sequence[bytes]:
        """Return the whole content of each request to send since the last `answer`."""
        ...


@attrs.frozen
class SenderFinding:
    """One requirement that a sender does not meet."""

    check: str
    answer: str
    text: str

    def __str__(self) -> str:
        return f"{self.check} [{self.answer}]: {self.text}"


class SenderTrial:
    """One consumer's way through all answers."""

    def __init__(
        self,
        consumer: Consumer,
        stub: ProviderStub,
        notification: Notification[Any],
        without: Collection[str],
        canaries: Canaries,
        patience: float,
    ) -> None:
        self.consumer = consumer
        self.checked: list[str] = []
        self.findings: list[SenderFinding] = []
        self._stub = stub
        self._notification = notification
        self._without = without
        self._canaries = canaries
        self._patience = patience
        self._provider: str | None = None
        self._blocks = False

    async def run(self, expected: Mapping[str, type[DeliveryError]], retry_after: float | None) -> None:
        await self._accepted()
        for kind, error in expected.items():
            if kind in self._without or kind == "hang":
                continue
            found = await self._refused(kind, error)
            if kind == "throttled" and isinstance(found, ThrottledError) and retry_after is not None:
                wrong = found.retry_after != retry_after
                self.expect(
                    "retry_after", kind, f"says {found.retry_after} s, not {retry_after} s" if wrong else None
                )
            if kind == "hang_up":
                await self._recovers(kind)
        if "hang" not in self._without and await self._hang(expected["hang"]):
            await self._recovers("hang")
            await self._cancelled()

    def expect(self, check: str, answer: str, wrong: str | None) -> None:
        """Note a check, and a finding when something is wrong."""
        if check in self._without:
            return
        self.checked.append(f"{check} [{answer}]")
        if wrong is not None:
            self.findings.append(SenderFinding(check, answer, wrong))

    # -- the answers ------------------------------------------------------------------------------

    async def _accepted(self) -> None:
        for number, maybe_sent in ((1, False), (2, False), (2, True)):
            await called(self._stub.answer, "accepted")
            result = await self._send(number=number, maybe_sent=maybe_sent)
            if maybe_sent and isinstance(result, PermanentError) and not self._stub.received():
                return  # the sender leaves the decision to a person, whose redrive says maybe_sent=False
            if not isinstance(result, Receipt):
                self.expect("outcome", "accepted", f"it ends with {_told(result)}, not a Receipt")
                return
            self._provider = self._provider or result.provider
            self.expect("outcome", "accepted", None)
            leaked = self._canaries.found_in([repr(result)])
            self.expect("leaks", "accepted", f"the Receipt holds {leaked}" if leaked else None)
            self._counted("accepted")
            sent = b"\n".join(self._stub.received())
            key = re.escape(self._notification.id.encode()) + rb"(?![A-Za-z0-9_-])"  # the whole key
            wrong = None if re.search(key, sent) else f"attempt {number} does not pass it on"
            self.expect("idempotency_key", "accepted", wrong)
            ttl = str(TTL).encode()
            self.expect(
                "remaining_ttl",
                "accepted",
                None if ttl in sent else f"{TTL} s are left; the request does not say so",
            )

    async def _refused(self, kind: str, expected: type[DeliveryError]) -> object:
        await called(self._stub.answer, kind)
        result = await self._send()
        if result is _PENDING:
            self.expect("outcome", kind, "it does not end within its time")
            return None
        error = self._judged(kind, result, expected)
        self._counted(kind)
        return error

    async def _hang(self, expected: type[DeliveryError]) -> bool:
        """Check a provider that does not answer. Return True when the send ends by itself."""
        await called(self._stub.answer, "hang")
        ticks = _Ticks()
        result: object = None
        for timeout in (SHORT, 4 * SHORT, 16 * SHORT):  # a busy machine may not get as far as the provider
            async with ticks:
                result = await self._send(timeout=timeout)
            if result is _PENDING or self._stub.received():
                break
        if inspect.iscoroutinefunction(self.consumer.send) and self._stub.received():
            self._blocks = ticks.count <= 2  # one before the send begins, one after it has ended
            self.expect("blocking", "hang", "nothing else runs until it has ended" if self._blocks else None)
        over = result is _PENDING
        self.expect(
            "deadline",
            "hang",
            f"it goes on for more than {self._patience:g} s after its time is over" if over else None,
        )
        if over:
            return False
        self._judged("hang", result, expected)
        self._counted("hang")
        return True

    async def _recovers(self, after: str) -> None:
        await called(self._stub.answer, "accepted")
        result = await self._send()
        works = isinstance(result, Receipt)
        self.expect("recovery", after, None if works else f"the send after it ends with {_told(result)}")

    async def _cancelled(self) -> None:
        send = self.consumer.send
        if not inspect.iscoroutinefunction(send) or self._blocks:
            return
        await called(self._stub.answer, "hang")
        task = asyncio.ensure_future(send(self._notification, self._attempt()))
        await asyncio.wait({task}, timeout=SHORT)
        task.cancel()
        await asyncio.wait({task}, timeout=self._patience)
        wrong = None
        if not task.done():
            wrong = f"it goes on for more than {self._patience:g} s"
        elif not task.cancelled():
            wrong = f"it ends with {_told(task.exception() or task.result())}"
        self.expect("cancellation", "hang", wrong)
        await self._recovers("cancellation")

    # -- judging a result -------------------------------------------------------------------------

    def _judged(self, kind: str, result: object, expected: type[DeliveryError]) -> object:
        error = result
        if isinstance(result, Exception):
            said = "".join(traceback.format_exception(result)) + repr(result)
            leaked = self._canaries.found_in([said])
            self.expect("leaks", kind, f"{type(result).__name__} holds {leaked}" if leaked else None)
            if not isinstance(result, DeliveryError):
                error = self.consumer.classify(result) or classify_exception(result) or result
        right = isinstance(error, DeliveryError) and _kind(error) is _kind_of(expected)
        self.expect(
            "outcome", kind, None if right else f"it ends with {_told(error)}, not {expected.__name__}"
        )
        if isinstance(error, DeliveryError):
            self._provider = self._provider or error.provider
            named = error.provider is not None and error.provider == self._provider
            wrong = f"{error!r} does not name the provider that the others do, {self._provider!r}"
            self.expect("provider", kind, None if named else wrong)
        return error

    def _counted(self, kind: str) -> None:
        requests = len(self._stub.received())
        self.expect("one_request", kind, None if requests == 1 else f"the provider was sent {requests}")

    # -- a send -----------------------------------------------------------------------------------

    def _attempt(self, number: int = 1, timeout: float | None = None, *, maybe_sent: bool = False) -> Attempt:
        most = (self.consumer.retry or LATENCY_RETRY).max_attempts
        timeout = to_seconds(self.consumer.send_timeout, "send_timeout") if timeout is None else timeout
        return Attempt(number, most, self._notification.id, timeout, float(TTL), maybe_sent)

    async def _send(
        self, *, number: int = 1, timeout: float | None = None, maybe_sent: bool = False
    ) -> object:
        """Return what `send` returns or raises; `_PENDING` when it does not end in time."""
        attempt = self._attempt(number, timeout, maybe_sent=maybe_sent)
        send = self.consumer.send
        if inspect.iscoroutinefunction(send):
            sending: asyncio.Future[object] = asyncio.ensure_future(send(self._notification, attempt))
        else:
            sending = _on_thread(lambda: send(self._notification, attempt))
        await asyncio.wait({sending}, timeout=attempt.timeout + self._patience)
        if not sending.done():
            sending.cancel()
            await asyncio.sleep(0)
            return _PENDING
        if sending.cancelled():
            return asyncio.CancelledError()
        return sending.exception() or sending.result()


_PENDING: Final = object()


class _Ticks:
    """Counts the turns of the event loop."""

    async def __aenter__(self) -> None:
        self.count = 0
        self._task = asyncio.ensure_future(self._tick())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _tick(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(SHORT / 50)


def _on_thread(call: Callable[[], object]) -> asyncio.Future[object]:
    """Call a function on a daemon thread of its own: a send that never ends must not keep the process alive."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()

    def settle(result: object, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as e:
            error = e
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:  # the loop is closed, so nothing waits for the result
            pass

    context = contextvars.copy_context()  # as on a worker's threads
    threading.Thread(target=context.run, args=(run,), name="check-sender", daemon=True).start()
    return future


async def called(hook: Callable[..., Any], *args: object) -> None:
    """Call a function, and await its result if it is awaitable."""
    done = hook(*args)
    if inspect.isawaitable(done):
        await done


def _kind(error: DeliveryError) -> type[DeliveryError]:
    return _kind_of(type(error))


def _kind_of(cls: type[DeliveryError]) -> type[DeliveryError]:
    """Return the library's own class by which a worker treats an error of class `cls`."""
    return next((kind for kind in KINDS if issubclass(cls, kind)), cls)


def _told(result: object) -> str:
    """Describe a result without its text."""
    if result is _PENDING:
        return "nothing in time"
    return repr(result) if isinstance(result, DeliveryError) else type(result).__name__
