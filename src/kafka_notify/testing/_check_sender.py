"""What every sender has to get right, checked on a team's own one against a provider that answers as told."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import threading
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol

import attrs

from kafka_notify._payload import unstructure
from kafka_notify._units import Seconds, to_seconds
from kafka_notify.classify import classify_exception
from kafka_notify.consumer import Consumer, check_consumer
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
from kafka_notify.testing._canaries import Canaries, overheard
from kafka_notify.topology import Topology

EXPECTED: Final[Mapping[str, type[DeliveryError]]] = MappingProxyType(
    {
        "throttled": ThrottledError,
        "permanent": PermanentError,
        "invalid_recipient": InvalidRecipientError,
        "unavailable": ProviderUnavailableError,  # our key is refused
        "unknown": UnknownOutcomeError,  # a server error: the message may have been sent
        "html_page": UnknownOutcomeError,  # one whose body is not what the client expects
        "hang_up": UnknownOutcomeError,  # the connection is closed after the request
        "hang": UnknownOutcomeError,
    }
)
"""What a sender makes of each answer, besides `accepted`."""
KINDS: Final = (
    InvalidRecipientError, PermanentError, ThrottledError, TransientError, UnknownOutcomeError,
    ProviderUnavailableError,
)  # fmt: skip
CHECKS: Final = (
    "outcome", "provider", "retry_after", "one_request", "idempotency_key", "remaining_ttl", "deadline",
    "blocking", "cancellation", "recovery", "leaks",
)  # fmt: skip

SHORT: Final = 0.25
"""Seconds that a send is given against a provider that does not answer."""
TTL: Final = 28_657
"""Seconds of remaining time that are looked for in a request: below every provider's cap, and unlikely elsewhere."""
_NO_KINDS: Final[Mapping[str, type[DeliveryError]]] = MappingProxyType({})


class ProviderStub(Protocol):
    """The provider of a sender under test. `HttpStub` is one; write your own for other protocols."""

    def answer(self, kind: str, /) -> object:
        """Answer every request so from now on, and forget those so far. May be async."""
        ...

    def received(self) -> Sequence[bytes]:
        """One entry for each request to send since the last `answer`, with all that it held."""
        ...


@attrs.frozen
class SenderFinding:
    """Something that a sender gets wrong."""

    check: str
    answer: str
    text: str

    def __str__(self) -> str:
        return f"{self.check} [{self.answer}]: {self.text}"


@attrs.frozen
class SenderReport:
    """What `check_sender` has looked at, and what it has found."""

    checked: tuple[str, ...]
    """Check and answer: `outcome [throttled]`."""
    findings: tuple[SenderFinding, ...]

    def verify(self) -> None:
        """Raise an `AssertionError` that lists all findings."""
        if self.findings:
            raise AssertionError("\n".join(["the sender:", *map(str, self.findings)]))


async def check_sender(
    make: Callable[[], Consumer],
    stub: ProviderStub,
    notification: Notification[Any],
    *,
    retry_after: float | None,
    expects: Mapping[str, type[DeliveryError]] = _NO_KINDS,
    secrets: Iterable[str] = (),
    without: Collection[str] = (),
    patience: Seconds = 4.0,
    log_level: int = logging.INFO,
) -> SenderReport:
    """Send through a team's consumer while its provider answers in every documented way, and judge what it does.

    One consumer goes through all answers: `setup`, the sends, `teardown`. It is checked that

    - `outcome`: it returns a `Receipt` for `accepted`, and for each other answer raises the class in `EXPECTED`, by
      itself, by its `classify` or by the built-in table;
    - `provider`: receipts and errors name one and the same provider;
    - `retry_after`: a throttle says how long, when the provider does;
    - `one_request`: a send is one request, so no client repeats it by itself;
    - `idempotency_key`: the request holds the key, at the second attempt too;
    - `remaining_ttl`: it holds the seconds that are left;
    - `deadline`: a provider that says nothing is given up after `attempt.timeout`, without being cancelled;
    - `blocking`: an async send lets the event loop go on while it waits;
    - `cancellation`: an async send that is cancelled ends as cancelled;
    - `recovery`: after that, and after each lost connection, the next send works;
    - `leaks`: no data, recipient or secret stands in an exception (its text, its causes), a log record or on stdout.

    It takes about a second. A plain `send` runs on a thread; one that never ends is left behind. What is logged and
    printed is watched in the whole process, so run nothing beside it.

    Args:
        make: Makes the consumer.
        stub: The provider, with the answers `accepted`, those in `EXPECTED`, and those in `expects`.
        notification: With strings of 6 characters or more, that stand nowhere else, in recipient and data. Let the
            stub's answers hold them as the provider's do: many error messages quote the recipient.
        retry_after: Seconds that the answer `throttled` asks for; None when this provider names no time.
        expects: Other readings of an answer, or answers of this provider alone, for example
            `{"opted_out": InvalidRecipientError}`.
        secrets: Credentials the consumer was given.
        without: Answers and checks that this provider has no use for, for example `remaining_ttl` for e-mail.
        patience: Seconds after which a send that should have ended (after 0.25 s) has not: below the default
            time-outs of clients (5 s and more), well above what a busy machine needs.
        log_level: What production logs at; client libraries that log at this level are heard.

    Raises:
        ConfigError: A worker would refuse this consumer.
        ValueError: `without` names something unknown, or nothing could be looked for in logs.
    """
    unknown = set(without) - set(CHECKS) - set(EXPECTED)
    if unknown:
        raise ValueError(
            f"without: unknown {', '.join(sorted(unknown))}; known: {', '.join((*CHECKS, *EXPECTED))}"
        )
    canaries = Canaries.of(notification.recipient, unstructure(notification.data), secrets)
    consumer = make()
    check_consumer(consumer, Topology.default().extend(channels=consumer.channels))
    check = _SenderCheck(consumer, stub, notification, without, canaries, to_seconds(patience, "patience"))
    with overheard(log_level) as heard:
        await _called(check.consumer.setup)
        try:
            await check.run({**EXPECTED, **expects}, retry_after)
        finally:
            await _called(check.consumer.teardown)
    check.expect(
        "leaks", "logs", None if not (what := canaries.found_in(heard)) else f"{what} was logged or printed"
    )
    return SenderReport(tuple(check.checked), tuple(check.findings))


class _SenderCheck:
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
        """Note the check, and what is wrong."""
        if check in self._without:
            return
        self.checked.append(f"{check} [{answer}]")
        if wrong is not None:
            self.findings.append(SenderFinding(check, answer, wrong))

    # -- the answers ------------------------------------------------------------------------------

    async def _accepted(self) -> None:
        for number in (1, 2):
            await _called(self._stub.answer, "accepted")
            result = await self._send(number=number)
            if not isinstance(result, Receipt):
                self.expect("outcome", "accepted", f"it ends with {_told(result)}, not a Receipt")
                return
            self._provider = self._provider or result.provider
            self.expect("outcome", "accepted", None)
            leaked = self._canaries.found_in([repr(result)])
            self.expect("leaks", "accepted", f"the Receipt holds {leaked}" if leaked else None)
            self._counted("accepted")
            sent = b"\n".join(self._stub.received())
            key = re.escape(self._notification.id.encode()) + rb"(?![A-Za-z0-9_-])"  # not one made longer
            wrong = None if re.search(key, sent) else f"attempt {number} does not pass it on"
            self.expect("idempotency_key", "accepted", wrong)
            ttl = str(TTL).encode()
            self.expect(
                "remaining_ttl",
                "accepted",
                None if ttl in sent else f"{TTL} s are left; the request does not say so",
            )

    async def _refused(self, kind: str, expected: type[DeliveryError]) -> object:
        await _called(self._stub.answer, kind)
        result = await self._send()
        if result is _PENDING:
            self.expect("outcome", kind, f"it has not ended after {self._patience:g} s")
            return None
        error = self._judged(kind, result, expected)
        self._counted(kind)
        return error

    async def _hang(self, expected: type[DeliveryError]) -> bool:
        """Whether it gave up by itself."""
        await _called(self._stub.answer, "hang")
        async with _Ticks() as ticks:
            result = await self._send(timeout=SHORT)
        if inspect.iscoroutinefunction(self.consumer.send) and self._stub.received():
            self._blocks = ticks.count <= 2  # one before the send begins, one after it has ended
            self.expect("blocking", "hang", "nothing else runs until it has ended" if self._blocks else None)
        over = result is _PENDING
        self.expect(
            "deadline",
            "hang",
            f"given {SHORT} s, it waits for more than {self._patience:g} s" if over else None,
        )
        if over:
            return False
        self._judged("hang", result, expected)
        self._counted("hang")
        return True

    async def _recovers(self, after: str) -> None:
        await _called(self._stub.answer, "accepted")
        result = await self._send()
        works = isinstance(result, Receipt)
        self.expect("recovery", after, None if works else f"the send after it ends with {_told(result)}")

    async def _cancelled(self) -> None:
        send = self.consumer.send
        if not inspect.iscoroutinefunction(send) or self._blocks:
            return
        await _called(self._stub.answer, "hang")
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

    # -- what became of it ------------------------------------------------------------------------

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
            self.expect(
                "provider",
                kind,
                None
                if named
                else f"{error!r} does not name the provider that the others do, {self._provider!r}",
            )
        return error

    def _counted(self, kind: str) -> None:
        requests = len(self._stub.received())
        self.expect("one_request", kind, None if requests == 1 else f"the provider was sent {requests}")

    # -- a send -----------------------------------------------------------------------------------

    def _attempt(self, number: int = 1, timeout: float | None = None) -> Attempt:
        most = (self.consumer.retry or LATENCY_RETRY).max_attempts
        timeout = to_seconds(self.consumer.send_timeout, "send_timeout") if timeout is None else timeout
        return Attempt(number, most, self._notification.id, timeout, float(TTL), maybe_sent=number > 1)

    async def _send(self, *, number: int = 1, timeout: float | None = None) -> object:
        """What `send` returns or raises; `_PENDING` when it does not end in time."""
        attempt = self._attempt(number, timeout)
        send = self.consumer.send
        if inspect.iscoroutinefunction(send):
            sending: asyncio.Future[object] = asyncio.ensure_future(send(self._notification, attempt))
        else:
            sending = _on_thread(lambda: send(self._notification, attempt))
        await asyncio.wait({sending}, timeout=self._patience)
        if not sending.done():
            sending.cancel()
            await asyncio.sleep(0)
            return _PENDING
        if sending.cancelled():
            return asyncio.CancelledError()
        return sending.exception() or sending.result()


_PENDING: Final = object()


class _Ticks:
    """How often the event loop came round."""

    async def __aenter__(self) -> _Ticks:
        self.count = 0
        self._task = asyncio.ensure_future(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _tick(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(SHORT / 50)


def _on_thread(call: Callable[[], object]) -> asyncio.Future[object]:
    """A thread of its own, which keeps no process alive: a send that never ends is what this is to find."""
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
        except RuntimeError:  # it ended after the loop did, and nobody waits for it
            pass

    threading.Thread(target=run, name="check-sender", daemon=True).start()
    return future


async def _called(hook: Callable[..., Any], *args: object) -> None:
    done = hook(*args)
    if inspect.isawaitable(done):
        await done


def _kind(error: DeliveryError) -> type[DeliveryError]:
    return _kind_of(type(error))


def _kind_of(cls: type[DeliveryError]) -> type[DeliveryError]:
    """The library's own class that a worker goes by; subclasses of it count as it."""
    return next((kind for kind in KINDS if issubclass(cls, kind)), cls)


def _told(result: object) -> str:
    """An ending, without its text."""
    if result is _PENDING:
        return "nothing in time"
    return repr(result) if isinstance(result, DeliveryError) else type(result).__name__
