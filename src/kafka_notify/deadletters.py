"""The way back: find dead letters, see why they died, and redrive them to the consumer that gave up."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import IO, Final, cast

import attrs
from confluent_kafka import Message

from kafka_notify import wire
from kafka_notify._base.names import DEFAULT_CONSUMER, of_group, tool_group
from kafka_notify._base.text import json_line
from kafka_notify._base.units import to_millis
from kafka_notify._kafka.config import Config
from kafka_notify._kafka.log_reader import LogReader
from kafka_notify._redrive.writer import OnProgress, RedriveProgress, Watch, write
from kafka_notify._wire.dead_letter import DeadLetter, SourceRecord
from kafka_notify._wire.headers import headers_of
from kafka_notify.codec import DEFAULT_CODEC, Codec
from kafka_notify.errors import ConfigError
from kafka_notify.topology import Topology

__all__ = ["DeadLetter", "DeadLetters", "RedriveProgress", "RedriveReport", "SourceRecord"]

log: Final = logging.getLogger("kafka_notify.dead_letters")


@attrs.frozen
class RedriveReport:
    """What `DeadLetters.redrive` did, or would do."""

    redriven: int
    """Letters written to a retry topic and acknowledged; in a dry run those that would be."""
    skipped: Mapping[str, int]
    """How many letters were left alone, by reason:

    - `expired`: nobody waits for it any more; `allow_expired` overrides
    - `forged`: its source record has other bytes, so that somebody else wrote it; nothing overrides that
    - `redacted`: the payload was kept out of the letter, and its source record is gone
    - `unverified`: its source record is gone, so that nobody can tell whether its consumer wrote it; `allow_unverified`
      overrides
    - `undecodable`: no worker could read it; it counts again when a codec or payload class that can is given
    - `parked`: it was redriven three times and died each time
    - `already_redriven`: it is on its way or was, or a later death of it is known
    - `unproven`: its retry topic does not reach back to its death (any more), so that nobody can tell whether it was
      redriven; `allow_unproven` overrides
    - `no_consumer`: nobody reads the retry topic of its consumer, which was renamed or removed; `to` names another one
    - `other_channel`: the consumer that `to` names does not send its channel
    - `unknown_group`: no lane of the topology, or no retry topic on the cluster, belongs to its consumer
    """
    dry_run: bool
    remaining: int = 0
    """Letters that a cancelled redrive did not come to: run it again."""
    cancelled: bool = False
    advice: Sequence[str] = ()
    """What to do about letters that nobody would read, each a sentence for a person."""


class DeadLetters:
    """Reads the dead-letter topics of all lanes, and redrives what lies there. Use it from one thread.

    Args:
        config: librdkafka properties, as for `Producer` and `Worker`.
        topology: Where the topics are; by default `Topology.default()`.
        codec: Reads the values; by default `JsonCodec()`.
    """

    def __init__(
        self, config: Config, *, topology: Topology | None = None, codec: Codec | None = None
    ) -> None:
        self._config = dict(config)
        self._topology = topology or Topology.default()
        self._codec: Codec = codec or DEFAULT_CODEC

    def __repr__(self) -> str:
        return f"<DeadLetters of {', '.join(self._topics())}>"

    def find(
        self,
        *,
        id: str | None = None,
        reason: str | None = None,
        category: str | None = None,
        channel: str | None = None,
        error_code: str | None = None,
        user_id: str | None = None,
        consumer: str | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
    ) -> Iterator[DeadLetter]:
        """The dead letters that match all filters given, as they are read; up to the end the topics have now.

        Args:
            id: Of the notification.
            reason: Why they died.
            category: Name of the category.
            channel: Name of the channel.
            error_code: Code of the last failure.
            user_id: The partition key.
            consumer: Name of the consumer that gave up; `workers` is the one without a name.
            since: Aware datetime; not those that died before.
            until: Aware datetime; only those that died before.

        Returns:
            An iterator that holds a few megabytes, however many there are. A letter that a crash wrote twice comes
            once. Letters of one user and lane come in the order in which they died.

        Raises:
            ConfigError: A dead-letter topic does not exist, or a setting is refused.
            NotifyError: The brokers do not answer; also while iterating.
            CodecUnavailableError: While iterating: the codec's service is away.
        """
        wanted = _Filter(
            id=id,
            reason=reason,
            category=category,
            channel=channel,
            error_code=error_code,
            key=None if user_id is None else user_id.encode(),
            consumer=consumer if consumer != "" else DEFAULT_CONSUMER,
            since_ms=_moment("since", since),
            until_ms=_moment("until", until),
        )
        reader = LogReader(self._config, self._group)
        try:
            stretches: dict[tuple[str, int], tuple[int, int]] = {}
            for topic in self._topics():
                partitions = reader.partitions(topic)
                if not partitions:
                    raise ConfigError(
                        f"{topic}: this dead-letter topic does not exist; create it with create_topics()"
                    )
                stretches |= {(topic, p): reader.extent(topic, p) for p in range(partitions)}
        except BaseException:
            reader.close()
            raise
        return self._found(reader, stretches, wanted)

    def _found(
        self, reader: LogReader, stretches: Mapping[tuple[str, int], tuple[int, int]], wanted: _Filter
    ) -> Iterator[DeadLetter]:
        import sqlite3  # it would cost every worker 10 ms at its start; as _redrive below costs 50

        strangers = 0
        # An unnamed SQLite database keeps what has been seen: exact, and on disk when it grows.
        with reader, closing(sqlite3.connect("", check_same_thread=False)) as seen:
            seen.execute(
                "CREATE TABLE seen (a, b, c, d, e, f, g, PRIMARY KEY (a, b, c, d, e, f, g)) WITHOUT ROWID"
            )
            for message in reader.read(stretches):
                headers = headers_of(message)
                state = wire.read_dead_letter(headers)
                if state is None:
                    strangers += 1
                    continue
                if not wanted.matches(state, message, headers):
                    continue
                identity = (
                    state.group,
                    state.origin.topic,
                    state.origin.partition,
                    state.origin.offset,
                    state.history.redrives,
                    # offsets come again in a topic that was created again
                    *_identity(state, headers),
                )
                if seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)", identity).rowcount:
                    yield self._letter(message, headers)
        if strangers:
            log.warning(
                "%d records of %s are no dead letters of this library; they were passed over",
                strangers,
                ", ".join(self._topics()),
            )

    def _letter(self, message: Message, headers: wire.Headers | None) -> DeadLetter:
        return DeadLetter.from_record(
            message.topic() or "",
            cast(int, message.partition()),
            cast(int, message.offset()),
            message.key(),
            message.value(),
            headers,
            message.timestamp()[1],
            self._codec,
            self._topology.categories,
        )

    def restored(self, letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """The letters with what is known of their source records: `DeadLetter.source`.

        While its source topic keeps it, the source record gives key, value and headers, also those of `sensitive`
        categories, which the letter itself does not hold. A letter whose source record differs is forged or foreign.
        It stays as it is, `source.state` says `different`, and an error is logged.

        Args:
            letters: From `find`; read once.

        Returns:
            An iterator in any order, which holds some 16 MB however many there are.

        Raises:
            NotifyError: While iterating: a source topic cannot be read, or the brokers do not answer.
            CodecUnavailableError: While iterating: the codec's service is away.
        """
        from kafka_notify._redrive.origins import Origins

        with Origins(self._config, self._group, self._codec, self._topology.categories) as origins:
            yield from origins.restored(letters)

    def redrive(
        self,
        letters: Iterable[DeadLetter],
        *,
        dry_run: bool = True,
        rate: float | None = None,
        allow_expired: bool = False,
        allow_unproven: bool = False,
        allow_unverified: bool = False,
        to: str | None = None,
        on_progress: OnProgress | None = None,
        cancel: threading.Event | None = None,
    ) -> RedriveReport:
        """Give letters back to the consumer that gave up on them, with their attempts reset.

        Each goes to the retry topic of its own consumer (no other one sends it again), bytes and headers as its source
        record has them, the letters of a user in the order of their origins. So what is redacted can go back while its
        source topic keeps it, and what differs from its source record does not.

        Doing it again does nothing, also after this process died half-way: copies that are already there are looked
        for first. Only two redrives at the same time may write a letter twice. Blocks until the broker has
        acknowledged everything.

        Args:
            letters: From `find`, read once. While they are sorted they lie in a private temporary file, not in memory.
            dry_run: Only count; the default.
            rate: Letters per second; as fast as the brokers take them by default.
            allow_expired: Also those that expired; each gets its whole lifetime again, from now.
            allow_unproven: Also those of which nobody can tell whether they were redriven before.
            allow_unverified: Also those whose source record is gone, as they are in the dead-letter topic. Whoever may
                write there decides what is sent.
            to: Name of the consumer that gets them instead of the one that gave up, on the lane of each: after a
                consumer was renamed, for example. `workers` is the one without a name. By default each goes back to
                its own, and those whose consumer nobody runs any more are left out.
            on_progress: Called on this thread, some times a second at most while much is done.
            cancel: Once set, nothing more is written; what is under way is acknowledged first.

        Raises:
            ConfigError: `rate` is not > 0, a setting is refused, or `to` names a consumer that has no retry topic or
                never ran.
            ProduceError: A copy was not acknowledged; the text says how many were. Run it again.
            NotifyError: The brokers do not answer.
        """
        from kafka_notify._redrive.origins import Origins
        from kafka_notify._redrive.plan import Plan, Retention
        from kafka_notify._redrive.target import Readers

        if rate is not None and not 0 < rate < float("inf"):
            raise ConfigError(f"rate must be a number of letters per second > 0, not {rate!r}")
        watch = Watch(on_progress, cancel)
        with (
            LogReader(self._config, self._group) as reader,
            Origins(self._config, self._group, self._codec, self._topology.categories) as origins,
            closing(
                Plan(
                    self._topology,
                    reader,
                    watch,
                    Readers(self._config, self._topology),
                    DEFAULT_CONSUMER if to == "" else to,
                    origins,
                )
            ) as plan,
        ):
            plan.add(letters, allow_expired=allow_expired, allow_unverified=allow_unverified)
            plan.drop_redriven(None if allow_unproven else Retention(self._config))
            size = count = plan.size()
            if not dry_run:
                count = 0 if watch.cancelled else write(plan.copies(), size, self._config, rate, watch)
            for sentence in plan.advice:
                log.warning("%s", sentence)
            return RedriveReport(
                count, dict(plan.skipped), dry_run, size - count, watch.cancelled, tuple(plan.advice)
            )

    def export(self, letters: Iterable[DeadLetter], file: IO[str], *, personal: bool = False) -> int:
        """Write letters as JSON, one to a line: `DeadLetter.to_dict`.

        Args:
            letters: From `find`; read once, and never held.
            file: Open for text. With `personal` keep it as safe as the topic itself.
            personal: Also user id, recipient, headers and value.

        Returns:
            How many there were.
        """
        count = 0
        for count, letter in enumerate(letters, 1):  # noqa: B007 - it is the answer
            file.write(json_line(letter.to_dict(personal=personal)) + "\n")
        return count

    @property
    def _group(self) -> str:
        return tool_group(self._topology.prefix, "dead-letters")

    def _topics(self) -> list[str]:
        return sorted({self._topology.dlq_topic(lane) for lane in self._topology.lanes})


@attrs.frozen
class _Filter:
    id: str | None
    reason: str | None
    category: str | None
    channel: str | None
    error_code: str | None
    key: bytes | None
    consumer: str | None
    since_ms: int | None
    until_ms: int | None

    def matches(self, state: wire.DeadLetterState, message: Message, headers: wire.Headers | None) -> bool:
        return (
            (self.reason is None or self.reason == state.reason)
            and (self.error_code is None or self.error_code == state.history.error_code)
            and (self.consumer is None or self.consumer == of_group(state.group)[1])
            and (self.key is None or self.key == message.key())
            and (self.since_ms is None or state.at_ms >= self.since_ms)
            and (self.until_ms is None or state.at_ms < self.until_ms)
            and (self.category is None or self.category == wire.category_of(headers))
            and (self.channel is None or self.channel == wire.channel_of(headers))
            and (self.id is None or self.id == _id_of(state, message, headers))
        )


def _id_of(state: wire.DeadLetterState, message: Message, headers: wire.Headers | None) -> str:
    return wire.identity(headers, *state.origin.place, message.timestamp()[1])[0]


def _identity(state: wire.DeadLetterState, headers: wire.Headers | None) -> tuple[str, int]:
    """What is the same of a letter that a crash wrote twice; -1 for a creation time that no header tells."""
    return wire.identity(headers, *state.origin.place, -1)


def _moment(name: str, value: dt.datetime | None) -> int | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise ConfigError(f"{name} must be an aware datetime, such as datetime.now(timezone.utc)")
    return to_millis(value)
