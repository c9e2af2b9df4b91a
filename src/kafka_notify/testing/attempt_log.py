"""A log of what happened to every notification of one consumer group, in one file that many processes write.

Each line is one `write` to a file opened with O_APPEND. So the lines of all processes are in the order in which they
were written, and SIGKILL loses none of them. `kafka_notify.testing.guarantees` judges the lines.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any, Final

import attrs

from kafka_notify import events
from kafka_notify.errors import DeliveryError, ThrottledError
from kafka_notify.notification import Attempt, Notification
from kafka_notify.policy import holds_lane
from kafka_notify.producer import RecordMetadata
from kafka_notify.testing._log_lines import (
    KINDS,
    Accepted,
    Committed,
    Copied,
    DeadLettered,
    DestinationHeld,
    Disturbed,
    Ended,
    Failing,
    LaneHeld,
    Line,
    Owned,
    PausesSeen,
    Produced,
    Released,
    Sampled,
    Scheduled,
    Skipped,
    Started,
    Uncounted,
    now_ms,
)

__all__ = [
    "Accepted",
    "AttemptLog",
    "Committed",
    "Copied",
    "DeadLettered",
    "DestinationHeld",
    "Disturbed",
    "Ended",
    "Failing",
    "LaneHeld",
    "Line",
    "LogTail",
    "Owned",
    "PausesSeen",
    "Produced",
    "Recorded",
    "Released",
    "Sampled",
    "Scheduled",
    "Skipped",
    "Started",
    "Uncounted",
    "now_ms",
]

_UNCOUNTED: Final = frozenset({"ThrottledError", "ProviderUnavailableError"})


class AttemptLog:
    """Writes lines; one instance per process. Safe to use from any thread.

    Wrap a consumer's `send`, and hand `on_event` to the worker:

        class Logged(TwilioSms):
            async def send(self, notification, attempt):
                with LOG.attempt(notification, attempt):
                    return await super().send(notification, attempt)

        Worker(Logged, config, lane="high_priority", on_event=LOG.on_event)

    The log contains user ids, so keep it where test data belongs. It contains neither payloads nor recipients.

    Args:
        path: File on a local disk that all processes of one consumer group share.
        worker: Name of this process in the lines. It must be unique, after a restart too.
    """

    def __init__(self, path: str | os.PathLike[str], worker: str) -> None:
        self.worker = worker
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, line: Line) -> None:
        """Append a line."""
        text = json.dumps({"kind": type(line).__name__, **attrs.asdict(line)}, separators=(",", ":"))
        os.write(self._file, text.encode() + b"\n")

    def produced(
        self,
        notification: Notification[Any],
        record: RecordMetadata,
        *,
        destination: str = "",
        process: str = "",
    ) -> None:
        """Note that the broker acknowledged a notification, and which server is to receive it.

        Args:
            notification: The notification.
            record: What the broker acknowledged.
            destination: Server that receives it, for a provider of many servers.
            process: Name of the thread that sent it, if it sends one after the other and notes each in that order.
        """
        expires = notification.expires_at
        self.write(
            Produced(
                notification.id,
                notification.user_id,
                record.partition,
                record.offset,
                None if expires is None else round(expires.timestamp() * 1000),
                notification.channel,
                destination,
                process,
            )
        )

    def attempt(self, notification: Notification[Any], attempt: Attempt) -> Recorded:
        """Return a context manager that notes the start and the end of a call of `send`. Leaving it without an
        exception means that the provider accepted."""
        return Recorded(self, notification, attempt)

    def on_event(self, event: events.Event) -> None:
        """Note an event of a worker; give this to the worker's `on_event`."""
        match event:
            case events.PartitionStarted():
                self.write(Owned(self.worker, event.partition))
            case events.DeadLettered():
                self.write(DeadLettered(self.worker, event.id, event.reason))
            case events.NotificationSkipped():
                self.write(Skipped(self.worker, event.id, event.reason))
            case events.RetryScheduled():
                self.write(Scheduled(self.worker, event.id, event.attempt, event.offset))
            case events.PausesChanged():
                self.write(PausesSeen(self.worker, list(event.paused)))
            case events.AttemptEnded(outcome="retry", counted=False):
                self.write(Uncounted(self.worker, event.id, event.attempt))
            case events.LaneHeld():
                self.write(LaneHeld(self.worker, True, event.wait, event.reason))
            case events.LaneResumed():
                self.write(LaneHeld(self.worker, False))
            case events.DestinationHeld():
                self.write(DestinationHeld(self.worker, True))
            case events.DestinationResumed():
                self.write(DestinationHeld(self.worker, False))
            case events.PartitionsRevoked(lost=False):
                self.write(Released(self.worker, list(event.partitions)))
            case events.PartitionsRevoked(lost=True) | events.CommitFailed(epoch_ended=True):
                self.write(Disturbed(self.worker, "fenced"))
            case _:
                pass

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Recorded:
    """One call of `send` in the log."""

    def __init__(self, log: AttemptLog, notification: Notification[Any], attempt: Attempt) -> None:
        self._log = log
        self._notification = notification
        self._attempt = attempt
        self._accepted = False

    def accepted(self) -> None:
        """Note that the provider accepted, when that happens before the call of `send` ends."""
        if not self._accepted:
            self._accepted = True
            self._log.write(Accepted(self._log.worker, self._notification.id, self._attempt.number))

    def __enter__(self) -> Recorded:
        n, a = self._notification, self._attempt
        self._log.write(Started(self._log.worker, n.id, n.user_id, a.number, a.timeout, a.maybe_sent))
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: object, /) -> None:
        if e is None:
            self.accepted()
            outcome, counted = "accepted", False
        elif isinstance(e, asyncio.CancelledError):  # it counts at a deadline, not at a hand-over
            outcome, counted = "cancelled", False
        else:
            outcome = type(e).__name__
            counted = not isinstance(e, DeliveryError) or outcome not in _UNCOUNTED
        self._log.write(
            Ended(self._log.worker, self._notification.id, self._attempt.number, outcome, counted, _asks(e))
        )


def _asks(error: BaseException | None) -> float | None:
    """Return the seconds for which an error asks the whole lane to wait; None without such an error."""
    if not isinstance(error, DeliveryError) or not holds_lane(error):
        return None
    after = error.retry_after if isinstance(error, ThrottledError) else None
    return 0.0 if after is None else float(after)


class LogTail:
    """Reads a log while it is being written.

    Args:
        path: The log file, which need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._position = 0

    def __iter__(self) -> Iterator[Line]:
        """Yield the lines written since the last iteration."""
        if not os.path.exists(self._path):
            return
        with open(self._path, "rb") as file:
            file.seek(self._position)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                self._position += len(raw)
                fields = json.loads(raw)
                yield KINDS[fields.pop("kind")](**fields)
