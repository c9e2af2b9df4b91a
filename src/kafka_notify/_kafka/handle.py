"""One librdkafka producer and the thread that serves its delivery reports, through forks and process exit."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Final, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from kafka_notify import events
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._base.supervised import supervised
from kafka_notify._base.where import detail, origin
from kafka_notify._kafka.client_errors import metadata
from kafka_notify._kafka.config import opened
from kafka_notify._kafka.rights import is_refusal, told
from kafka_notify.errors import ConfigError, NotifyError, ProduceError

log = logging.getLogger("kafka_notify.producer")

OnDelivery = Callable[[KafkaError | None, Message], None]

EXIT_SECONDS: Final = 30.0
"""How long a process that ends waits for acknowledgements."""
_POLL_SECONDS: Final = 0.1
_METADATA_SECONDS: Final = 1.0
_NEW_TOPIC_SECONDS: Final = 5.0
"""How long a topic may be unknown to a broker: its metadata follows the controller, on a busy machine by seconds."""
_LAST_REPORTS_SECONDS: Final = 5.0


class HandleDead(ProduceError):
    """This handle will never write again (a fatal error, or a fork): open another one."""


class RecordTooLarge(ProduceError):
    """The record is larger than `message.max.bytes`."""


class ProducerHandle:
    """An idempotent librdkafka producer with a thread of its own for delivery reports.

    Safe to use from any thread. Reports run on its thread, in the order of each partition: they must be quick
    and must neither block nor call `flush` or `close`. Handles still open when the process ends are flushed,
    for up to 30 seconds. A handle inherited through a fork is dead in the child; the parent's goes on.

    Args:
        config: What `producer_config` returned.
        name: For logs and errors.
        topics: What it will write: their metadata is fetched in the background at once.
        on_event: Guarded; is given `events.KafkaError`, from the thread above.

    Raises:
        ConfigError: librdkafka refuses the configuration.
    """

    def __init__(
        self,
        config: dict[str, Any],
        *,
        name: str,
        topics: Iterable[str] = (),
        on_event: events.OnEvent | None = None,
    ) -> None:
        self.name = name
        self.dead: str | None = None
        """Why nothing can be written any more, None while all is well."""
        self.inherited = False
        """Whether another process opened it; that one has the reports."""
        self._topics = tuple(topics)
        self._emit = on_event
        self._their_error_cb: Callable[[KafkaError], object] | None = config.get("error_cb")
        self._producer: Producer | None = opened(Producer, {**config, "error_cb": self._on_error})
        self._produce: Callable[..., None] = self._producer.produce
        self._stop = False
        self._drain = False
        self._raised = LimitedLog(log)
        self._closing = threading.Lock()
        producer = self._producer
        self._thread = supervised(lambda: self._serve(producer), f"kafka-notify-{name}", self._ended)
        _register(self)
        self._thread.start()

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes,
        headers: list[tuple[str, bytes]],
        partition: int = -1,
        timestamp: int = 0,
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Queue one record; never blocks.

        Args:
            partition: -1 leaves it to the key.
            timestamp: Epoch milliseconds; 0 is now.
            on_delivery: Called once, with an error or None and the record as it was written.

        Raises:
            BufferError: The queue is full: try again when reports have come in.
            HandleDead: Open another handle.
            ProduceError: librdkafka refuses the record, for one because it is too large.
        """
        try:
            # `callback` and `on_delivery` are one: a None for the first would discard the second.
            self._produce(topic, value, key, partition, on_delivery, None, timestamp, headers)
        except KafkaException as e:
            raise self._refused(topic, e.args[0]) from None

    def warm_up(
        self, topics: Iterable[str], timeout: float, rights: Mapping[str, str] = MappingProxyType({})
    ) -> dict[str, int]:
        """Connect, and learn the topics' partitions, so that the first record does not have to wait for it.

        The producer id arrives with the connection: a first record then takes 3 ms instead of 500 (measured).

        Args:
            timeout: Seconds, for all topics together.
            rights: What is needed of each topic, for the text of a refusal: whoever may not describe it lacks all.

        Returns:
            The number of partitions of each topic.

        Raises:
            ConfigError: A topic does not exist (asked for 5 seconds: brokers learn of a new one with a delay).
            NotifyError: No broker answered in time, or a topic may not be described.
        """
        deadline = time.monotonic() + timeout
        partitions: dict[str, int] = {}
        for topic in topics:
            answered: float | None = None
            while (found := self._describe(topic, deadline)).error is not None:
                code = found.error.code()
                if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise NotifyError(told(found.error, rights.get(topic, "Write"), f"topic {topic}"))
                now = time.monotonic()
                answered = answered or now
                is_over = now >= min(deadline, answered + _NEW_TOPIC_SECONDS)
                if code == KafkaError.UNKNOWN_TOPIC_OR_PART and is_over:
                    raise ConfigError(f"{topic}: {reason(found.error)}; create it with create_topics()")
                if now >= deadline:
                    raise NotifyError(f"{topic}: {reason(found.error)}; see the brokers' logs")
                time.sleep(_POLL_SECONDS)
            partitions[topic] = len(found.partitions)
        return partitions

    def _describe(self, topic: str, deadline: float) -> Any:
        producer = self._producer
        if producer is None or self.dead is not None:
            raise HandleDead(f"{self.name}: {self.dead}")
        try:
            listed = metadata(producer, max(0.1, deadline - time.monotonic()), topic, serve=False)
        except NotifyError as e:
            raise NotifyError(f"{self.name}: {e}") from None
        return listed.topics[topic]

    def flush(self, timeout: float) -> int:
        """Wait up to `timeout` seconds until all reports have run; return how many have not."""
        deadline = time.monotonic() + timeout
        while (producer := self._producer) is not None:
            # Also counts events such as errors, which the serving thread takes away: hence the loop, and the poll, so
            # that who gives up is told of records alone.
            left = self._serving(producer.flush, max(0.0, deadline - time.monotonic()))
            if left == 0:
                return 0
            if time.monotonic() >= deadline:
                self._serving(producer.poll, 0)
                return len(producer)
        return 0

    def close(self, timeout: float) -> int:
        """Refuse new records, flush, and free the handle; records left after `timeout` seconds are reported
        as failed. Idempotent.

        Returns:
            How many were left.

        Raises:
            NotifyError: Called from a delivery report, which it would wait for.
        """
        if threading.current_thread() is self._thread:
            raise NotifyError(f"{self.name}: close() must not be called from a delivery callback")
        with self._closing:
            producer = self._producer
            if producer is None:
                return 0
            self._produce = self._refuse_closed
            left = self.flush(timeout)
            if left:
                producer.purge()
                self.flush(_LAST_REPORTS_SECONDS)
            self._stop = True
            self._thread.join(_LAST_REPORTS_SECONDS)
            if self._thread.is_alive():  # it keeps the producer alive too, so nothing is freed under it
                log.error("%s: a delivery callback does not return; its thread is given up", self.name)
            self._producer = None
            _open.discard(self)
            return left

    def release(self) -> None:
        """Close without waiting: the serving thread goes on until the last report has run."""
        self._drain = True

    def __len__(self) -> int:
        """Records that wait for their report."""
        producer = self._producer
        return 0 if producer is None else len(producer)

    def __repr__(self) -> str:
        return f"<ProducerHandle {self.name} {self.dead or f'{len(self)} waiting'}>"

    # -- the serving thread ----------------------------------------------------------------------

    def _serve(self, producer: Producer) -> None:
        for topic in self._topics:
            try:
                producer.list_topics(topic, _METADATA_SECONDS)
            except KafkaException as e:  # librdkafka goes on trying by itself
                log.info("%s: no metadata of %s yet: %s", self.name, topic, reason(e.args[0]))
        while not self._stop:
            self._serving(producer.poll, _POLL_SECONDS)
            if self._drain and not len(producer):
                if self.dead is None:
                    self._produce = self._refuse_closed
                self._producer = None
                _open.discard(self)
                return

    def _serving(self, call: Callable[[float], int], seconds: float) -> int | None:
        """What `call` returns, None when a callback raised in it: that is logged, and the other reports still come.

        Whoever waits may run the callbacks: the thread above, and every caller of `flush`.
        """
        try:
            return call(seconds)
        except BaseException as e:
            is_ours = threading.current_thread() is self._thread
            if not is_ours and not isinstance(e, Exception):
                raise  # a signal's, in the main thread
            error = e.args[0] if isinstance(e, KafkaException) and e.args else None
            if not isinstance(error, KafkaError) or not error.fatal():
                self._told_of(e)
                return None
        try:  # confluent-kafka raises a fatal error instead of calling `error_cb`
            self._on_error(error)
        except Exception as e:  # their `error_cb`
            self._told_of(e)
        return None

    def _told_of(self, e: BaseException) -> None:
        self._raised.error(f"{self.name}: a callback raised {type(e).__name__}", origin(e))
        detail(log, e)

    def _ended(self, error: BaseException) -> None:
        self._die(f"the thread that serves its delivery reports has ended on {type(error).__name__}")

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            log.error("%s: fatal: %s", self.name, reason(error))
            self._die(f"the producer failed for good ({reason(error)})")
            self.release()
        elif is_refusal(error):  # long before the first report of a record that waits for it
            self._raised.error(f"{self.name}: {told(error, 'Write', 'its topics')}")
        if self._emit is not None:
            self._emit(events.KafkaError(error.name(), error.fatal()))
        if self._their_error_cb is not None:
            self._their_error_cb(error)

    # -- ends ------------------------------------------------------------------------------------

    def _refused(self, topic: str, error: KafkaError) -> ProduceError:
        if error.code() == KafkaError._FATAL:
            self._die("the producer failed for good")
            return HandleDead(f"{topic}: {self.dead}")
        refusal = RecordTooLarge if error.code() == KafkaError.MSG_SIZE_TOO_LARGE else ProduceError
        return refusal(f"{topic}: not queued: {reason(error)}")

    def _die(self, why: str) -> None:
        self.dead = self.dead or why
        self._produce = self._refuse_dead

    def _refuse_dead(self, topic: str, *_: object) -> NoReturn:
        raise HandleDead(f"{topic}: {self.dead}")

    def _refuse_closed(self, topic: str, *_: object) -> NoReturn:
        raise NotifyError(f"{topic}: the producer is closed")

    def _abandon(self) -> None:
        """In a child process: librdkafka's threads stayed in the parent, which also sends what is queued."""
        self._die("it was opened before a fork, in another process")
        self.inherited = True
        self._closing = threading.Lock()  # another thread of the parent may have held it
        # Destroying it would wait forever for those threads, so its memory is given up on purpose: the extra
        # reference keeps it from being freed, at the end of the interpreter too.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
        self._producer = None


def reason(error: KafkaError) -> str:
    """A librdkafka error for people: its name and text, which hold no payload."""
    return f"{error.name()}: {error.str()}"


# -- the process -----------------------------------------------------------------------------------

_open: set[ProducerHandle] = set()
_exit_registered = False
_lock = threading.RLock()  # a signal handler may send


def exclusive() -> AbstractContextManager[object]:
    """The lock of this process, for what is rare and short; always ask again, it is another one after a fork."""
    return _lock


def _register(handle: ProducerHandle) -> None:
    global _exit_registered
    _open.add(handle)
    processes = sys.modules.get("multiprocessing")
    if not _exit_registered and processes is not None and processes.parent_process() is not None:
        # Children of multiprocessing end without atexit (before Python 3.13 or so), but with these.
        from multiprocessing.util import Finalize

        Finalize(None, _close_all, exitpriority=0)
        _exit_registered = True


@atexit.register
def _close_all() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    left = 0
    for handle in tuple(_open):
        left += handle.close(max(0.0, deadline - time.monotonic()))
    if left:
        # Printed by the interpreter: the process is ending, and logging may be gone.
        raise NotifyError(
            f"the process ended with {left} records not acknowledged within {EXIT_SECONDS:g} s: they are lost "
            "unless the broker wrote them; call Producer.close() and act on what it raises"
        )


def _after_fork() -> None:
    global _open, _exit_registered, _lock
    for handle in _open:
        handle._abandon()
    _open = set()
    _exit_registered = False
    _lock = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
