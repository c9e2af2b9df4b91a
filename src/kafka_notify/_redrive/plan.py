"""The choice of the dead letters to redrive, and their order: each goes once, whatever happened before.

A copy that was written before is recognised in the retry topic itself: it names the same origin with more redrives.
So no state is kept, and a tool that died half-way is simply run again.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from confluent_kafka import Message

from kafka_notify import wire
from kafka_notify._base.names import is_name, of_group
from kafka_notify._kafka.log_reader import LogReader
from kafka_notify._partition.strangers import OTHER_TOPIC
from kafka_notify._redrive.copy_headers import copy_headers, is_expired, packed, unpacked
from kafka_notify._redrive.retention import CLOCK_SKEW_MS
from kafka_notify._redrive.retention import Retention as Retention
from kafka_notify._redrive.target import Readers, refusal
from kafka_notify._redrive.writer import Copy, Watch
from kafka_notify._wire import headers as h
from kafka_notify.notification import Notification
from kafka_notify.topology import Topology

if TYPE_CHECKING:
    from kafka_notify._redrive.origins import Origins
    from kafka_notify._wire.dead_letter import DeadLetter

log = logging.getLogger("kafka_notify.dead_letters")

MAX_REDRIVES: Final = 3
_ADVICE: Final = {
    "forged": "some dead letters differ from their source records, so their consumer did not write them; the log names "
    "each: find out who may write to the dead-letter topic",
    "undecodable": "some dead letters cannot be decoded; if their consumer has another codec, pass `codec`",
    "redacted": "the source records of redacted dead letters are gone, and their payloads with them; sensitive data "
    "can be redriven only while its source topic keeps the record",
    "unverified": "the source records of some dead letters are gone, so it is unknown whether their consumer wrote "
    "them; if nobody else may write to the dead-letter topic, pass `allow_unverified`",
}

_TABLE: Final = """
CREATE TABLE dead_letter (
  topic TEXT, partition INTEGER, origin INTEGER, id TEXT, created INTEGER, redrives INTEGER, died INTEGER,
  key BLOB, value BLOB, headers TEXT,
  PRIMARY KEY (topic, partition, origin, id, created)
)"""
# Two dead letters of one notification: the later one proves that the earlier one was redriven.
_INSERT: Final = """
INSERT INTO dead_letter VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
  redrives = excluded.redrives, died = excluded.died, key = excluded.key, value = excluded.value,
  headers = excluded.headers
WHERE excluded.redrives > dead_letter.redrives"""


class Plan:
    """The copies to write, sorted by origin in an unnamed SQLite database: on disk when there are many.

    Args:
        topology: Determines the retry topics; a dead letter's headers never do.
        reader: Reads the retry topics.
        watch: Is told the progress, and knows whether the redrive is cancelled.
        readers: Knows whether anybody reads the copies.
        to: The consumer that gets the dead letters instead of the one that gave up on them.
        origins: Looks up the source records.
    """

    def __init__(
        self,
        topology: Topology,
        reader: LogReader,
        watch: Watch | None = None,
        readers: Readers | None = None,
        to: str | None = None,
        origins: Origins | None = None,
    ) -> None:
        self._origins = origins
        self.skipped: Counter[str] = Counter()
        self.advice: dict[str, None] = {}
        """Remedies for dead letters that were left out, each sentence once."""
        self._readers = readers
        self._to = to
        self._checked: set[str] = set()
        self._ends: dict[tuple[str, int], int] = {}
        self._topology = topology
        self._reader = reader
        self._watch = watch or Watch()
        self._partitions: dict[str, int] = {}
        self._source_of: dict[str, str] = {}
        self._db = sqlite3.connect("")
        self._db.execute(_TABLE)

    def add(
        self, dead_letters: Iterable[DeadLetter], *, allow_expired: bool, allow_unverified: bool = True
    ) -> None:
        """Take in dead letters; those that cannot be redriven are counted and left out.

        Args:
            dead_letters: The dead letters to redrive.
            allow_expired: Include those that have expired.
            allow_unverified: Include those whose source record is gone.
        """
        offered = 0
        wanted = self._wanted(dead_letters, allow_expired)
        for dead_letter in wanted if self._origins is None else self._origins.restored(wanted):
            if self._watch.cancelled:
                break
            if why := _not_as_it_was(dead_letter, allow_unverified):
                self.skipped[why] += 1
                if advice := _ADVICE.get(why):
                    self.advice[advice] = None
                continue
            topic = self._place(dead_letter)[1]
            state, headers = (
                dead_letter.state,
                copy_headers(dead_letter, self._origin_topic_id(dead_letter.state)),
            )
            created = cast(Notification[Any], dead_letter.notification)._created_ms
            place = (
                topic,
                state.origin.partition,
                state.origin.offset,
                dead_letter.id,
                created,
                state.history.redrives,
                state.at_ms,
            )
            self._db.execute(_INSERT, (*place, dead_letter.key, dead_letter.raw, packed(headers)))
            offered += 1
        self._left_out("already_redriven", offered - self.size())

    def _wanted(self, dead_letters: Iterable[DeadLetter], allow_expired: bool) -> Iterator[DeadLetter]:
        for number, dead_letter in enumerate(dead_letters, 1):
            if self._watch.cancelled:
                return
            self._watch.tell("reading", number)
            if why := self._refused(dead_letter, allow_expired):
                self.skipped[why] += 1
            else:
                yield dead_letter

    def _origin_topic_id(self, state: wire.DeadLetterState) -> str | None:
        """The topic ID for the copy's headers. A dead letter of an older version may not have one, but an offset beyond
        the present end certainly belongs to another topic."""
        place = (state.origin.topic, state.origin.partition)
        if place not in self._ends:
            exists = self._reader.partitions(place[0]) > place[1]
            self._ends[place] = self._reader.extent(*place)[1] if exists else 0
        return OTHER_TOPIC if state.origin.offset >= self._ends[place] else state.origin.topic_id

    def _place(self, dead_letter: DeadLetter) -> tuple[str, str, str]:
        """Lane, retry topic and consumer that a dead letter goes to; empty if there is none."""
        lane, name = self._consumer_of(dead_letter.state)
        if lane and self._to is not None:
            name = self._to
            if lane not in self._checked and self._readers is not None:
                self._readers.check(lane, name)
                self._checked.add(lane)
        return lane, self._retry_topic(dead_letter.state, lane, name) if lane else "", name

    def _refused(self, dead_letter: DeadLetter, allow_expired: bool) -> str:
        """The reason why a dead letter is left out whatever its source record says; empty if there is none."""
        lane, topic, name = self._place(dead_letter)
        if not topic:
            return "unknown_group"
        channel = wire.channel_of(list(dead_letter.headers))
        if why := self._unread(lane, name, channel):
            return why
        if dead_letter.redrives >= MAX_REDRIVES:
            return "parked"
        n = dead_letter.notification
        return "expired" if n is not None and not allow_expired and is_expired(n) else ""

    def _consumer_of(self, state: wire.DeadLetterState) -> tuple[str, str]:
        """Lane and name of the consumer that gave up; empty when the topology has no such lane."""
        source, name = of_group(state.group)
        for lane in self._topology.lanes:
            if state.origin.topic == source == self._topology.source_topic(lane) and is_name(name):
                return lane, name
        return "", ""

    def _retry_topic(self, state: wire.DeadLetterState, lane: str, name: str) -> str:
        topic = self._topology.retry_topic(lane, name)
        if topic not in self._partitions:
            self._partitions[topic] = self._reader.partitions(topic)
            self._source_of[topic] = self._topology.source_topic(lane)
        return topic if state.origin.partition < self._partitions[topic] else ""

    def _unread(self, lane: str, name: str, channel: str | None) -> str:
        if self._readers is None:
            return ""
        readers = self._readers.of(lane)
        if readers is None or name not in readers:
            return ""
        if self._to is not None:
            if readers[name].sends(channel) is not False:
                return ""
            self.advice[f"{name} does not send the channel {channel}; its dead letters were left out"] = None
            return "other_channel"
        others = {other: reader for other, reader in readers.items() if other != name}
        if sentence := refusal(readers[name], others, channel):
            self.advice[sentence] = None
            return "no_consumer"
        return ""

    def drop_redriven(self, retention: Retention | None) -> None:
        """Leave out dead letters whose copy is in the retry topic, and those for which that is no longer certain.

        Args:
            retention: None keeps the latter.
        """
        now = int(time.time() * 1000)
        stretches: dict[tuple[str, int], tuple[int, int]] = {}
        for topic, partition, died in self._db.execute(
            "SELECT topic, partition, min(died) FROM dead_letter GROUP BY topic, partition"
        ).fetchall():
            low, high = self._reader.extent(topic, partition)
            if retention is not None and low > 0:
                horizon = retention.horizon(topic, now)
                gone = "DELETE FROM dead_letter WHERE topic = ? AND partition = ? AND died < ?"
                self._left_out("unproven", self._db.execute(gone, (topic, partition, horizon)).rowcount)
            start = self._reader.offset_at(topic, partition, died - CLOCK_SKEW_MS)
            stretches[topic, partition] = (high if start is None else max(low, start), high)
        total = sum(end - start for start, end in stretches.values())
        for number, message in enumerate(self._reader.read(stretches), 1):
            if self._watch.cancelled:
                return
            self._watch.tell("comparing", number, total)
            self._left_out("already_redriven", self._superseded(message))

    def _superseded(self, message: Message) -> int:
        headers = h.headers_of(message)
        topic, partition = message.topic() or "", message.partition() or 0
        source = self._source_of[topic]
        state = wire.read_retry(headers, source, partition)
        if state is None or not state.history.redrives:
            return 0
        identity = wire.identity(headers, source, partition, state.origin.offset, 0)
        return self._db.execute(
            "DELETE FROM dead_letter WHERE topic = ? AND partition = ? AND origin = ? AND id = ? AND created = ? "
            "AND redrives < ?",
            (topic, partition, state.origin.offset, *identity, state.history.redrives),
        ).rowcount

    def _left_out(self, why: str, count: int) -> None:
        if count:
            self.skipped[why] += count

    def size(self) -> int:
        """The number of copies to write."""
        count: int = self._db.execute("SELECT count(*) FROM dead_letter").fetchone()[0]
        return count

    def copies(self) -> Iterator[Copy]:
        """The copies to write, by origin: a user has one partition, so each user's copies keep their order."""
        rows = self._db.execute(
            "SELECT topic, partition, key, value, headers FROM dead_letter ORDER BY topic, partition, origin"
        )
        for topic, partition, key, value, headers in rows:
            yield Copy(topic, partition, key, value, unpacked(headers))

    def close(self) -> None:
        """Delete the database."""
        self._db.close()


def _not_as_it_was(dead_letter: DeadLetter, allow_unverified: bool) -> str:
    """The reason why a dead letter cannot go back, by its source record; empty if it can."""
    source = dead_letter.source
    if source is not None and source.state == "different":
        return "forged"
    if dead_letter.redacted and (source is None or source.state != "kept"):
        return "redacted"
    if source is not None and source.state == "gone" and not allow_unverified:
        return "unverified"
    return "undecodable" if dead_letter.notification is None else ""
