"""Value bytes to data and back: the `Codec` protocol, and JSON, its default."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from kafka_notify._wire.payload import unstructure
from kafka_notify.errors import InvalidNotificationError

MAX_DEPTH: Final = 100
"""Levels of objects and lists in each other."""
_SHALLOW: Final = 2 * MAX_DEPTH
"""Characters of JSON that cannot be nested deeper than that."""
_WHITE: Final = " \t\n\r"
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{\]}]')

if TYPE_CHECKING:
    from kafka_notify.notification import Notification


class CodecContext:
    """The topic and headers of a value, for codecs that need them.

    Args:
        topic: The source topic, on retries and redrives too (a Schema Registry's subject derives from it).
        headers: Headers of the record; of several with one name the last counts.
        plain: The data as JSON-compatible values, when the check of the payload class made them.
    """

    __slots__ = ("_headers", "_plain", "topic")

    def __init__(
        self,
        topic: str,
        headers: Mapping[str, bytes] | Sequence[tuple[str, bytes]],
        plain: dict[str, Any] | None = None,
    ) -> None:
        self.topic: str = topic
        self._headers = headers
        self._plain = plain  # JSON needs no second pass

    @property
    def headers(self) -> Mapping[str, bytes]:
        """The record's headers by name."""
        return {
            name: raw for name, raw in dict(self._headers).items() if raw is not None
        }  # most codecs never ask

    def __repr__(self) -> str:
        return f"CodecContext({self.topic!r})"


class Codec(Protocol):
    """Value bytes <-> data; give one to `Producer` and `Worker` to use another format than JSON.

    Raise `CodecUnavailableError` when the codec's own service (a Schema Registry, a key store) does not answer: the
    lane waits and tries again. Any other exception of `decode` sends the record to the dead-letter topic as
    `undecodable`. `encode` is called from the threads that send, `decode` on the worker's event loop, which it must not
    block.
    """

    content_type: str
    """Value of the `content-type` header. A record with another one is not given to `decode`: it waits for a worker
    whose codec reads it. A codec that reads more content types names them in an attribute `reads`, a sequence of texts
    with `*` for any text; `("*",)` reads all. Every codec reads records whose header is missing or says nothing
    (`text/plain`, `application/octet-stream`)."""

    def encode(self, notification: Notification[Any], context: CodecContext, /) -> bytes:
        """Return the bytes of `notification.data`.

        Args:
            notification: The notification to send.
            context: Topic and headers of its record.

        Raises:
            CodecUnavailableError: The codec's service does not answer.
        """
        ...

    def decode(self, value: bytes, context: CodecContext, /) -> Any:
        """Return the data: an instance of the category's payload class, or the mapping to build one from.

        Args:
            value: Value of a record.
            context: Topic and headers of the record.

        Raises:
            CodecUnavailableError: The codec's service does not answer.
            Exception: The value cannot be read: the record becomes a dead letter.
        """
        ...


class JsonCodec:
    """Compact UTF-8 JSON, one object per value; the default.

    Data may be a mapping, an attrs class or a dataclass, and may hold what `Category.payload` may: dates,
    UUIDs, Decimals, enums and collections. Stateless: share it between threads.
    """

    content_type: str = "application/json"
    reads: Sequence[str] = ("application/*+json", "text/json")

    def encode(self, notification: Notification[Any], context: CodecContext, /) -> bytes:
        """Return the data as a JSON object.

        Args:
            notification: The notification to send.
            context: Topic and headers of its record.

        Raises:
            InvalidNotificationError: The data is not an object, is nested more than 100 levels deep, or holds something
                that JSON cannot (NaN included).
        """
        data = notification.data if context._plain is None else context._plain
        try:
            if type(data) is not dict:
                data = unstructure(data)
                if type(data) is not dict:
                    raise InvalidNotificationError("data must be a mapping, an attrs class or a dataclass")
            text = "".join(_chunks(data, 0))
            if len(text) > _SHALLOW and text.count("[") + text.count("{") > MAX_DEPTH:
                _check_depth(text)
            return text.encode()
        except InvalidNotificationError:
            raise
        except (TypeError, ValueError, RecursionError) as e:
            raise InvalidNotificationError(
                f"data cannot be written as JSON ({type(e).__name__}): it must hold finite numbers, valid Unicode, "
                "str keys and no cycle"
            ) from None

    def decode(self, value: bytes, context: CodecContext, /) -> Any:
        """Return the object as a dict.

        Args:
            value: Value of a record.
            context: Topic and headers of the record.

        Raises:
            ValueError: The value is not a JSON object in UTF-8; the text holds nothing of it.
        """
        try:
            text = value.decode()
            if text[:1] != "{":
                text = text.strip(_WHITE)
            data, end = _scan(text, 0)
        except (ValueError, StopIteration, RecursionError) as e:
            raise ValueError(f"not JSON ({type(e).__name__})") from None
        if text[0] != "{" or (end != len(text) and text[end:].strip(_WHITE)):
            raise ValueError("not a JSON object")
        return data


DEFAULT_CODEC: Final = JsonCodec()
"""One for the whole process: what it reads is then looked up once, not for each worker."""


def _check_depth(text: str) -> None:
    """How deep a reader can follow depends on its own stack: far fewer levels than a writer manages are certain."""
    depth = 0
    for found in _BRACKETS.finditer(text):
        mark = found[0]
        depth += 1 if mark in "[{" else -1 if mark in "]}" else 0
        if depth > MAX_DEPTH:
            raise InvalidNotificationError(f"data is nested more than {MAX_DEPTH} levels deep")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _encoder() -> Callable[[Any, int], Iterable[str]]:
    """Return `JSONEncoder.encode`, in pieces, without what it repeats for each call: more than half of its time."""
    plain = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=unstructure)
    make = getattr(json.encoder, "c_make_encoder", None)
    quoted = getattr(json.encoder, "c_encode_basestring", None)
    if make is None or quoted is None:  # not CPython
        return lambda data, _: (plain.encode(data),)
    # no table of what was met: a cycle ends in a RecursionError
    chunks: Callable[[Any, int], Iterable[str]] = make(
        None, unstructure, quoted, None, ":", ",", False, False, False
    )
    return chunks


# Made once: json.dumps and json.loads build a coder per call when an option is set. The scanner itself saves the two
# regular expressions by which decode skips white space (a third of its time at 100 bytes); it stops with a
# StopIteration where no value begins.
_chunks = _encoder()
_scan: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder(parse_constant=_refuse))["scan_once"]
