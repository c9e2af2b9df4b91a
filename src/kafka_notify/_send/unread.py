"""Content types of records that the worker's codec does not read, for the log and for health."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from kafka_notify._base.clock import boottime
from kafka_notify._base.limited_log import LimitedLog
from kafka_notify._wire.headers import ContentTypeUnread

MAX_TYPES: Final = 5
"""Content types remembered."""
FRESH: Final = 300.0
"""Seconds for which health reports a content type. A record that waits is tried again within a minute."""


class Unread:
    """The content types met lately. May be called from any thread.

    Args:
        boottime: Returns seconds that go on in suspension.
    """

    def __init__(self, boottime: Callable[[], float] = boottime) -> None:
        self._boottime = boottime
        self._log = LimitedLog(logging.getLogger("kafka_notify.send"))
        self._met: dict[str, tuple[float, str]] = {}

    def met(self, error: ContentTypeUnread) -> None:
        """Note a record that waits because its content type is not read."""
        self._met.pop(error.content_type, None)
        if len(self._met) >= MAX_TYPES:
            del self._met[next(iter(self._met))]
        self._met[error.content_type] = self._boottime(), error.reads
        self._log.error(_sentence(error.content_type, error.reads), "each waits for up to a day")

    def problems(self) -> list[str]:
        """Sentences for `Health.problems`, one for each content type."""
        since = self._boottime() - FRESH
        return [_sentence(kind, reads) for kind, (at, reads) in list(self._met.items()) if at > since]


def _sentence(kind: str, reads: str) -> str:
    return (
        f"records with content-type {kind} wait, as this worker's codec reads {reads}: start it with the codec that "
        "reads them (Worker(codec=...), kafka-notify work --codec MODULE:NAME)"
    )
