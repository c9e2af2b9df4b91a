"""A send whose report is pending, and how threads and event loops wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Final

import attrs
from confluent_kafka import KafkaError, Message

from kafka_notify._base.arguments import to_seconds
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._base.units import Seconds, from_millis
from kafka_notify._kafka import client_errors
from kafka_notify._kafka import handle as _handle
from kafka_notify._kafka.handle import ProducerHandle, log, reason
from kafka_notify._kafka.mailbox import mailbox_of
from kafka_notify._kafka.rights import is_missing_right, told
from kafka_notify.errors import NotifyError, ProduceError

NO_OFFSET: Final = "the broker took it for a duplicate, and it may not be in the log"
"""When the first batch of a producer to a partition is refused (an election) while a later one is accepted, the
broker answers the retried first one as a duplicate, and librdkafka reports success without an offset (seen on
Apache Kafka 4.3.1: such records were missing). One request in flight per connection keeps it from happening."""


@attrs.frozen
class RecordMetadata:
    """Place of a record that the broker has written.

    Args:
        topic: Name of the topic.
        partition: Number of the partition.
        offset: Offset in the partition.
        timestamp: Time of the record, UTC; by the producer's clock unless the topic says otherwise.
    """

    topic: str
    partition: int
    offset: int
    timestamp: dt.datetime


class SendTimeout(ProduceError, TimeoutError):
    """The acknowledgement did not come in time; it may still come."""


class PendingSend:
    """A notification in the producer's queue, whose acknowledgement by the broker is pending.

    Safe to use from any thread and any event loop. `await` it on an event loop, call `result` elsewhere. A failure is
    reported by `await`, `result`, `exception`, callbacks and `events.ProduceFailed`. A failure that none of them
    reported is logged as an error, with the id and what to do, once a minute for each topic and reason.

    Every send is reported: acknowledged, refused, or given up after the lane's `delivery.timeout.ms`. `Producer.flush`
    returns once all reports have come; `Producer.close` gives up what is left at its timeout, so that nothing waits for
    ever. After a fork only the parent process has the reports of what was sent before.
    """

    # No future, no condition, and itself the delivery callback: tens of thousands of these are made in a second
    # and live at once, where each further object would also be the garbage collector's; few are waited for. With four
    # slots it fits into a cache line; hence the topic is that of the handle.
    __slots__ = ("_callbacks", "_handle", "_id", "_report")

    def __init__(self, handle: ProducerHandle, id: str) -> None:
        self._handle = handle
        self._id = id
        self._report: KafkaError | Message | None = None
        self._callbacks: list[Callable[[PendingSend], object]] | None = None

    def __await__(self) -> Generator[Any, None, RecordMetadata]:
        """Wait for the acknowledgement on the running event loop, which need not be that of the send.

        Several tasks may await one send. A cancelled `await` changes nothing about the send: the record is still being
        sent, and may be awaited again.

        Returns:
            Topic, partition and offset of the record.

        Raises:
            ProduceError: As for `result`.
        """
        return self._within(None, None).__await__()

    def result(self, timeout: Seconds | None = None) -> RecordMetadata:
        """Wait for the acknowledgement. Blocks the thread: on an event loop `await` the send instead.

        Args:
            timeout: Seconds, or a timedelta; None waits as long as the lane's `delivery.timeout.ms`.

        Returns:
            Topic, partition and offset of the record.

        Raises:
            ProduceError: The broker did not acknowledge the record; the text says the topic and why. The record may
                have been written all the same: send it again with the same id if it must arrive.
            TimeoutError: (also a `ProduceError`) `timeout` passed; the acknowledgement may still come.
            ConfigError: `timeout` is not a finite duration >= 0.
            NotifyError: The notification was sent before a fork, by the parent process.
        """
        self._wait(timeout)
        return self._outcome()

    def exception(self, timeout: Seconds | None = None) -> ProduceError | None:
        """Wait for the acknowledgement, and return why it did not come. Blocks the thread, as `result` does.

        Args:
            timeout: Seconds, or a timedelta; None waits as long as the lane's `delivery.timeout.ms`.

        Returns:
            The error that `result` raises; None for a record that was acknowledged.

        Raises:
            TimeoutError: (also a `ProduceError`) `timeout` passed; the acknowledgement may still come.
            ConfigError: `timeout` is not a finite duration >= 0.
            NotifyError: The notification was sent before a fork, by the parent process.
        """
        self._wait(timeout)
        end = self._end()
        return end if isinstance(end, ProduceError) else None

    def done(self) -> bool:
        """Return True once the report has come, good or bad. Never blocks."""
        return self._report is not None

    def add_done_callback(self, fn: Callable[[PendingSend], object]) -> None:
        """Call `fn(self)` once, when the report comes.

        Args:
            fn: Called on the lane's serving thread, or here and now when the report has come. It must be quick and must
                not block, nor call `Producer.flush` or `close`. An exception in it is logged and changes nothing.
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
        return f"<PendingSend {self._handle.name} {state}>"

    def __call__(self, error: KafkaError | None, record: Message, /) -> None:
        """The delivery report, for the producer alone to call.

        Setting `_report` before looking at `_callbacks`, while `add_done_callback` does the reverse, means that
        one of the two sees the other; `pop` gives each callback to one of them only.
        """
        if error is None:
            self._report = record
        else:
            object.__setattr__(self, "__class__", _Unseen)  # first: whoever finds the report says `_seen`
            self._report = error
        if self._callbacks:
            self._call_back()

    def _seen(self) -> None:
        """Note that somebody looks at how the send ended, so that its failure is not logged."""
        if type(self) is _Unseen:
            object.__setattr__(self, "__class__", PendingSend)

    async def _within(self, timeout: float | None, given: float | None) -> RecordMetadata:
        """Await the acknowledgement, for up to `timeout` seconds; the error tells of the `given` ones."""
        if self._report is None:
            reported, wake = self._on_loop()
            try:
                if timeout is None:
                    await reported
                else:
                    await asyncio.wait({reported}, timeout=timeout)
            finally:
                if self._report is None:  # cancelled, or too late
                    self._forget(wake)
            if self._report is None:
                raise self._timed_out(given)
        return self._outcome()

    def _on_loop(self) -> tuple[asyncio.Future[None], Callable[[PendingSend], object]]:
        """A future of the running loop that is done when the report comes, and the callback that sees to it."""
        self._check_process()
        loop = asyncio.get_running_loop()
        reported = loop.create_future()
        wake = functools.partial(mailbox_of(loop).put, reported)
        self.add_done_callback(wake)
        return reported, wake

    def _wait(self, timeout: Seconds | None) -> None:
        limit = None if timeout is None else to_seconds(timeout, "timeout")
        if self._report is not None:
            return
        self._check_process()
        reported = threading.Lock()
        reported.acquire()

        def wake(_: PendingSend) -> None:
            reported.release()

        self.add_done_callback(wake)
        if not reported.acquire(timeout=-1 if limit is None else min(limit, threading.TIMEOUT_MAX)):
            self._forget(wake)
            if self._report is None:
                raise self._timed_out(limit)

    def _check_process(self) -> None:
        if self._handle.inherited:
            raise NotifyError(
                f"{self._handle.name}: the parent process sent it before the fork; ask for the result there"
            )

    def _forget(self, fn: Callable[[PendingSend], object]) -> None:
        """Take back a callback: whoever waited has left, so that a failure is not reported to them."""
        with contextlib.suppress(ValueError):  # it is being called
            (self._callbacks or []).remove(fn)

    def _call_back(self) -> None:
        callbacks = self._callbacks or []
        while callbacks:
            try:
                fn = callbacks.pop(0)
            except IndexError:  # another thread has taken it
                return
            self._seen()
            try:
                fn(self)
            except Exception as e:
                log.error("%s: a done callback raised %s", self._handle.name, type(e).__name__)

    def _outcome(self) -> RecordMetadata:
        end = self._end()
        if isinstance(end, ProduceError):
            raise end
        return end

    def _end(self) -> RecordMetadata | ProduceError:
        report = self._report
        assert report is not None
        if isinstance(report, KafkaError):
            self._seen()
            return ProduceError(f"{self._handle.name}: not acknowledged: {_why(report, self._handle.name)}")
        offset = written_at(report)
        if offset is None:
            return ProduceError(
                f"{self._handle.name}: acknowledged without an offset: {NO_OFFSET}; send it again with the same id"
            )
        return RecordMetadata(
            self._handle.name, report.partition() or 0, offset, from_millis(report.timestamp()[1])
        )

    def _timed_out(self, timeout: float | None) -> SendTimeout:
        return SendTimeout(
            f"{self._handle.name}: no acknowledgement within {timeout:g} s{_refusal()}; it may still come, and the "
            "record may have been written: send it again with the same id if it must arrive"
        )


class _Unseen(PendingSend):
    """One that failed, and of which nobody has looked at the result. Another class, so that a send that is acknowledged
    pays nothing for it."""

    __slots__ = ()

    def __del__(self) -> None:
        report = self._report
        if isinstance(report, KafkaError):
            _failures.error(
                f"{self._handle.name}: a notification was not acknowledged, and nobody looked at its result: "
                f"{_why(report, self._handle.name)}",
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
