"""A record that waits in memory: what is needed of one, how large it is, and how it is made small."""

from __future__ import annotations

import marshal
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from kafka_notify._headers import HasHeaders

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


def record_size(key: bytes | None, value: bytes | None, headers: Headers | None) -> int:
    """Bytes that a record takes in memory, roughly: each of its parts alone can be as large as a record may be."""
    if not headers:
        return 200 + len(key or b"") + len(value or b"")
    try:
        size = sum(map(len, map(_RAW, headers)))  # all in C
    except TypeError:  # a header without a value
        size = sum(len(raw) for _, raw in headers if raw is not None)
    return size + 200 + 120 * len(headers) + len(key or b"") + len(value or b"")


_RAW: Final = itemgetter(1)
