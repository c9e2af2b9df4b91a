"""The source records of dead letters: read while retention keeps them, and compared with what the letters say.

A dead letter is only as trustworthy as the right to write to the dead-letter topic; a source record is what a producer
sent. So the source record goes back when there is one, and a letter that differs from its source record goes nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import attrs
from confluent_kafka import KafkaException, Message, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from kafka_notify import wire
from kafka_notify._base.units import from_millis
from kafka_notify._kafka.config import Config, client_config, opened
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
"""Little is read beyond what is wanted."""
_REQUEST_SECONDS: Final = 30.0

Place = tuple[str, int]


class Origins:
    """Looks up source records. Use it from one thread, and close it.

    Args:
        config: librdkafka properties.
        group: Shown in broker logs; no such group comes into being.
        codec: Reads the values.
        categories: Those of the topology.
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

    def restored(self, letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """The letters with what is known of their source records, in any order.

        One whose source record is kept and equal comes with that record's key, value and headers, also when its own
        value was redacted. Holds a few thousand letters, 16 MB at most and what the largest of them takes.

        Raises:
            NotifyError: A source topic cannot be read.
            CodecUnavailableError: The codec's service is away.
        """
        batch: list[DeadLetter] = []
        size = 0
        for letter in letters:
            batch.append(letter)
            size += 1_000 + len(letter.raw or b"")
            if len(batch) >= BATCH or size >= BATCH_BYTES:
                yield from self._of(batch)
                batch, size = [], 0
        yield from self._of(batch)

    def _of(self, batch: list[DeadLetter]) -> Iterator[DeadLetter]:
        wanted: dict[Place, dict[int, list[DeadLetter]]] = {}
        for letter in batch:
            state = letter.state
            place = (state.origin_topic, state.origin_partition)
            if self._is_there(letter, place):
                wanted.setdefault(place, {}).setdefault(state.origin, []).append(letter)
            else:
                yield _gone(letter)
        for stretches in _rounds({place: sorted(offsets) for place, offsets in wanted.items()}):
            for message in self._reader.read(stretches):
                place, offset = (message.topic() or "", message.partition() or 0), message.offset()
                assert offset is not None
                for letter in wanted.get(place, {}).pop(offset, ()):
                    yield self._compared(letter, message)
        # removed meanwhile, by a transaction that was aborted, or by somebody's own hand
        for offsets in wanted.values():
            for letters in offsets.values():
                yield from map(_gone, letters)

    def _is_there(self, letter: DeadLetter, place: Place) -> bool:
        topic = self._topic(place[0])
        id = letter.state.origin_topic_id
        if place[1] >= topic.partitions or (id and topic.id and id != topic.id):
            return False
        if place[1] not in topic.extents:
            topic.extents[place[1]] = self._reader.extent(*place)
        start, end = topic.extents[place[1]]
        return start <= letter.state.origin < end

    def _topic(self, name: str) -> _Topic:
        if name not in self._topics:
            partitions = self._reader.partitions(name)
            self._topics[name] = self._described(name, partitions) if partitions else _Topic(0)
        return self._topics[name]

    def _described(self, name: str, partitions: int) -> _Topic:
        admin: Any = opened(AdminClient, client_config(self._config))
        try:
            asked = admin.describe_topics(TopicCollection([name]), request_timeout=_REQUEST_SECONDS)
            id = asked[name].result().topic_id
        except KafkaException as e:
            raise NotifyError(
                f"{name}: the topic's id cannot be read ({e.args[0].name()}); allow Describe on it"
            ) from None
        known = bool(id.get_most_significant_bits() or id.get_least_significant_bits())  # brokers before 2.8
        return _Topic(partitions, str(id) if known else "", _retention_ms(admin, name))

    def _compared(self, letter: DeadLetter, message: Message) -> DeadLetter:
        state, headers, timestamp = letter.state, h.headers_of(message), message.timestamp()[1]
        topic = self._topics[state.origin_topic]
        id, created = wire.identity(
            headers, state.origin_topic, state.origin_partition, state.origin, timestamp
        )
        original = wire.own_headers(headers, id, created if created >= 0 else None)
        if not _is_equal(letter, message, original, id, created):
            is_surely_its_own = state.origin_topic_id and state.origin_topic_id == topic.id
            if not is_surely_its_own and (letter.id, _created(letter)) != (id, created):
                return _gone(
                    letter
                )  # perhaps of a topic of the same name that was deleted: it cannot be told
            log.error(
                "%s[%d]@%d: this dead letter is forged or foreign: its source record %s[%d]@%d has other bytes; it is "
                "not redriven; find out who may write to the dead-letter topic",
                letter.topic, letter.partition, letter.offset, state.origin_topic, state.origin_partition, state.origin,
            )  # fmt: skip
            return attrs.evolve(letter, source=SourceRecord("different"))
        until = None
        if topic.retention_ms is not None and timestamp >= 0:
            until = from_millis(min(timestamp + topic.retention_ms, h.MAX_MILLIS))
        return letter.with_record(
            message.key(),
            message.value(),
            _merged(letter, original),
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
    """How long it surely keeps a record; None when that is not known."""
    extents: dict[int, tuple[int, int]] = attrs.field(factory=dict[int, tuple[int, int]])


def _retention_ms(admin: Any, topic: str) -> int | None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        entries = admin.describe_configs([resource], request_timeout=_REQUEST_SECONDS)[resource].result()
    except KafkaException:
        return None  # it takes a right of its own, and only the date is not known without
    if int(entries["retention.bytes"].value) >= 0:
        return None
    milliseconds = int(entries["retention.ms"].value)
    return h.MAX_MILLIS if milliseconds < 0 else milliseconds


def _rounds(offsets: Mapping[Place, list[int]]) -> Iterator[dict[Place, tuple[int, int]]]:
    """Stretches to read, one of each partition at a time."""
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


def _gone(letter: DeadLetter) -> DeadLetter:
    return attrs.evolve(letter, source=SourceRecord("gone"))


def _created(letter: DeadLetter) -> int:
    state = letter.state
    return wire.identity(list(letter.headers), state.origin_topic, state.origin_partition, state.origin, -1)[
        1
    ]


def _is_equal(letter: DeadLetter, message: Message, original: wire.Headers, id: str, created: int) -> bool:
    """Whether the letter is of this record: all of it, or what was left when it was redacted or too large."""
    was_born = created if created >= 0 else None
    own = _lasting(letter, wire.own_headers(list(letter.headers), id, was_born))
    if letter.redacted:
        bare = _lasting(letter, wire.own_headers(None, id, was_born))
        return letter.key in (None, message.key()) and own in (_lasting(letter, original), bare)
    return (
        letter.key == message.key()
        and own == _lasting(letter, original)
        and (letter.raw or b"") == (message.value() or b"")
    )


def _lasting(letter: DeadLetter, headers: wire.Headers) -> wire.Headers:
    """What a redrive never changes: one of an expired letter gives it a new lifetime."""
    return [header for header in headers if header[0] != h.EXPIRES_AT] if letter.redrives else headers


def _merged(letter: DeadLetter, original: wire.Headers) -> wire.Headers:
    merged = _lasting(letter, original)
    if letter.redrives:
        merged = [*merged, *(header for header in letter.headers if header[0] == h.EXPIRES_AT)]
    return [*merged, *(header for header in letter.headers if header[0] in h.HOP_HEADERS)]
