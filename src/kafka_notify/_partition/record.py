"""A record as it came from Kafka, or packed to wait in memory."""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any, Protocol

from kafka_notify._wire.headers import HasHeaders

if TYPE_CHECKING:
    from kafka_notify.wire import Headers


class Record(HasHeaders, Protocol):
    """What an entry needs of a `confluent_kafka.Message`."""

    def key(self, /) -> Any: ...
    def value(self, /) -> Any: ...
    def timestamp(self, /) -> Any: ...


class Packed:
    """A record that waits in memory, as four objects: as it came from Kafka it is a dozen and more, with a tuple for
    each header, which the garbage collector walks again and again."""

    __slots__ = ("_headers", "_key", "_time", "_value", "size")

    def __init__(self, record: Record, headers: Headers | None) -> None:
        self._key: bytes | None = record.key()
        self._value: bytes | None = record.value()
        self._time: tuple[int, int] = record.timestamp()
        self._headers = marshal.dumps(headers) if headers else b""
        self.size = 300 + len(self._key or b"") + len(self._value or b"") + len(self._headers)
        """Bytes that it takes in memory, roughly."""

    def key(self) -> bytes | None:
        """As `confluent_kafka.Message.key`; the others likewise."""
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return self._time

    def headers(self) -> Headers | None:
        """A list that belongs to the caller."""
        packed = self._headers  # made above, of what came from Kafka: no bytes from elsewhere are unpacked
        return marshal.loads(packed) if packed else None  # noqa: S302
