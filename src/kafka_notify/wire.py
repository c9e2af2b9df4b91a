"""Encoding of notifications as records, and decoding of records.

The key is the user id, the value holds the codec's bytes, and headers hold everything else (`_wire.headers` has their
names, `_wire.hops` those of retry records and dead letters). A worker decodes each record that it sends once, without
validators and without I/O.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kafka_notify._base import codes
from kafka_notify._base.where import origin
from kafka_notify._wire import headers as h
from kafka_notify._wire.content_type import check_content_type, readers
from kafka_notify._wire.fields import MAX_USER_ID_BYTES
from kafka_notify._wire.headers import (
    MAX_MILLIS,
    ContentTypeUnread,
    Headers,
    Undecodable,
    read_integer,
    read_text,
)
from kafka_notify._wire.history import History, Origin
from kafka_notify._wire.hops import (
    REDRIVE_WRITER,
    SPILL_ORIGIN,
    SPILL_WRITER,
    DeadLetterState,
    DlqPayload,
    DlqReason,
    RetryState,
    dead_letter,
    own_headers,
    read_dead_letter,
    read_retry,
    retry_copy,
    strip_retry,
)
from kafka_notify._wire.ids import DerivedId, derived_id
from kafka_notify._wire.payload import structure, to_json, unstructure
from kafka_notify._wire.undecoded import category_of, channel_of, expires_at, expiry, identity
from kafka_notify.codec import Codec, CodecContext, JsonCodec
from kafka_notify.errors import CodecUnavailableError, ConfigError, InvalidNotificationError
from kafka_notify.notification import Category, Notification, unchecked

__all__ = [
    "REDRIVE_WRITER",
    "SPILL_ORIGIN",
    "SPILL_WRITER",
    "ContentTypeUnread",
    "DeadLetterState",
    "DerivedId",
    "DlqPayload",
    "DlqReason",
    "Headers",
    "History",
    "Origin",
    "RetryState",
    "Undecodable",
    "category_of",
    "channel_of",
    "dead_letter",
    "decode",
    "derived_id",
    "encode",
    "expiry",
    "identity",
    "own_headers",
    "read_dead_letter",
    "read_retry",
    "retry_copy",
    "strip_retry",
]

# Every record needs these, and a global is found faster than a module's attribute.
_SCHEMA, _CATEGORY, _CHANNEL, _ID, _RECIPIENT = h.SCHEMA, h.CATEGORY, h.CHANNEL, h.ID, h.RECIPIENT
_CREATED_AT, _EXPIRES_AT = h.CREATED_AT, h.EXPIRES_AT
_COLLAPSE_KEY, _CORRELATION_ID, _CONTENT_TYPE = h.COLLAPSE_KEY, h.CORRELATION_ID, h.CONTENT_TYPE
_names: dict[bytes, str] = {}
_MAX_NAMES: Final = 1_000

_SCHEMA_HEADER: Final = (_SCHEMA, b"1")
_SCHEMAS_READ: Final = frozenset(
    {b"1", b"2"}
)  # this version's and the next: for rolling upgrades and rollbacks
_is_id: Final = re.compile(rb"[A-Za-z0-9_-]{1,128}").fullmatch
_not_a_code: Final = re.compile(r"[^A-Za-z0-9_.-]").sub


# -- notification to record ------------------------------------------------------------------------


def encode(
    notification: Notification[Any], codec: Codec, topic: str, category: Category[Any] | None
) -> tuple[bytes, bytes, Headers]:
    """Return the key, the value and the headers of the record that carries `notification` to `topic`.

    Args:
        category: The topology's category, if it has this one. Its ttl fills a missing `expires_at`. Its payload class
            checks all data, whether given as an instance or as a mapping, so that no consumer has to dead-letter the
            record.

    Raises:
        InvalidNotificationError: The data does not match the payload class, or a header is longer than 4 KiB.
        CodecUnavailableError: The codec's service cannot be reached.
    """
    n = notification
    created = n._created_ms
    headers: Headers = [
        *_of_few(n.category, n.channel, codec.content_type),
        (_ID, n.id.encode()),
        (_CREATED_AT, b"%d" % created),
    ]
    expires = n._expires_ms
    if expires is None and category is not None:
        expires = expires_at(created, category.ttl)
    if expires is not None:
        headers.append((_EXPIRES_AT, b"%d" % expires))
    if n.recipient is not None:
        headers.append((_RECIPIENT, _written(_RECIPIENT, n.recipient)))
    if n.collapse_key is not None:
        headers.append((_COLLAPSE_KEY, _written(_COLLAPSE_KEY, n.collapse_key)))
    if n.correlation_id is not None:
        headers.append((_CORRELATION_ID, _written(_CORRELATION_ID, n.correlation_id)))
    if n._headers and (own := n.headers):
        headers += [(name, value.encode()) for name, value in own.items()]
    plain: dict[str, Any] | None = None
    if category is not None and category.payload is not None:
        data: object = n.data
        kind = type(data)
        if kind is category.payload or not issubclass(kind, Mapping):
            plain = to_json(category.payload, n.data)
        else:
            plain = unstructure(n.data)
            structure(category.payload, plain)
    value = codec.encode(n, CodecContext(topic, headers, plain))
    return n.user_id.encode(), value, headers


@functools.lru_cache(1_000)
def _of_few(category: str, channel: str, content_type: str) -> Sequence[tuple[str, bytes]]:
    """Headers that many notifications share."""
    return (
        _SCHEMA_HEADER,
        (_CATEGORY, _written(_CATEGORY, category)),
        (_CHANNEL, _written(_CHANNEL, channel)),
        (_CONTENT_TYPE, _written(_CONTENT_TYPE, content_type)),
    )


def _written(name: str, text: str) -> bytes:
    raw = text.encode()
    if len(raw) > h.MAX_BYTES:
        field = name.removeprefix("notif-").replace("-", "_")
        raise InvalidNotificationError(f"{field} must be at most {h.MAX_BYTES} UTF-8 bytes, not {len(raw)}")
    return raw


# -- record to notification ------------------------------------------------------------------------


def decode(
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None,
    topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int,
    codec: Codec,
    categories: Mapping[str, Category[Any]],
) -> Notification[Any]:
    """Return the notification that a record carries.

    Args:
        topic: Topic of the origin, for retries and redrives too. The same holds for `partition` and `offset`.
        timestamp_ms: Timestamp of the source record, used where `notif-created-at` is missing.
        categories: The topology's categories. A record of another category, from a newer producer, is decoded too.

    Raises:
        Undecodable: The record does not hold a notification.
        CodecUnavailableError: The codec's service cannot be reached, or the category's payload class cannot be made
            from any data. The record may be right, so the lane waits.
        ContentTypeUnread: Another codec is needed. It is a `CodecUnavailableError`.
    """
    # The last of several headers with one name counts. A header without a value is absent.
    got: dict[str, bytes] = dict(headers) if headers else {}
    if (schema := got.get(_SCHEMA)) is not None and schema not in _SCHEMAS_READ:
        raise Undecodable("unsupported_schema", f"{codes.BAD_HEADER}{_SCHEMA}")
    category = _names.get(got.get(_CATEGORY, b"")) or _known_name(got, _CATEGORY)
    channel = _names.get(got.get(_CHANNEL, b"")) or _known_name(got, _CHANNEL)
    raw_id = got.get(_ID)
    if raw_id is None:
        id: str = DerivedId(derived_id(topic, partition, offset))
    elif _is_id(raw_id):
        id = raw_id.decode()
    else:
        raise Undecodable("undecodable", f"{codes.BAD_HEADER}{_ID}")
    raw = got.get(_CREATED_AT)
    created = (
        int(raw)  # the usual case: epoch milliseconds have 13 digits until the year 2286
        if raw is not None and len(raw) == 13 and raw.isdigit()
        else read_integer(got, _CREATED_AT, MAX_MILLIS)
    )
    if created is None:
        if not 0 <= timestamp_ms <= MAX_MILLIS:
            raise Undecodable("undecodable", codes.BAD_TIMESTAMP)
        created = timestamp_ms
    expires = read_integer(got, _EXPIRES_AT, MAX_MILLIS) if _EXPIRES_AT in got else None
    known = categories.get(category)
    user_id = _user_id(key)
    data_type = got.get(_CONTENT_TYPE)
    if readers.get(data_type) is not codec and data_type is not None and value is not None:
        check_content_type(data_type, codec)
    if expires is None and known is not None:
        expires = expires_at(created, known.ttl)
    return unchecked(
        user_id,
        category,
        channel,
        read_text(got, _RECIPIENT),
        id,
        read_text(got, _COLLAPSE_KEY) if _COLLAPSE_KEY in got else None,
        read_text(got, _CORRELATION_ID) if _CORRELATION_ID in got else None,
        _data(value, codec, CodecContext(topic, got), known),
        created,
        expires,
        functools.partial(_own_headers, headers or ()),
    )


def _known_name(got: Mapping[str, bytes], header: str) -> str:
    """Return the category or channel, and remember it in `_names`, because there are few."""
    name = read_text(got, header)
    if not name:
        raise Undecodable("undecodable", f"{codes.NO_HEADER}{header.removeprefix('notif-')}")
    if len(_names) < _MAX_NAMES:  # a flood of invented names must not fill the memory
        _names[got[header]] = name
    return name


def collapses_with(notification: Notification[Any]) -> str:
    """Return what `collapse_of` returns for its record."""
    key = notification.collapse_key
    return f"{notification.channel} {key}" if key else ""


def _user_id(key: bytes | None) -> str:
    if not key or len(key) > MAX_USER_ID_BYTES:
        raise Undecodable("undecodable", codes.BAD_KEY)
    try:
        user_id = key.decode()
    except UnicodeDecodeError:
        raise Undecodable("undecodable", codes.BAD_KEY) from None
    if user_id != user_id.strip():
        raise Undecodable("undecodable", codes.BAD_KEY)
    return user_id


def _data(value: bytes | None, codec: Codec, context: CodecContext, category: Category[Any] | None) -> Any:
    if value is None:
        raise Undecodable("undecodable", codes.NULL_VALUE)
    try:
        data = codec.decode(value, context)
    except CodecUnavailableError:
        raise
    except Exception as e:  # the text may hold the payload, so only the class is kept
        raise Undecodable("undecodable", _codec_error(codec, e)) from None
    if category is None or category.payload is None or isinstance(data, category.payload):
        return data
    try:
        return structure(category.payload, data)
    except ConfigError as e:
        # No data can make this payload class. The record may be right, so the lane waits.
        raise CodecUnavailableError(str(e)) from None
    except InvalidNotificationError as e:  # its text names the class and the field, never a value
        raise Undecodable("undecodable", codes.BAD_PAYLOAD, str(e)) from None
    except Exception as e:  # the payload class's own code runs here
        raise Undecodable("undecodable", codes.BAD_PAYLOAD, origin(e)) from None


def _codec_error(codec: Codec, error: Exception) -> str:
    return (
        codes.BAD_JSON
        if isinstance(codec, JsonCodec)
        else _not_a_code("", f"{codes.CODEC}{type(error).__name__}")[:64]
    )


def _own_headers(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    return {
        name: raw.decode(errors="replace")
        for name, raw in headers
        if raw is not None and name and name != h.CONTENT_TYPE and not name.lower().startswith("notif-")
    }
