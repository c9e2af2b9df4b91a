"""Content types that a worker met and that its codec does not read: said in the log and in health."""

from __future__ import annotations

import logging
from typing import Final

from kafka_notify._base.clock import boottime
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._wire.headers import ContentTypeUnread

"""The code of what waits for another codec."""
MAX_TYPES: Final = 5
FRESH: Final = 300.0
"""Seconds for which one is in health: a record that waits is looked at again within a minute."""


class Unread:
    """What was met lately; from any thread."""

    def __init__(self) -> None:
        self._log = LimitedLog(logging.getLogger("kafka_notify.send"))
        self._met: dict[str, tuple[float, str]] = {}

    def met(self, error: ContentTypeUnread) -> None:
        """A record waits: its content type is not read."""
        self._met.pop(error.content_type, None)
        if len(self._met) >= MAX_TYPES:
            del self._met[next(iter(self._met))]
        self._met[error.content_type] = boottime(), error.reads
        self._log.error(_sentence(error.content_type, error.reads), "it is not dead-lettered before a day")

    def problems(self) -> list[str]:
        """A sentence for each."""
        since = boottime() - FRESH
        return [_sentence(kind, reads) for kind, (at, reads) in list(self._met.items()) if at > since]


def _sentence(kind: str, reads: str) -> str:
    return (
        f"records with content-type {kind} wait, as this worker's codec reads {reads}: start it with the codec that "
        "reads them (Worker(codec=...), kafka-notify work --codec MODULE:NAME)"
    )
