"""Writes copies to the retry and dead-letter topics, and tells the engine when the broker has them.

A copy that is not acknowledged is written again with backoff, for as long as its assignment lives: the
record stays open and its user waits. The one way out is for a copy of more than `FITS_EVERYWHERE` bytes that
is refused as too large: it makes itself smaller, or sees that something else is written.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from kafka_notify._base.runtime import SYSTEM
from kafka_notify._base.turn import InTurns, Turn
from kafka_notify._kafka.handle import HandleDead, RecordTooLarge
from kafka_notify._kafka.rights import why_not
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
DEAD: Final = "HANDLE_DEAD"
_REFUSED_FOR_SIZE: Final = frozenset({TOO_LARGE, "RECORD_LIST_TOO_LARGE"})


class Handle(Protocol):
    """The methods of a producer handle that the copies need."""

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


def _called(call: Callable[..., object], *args: Any) -> object:
    return call(*args)


class Copy:
    """One record to be written until the broker acknowledges it. Subclasses say what follows.

    Its methods run on the worker's event loop.
    """

    __slots__ = (
        "abandoned", "failures", "headers", "key", "offset", "partition", "reason", "topic", "value",
    )  # fmt: skip

    outlives: ClassVar[bool] = False
    """True when its acknowledgement matters also after the assignment has ended."""
    gives_way: ClassVar[bool] = False
    """True when `too_large` is asked once a topic refuses more than `FITS_EVERYWHERE` bytes."""

    def __init__(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        self.topic = topic
        self.partition = partition
        """Its number; -1 lets the key decide."""
        self.key = key
        self.value = value
        self.headers = headers
        self.failures = 0
        self.reason = ""
        """Why the last try failed."""
        self.offset = -1
        self.abandoned = False
        """Nobody waits for its answer any more."""

    def wanted(self) -> bool:
        """True while it is still to be written: asked before each further try. The assignment may have ended."""
        raise NotImplementedError

    def acknowledged(self, offset: int) -> None:
        """The broker has it. Called once, unless it was abandoned."""
        raise NotImplementedError

    def failed(self) -> None:
        """A try failed: the record may have been written all the same."""

    def too_large(self) -> bool:
        """Make it smaller; whether it is to be written again. Otherwise it ends here."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Its assignment has ended: keep nothing alive for an answer that nobody waits for."""
        self.abandoned = True
        self.key = self.value = None
        self.headers = []

    def hopeless(self) -> bool:
        """True when it was refused for a size that no setting of a topic has to allow."""
        if self.abandoned or self.reason not in _REFUSED_FOR_SIZE:
            return False
        size = len(self.key or b"") + len(self.value or b"")
        return size + sum(len(name) + len(raw or b"") for name, raw in self.headers) > FITS_EVERYWHERE


class CopyWriter:
    """Writes copies for one worker, on its event loop.

    Args:
        handle: Where records are produced.
        loop: The worker's event loop.
        on_event: Told of each failure.
        reopen: Gives another handle when this one has failed permanently.
        guarded: Runs callbacks; a worker's ends the worker when one raises.
        monotonic: Returns seconds.
    """

    def __init__(
        self,
        handle: Handle,
        loop: asyncio.AbstractEventLoop,
        on_event: OnEvent | None,
        *,
        reopen: Callable[[], Handle],
        guarded: Callable[..., object] = _called,
        monotonic: Callable[[], float] = SYSTEM.monotonic,
    ) -> None:
        self._handle = handle
        self._reopen = reopen
        self._loop = loop
        self._on_event = on_event
        self._guarded = guarded
        self._answered: deque[Copy] = deque()
        self._open: set[Copy] = set()
        """Copies that are not acknowledged, and that nobody needs once their assignment has ended."""
        self._take = InTurns(lambda call: loop.call_soon(self._guarded, call), self._take_some, monotonic)
        self._woken = False
        self.why = ""
        """Why one failed last."""
        self.failing = 0
        """Copies that failed at least once and are not acknowledged yet."""

    def write(self, copy: Copy) -> None:
        """Write a copy until the broker acknowledges it, or until nobody wants it."""
        if not copy.outlives:
            self._open.add(copy)
        self._produce(copy)

    def give_up(self) -> None:
        """Free what is kept for copies whose assignment has ended; what librdkafka has of them, it writes."""
        for copy in [copy for copy in self._open if not copy.wanted()]:
            copy.abandon()
            self._open.discard(copy)

    def _produce(self, copy: Copy) -> None:
        try:
            self._handle.produce(
                copy.topic,
                copy.value,
                copy.key,
                copy.headers,
                partition=copy.partition,
                on_delivery=functools.partial(self._delivered, copy),
            )
            return
        except BufferError:
            self._loop.call_later(
                0.05, self._guarded, self._again, copy
            )  # back-pressure, not a failure: nothing was queued
            return
        except HandleDead:
            copy.reason = DEAD
        except RecordTooLarge:
            copy.reason = TOO_LARGE
        except Exception as e:  # refused before it was queued
            copy.reason = _reason(e)
        # after the handlers: a client that raises in one would keep their exception, and with it the copy, for ever
        if copy.reason == DEAD:
            self._handle = self._reopen()
        self._failed(copy)

    def _delivered(self, copy: Copy, error: KafkaError | None, message: Message) -> None:
        """Delivery report, on the handle's poll thread; many share one wake-up of the loop."""
        if error is not None:
            copy.reason = error.name()
            self.why = why_not(copy.reason, "Write", f"topic {copy.topic}")
        else:
            offset = message.offset()
            # an idempotent produce that turns out to be a duplicate is acknowledged without its offset
            if offset is None or offset < 0:
                copy.reason = "NO_OFFSET"
            else:
                copy.offset = offset
        self._answered.append(copy)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._guarded, self._take)
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
                if not copy.abandoned:
                    copy.acknowledged(copy.offset)
            if turn.over():
                break
        return bool(answered)

    def _failed(self, copy: Copy) -> None:
        if not copy.failures:
            self.failing += 1
        copy.failures += 1
        if not copy.abandoned:
            copy.failed()
        if self._on_event is not None:
            self._on_event(CopyFailed(copy.topic, copy.partition, copy.reason, copy.failures))
        if copy.gives_way and copy.hopeless():
            # not from within the caller's `write`, whose state is not ready for an answer
            self._loop.call_soon(self._guarded, self._make_smaller, copy)
            return
        backoff = min(MAX_BACKOFF, FIRST_BACKOFF * 2.0 ** min(copy.failures, 10))
        self._loop.call_later(backoff, self._guarded, self._again, copy)

    def _make_smaller(self, copy: Copy) -> None:
        if not copy.abandoned and copy.too_large():
            copy.reason = ""
            self._produce(copy)
        else:
            self.failing -= 1
            self._open.discard(copy)

    def _again(self, copy: Copy) -> None:
        if not copy.abandoned and copy.wanted():
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
