"""Writes copies to the retry and dead-letter topics, and tells the engine when the broker has them.

A copy that is not acknowledged is written again with backoff, for as long as its assignment lives: the
record stays open and its user waits. The one way out is for a copy of more than `FITS_EVERYWHERE` bytes that
is refused as too large: whoever wrote it makes it smaller, or says that something else is written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from kafka_notify._handle import HandleDead, RecordTooLarge
from kafka_notify._rights import why_not
from kafka_notify._worker.turn import InTurns, Turn
from kafka_notify.events import CopyFailed, OnEvent

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from kafka_notify.wire import Headers

FIRST_BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 10.0
FITS_EVERYWHERE: Final = 1_000_000
"""Bytes that every topic takes unless somebody set its limit lower: that can be mended, what is cut off a copy
could not."""
TOO_LARGE: Final = "MSG_SIZE_TOO_LARGE"
_REFUSED_FOR_SIZE: Final = frozenset({TOO_LARGE, "RECORD_LIST_TOO_LARGE"})


class Handle(Protocol):
    """What is needed of a producer handle."""

    def produce(
        self,
        topic: str,
        value: Any,
        key: Any,
        headers: Headers,
        partition: int = -1,
        timestamp: int = 0,
        on_delivery: Callable[[KafkaError | None, Message], None] | None = None,
    ) -> None:
        """Queue a record; BufferError when the queue is full."""


def _never() -> bool:
    return False


def _nothing(*_: object) -> None:
    return None


def _called(call: Callable[..., object], *args: Any) -> object:
    return call(*args)


class Copy:
    """One record to be written, and whom to tell."""

    __slots__ = (
        "done", "failed", "failures", "headers", "key", "offset", "outlives",
        "partition", "reason", "too_large", "topic", "value", "wanted", "writer",
    )  # fmt: skip

    def __init__(
        self,
        writer: CopyWriter,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        wanted: Callable[[], bool],
        done: Callable[[int], object],
        failed: Callable[[], object],
        too_large: Callable[[Copy], bool] | None,
        outlives: bool,
    ) -> None:
        self.writer = writer
        self.outlives = outlives
        self.topic = topic
        self.partition = partition
        self.key = key
        self.value = value
        self.headers = headers
        self.wanted = wanted
        self.done = done
        self.failed = failed
        self.too_large = too_large
        self.failures = 0
        self.reason = ""
        self.offset = -1

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Delivery report, on the handle's poll thread."""
        if error is not None:
            self.reason = error.name()
            self.writer.why = why_not(self.reason, "Write", f"topic {self.topic}")
        else:
            offset = message.offset()
            # an idempotent produce that turns out to be a duplicate is acknowledged without its offset
            if offset is None or offset < 0:
                self.reason = "NO_OFFSET"
            else:
                self.offset = offset
        self.writer.answered(self)

    def give_up(self) -> None:
        """Its assignment has ended: keep nothing alive for an answer that nobody waits for."""
        self.key = self.value = self.too_large = None
        self.headers = []
        self.wanted, self.done, self.failed = _never, _nothing, _nothing

    def hopeless(self) -> bool:
        """Whether it was refused for a size that no setting of a topic has to allow."""
        if self.reason not in _REFUSED_FOR_SIZE:
            return False
        size = len(self.key or b"") + len(self.value or b"")
        return size + sum(len(name) + len(raw or b"") for name, raw in self.headers) > FITS_EVERYWHERE


class CopyWriter:
    """Writes copies for one worker; all methods but `answered` run on the worker's event loop.

    Args:
        handle: Where records are produced.
        loop: The worker's event loop.
        on_event: Told of each failure.
        reopen: Gives another handle when this one has failed for good.
    """

    def __init__(
        self,
        handle: Handle,
        loop: asyncio.AbstractEventLoop,
        on_event: OnEvent | None,
        *,
        reopen: Callable[[], Handle],
    ) -> None:
        self._handle = handle
        self._reopen = reopen
        self._loop = loop
        self._on_event = on_event
        self._answered: deque[Copy] = deque()
        self._open: set[Copy] = set()
        """Copies that are not acknowledged, and that nobody needs once their assignment has ended."""
        self._take = InTurns(lambda call: loop.call_soon(self.guarded, call), self._take_some)
        self._woken = False
        self.guarded: Callable[..., object] = _called
        """Runs callbacks; the engine's ends the worker when one raises."""
        self.why = ""
        """Why one failed last."""
        self.failing = 0
        """Copies that failed at least once and are not acknowledged yet."""

    def write(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        wanted: Callable[[], bool],
        done: Callable[[int], object],
        failed: Callable[[], object],
        too_large: Callable[[Copy], bool] | None = None,
        outlives: bool = False,
    ) -> None:
        """Write a copy until the broker acknowledges it.

        Args:
            topic: Where to.
            partition: Its number; -1 lets the key decide.
            key: Of the record; likewise `value` and `headers`.
            wanted: Asked before each further try; False gives up (the assignment has ended).
            done: Called with the offset, once, when it is acknowledged.
            failed: Called after each failure: the record may have been written all the same.
            too_large: Called when it is refused for a size beyond `FITS_EVERYWHERE`: makes it smaller and says
                that it is to be written, or says False.
            outlives: Whether its answer counts also after `give_up`.
        """
        copy = Copy(
            self,
            topic,
            partition,
            key,
            value,
            headers,
            wanted=wanted,
            done=done,
            failed=failed,
            too_large=too_large,
            outlives=outlives,
        )
        if not outlives:
            self._open.add(copy)
        self._produce(copy)

    def give_up(self) -> None:
        """Free what is kept for copies whose assignment has ended; what librdkafka has of them, it writes."""
        for copy in [copy for copy in self._open if not copy.wanted()]:
            copy.give_up()
            self._open.discard(copy)

    def _produce(self, copy: Copy) -> None:
        try:
            self._handle.produce(
                copy.topic,
                copy.value,
                copy.key,
                copy.headers,
                partition=copy.partition,
                on_delivery=copy.delivered,
            )
        except BufferError:
            self._loop.call_later(
                0.05, self.guarded, self._again, copy
            )  # back-pressure, not a failure: nothing was queued
        except HandleDead:
            self._handle = self._reopen()
            copy.reason = "HANDLE_DEAD"
            self._failed(copy)
        except RecordTooLarge:
            copy.reason = TOO_LARGE
            self._failed(copy)
        except Exception as e:  # refused before it was queued
            copy.reason = _reason(e)
            self._failed(copy)

    def answered(self, copy: Copy) -> None:
        """A delivery report came in; called on the handle's thread, many share one wake-up of the loop."""
        self._answered.append(copy)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self.guarded, self._take)
            except RuntimeError:  # the loop is closed: the worker has stopped, nobody waits any more
                self._answered.clear()

    def _take_some(self, turn: Turn) -> bool:
        self._woken = False
        answered = self._answered
        while answered:
            copy = answered.popleft()
            if copy.reason:
                self._failed(copy)
            else:
                if copy.failures:
                    self.failing -= 1
                self._open.discard(copy)
                copy.done(copy.offset)
            if turn.over():
                break
        return bool(answered)

    def _failed(self, copy: Copy) -> None:
        if not copy.failures:
            self.failing += 1
        copy.failures += 1
        copy.failed()
        if self._on_event is not None:
            self._on_event(CopyFailed(copy.topic, copy.partition, copy.reason, copy.failures))
        if copy.too_large is not None and copy.hopeless():
            # not from within the caller's `write`, whose state is not ready for an answer
            self._loop.call_soon(self.guarded, self._make_smaller, copy)
            return
        backoff = min(MAX_BACKOFF, FIRST_BACKOFF * 2.0 ** min(copy.failures, 10))
        self._loop.call_later(backoff, self.guarded, self._again, copy)

    def _make_smaller(self, copy: Copy) -> None:
        if copy.too_large is not None and copy.too_large(copy):
            copy.reason = ""
            self._produce(copy)
        else:
            self.failing -= 1
            self._open.discard(copy)

    def _again(self, copy: Copy) -> None:
        if copy.wanted():
            copy.reason = ""
            self._produce(copy)
            return
        self._open.discard(copy)
        if copy.failures:
            self.failing -= 1


def _reason(error: Exception) -> str:
    kafka_error = error.args[0] if error.args else None
    name = getattr(kafka_error, "name", None)
    return str(name()) if callable(name) else type(error).__name__
