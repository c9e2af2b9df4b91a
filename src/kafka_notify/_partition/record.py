"""A record as it came from Kafka, or packed to wait in memory."""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any, Protocol

from kafka_notify._wire.headers import HasHeaders

if TYPE_CHECKING:
    from kafka_notify.wire import Headers


class Record(HasHeaders, Protocol):
    """The part of `confluent_kafka.Message` that an entry needs."""

    def key(self, /) -> Any: ...
    def value(self, /) -> Any: ...
    def timestamp(self, /) -> Any: ...


class Packed:
    """A record that waits in memory, as four objects. As it came from Kafka it has more than a dozen, with a tuple for
    each header, which the garbage collector would walk again and again."""

    __slots__ = ("_headers", "_key", "_time", "_value", "size")

    def __init__(self, record: Record, headers: Headers | None) -> None:
        self._key: bytes | None = record.key()
        self._value: bytes | None = record.value()
        self._time: tuple[int, int] = record.timestamp()
        self._headers = marshal.dumps(headers) if headers else b""
        self.size = 300 + len(self._key or b"") + len(self._value or b"") + len(self._headers)
        """Bytes that it takes in memory, estimated."""

    def key(self) -> bytes | None:
        """As `confluent_kafka.Message.key`; the others likewise."""
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return self._time

    def headers(self) -> Headers | None:
        """A list that belongs to the caller."""
        packed = self._headers  # packed above by `marshal.dumps`: bytes from Kafka itself are never unpacked
        return marshal.loads(packed) if packed else None  # noqa: S302
