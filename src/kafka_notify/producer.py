"""`Producer`: notifications into Kafka, from any number of threads and coroutines, across forks."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, Message

from kafka_notify import events
from kafka_notify._base.arguments import to_seconds
from kafka_notify._base.units import Seconds
from kafka_notify._kafka.config import Config, producer_config, redacted
from kafka_notify._kafka.defaults import NOTHING
from kafka_notify._kafka.handle import HandleDead, OnDelivery, ProducerHandle, exclusive, reason
from kafka_notify._kafka.pending import NO_OFFSET, PendingSend, RecordMetadata, written_at
from kafka_notify.codec import DEFAULT_CODEC, Codec
from kafka_notify.errors import InvalidNotificationError, NotifyError, QueueFullError
from kafka_notify.notification import Category, Notification
from kafka_notify.topology import Topology
from kafka_notify.wire import Headers, encode

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PendingSend", "Producer", "RecordMetadata"]

_WARM_UP_SECONDS: Final = 10.0
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


class Producer:
    """Hands notifications to Kafka; each lane has a queue and a connection of its own.

    Safe to use from any thread, coroutine and forked child. Lanes open when they are first used, once per process.
    After a fork (gunicorn --preload, Celery, multiprocessing) the child opens its own; the parent alone sends what was
    queued before. Records still queued when the process ends are flushed for up to 30 seconds; children that end with
    `os._exit` (Celery's) must call `close` themselves.

    While brokers cannot be reached, records wait in the lane's queue, which `queue.buffering.max.messages` bounds, for
    up to `delivery.timeout.ms`. Once it is full, sends wait for `max_block`, then raise `QueueFullError`. A full queue
    of one lane does not delay another lane.

    Args:
        config: librdkafka properties; consumer properties in it are left out.
        topology: Lanes, categories and channels; `Topology.default()` when None.
        lane_config: Producer properties of single lanes, by lane name; they take precedence over `config`.
        codec: Turns data into bytes; JSON when None.
        max_block: Seconds (or a timedelta) that a send waits while the lane's queue is full.
        on_event: Called with `events.Produced` and `events.ProduceFailed` on the lanes' serving threads: it must be
            quick. It costs a few microseconds per send.

    Raises:
        ConfigError: A property would break a promise, or a lane is unknown.
    """

    def __init__(
        self,
        config: Config,
        *,
        topology: Topology | None = None,
        lane_config: Mapping[str, Config] = {},
        codec: Codec | None = None,
        max_block: Seconds = 1.0,
        on_event: events.OnEvent | None = None,
    ) -> None:
        self._topology = topology = topology or Topology.default()
        for lane in lane_config:
            topology.lane(lane)
        self._configs = {
            lane.name: producer_config(config, lane.profile, lane_config.get(lane.name, NOTHING))
            for lane in topology.lanes.values()
        }
        self._codec: Codec = codec or DEFAULT_CODEC
        self._max_block = to_seconds(max_block, "max_block")
        self._channels = topology.channels
        self._routes = {c.name: (topology.source_topic(c.lane), c) for c in topology.categories.values()}
        self._listeners: tuple[events.OnEvent, ...] = () if on_event is None else (on_event,)
        self._emit = events.emitter(*self._listeners)
        self._handles: dict[str, ProducerHandle] = {}
        self._closed = False
        weakref.finalize(self, _release, self._handles).atexit = False  # open handles see to that

    def listen(self, on_event: events.OnEvent, /) -> None:
        """Call `on_event` with each event, after the listeners given before. Call it before the first send.

        Args:
            on_event: As for `Producer`.

        Raises:
            NotifyError: A lane is open already.
        """
        if self._handles:
            raise NotifyError("listen to a Producer before its first send or warm_up")
        self._listeners += (on_event,)
        self._emit = events.emitter(*self._listeners)

    # -- sending ---------------------------------------------------------------------------------

    def send(self, notification: Notification[Any], /) -> PendingSend:
        """Queue a notification and return at once, before the broker has it.

        Notifications of one user that one thread sends keep their order. Blocks for up to `max_block` seconds while the
        lane's queue is full: use `asend` on an event loop.

        Args:
            notification: What to send. Its category determines the lane, its user the partition.

        Returns:
            The send, whose acknowledgement is pending: `await` it, or call its `result`.

        Raises:
            InvalidNotificationError: The category or channel is unknown, or the data does not fit.
            QueueFullError: The queue stayed full for `max_block`; the notification was not accepted.
            ProduceError: librdkafka refused the record, for example because it is too large.
            NotifyError: The producer is closed.
        """
        topic, category, key, value, headers = self._encoded(notification)
        pauses: _Pauses | None = None
        while True:
            handle = self._lane_handle(category.lane)
            pending = PendingSend(handle, notification.id)
            report: OnDelivery = pending
            if self._emit is not None:
                report = _Observed(self._emit, pending, notification, topic)
            try:
                handle.produce(topic, value, key, headers, -1, 0, report)
            except BufferError:
                pauses = pauses or _Pauses(topic, self._max_block)
                time.sleep(pauses.next())
            except HandleDead:
                continue  # a fork or a fatal error: the lane opens another one
            else:
                return pending

    async def asend(
        self, notification: Notification[Any], /, *, timeout: Seconds | None = None
    ) -> RecordMetadata:
        """Send a notification and wait for the acknowledgement; never blocks the event loop.

        A call that is cancelled while it waits for room in the queue has sent nothing. One that is cancelled or times
        out later leaves the outcome open: the notification may have been written, or may still be; send it again with
        the same id if it must arrive.

        Args:
            notification: What to send, as for `send`.
            timeout: Seconds (or a timedelta), including the wait for room in the queue; None waits as long as the
                lane's `delivery.timeout.ms`.

        Returns:
            Topic, partition and offset of the record.

        Raises:
            TimeoutError: (also a `ProduceError`) The acknowledgement did not come in time.
            ProduceError: The broker did not acknowledge the record.
            InvalidNotificationError: As for `send`.
            QueueFullError: As for `send`, also when `timeout` ran out first.
            NotifyError: The producer is closed.
        """
        limit = None if timeout is None else to_seconds(timeout, "timeout")
        deadline = None if limit is None else time.monotonic() + limit
        topic, category, key, value, headers = self._encoded(notification)
        pauses: _Pauses | None = None
        while True:
            handle = self._lane_handle(category.lane)
            pending = PendingSend(handle, notification.id)
            report: OnDelivery = pending
            if self._emit is not None:
                report = _Observed(self._emit, pending, notification, topic)
            try:
                handle.produce(topic, value, key, headers, -1, 0, report)
            except BufferError:
                pauses = pauses or _Pauses(
                    topic, self._max_block if limit is None else min(self._max_block, limit)
                )
                await asyncio.sleep(pauses.next())
            except HandleDead:
                continue  # a fork or a fatal error: the lane opens another one
            else:
                break
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return await pending._within(left, limit)

    # -- life cycle ------------------------------------------------------------------------------

    def warm_up(self, lanes: Iterable[str] | None = None) -> None:
        """Connect now, so that the first notification takes milliseconds. Blocks for up to 10 seconds per lane.

        Call it when the service starts, after a fork rather than before it.

        Args:
            lanes: Names of the lanes that this process will use; all lanes when None.

        Raises:
            ConfigError: A lane is unknown, or its topic does not exist.
            NotifyError: No broker answered.
        """
        for name in self._topology.lanes if lanes is None else lanes:
            self._lane_handle(self._topology.lane(name).name).warm_up(
                [self._topology.source_topic(name)], _WARM_UP_SECONDS
            )

    def flush(self, timeout: Seconds = 30) -> None:
        """Wait until everything sent so far is acknowledged or has failed, and its callbacks have run.

        Args:
            timeout: Seconds (or a timedelta), for all lanes together.

        Raises:
            NotifyError: Some notifications are left; the text says how many. They are still being sent.
        """
        self._finish(
            ProducerHandle.flush, timeout, "still being sent: flush again, or see that brokers can be reached"
        )

    def close(self, timeout: Seconds = 30) -> None:
        """Flush, then free everything; later sends raise. Idempotent.

        Blocks: on an event loop use `async with`, or `asyncio.to_thread`.

        Args:
            timeout: Seconds (or a timedelta), for all lanes together.

        Raises:
            NotifyError: Some notifications were not acknowledged in time and are given up: the `PendingSend` of each
                has failed. Also when it is called from a callback of this producer, which it would wait for.
        """
        self._closed = True
        self._finish(ProducerHandle.close, timeout, "given up: send them again with the same ids")
        self._handles.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        lanes = {name: redacted(config)["bootstrap.servers"] for name, config in self._configs.items()}
        return f"Producer({lanes}{', closed' if self._closed else ''})"

    # -- inside ----------------------------------------------------------------------------------

    def _encoded(self, notification: Notification[Any]) -> tuple[str, Category[Any], bytes, bytes, Headers]:
        route = self._routes.get(notification.category)
        if route is None:
            raise _unknown("category", notification.category, self._routes)
        if notification.channel not in self._channels:
            raise _unknown("channel", notification.channel, self._channels)
        topic, category = route
        return topic, category, *encode(notification, self._codec, topic, category)

    def _lane_handle(self, lane: str) -> ProducerHandle:
        handle = self._handles.get(lane)
        if handle is not None and handle.dead is None:
            return handle
        with exclusive():
            if self._closed:
                raise NotifyError("this Producer is closed")
            handle = self._handles.get(lane)
            if handle is None or handle.dead is not None:
                topic = self._topology.source_topic(lane)
                handle = ProducerHandle(self._configs[lane], name=topic, topics=[topic], on_event=self._emit)
                self._handles[lane] = handle
            return handle

    def _finish(self, step: Callable[[ProducerHandle, float], int], timeout: Seconds, advice: str) -> None:
        limit = to_seconds(timeout, "timeout")
        deadline = time.monotonic() + limit
        left = sum(
            step(handle, max(0.0, deadline - time.monotonic())) for handle in tuple(self._handles.values())
        )
        if left:
            raise NotifyError(f"{left} notifications were not acknowledged within {limit:g} s; {advice}")


class _Observed:
    """A delivery report that also becomes an event."""

    __slots__ = ("_emit", "_notification", "_report", "_since", "_topic")

    def __init__(
        self, emit: events.OnEvent, report: OnDelivery, notification: Notification[Any], topic: str
    ) -> None:
        self._emit = emit
        self._report = report
        self._notification = notification
        self._topic = topic
        self._since = time.monotonic()

    def __call__(self, error: KafkaError | None, record: Message) -> None:
        n = self._notification
        self._report(error, record)
        if error is not None and isinstance(self._report, PendingSend):
            self._report._seen()  # whoever listens is told
        offset = written_at(record) if error is None else None
        if offset is None:
            why = NO_OFFSET if error is None else reason(error)
            self._emit(events.ProduceFailed(n.id, n.category, n.channel, self._topic, why))
            return
        partition = record.partition() or 0
        seconds = time.monotonic() - self._since
        self._emit(events.Produced(n.id, n.category, n.channel, self._topic, partition, offset, seconds))


class _Pauses:
    """Pauses between attempts to queue a record, up to `max_block` in all."""

    def __init__(self, topic: str, max_block: float) -> None:
        self._topic = topic
        self._max_block = max_block
        self._deadline = time.monotonic() + max_block
        self._pause = _FIRST_PAUSE

    def next(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise QueueFullError(
                f"{self._topic}: the queue stayed full for {self._max_block:g} s: brokers cannot be "
                "reached or are too slow; send less, or later, or raise queue.buffering.max.messages and max_block"
            ) from None
        pause = min(self._pause, left)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return pause


def _unknown(what: str, name: str, known: Iterable[str]) -> InvalidNotificationError:
    return InvalidNotificationError(f"unknown {what} {name!r}; known: {', '.join(sorted(known)) or 'none'}")


def _release(handles: dict[str, ProducerHandle]) -> None:
    for handle in handles.values():
        handle.release()
