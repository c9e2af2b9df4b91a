"""Events as log records, and log records as JSON lines.

    log_events(worker)
    handler.setFormatter(JsonFormatter())

What is written names ids, categories, topics and error codes; no payload, recipient, user id or exception text.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final

import attrs

from kafka_notify import events
from kafka_notify._base import where
from kafka_notify._base.limited_log import Repeats
from kafka_notify._base.text import json_line
from kafka_notify._base.units import UTC
from kafka_notify._base.where import show_tracebacks as show_tracebacks
from kafka_notify.events import Event, Observable
from kafka_notify.worker import Worker

LOGGER: Final = "kafka_notify.events"

LEVELS: Final[Mapping[type[Event], int]] = {
    events.Produced: logging.DEBUG,
    events.AttemptEnded: logging.DEBUG,
    events.RetryScheduled: logging.DEBUG,
    events.NotificationSkipped: logging.DEBUG,
    events.PartitionsAssigned: logging.INFO,
    events.PartitionsRevoked: logging.INFO,
    events.PartitionStarted: logging.INFO,
    events.LaneResumed: logging.INFO,
    events.DestinationResumed: logging.INFO,
    events.PausesChanged: logging.INFO,  # the worker itself warns of it
    events.DeadLettered: logging.WARNING,
    events.CommitFailed: logging.WARNING,
    events.KafkaError: logging.WARNING,
    events.LaneHeld: logging.WARNING,
    events.DestinationHeld: logging.WARNING,
    events.RefusalDisbelieved: logging.WARNING,
    events.LeaseExpired: logging.WARNING,
    events.ProduceFailed: logging.ERROR,
    events.CopyFailed: logging.ERROR,
    events.HookFailed: logging.ERROR,
    events.PartitionHalted: logging.ERROR,
    events.RecordsRemoved: logging.ERROR,
    events.OffsetsMissing: logging.ERROR,
}
"""DEBUG for each notification, INFO for the life of the group, WARNING for what needs a look, and ERROR for what needs
a person."""

PER_SECOND: Final = 100
"""Records of one kind of event."""

_SAME: Final[Mapping[type[Event], Callable[[Any], tuple[object, ...]]]] = {
    events.KafkaError: lambda e: ("KafkaError", e.code),
    events.CommitFailed: lambda e: ("CommitFailed", e.reason),
}
"""Events that an outage repeats and that name no notification: those that are the same count as one kind each."""

_FIRST_OF_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PLAIN: Final = re.compile(r"[\w.:/\[\]+-]+")


def log_events(source: Observable, *, levels: Mapping[type[Event], int] | None = None) -> None:
    """Log what happens in a worker or producer, from before its start on, to the logger `kafka_notify.events`.

    The message reads `dead_lettered id=… reason=max_attempts code=http.504 …`; `record.event` holds the same as a
    mapping, for `JsonFormatter` and other structured formatters. A worker's records say its lane and group.

    Of one kind of event at most 100 are logged per second, those at DEBUG apart: in an outage thousands of copies may
    fail at once. `KafkaError` and `CommitFailed` with one code are logged at once, then after a minute, two, four, up
    to ten. The next one says how many were left out.

    Handlers run on the worker's event loop: put a `logging.handlers.QueueHandler` in front of those that write to disk
    or network.

    Args:
        source: A `Worker` before its start, or a `Producer` before its first send.
        levels: Levels by class of event, where they differ from `LEVELS`.

    Raises:
        NotifyError: The worker was started, or the producer has sent.
    """
    log = logging.getLogger(LOGGER)
    level_of = {**LEVELS, **(levels or {})}
    names = {kind: _FIRST_OF_WORD.sub("_", kind.__name__).lower() for kind in level_of}
    limited = {kind for kind, level in level_of.items() if level > logging.DEBUG}
    floods, repeats = Repeats(PER_SECOND, 1.0, 1.0), Repeats()

    def on_event(event: Event) -> None:
        kind = type(event)
        level = level_of.get(kind, logging.INFO)
        if not log.isEnabledFor(level):
            return
        left_out = 0
        if kind in limited:
            same = _SAME.get(kind)
            taken = (
                floods.take(kind.__name__, monotonic())
                if same is None
                else repeats.take(same(event), monotonic())
            )
            if taken is None:
                return
            left_out = taken[0]
        name = names.get(kind, kind.__name__)
        fields = attrs.asdict(event, recurse=False)
        if isinstance(source, Worker):
            fields.update(lane=source.lane, group=source.group)
        if left_out:
            fields["left_out"] = left_out
        told = " ".join(f"{key}={_written(value)}" for key, value in fields.items() if value is not None)
        log.log(level, "%s %s", name, told, extra={"event": {"name": name, **fields}})

    source.listen(on_event)


def _written(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class JsonFormatter(logging.Formatter):
    """One JSON object per record and line: `time` (UTC), `level`, `logger`, `thread`, `message`, `event`, `error`.

    Of an exception it writes the classes (its causes included) and where it was raised, but no text: that often
    quotes an address, a message or a token. For the same reason `extra` is written only as far as this library made
    it: `event`. The message is written as it is.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line.

        Args:
            record: The log record.
        """
        line: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        event: object = getattr(record, "event", None)
        if record.name == LOGGER and event is not None:
            line["event"] = event
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _error(record.exc_info[1])
        return json_line(line, default=str)


def _error(error: BaseException) -> dict[str, object]:
    return {"classes": where.classes(error), "at": where.frames(error)}
