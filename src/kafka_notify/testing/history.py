"""Histories: what happened in a run, in a neutral file that anybody can judge again (`kafka-notify check`).

A history is a file of JSON lines: a header, then every observation in order. It contains neither payloads nor
recipients; docs/testing.md describes each field. `write_history` makes one from an attempt log and a final look at the
topics; any other tool may write one, too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final, Literal

import attrs

from kafka_notify._base import codes
from kafka_notify.errors import NotifyError
from kafka_notify.testing._checker import Letter, LogEnds, Observation, SourceRecord
from kafka_notify.testing._history_fields import FieldError, read_fields
from kafka_notify.testing._log_lines import KINDS

__all__ = ["MAX_BYTES", "MAX_LINE", "VERSION", "Header", "HistoryError", "HistoryFile", "write_history"]

FORMAT: Final = "kafka-notify-history"
VERSION: Final = 1
"""Version of the format that is written. A reader accepts its own and earlier ones."""
MAX_LINE: Final = 1 << 24
"""Bytes of one line. The longest lines are commits with millions of finished offsets beyond the frontier."""
MAX_BYTES: Final = 1 << 28
"""Bytes of a history, unless the reader is told another limit: what is read is kept in memory until it is judged."""

_KINDS: Final[dict[str, type[Any]]] = {
    **KINDS,
    **{kind.__name__: kind for kind in (SourceRecord, Letter, LogEnds)},
}
_SHARED: Final = ("id", "user", "worker", "writer", "fence_writer", "outcome", "process")
"""Fields whose values occur in many lines, so that each is kept once."""
_TOKEN: Final = "t:"  # noqa: S105 - a prefix
Order = Literal["user", "none"]


class HistoryError(NotifyError):
    """A history cannot be read.

    Args:
        path: The file.
        line: Number of the line, from 1; 0 for the file as a whole.
        why: What is wrong, without a value from the file.
    """

    def __init__(self, path: str, line: int, why: str) -> None:
        super().__init__(f"{path}:{line}: {why}" if line else f"{path}: {why}")
        self.line = line


@attrs.frozen
class Header:
    """The first line of a history: the promises by which its run is judged."""

    max_attempts: int
    """Limit of the consumer's retry policy."""
    order: Order = "user"
    """Whose notifications keep their order and are sent one at a time; `none` when nobody's."""
    handover: float = 20.0
    """Seconds that running sends get before a rebalance, the workers' `drain_timeout`."""
    settle: float = 10.0
    """Seconds after a broker is back, or after a lane is released, that do not count."""


def write_history(
    path: str | os.PathLike[str], observations: Iterable[Observation], header: Header, /
) -> int:
    """Write a history, and return the number of its observations.

    Users, keys, values and the values of headers are written as tokens: two are equal when what they stand for is
    equal, and nothing else can be learned from them. The key that makes them is forgotten.

    Args:
        path: The file, which is replaced.
        observations: The lines of an attempt log, then what `KafkaWatch.final` saw, in order.
        header: By what the run is judged.
    """
    secret, count = secrets.token_bytes(32), 0

    def token(value: str | bytes | None) -> str | None:
        if value is None:
            return None
        given = value.encode() if isinstance(value, str) else value
        if given == codes.RECORD_TOO_LARGE.encode():  # the checker of dead letters asks for this one
            return codes.RECORD_TOO_LARGE
        return _TOKEN + hmac.new(secret, given, hashlib.sha256).hexdigest()[:32]

    with open(path, "wb") as file:
        _write(file, {"format": FORMAT, "version": VERSION, **attrs.asdict(header)})
        for seen in observations:
            fields: dict[str, Any] = {"kind": type(seen).__name__, **attrs.asdict(seen)}
            if fields.get("user"):
                fields["user"] = token(fields["user"])
            if isinstance(seen, (SourceRecord, Letter)):
                fields |= {"key": token(seen.key), "value": token(seen.value)}
                fields["headers"] = [[name, token(value)] for name, value in seen.headers]
            _write(file, fields)
            count += 1
    return count


def _write(file: BinaryIO, fields: dict[str, Any]) -> None:
    file.write(json.dumps(fields, separators=(",", ":")).encode() + b"\n")


class HistoryFile:
    """A history that is read, one observation at a time.

    Args:
        path: The file.
        max_bytes: Bytes that it may have.

    Raises:
        HistoryError: The file cannot be read, is too large, or does not begin with a header; while it is iterated over
            also for any other line.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> None:
        self._path = os.fspath(path)
        self._max_bytes = max_bytes
        self.header: Header = self._header()

    def __iter__(self) -> Iterator[Observation]:
        """Yield the observations; the first is in line 2."""
        lines = self._lines()
        next(lines)
        for number, fields in lines:
            kind = fields.pop("kind", None)
            known = _KINDS.get(kind) if isinstance(kind, str) else None
            if known is None:
                raise HistoryError(self._path, number, f"`kind` must be one of {', '.join(_KINDS)}")
            try:
                for name in _SHARED:
                    if isinstance(fields.get(name), str):
                        fields[name] = sys.intern(fields[name])
                yield known(**read_fields(known, fields))
            except FieldError as e:
                raise HistoryError(self._path, number, f"{known.__name__}: {e}") from None

    def _header(self) -> Header:
        nothing: dict[str, Any] = {}
        number, fields = next(self._lines(), (1, nothing))
        version = fields.get("version")
        if fields.get("format") != FORMAT or not isinstance(version, int):
            raise HistoryError(
                self._path, number, f'a history begins with {{"format": "{FORMAT}", "version": 1, …}}'
            )
        if not 1 <= version <= VERSION:
            why = f"the version is {version}, and this reader knows 1 to {VERSION}; check it with a newer kafka-notify"
            raise HistoryError(self._path, number, why)
        try:
            return Header(**read_fields(Header, fields))
        except FieldError as e:
            raise HistoryError(self._path, number, str(e)) from None

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            size = os.path.getsize(self._path)
            if size > self._max_bytes:
                why = f"it has {size:,} bytes, and at most {self._max_bytes:,} are read; allow more, or split the run"
                raise HistoryError(self._path, 0, why)
            with open(self._path, "rb") as file:
                number = 0
                while raw := file.readline(MAX_LINE + 1):
                    number += 1
                    yield number, self._object(number, raw)
        except OSError as e:
            raise HistoryError(self._path, 0, os.strerror(e.errno or 0)) from None

    def _object(self, number: int, raw: bytes) -> dict[str, Any]:
        if len(raw) > MAX_LINE:
            raise HistoryError(self._path, number, f"a line has at most {MAX_LINE:,} bytes")
        if not raw.endswith(b"\n"):
            raise HistoryError(self._path, number, "the last line is cut off: it must end with a newline")
        found: dict[str, Any] | None
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        if type(found) is not dict:
            raise HistoryError(self._path, number, "the line is not a JSON object in UTF-8")
        return found
