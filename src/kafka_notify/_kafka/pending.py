"""A record on its way: what `send` returns, and how `asend` hears of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
from confluent_kafka import KafkaError, Message

from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._base.units import from_millis
from kafka_notify._kafka import client_errors
from kafka_notify._kafka import handle as _handle
from kafka_notify._kafka.handle import ProducerHandle, log, reason
from kafka_notify._kafka.rights import is_missing_right, told
from kafka_notify.errors import NotifyError, ProduceError

NO_OFFSET: Final = "the broker took it for a duplicate, and it may not be in the log"
"""When the first batch of a producer to a partition is refused (an election) while a later one is accepted, the
broker answers the retried first one as a duplicate, and librdkafka reports success without an offset (seen on
Apache Kafka 4.3.1: such records were missing). One request in flight per connection keeps it from happening."""


@attrs.frozen
class RecordMetadata:
    """Where the broker wrote a record."""

    topic: str
    partition: int
    offset: int
    timestamp: dt.datetime
    """UTC; of the producer's clock unless the topic says otherwise."""


class SendTimeout(ProduceError, TimeoutError):
    """No acknowledgement in time; it may still come."""


class PendingSend:
    """A notification that was accepted by the producer's queue and awaits the broker's acknowledgement.

    Safe to use from any thread. A failure is in `result`, in callbacks, and in `events.ProduceFailed`; where nobody
    looks at any of them, it is logged as an error, with the id and what to do, once a minute for each topic and reason.
    """

    # No future, no condition, and itself the delivery callback: tens of thousands of these are made in a second
    # and live at once, where each further object would also be the garbage collector's; few are waited for.
    __slots__ = ("_callbacks", "_handle", "_id", "_report", "_topic")

    def __init__(self, handle: ProducerHandle, topic: str, id: str) -> None:
        self._handle = handle
        self._topic = topic
        self._id = id
        self._report: KafkaError | Message | None = None
        self._callbacks: list[Callable[[PendingSend], object]] | None = None

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Wait for the acknowledgement. Blocks the thread: use `Producer.asend` on an event loop.

        Args:
            timeout: Seconds; None waits as long as the lane's `delivery.timeout.ms`.

        Raises:
            ProduceError: The broker did not acknowledge it; the text says the topic and why. It may have been
                written all the same: send it again with the same id if it must arrive.
            TimeoutError: (also a `ProduceError`) `timeout` seconds went by; the acknowledgement may still come.
        """
        if self._report is None:
            if self._handle.inherited:
                raise NotifyError(
                    f"{self._topic}: sent before a fork, by the parent process: its result is there"
                )
            reported = threading.Lock()
            reported.acquire()
            self.add_done_callback(lambda _: reported.release())
            if not reported.acquire(timeout=-1 if timeout is None else timeout):
                raise self._timed_out(timeout)
        return self._outcome()

    def done(self) -> bool:
        """Whether the report has come, good or bad."""
        return self._report is not None

    def add_done_callback(self, fn: Callable[[PendingSend], object]) -> None:
        """Call `fn(self)` once when the report comes, on the producer's serving thread, or now if it has come.

        It must be quick and must not block; an exception in it is logged and changes nothing.
        """
        with _handle.exclusive():
            if self._callbacks is None:
                self._callbacks = []
            self._callbacks.append(fn)
        if self._report is not None:
            self._call_back()

    def __repr__(self) -> str:
        report = self._report
        state = (
            "waiting" if report is None else "failed" if isinstance(report, KafkaError) else "acknowledged"
        )
        return f"<PendingSend {self._topic} {state}>"

    def __call__(self, error: KafkaError | None, record: Message, /) -> None:
        """The delivery report, for the producer alone to call.

        Setting `_report` before looking at `_callbacks`, while `add_done_callback` does the reverse, means that
        one of the two sees the other; `pop` gives each callback to one of them only.
        """
        if error is None:
            self._report = record
        else:
            self._report = error
            object.__setattr__(self, "__class__", _Unseen)
        if self._callbacks:
            self._call_back()

    def seen(self) -> None:
        """Somebody looks at how it ended: nothing need be logged."""
        if type(self) is _Unseen:
            object.__setattr__(self, "__class__", PendingSend)

    def _call_back(self) -> None:
        self.seen()
        callbacks = self._callbacks or []
        while True:
            try:
                fn = callbacks.pop(0)
            except IndexError:
                return
            try:
                fn(self)
            except Exception as e:
                log.error("%s: a done callback raised %s", self._topic, type(e).__name__)

    def _outcome(self) -> RecordMetadata:
        report = self._report
        self.seen()
        if report is None:
            raise self._timed_out(0)
        if isinstance(report, KafkaError):
            raise ProduceError(f"{self._topic}: not acknowledged: {_why(report, self._topic)}")
        offset = written_at(report)
        if offset is None:
            raise ProduceError(
                f"{self._topic}: acknowledged without an offset: {NO_OFFSET}; send it again with the same id"
            )
        timestamp = from_millis(report.timestamp()[1])
        return RecordMetadata(self._topic, report.partition() or 0, offset, timestamp)

    def _timed_out(self, timeout: float | None) -> SendTimeout:
        return SendTimeout(
            f"{self._topic}: no acknowledgement within {timeout:g} s{_refusal()}; it may still come, and the record "
            "may have been written: send it again with the same id if it must arrive"
        )


class _Unseen(PendingSend):
    """One that failed, and of which nobody has looked at the result. Another class, so that a send that is acknowledged
    pays nothing for it."""

    __slots__ = ()

    def __del__(self) -> None:
        report = self._report
        if isinstance(report, KafkaError):
            _failures.error(
                f"{self._topic}: a notification was not acknowledged, and nobody looked at what its send returned: "
                f"{_why(report, self._topic)}",
                f"id {self._id}",
            )


_failures: Final = LimitedLog(log)


def written_at(report: Message) -> int | None:
    """The offset that a delivery report without an error names; None when it names none: see `NO_OFFSET`."""
    offset = report.offset()
    return None if offset is None or offset < 0 else offset


_LATELY: Final = 300.0
"""Seconds for which what a client said of its credentials explains why nothing was acknowledged."""


def _refusal() -> str:
    said = client_errors.refused(time.monotonic() - _LATELY)
    return f": {said}" if said else ""


def _why(error: KafkaError, topic: str) -> str:
    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return f"{reason(error)}; create it with create_topics()"
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return (
            f"{reason(error)}; make the data smaller, or raise max.message.bytes of the topic and "
            "message.max.bytes here"
        )
    if is_missing_right(error):
        return f"{told(error, 'Write', f'topic {topic}')}, and send it again with the same id"
    waited = error.code() in (KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_QUEUE)
    return f"{reason(error)}{_refusal() if waited else ''}; send it again with the same id if it must arrive"


class AwaitedSend(PendingSend):
    """A `PendingSend` that a coroutine waits for."""

    __slots__ = ("_mailbox", "future")

    def __init__(self, handle: ProducerHandle, topic: str, id: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(handle, topic, id)
        self._mailbox = _mailbox(loop)
        self.future: asyncio.Future[RecordMetadata] = loop.create_future()

    def __call__(self, error: KafkaError | None, record: Message, /) -> None:
        self._report = record if error is None else error
        self._mailbox.put(self)

    def settle(self) -> None:
        """On the loop: resolve the future, unless its coroutine was cancelled meanwhile."""
        if self.future.done():
            return
        try:
            self.future.set_result(self._outcome())
        except ProduceError as e:
            self.future.set_exception(e)


class _Mailbox:
    """Brings reports from the serving threads to one event loop: one wake-up for all that came meanwhile."""

    __slots__ = ("_awake", "_loop", "_reported")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # it is the key of the dictionary that holds this
        self._reported: deque[AwaitedSend] = deque()
        self._awake = False

    def put(self, send: AwaitedSend) -> None:
        """From any thread."""
        self._reported.append(send)
        if not self._awake:
            self._awake = True
            loop = self._loop()
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._empty)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._reported.clear()

    def _empty(self) -> None:
        # Cleared before the deque is emptied: what is put after the last look wakes the loop again.
        self._awake = False
        reported = self._reported
        while reported:
            reported.popleft().settle()


_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Mailbox] = weakref.WeakKeyDictionary()


def _mailbox(loop: asyncio.AbstractEventLoop) -> _Mailbox:
    found = _mailboxes.get(loop)
    if found is None:
        found = _mailboxes[loop] = _Mailbox(loop)
    return found
