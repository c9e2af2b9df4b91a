"""The source records of dead letters: read while retention keeps them, and compared with the dead letters.

A dead letter is only as trustworthy as the right to write to the dead-letter topic; a source record is what a producer
sent. So the source record goes back if there is one, and a dead letter that differs from its source record goes
nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import attrs
from confluent_kafka import KafkaException, Message, TopicCollection
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

from kafka_notify import wire
from kafka_notify._base.units import from_millis
from kafka_notify._kafka.admin_client import shared_admin
from kafka_notify._kafka.config import Config
from kafka_notify._kafka.log_reader import LogReader
from kafka_notify._wire import headers as h
from kafka_notify._wire.dead_letter import DeadLetter, SourceRecord
from kafka_notify.errors import NotifyError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from kafka_notify.codec import Codec
    from kafka_notify.notification import Category

log = logging.getLogger("kafka_notify.dead_letters")

BATCH: Final = 2_000
"""Dead letters that are looked up together."""
BATCH_BYTES: Final = 16_000_000
SEEK_BEYOND: Final = 2_000
"""Offsets to the next source record from which a seek is cheaper than reading on."""
FETCHES: Final[Config] = {
    "queued.max.messages.kbytes": 2_048,
    "fetch.message.max.bytes": 524_288,
    "fetch.wait.max.ms": 100,
}
"""Small fetches, so that little is read beyond the source records that are looked up."""
_REQUEST_SECONDS: Final = 30.0

Place = tuple[str, int]


class Origins:
    """Looks up source records. Use it from one thread, and close it.

    Args:
        config: librdkafka properties.
        group: The group ID for broker logs; no such group is created.
        codec: Decodes the values.
        categories: The categories of the topology.
    """

    def __init__(
        self, config: Config, group: str, codec: Codec, categories: Mapping[str, Category[Any]]
    ) -> None:
        self._config = config
        self._codec = codec
        self._categories = categories
        self._opened = ExitStack()
        self._reader = self._opened.enter_context(LogReader(config, group, FETCHES))
        self._topics: dict[str, _Topic] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self._opened.close()

    def restored(self, dead_letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """Yield the dead letters with what is known of their source records, in any order.

        A dead letter whose source record is kept and equal gets that record's key, value and headers, even if its own
        value was redacted. Memory is limited to a few thousand dead letters, 16 MB and the largest of them.

        Raises:
            NotifyError: A source topic cannot be read.
            CodecUnavailableError: The codec's service is unavailable.
        """
        batch: list[DeadLetter] = []
        size = 0
        for dead_letter in dead_letters:
            batch.append(dead_letter)
            size += 1_000 + len(dead_letter.raw or b"")
            if len(batch) >= BATCH or size >= BATCH_BYTES:
                yield from self._of(batch)
                batch, size = [], 0
        yield from self._of(batch)

    def _of(self, batch: list[DeadLetter]) -> Iterator[DeadLetter]:
        wanted: dict[Place, dict[int, list[DeadLetter]]] = {}
        for dead_letter in batch:
            state = dead_letter.state
            place = (state.origin.topic, state.origin.partition)
            if self._is_there(dead_letter, place):
                wanted.setdefault(place, {}).setdefault(state.origin.offset, []).append(dead_letter)
            else:
                yield _gone(dead_letter)
        for stretches in _rounds({place: sorted(offsets) for place, offsets in wanted.items()}):
            for message in self._reader.read(stretches):
                place, offset = (message.topic() or "", message.partition() or 0), message.offset()
                assert offset is not None
                for dead_letter in wanted.get(place, {}).pop(offset, ()):
                    yield self._compared(dead_letter, message)
        # removed meanwhile, part of an aborted transaction, or deleted by a person
        for offsets in wanted.values():
            for dead_letters in offsets.values():
                yield from map(_gone, dead_letters)

    def _is_there(self, dead_letter: DeadLetter, place: Place) -> bool:
        topic = self._topic(place[0])
        id = dead_letter.state.origin.topic_id
        if place[1] >= topic.partitions or (id and topic.id and id != topic.id):
            return False
        if place[1] not in topic.extents:
            topic.extents[place[1]] = self._reader.extent(*place)
        start, end = topic.extents[place[1]]
        return start <= dead_letter.state.origin.offset < end

    def _topic(self, name: str) -> _Topic:
        if name not in self._topics:
            partitions = self._reader.partitions(name)
            self._topics[name] = self._described(name, partitions) if partitions else _Topic(0)
        return self._topics[name]

    def _described(self, name: str, partitions: int) -> _Topic:
        admin: Any = shared_admin(self._config)
        try:
            asked = admin.describe_topics(TopicCollection([name]), request_timeout=_REQUEST_SECONDS)
            id = asked[name].result().topic_id
        except KafkaException as e:
            raise NotifyError(
                f"{name}: the topic ID cannot be read ({e.args[0].name()}); allow Describe on the topic"
            ) from None
        known = bool(id.get_most_significant_bits() or id.get_least_significant_bits())  # brokers before 2.8
        return _Topic(partitions, str(id) if known else "", _retention_ms(admin, name))

    def _compared(self, dead_letter: DeadLetter, message: Message) -> DeadLetter:
        state, headers, timestamp = dead_letter.state, h.headers_of(message), message.timestamp()[1]
        topic = self._topics[state.origin.topic]
        id, created = wire.identity(headers, *state.origin.place, timestamp)
        original = wire.own_headers(headers, id, created if created >= 0 else None)
        if not _is_equal(dead_letter, message, original, id, created):
            is_surely_its_own = state.origin.topic_id and state.origin.topic_id == topic.id
            if not is_surely_its_own and (dead_letter.id, _created(dead_letter)) != (id, created):
                # it may come from a deleted topic of the same name
                return _gone(dead_letter)
            log.error(
                "%s[%d]@%d: this dead letter is forged or foreign: its source record %s[%d]@%d has other bytes, so it "
                "is not redriven; find out who may write to the dead-letter topic",
                *(dead_letter.topic, dead_letter.partition, dead_letter.offset),
                *state.origin.place,
            )
            return attrs.evolve(dead_letter, source=SourceRecord("different"))
        until = None
        if topic.retention_ms is not None and timestamp >= 0:
            until = from_millis(min(timestamp + topic.retention_ms, h.MAX_MILLIS))
        return dead_letter.with_record(
            message.key(),
            message.value(),
            _merged(dead_letter, original),
            timestamp,
            self._codec,
            self._categories,
            SourceRecord("kept", until),
        )


@attrs.define
class _Topic:
    partitions: int
    id: str = ""
    retention_ms: int | None = None
    """The time for which the topic certainly keeps a record; None if that is not known."""
    extents: dict[int, tuple[int, int]] = attrs.field(factory=dict[int, tuple[int, int]])


def _retention_ms(admin: Any, topic: str) -> int | None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        entries = admin.describe_configs([resource], request_timeout=_REQUEST_SECONDS)[resource].result()
    except KafkaException:
        return None  # this takes a right of its own; without it only the date is unknown
    if int(entries["retention.bytes"].value) >= 0:
        return None
    milliseconds = int(entries["retention.ms"].value)
    return h.MAX_MILLIS if milliseconds < 0 else milliseconds


def _rounds(offsets: Mapping[Place, list[int]]) -> Iterator[dict[Place, tuple[int, int]]]:
    """Ranges to read, in rounds of one range per partition."""
    runs: dict[Place, list[tuple[int, int]]] = {}
    for place, wanted in offsets.items():
        of = runs.setdefault(place, [])
        for offset in wanted:
            if of and offset - of[-1][1] < SEEK_BEYOND:
                of[-1] = (of[-1][0], offset + 1)
            else:
                of.append((offset, offset + 1))
    for number in range(max(map(len, runs.values()), default=0)):
        yield {place: of[number] for place, of in runs.items() if number < len(of)}


def _gone(dead_letter: DeadLetter) -> DeadLetter:
    return attrs.evolve(dead_letter, source=SourceRecord("gone"))


def _created(dead_letter: DeadLetter) -> int:
    state = dead_letter.state
    return wire.identity(list(dead_letter.headers), *state.origin.place, -1)[1]


def _is_equal(
    dead_letter: DeadLetter, message: Message, original: wire.Headers, id: str, created: int
) -> bool:
    """Return whether the dead letter is of this record: all of it, or the rest if it was redacted or too large."""
    was_born = created if created >= 0 else None
    own = _lasting(dead_letter, wire.own_headers(list(dead_letter.headers), id, was_born))
    if dead_letter.redacted:
        bare = _lasting(dead_letter, wire.own_headers(None, id, was_born))
        return dead_letter.key in (None, message.key()) and own in (_lasting(dead_letter, original), bare)
    return (
        dead_letter.key == message.key()
        and own == _lasting(dead_letter, original)
        and (dead_letter.raw or b"") == (message.value() or b"")
    )


def _lasting(dead_letter: DeadLetter, headers: wire.Headers) -> wire.Headers:
    """The headers that no redrive changes: a redrive gives an expired dead letter a new lifetime."""
    return [header for header in headers if header[0] != h.EXPIRES_AT] if dead_letter.redrives else headers


def _merged(dead_letter: DeadLetter, original: wire.Headers) -> wire.Headers:
    merged = _lasting(dead_letter, original)
    if dead_letter.redrives:
        merged = [*merged, *(header for header in dead_letter.headers if header[0] == h.EXPIRES_AT)]
    return [*merged, *(header for header in dead_letter.headers if header[0] in h.HOP_HEADERS)]
