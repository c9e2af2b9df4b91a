"""Strings that must not leak, and everything that a process logs or prints."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

import attrs

from kafka_notify._wire.payload_kinds import is_list, is_object

MIN_LENGTH: Final = 6
"""Characters of the shortest string that is looked for: shorter ones are in log lines by chance."""


@attrs.frozen
class Canaries:
    """The strings to look for, by a description of each. The strings themselves are never shown."""

    _by_name: Mapping[str, str] = attrs.field(repr=False)

    @classmethod
    def of(cls, recipient: str | None, data: object, secrets: Iterable[str]) -> Canaries:
        """Make canaries of all strings that are long enough.

        Raises:
            ValueError: Recipient and data hold no such string.
        """
        found = {f"data ({path})": text for path, text in _strings(data, "") if len(text) >= MIN_LENGTH}
        if recipient is not None and len(recipient) >= MIN_LENGTH:
            found["the recipient"] = recipient
        if not found:
            raise ValueError(
                f"recipient and data hold no string of {MIN_LENGTH} characters, so no leak of them could be noticed"
            )
        return cls({**found, **{f"secret {n}": secret for n, secret in enumerate(secrets, 1)}})

    def found_in(self, texts: Iterable[str]) -> str:
        """Return the descriptions of the canaries in these texts, URL-quoted ones included; empty when there are
        none."""
        said = "\n".join(texts)
        names = [
            name
            for name, text in self._by_name.items()
            if any(form in said for form in (text, quote(text), quote(text, safe=""), quote_plus(text)))
        ]
        return ", ".join(names)


def _strings(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path or "itself", value
    elif is_object(value):
        for name, item in value.items():
            yield from _strings(item, f"{path}.{name}".lstrip("."))
    elif is_list(value):
        for item in value:
            yield from _strings(item, path)


@contextlib.contextmanager
def overheard(level: int) -> Generator[list[str], None, None]:
    """Collect everything that the process logs at `level` or above, by any logger, and everything that it prints."""
    texts: list[str] = []
    printed = io.StringIO()
    make = logging.getLogRecordFactory()
    root = logging.getLogger()
    before = root.level

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        texts.append(_said(record))
        return record

    logging.setLogRecordFactory(factory)
    root.setLevel(level)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield texts
    finally:
        root.setLevel(before)
        logging.setLogRecordFactory(make)
        texts.append(printed.getvalue())


def _said(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # the arguments do not fit the message: logging itself would print both
        text = f"{record.msg} {record.args}"
    if record.exc_info and record.exc_info[1] is not None:
        text += "".join(traceback.format_exception(record.exc_info[1]))
    return text
