"""The kill switch: stop sending a category, a channel or a whole consumer at run time, on all workers at once."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Final, get_args

from confluent_kafka import KafkaError, Message

from kafka_notify._base.arguments import check_choice
from kafka_notify._base.names import is_name, tool_group
from kafka_notify._base.units import UTC
from kafka_notify._kafka.client_errors import why_not_written
from kafka_notify._kafka.config import Config, producer_config
from kafka_notify._kafka.handle import ProducerHandle
from kafka_notify._kafka.log_reader import LogReader
from kafka_notify._kafka.rights import told
from kafka_notify._wire.pause import Pause, PauseKind, pause_key, pause_value, read_pause
from kafka_notify.errors import ConfigError, ProduceError
from kafka_notify.topology import Topology

__all__ = ["Pause", "Pauses"]

_PARTITION: Final = 0
_SECONDS: Final = 30.0


class Pauses:
    """Pauses and resumes, and lists what is paused. Use it from one thread.

    Every worker reads the control topic (`notif.control`) from its beginning before its first send, and then as it
    grows, so that a pause reaches running workers within a second and is known to those that start later. Sends that
    are under way end; nothing new starts. Paused notifications wait in Kafka in their order: nothing is lost, only what
    expires meanwhile becomes a dead letter, and no attempt is counted. Retention continues: a pause must end before it.

    A paused consumer, or one whose channels are all paused, stops reading. A consumer that also sends other
    notifications copies each paused one once to its retry topic, and later ones of the same user wait behind it.

    Args:
        config: librdkafka properties, as for `Producer` and `Worker`.
        topology: Lanes, categories and channels that may be paused; by default `Topology.default()`.
    """

    def __init__(self, config: Config, *, topology: Topology | None = None) -> None:
        self._config = dict(config)
        self._topology = topology or Topology.default()

    def __repr__(self) -> str:
        return f"<Pauses in {self._topology.control_topic}>"

    def pause(
        self,
        kind: PauseKind,
        name: str,
        *,
        lane: str | None = None,
        until: dt.datetime | None = None,
        reason: str = "",
        by: str = "",
    ) -> Pause:
        """Pause a category, a channel or a consumer, and replace an earlier pause. Blocks until the brokers have it.

        Args:
            kind: `category`, `channel` or `consumer`.
            name: Name of the category, channel or consumer; `workers` is the consumer without a name.
            lane: Name of the only lane on which it is paused; all lanes by default.
            until: Aware datetime at which the pause ends by itself; by default only `resume` ends it.
            reason: Why, for other people; no personal data, as workers log it.
            by: Name of the person or tool that pauses.

        Returns:
            The pause, as workers read it.

        Raises:
            ConfigError: `kind` or `name` is unknown, `until` is in the past, or there is no control topic.
            ProduceError: The brokers did not acknowledge it: it may or may not be paused.
            NotifyError: The brokers do not answer.
        """
        check_choice(kind, get_args(PauseKind), "kind")
        now = dt.datetime.now(UTC)
        if until is not None and until.tzinfo is None:
            raise ConfigError(
                "until must be an aware datetime, such as datetime.now(timezone.utc) + timedelta(hours=1)"
            )
        if until is not None and until <= now:
            raise ConfigError("until must be in the future")
        with self._reader() as reader:
            self._check(reader, kind, name, lane)
        pause = Pause(kind, name, lane, now, until, reason, by)
        self._write(pause_key(kind, name, lane), pause_value(pause))
        return pause

    def resume(self, kind: PauseKind, name: str, *, lane: str | None = None) -> bool:
        """End a pause; waiting notifications are sent at once, in their order. Blocks until the brokers have it.

        Args:
            kind: As for `pause`.
            name: As for `pause`.
            lane: As for `pause`: a pause on one lane and one on all lanes end separately.

        Returns:
            True if it was paused.

        Raises:
            ConfigError: `kind` is unknown, or there is no control topic.
            ProduceError: The brokers did not acknowledge it.
            NotifyError: The brokers do not answer.
        """
        check_choice(kind, get_args(PauseKind), "kind")
        key = pause_key(kind, name, lane)
        if key not in self._read():
            return False
        self._write(key, None)
        return True

    def active(self) -> list[Pause]:
        """Return the pauses that have not ended.

        Raises:
            ConfigError: There is no control topic.
            NotifyError: The brokers do not answer.
        """
        now = round(time.time() * 1000)
        return sorted((p for p in self._read().values() if not p.over(now)), key=lambda pause: pause.what)

    # -- the topic ------------------------------------------------------------------------------------

    def _reader(self) -> LogReader:
        return LogReader(self._config, tool_group(self._topology.prefix, "control"))

    def _read(self) -> dict[bytes, Pause]:
        found: dict[bytes, Pause] = {}
        with self._reader() as reader:
            topic = self._existing(reader)
            for message in reader.read({(topic, _PARTITION): reader.extent(topic, _PARTITION)}):
                key, value = message.key() or b"", message.value()
                pause = None if value is None else read_pause(key, value)
                if pause is not None:
                    found[key] = pause
                elif value is None:
                    found.pop(key, None)
        return found

    def _existing(self, reader: LogReader) -> str:
        topic = self._topology.control_topic
        if not reader.partitions(topic):
            raise ConfigError(
                f"{topic}: the control topic does not exist, so that no worker would hear of it; create it with "
                "create_topics() or `kafka-notify topics create`; workers look for it every 30 s"
            )
        return topic

    def _check(self, reader: LogReader, kind: PauseKind, name: str, lane: str | None) -> None:
        topology = self._topology
        lanes = list(topology.lanes) if lane is None else [topology.lane(lane).name]
        known: dict[str, set[str]] = {"category": set(topology.categories), "channel": set(topology.channels)}
        if kind in known:
            if name not in known[kind]:
                raise ConfigError(
                    f"unknown {kind} {name!r}; known: {', '.join(sorted(known[kind])) or 'none'}"
                )
        elif not is_name(name) or not any(
            reader.partitions(topology.retry_topic(each, name)) for each in lanes
        ):
            raise ConfigError(f"unknown consumer {name!r}: it has no retry topic on {' or '.join(lanes)}")
        self._existing(reader)

    def _write(self, key: bytes, value: bytes | None) -> None:
        began = time.monotonic()
        answered = threading.Event()
        failure: list[str] = []

        def report(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failure.append(told(error, "Write", f"topic {topic}"))
            answered.set()

        topic = self._topology.control_topic
        handle = ProducerHandle(producer_config(self._config, "latency"), name="pauses", topics=[topic])
        try:
            handle.produce(topic, value, key, [], partition=_PARTITION, on_delivery=report)
            if not answered.wait(_SECONDS + 5):  # delivery.timeout.ms is 30 s
                failure.append("no answer")
        finally:
            handle.close(5)
        if failure:
            why = why_not_written(topic, failure[0], began)
            raise ProduceError(f"{topic}: not written ({why}); look at what is paused, then try again")
