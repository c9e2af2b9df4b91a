"""One librdkafka producer and the thread that serves its delivery reports."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from kafka_notify import events
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._base.supervised import supervised
from kafka_notify._base.where import detail, origin
from kafka_notify._kafka.client_errors import metadata
from kafka_notify._kafka.clients import LIBRDKAFKA, Clients
from kafka_notify._kafka.open_handles import exclusive as exclusive
from kafka_notify._kafka.open_handles import register, unregister
from kafka_notify._kafka.rights import is_refusal, told
from kafka_notify.errors import ConfigError, NotifyError, ProduceError

log = logging.getLogger("kafka_notify.producer")

OnDelivery = Callable[[KafkaError | None, Message], None]

_POLL_SECONDS: Final = 0.1
_METADATA_SECONDS: Final = 1.0
_NEW_TOPIC_SECONDS: Final = 5.0
"""How long a broker may not know a new topic: its metadata lags behind the controller, by seconds on a busy machine."""
_LAST_REPORTS_SECONDS: Final = 5.0


class HandleDead(ProduceError):
    """This handle can never write again, after a fatal error or a fork; open another one."""


class RecordTooLarge(ProduceError):
    """The record is larger than `message.max.bytes`."""


class ProducerHandle:
    """An idempotent librdkafka producer with its own thread for delivery reports.

    Safe to use from any thread. Delivery callbacks run on the handle's thread, in order per partition. They must be
    quick, and must neither block nor call `flush` or `close`. Handles that are open when the process ends are flushed,
    for up to 30 seconds. A handle inherited through a fork is dead in the child; the parent's handle keeps working.

    Args:
        config: The result of `producer_config`.
        name: Name of the handle in logs and errors.
        topics: The topics that it will write; their metadata is fetched in the background at once.
        on_event: A guarded callback; gets `events.KafkaError`, on the handle's thread.
        clients: Opens the producer, and has the runtime of its thread.

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
        clients: Clients = LIBRDKAFKA,
    ) -> None:
        self.name: str = name
        self.dead: str | None = None
        """The reason why nothing can be written any more; None while the handle works."""
        self.inherited: bool = False
        """True if another process opened the handle; the delivery reports arrive there."""
        self._topics = tuple(topics)
        self._emit = on_event
        self._their_error_cb: Callable[[KafkaError], object] | None = config.get("error_cb")
        self._runtime = runtime = clients.runtime
        self._producer: Producer | None = clients.producer({**config, "error_cb": self._on_error})
        self._produce: Callable[..., None] = self._producer.produce
        self._stop = False
        self._drain = False
        self._raised = LimitedLog(log)
        self._closing: threading.Lock = threading.Lock()
        producer = self._producer
        self._thread = supervised(lambda: self._serve(producer), f"kafka-notify-{name}", self._ended, runtime)
        register(self)
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
            BufferError: The queue is full: try again when reports have arrived.
            HandleDead: The handle cannot write any more: open another one.
            ProduceError: librdkafka refuses the record, for example because it is too large.
        """
        try:
            # `callback` and `on_delivery` are one: a None for the first would discard the second.
            self._produce(topic, value, key, partition, on_delivery, None, timestamp, headers)
        except KafkaException as e:
            raise self._refused(topic, e.args[0]) from None

    def warm_up(
        self, topics: Iterable[str], timeout: float, rights: Mapping[str, str] = MappingProxyType({})
    ) -> dict[str, int]:
        """Connect, and fetch the topics' partitions, so that the first record does not wait for them.

        The producer ID arrives with the connection: a first record then takes 3 ms instead of 500 (measured).

        Args:
            timeout: Seconds, for all topics together.
            rights: The right that is needed on each topic, for the text of a refusal.

        Returns:
            The number of partitions of each topic.

        Raises:
            ConfigError: A topic does not exist (asked for 5 seconds: brokers learn of a new one with a delay).
            NotifyError: No broker answered in time, or a topic may not be described.
        """
        monotonic = self._runtime.monotonic
        deadline = monotonic() + timeout
        partitions: dict[str, int] = {}
        for topic in topics:
            answered: float | None = None
            while (found := self._describe(topic, deadline)).error is not None:
                code = found.error.code()
                if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise NotifyError(told(found.error, rights.get(topic, "Write"), f"topic {topic}"))
                now = monotonic()
                answered = answered or now
                is_over = now >= min(deadline, answered + _NEW_TOPIC_SECONDS)
                if code == KafkaError.UNKNOWN_TOPIC_OR_PART and is_over:
                    raise ConfigError(f"{topic}: {reason(found.error)}; create it with create_topics()")
                if now >= deadline:
                    raise NotifyError(f"{topic}: {reason(found.error)}; see the brokers' logs")
                self._runtime.sleep(_POLL_SECONDS)
            partitions[topic] = len(found.partitions)
        return partitions

    def _describe(self, topic: str, deadline: float) -> Any:
        producer = self._producer
        if producer is None or self.dead is not None:
            raise HandleDead(f"{self.name}: {self.dead}")
        try:
            left = max(0.1, deadline - self._runtime.monotonic())
            listed = metadata(producer, left, topic, serve=False, monotonic=self._runtime.monotonic)
        except NotifyError as e:
            raise NotifyError(f"{self.name}: {e}") from None
        return listed.topics[topic]

    def flush(self, timeout: float) -> int:
        """Wait up to `timeout` seconds until all reports have run; return how many have not."""
        monotonic = self._runtime.monotonic
        deadline = monotonic() + timeout
        while (producer := self._producer) is not None:
            # `flush` also counts events such as errors, which the serving thread handles: hence the loop, and the last
            # poll, so that only records are reported as left.
            left = self._serving(producer.flush, max(0.0, deadline - monotonic()))
            if left == 0:
                return 0
            if monotonic() >= deadline:
                self._serving(producer.poll, 0)
                return len(producer)
        return 0

    def close(self, timeout: float) -> int:
        """Refuse new records, flush, and free the handle; records left after `timeout` seconds are reported
        as failed. Idempotent.

        Returns:
            How many records were left.

        Raises:
            NotifyError: Called from a delivery callback, whose end it would wait for.
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
            if (
                self._thread.is_alive()
            ):  # the thread references the producer, so nothing that it uses is freed
                log.error("%s: a delivery callback does not return; its thread is abandoned", self.name)
            self._producer = None
            unregister(self)
            return left

    def release(self) -> None:
        """Close without waiting: the serving thread runs until the last report has been handled."""
        self._drain = True

    def __len__(self) -> int:
        """The number of records that wait for their report."""
        producer = self._producer
        return 0 if producer is None else len(producer)

    def __repr__(self) -> str:
        return f"<ProducerHandle {self.name} {self.dead or f'{len(self)} waiting'}>"

    # -- the serving thread ----------------------------------------------------------------------

    def _serve(self, producer: Producer) -> None:
        for topic in self._topics:
            try:
                producer.list_topics(topic, _METADATA_SECONDS)
            except KafkaException as e:  # librdkafka keeps trying by itself
                log.info("%s: no metadata of %s yet: %s", self.name, topic, reason(e.args[0]))
        while not self._stop:
            self._serving(producer.poll, _POLL_SECONDS)
            if self._drain and not len(producer):
                if self.dead is None:
                    self._produce = self._refuse_closed
                self._producer = None
                unregister(self)
                return

    def _serving(self, call: Callable[[float], int], seconds: float) -> int | None:
        """Return the result of `call`; None if a callback raised, which is logged. The other reports still arrive.

        Callbacks run on any thread that waits: the handle's own, and every caller of `flush`.
        """
        try:
            return call(seconds)
        except BaseException as e:
            is_ours = threading.current_thread() is self._thread
            if not is_ours and not isinstance(e, Exception):
                raise  # from a signal handler, in the main thread
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
        self._die(f"the thread that serves its delivery reports has ended with {type(error).__name__}")

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            log.error("%s: fatal: %s", self.name, reason(error))
            self._die(f"the producer failed permanently ({reason(error)})")
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
            self._die("the producer failed permanently")
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

    def abandon(self) -> None:
        """Give the handle up in a child: librdkafka's threads stay in the parent, which sends what is queued."""
        self._die("it was opened before a fork, in another process")
        self.inherited = True
        self._closing = threading.Lock()  # another thread of the parent may have held it
        # Destroying it would wait forever for those threads, so its memory is leaked on purpose: the extra reference
        # keeps it from being freed, even at the end of the interpreter.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
        self._producer = None


def reason(error: KafkaError) -> str:
    """A librdkafka error for people: its name and text, which contain no payload."""
    return f"{error.name()}: {error.str()}"
