"""Dead letters: find them, see why they died, and redrive them to the consumer that gave up."""

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
from kafka_notify._base.names import DEFAULT_CONSUMER, tool_group
from kafka_notify._base.text import json_line
from kafka_notify._kafka.config import Config
from kafka_notify._kafka.log_reader import LogReader
from kafka_notify._redrive.filter import Allowed, Filter, identity_of, moment
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
    """The result of `DeadLetters.redrive`, or of its dry run."""

    redriven: int
    """Dead letters written to a retry topic and acknowledged; in a dry run those that would be."""
    skipped: Mapping[str, int]
    """Number of dead letters that were left alone, by reason:

    - `expired`: its time to be sent is over; `allow_expired` overrides
    - `forged`: its source record has other bytes, so that somebody else wrote it; never redriven
    - `redacted`: the payload was kept out of the dead letter, and its source record is gone
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
    """True if nothing was written."""
    remaining: int = 0
    """Dead letters that a cancelled redrive did not reach: run it again."""
    cancelled: bool = False
    """True if `cancel` ended it."""
    advice: Sequence[str] = ()
    """Sentences for a person: what to do about dead letters that nobody would read."""


class DeadLetters:
    """Reads the dead-letter topics of all lanes, and redrives dead letters. Use it from one thread.

    It joins no consumer group: it takes nothing from workers, and may run beside them.

    Args:
        config: librdkafka properties, as for `Producer` and `Worker`.
        topology: Lanes whose dead-letter topics are read; by default `Topology.default()`.
        codec: Turns value bytes into data; by default `JsonCodec()`.
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
        """Find the dead letters that match all given filters, up to the present end of the topics.

        Args:
            id: Id of the notification.
            reason: Why they died: `permanent`, `max_attempts`, `expired` or another `DeadLetter.reason`.
            category: Name of the category.
            channel: Name of the channel.
            error_code: Code of the last failure, such as `twilio.21610`.
            user_id: User of the notification.
            consumer: Name of the consumer that gave up; `workers` is the one without a name.
            since: Aware datetime; dead letters that died at that time or later.
            until: Aware datetime; dead letters that died before that time.

        Returns:
            An iterator that holds a few megabytes, however many there are. A dead letter that a crash wrote twice comes
            once. Dead letters of one user and lane come in the order in which they died.

        Raises:
            ConfigError: A dead-letter topic does not exist, or a setting is refused.
            NotifyError: The brokers do not answer; also while iterating.
            CodecUnavailableError: The codec's service does not answer; while iterating.
        """
        wanted = Filter(
            id=id,
            reason=reason,
            category=category,
            channel=channel,
            error_code=error_code,
            key=None if user_id is None else user_id.encode(),
            consumer=consumer if consumer != "" else DEFAULT_CONSUMER,
            since_ms=moment("since", since),
            until_ms=moment("until", until),
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
        self, reader: LogReader, stretches: Mapping[tuple[str, int], tuple[int, int]], wanted: Filter
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
                    *identity_of(state, headers),
                )
                if seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)", identity).rowcount:
                    yield self._dead_letter(message, headers)
        if strangers:
            log.warning(
                "%d records of %s are not dead letters of this library; they were passed over",
                strangers,
                ", ".join(self._topics()),
            )

    def _dead_letter(self, message: Message, headers: wire.Headers | None) -> DeadLetter:
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

    def restored(self, dead_letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """Look up the source records of dead letters: `DeadLetter.source`.

        While its source topic keeps it, the source record gives key, value and headers, also those of `sensitive`
        categories, which the dead letter itself does not hold. A dead letter whose source record differs is forged or
        foreign. It stays as it is, `source.state` is `different`, and an error is logged.

        Args:
            dead_letters: Dead letters from `find`; read once.

        Returns:
            An iterator in any order, which holds some 16 MB however many there are.

        Raises:
            NotifyError: A source topic cannot be read, or the brokers do not answer; while iterating.
            CodecUnavailableError: The codec's service does not answer; while iterating.
        """
        from kafka_notify._redrive.origins import Origins

        with Origins(self._config, self._group, self._codec, self._topology.categories) as origins:
            yield from origins.restored(dead_letters)

    def redrive(
        self,
        dead_letters: Iterable[DeadLetter],
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
        """Give dead letters back to the consumer that gave up on them, with their attempts reset.

        Each is written to the retry topic of its own consumer (no other one sends it again), with key, value and
        headers of its source record, those of one user in the order of their origins. So a redacted dead letter can go
        back while its source topic keeps the record, and one that differs from its source record cannot.

        Repeating a redrive does nothing, also after this process died half-way: it first looks for copies that are
        already there. Only two redrives at the same time may write a dead letter twice. Blocks until the broker has
        acknowledged everything.

        Args:
            dead_letters: Dead letters from `find`; read once. While they are sorted they are in a private temporary
                file, not in memory.
            dry_run: Only count; the default.
            rate: Dead letters per second; by default as fast as the brokers take them.
            allow_expired: Redrive expired ones as well; each gets its whole lifetime again, from now.
            allow_unproven: Redrive those as well of which nobody can tell whether they were redriven before.
            allow_unverified: Redrive those as well whose source record is gone, as they are in the dead-letter topic.
                Whoever may write there decides what is sent.
            to: Name of the consumer that gets them instead of the one that gave up, on the lane of each, for example
                after a consumer was renamed. `workers` is the one without a name. By default each goes back to its own
                consumer, and those whose consumer nobody runs any more are left out.
            on_progress: Called on this thread, a few times a second at most.
            cancel: Once set, nothing more is written; records under way are acknowledged first.

        Returns:
            Numbers of dead letters that were redriven, left alone by reason, and left over.

        Raises:
            ConfigError: `rate` is not > 0, a setting is refused, or `to` names a consumer that has no retry topic or
                never ran.
            ProduceError: A copy was not acknowledged; the text says how many were. Run it again.
            NotifyError: The brokers do not answer.
        """
        if rate is not None and not 0 < rate < float("inf"):
            raise ConfigError(f"rate must be a number of dead letters per second > 0, not {rate!r}")
        allowed = Allowed(allow_expired, allow_unproven, allow_unverified)
        return self._redrive(dead_letters, dry_run, rate, allowed, to, Watch(on_progress, cancel))

    def _redrive(
        self,
        dead_letters: Iterable[DeadLetter],
        dry_run: bool,
        rate: float | None,
        allowed: Allowed,
        to: str | None,
        watch: Watch,
    ) -> RedriveReport:
        from kafka_notify._redrive.origins import Origins
        from kafka_notify._redrive.plan import Plan, Retention
        from kafka_notify._redrive.target import Readers

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
            plan.add(dead_letters, allow_expired=allowed.expired, allow_unverified=allowed.unverified)
            plan.drop_redriven(None if allowed.unproven else Retention(self._config))
            size = count = plan.size()
            if not dry_run:
                count = 0 if watch.cancelled else write(plan.copies(), size, self._config, rate, watch)
            for sentence in plan.advice:
                log.warning("%s", sentence)
            return RedriveReport(
                count, dict(plan.skipped), dry_run, size - count, watch.cancelled, tuple(plan.advice)
            )

    def export(self, dead_letters: Iterable[DeadLetter], file: IO[str], *, personal: bool = False) -> int:
        """Write dead letters as JSON, one to a line: `DeadLetter.to_dict`.

        Args:
            dead_letters: Dead letters from `find`; read once, and not kept in memory.
            file: A file that is open for text. With `personal` keep it as safe as the topic itself.
            personal: Write user id, recipient, headers and value as well.

        Returns:
            The number of dead letters.
        """
        count = 0
        for count, dead_letter in enumerate(dead_letters, 1):  # noqa: B007 - it is the answer
            file.write(json_line(dead_letter.to_dict(personal=personal)) + "\n")
        return count

    @property
    def _group(self) -> str:
        return tool_group(self._topology.prefix, "dead-letters")

    def _topics(self) -> list[str]:
        return sorted({self._topology.dlq_topic(lane) for lane in self._topology.lanes})
