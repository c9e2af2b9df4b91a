"""Events as frozen values: the argument of `on_event`.

No event holds data, recipient, user id or key. `on_event` is called from the thread where it happened (a
worker's event loop, a producer's poll thread): it must be quick and must not block; an exception in it is
logged and changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Literal, Protocol

import attrs

log: Final = logging.getLogger("kafka_notify")
log.addHandler(logging.NullHandler())


OutcomeKind = Literal["sent", "retry", "dead", "skipped"]


@attrs.frozen
class Event:
    """Base of all events."""


@attrs.frozen
class Produced(Event):
    """The broker acknowledged a notification."""

    id: str
    category: str
    channel: str
    topic: str
    partition: int
    offset: int
    seconds: float
    """Seconds from `send` to the acknowledgement."""


@attrs.frozen
class ProduceFailed(Event):
    """The broker did not acknowledge a notification; its `PendingSend` raises."""

    id: str
    category: str
    channel: str
    topic: str
    reason: str


@attrs.frozen
class AttemptEnded(Event):
    """One call of `send` ended."""

    id: str
    category: str
    channel: str
    attempt: int
    outcome: OutcomeKind
    provider: str | None
    code: str | None
    seconds: float
    """Duration of the call in seconds."""
    age: float
    """Seconds since the notification was created."""
    counted: bool = True
    """False if the attempt does not count towards `max_attempts`: a failure that is the provider's."""


@attrs.frozen
class RetryScheduled(Event):
    """A copy in the retry topic was acknowledged."""

    id: str
    category: str
    channel: str
    attempt: int
    """Counted attempts made; 0 for one parked behind an earlier one of its user."""
    after: float
    """Seconds until it is due."""
    topic: str
    partition: int
    offset: int


@attrs.frozen
class DeadLettered(Event):
    """A dead letter was acknowledged."""

    id: str
    category: str | None
    channel: str | None
    reason: str
    code: str | None
    topic: str
    partition: int
    origin: int


@attrs.frozen
class NotificationSkipped(Event):
    """A notification will never be sent: skipped, superseded, or of another consumer's channel."""

    id: str
    category: str
    channel: str
    reason: str


@attrs.frozen
class CopyFailed(Event):
    """A copy to the retry or dead-letter topic was not acknowledged: its record stays open and it is written
    again."""

    topic: str
    partition: int
    reason: str
    failures: int
    """Failures in a row, of this record."""


@attrs.frozen
class CommitFailed(Event):
    """Offsets were not committed: nothing is lost, more may be sent twice after a crash."""

    reason: str
    epoch_ended: bool
    """The group has moved on without this worker: it stops sending until it is assigned partitions again."""


@attrs.frozen
class PartitionsAssigned(Event):
    """A rebalance gave partitions to this worker."""

    topic: str
    partitions: tuple[int, ...]


@attrs.frozen
class PartitionsRevoked(Event):
    """A rebalance took partitions from this worker."""

    topic: str
    partitions: tuple[int, ...]
    lost: bool
    """True if the worker could not commit before."""


@attrs.frozen
class PartitionStarted(Event):
    """Committed state was restored and fenced: the partition's notifications are being sent."""

    partition: int
    restored: int
    """Notifications that wait for their retry."""
    lag: int
    """Source records behind the committed offset at that time."""


@attrs.frozen
class PartitionHalted(Event):
    """A partition cannot go on without a person; the others do."""

    partition: int
    reason: str


@attrs.frozen
class RecordsRemoved(Event):
    """Retention removed records that were not finished: of a source topic before they were read, of a retry topic while
    they waited. The lane goes on; the worker's health says so until it is acknowledged."""

    topic: str
    partition: int
    count: int
    """Number of records at most; offsets that never held a notification may be among them."""


@attrs.frozen
class OffsetsMissing(Event):
    """The group had no committed offset for a partition that is in use: it expired or was deleted. All that the topic
    holds is sent again; the worker's health says so until it is acknowledged."""

    topic: str
    partition: int
    count: int
    """Records that are read again, at most."""


@attrs.frozen
class HookFailed(Event):
    """`on_sent`, `on_dead_letter`, `setup` or `teardown` raised."""

    hook: str
    id: str | None
    error: str
    """Class of the exception."""


@attrs.frozen
class KafkaError(Event):
    """librdkafka reported an error; it recovers by itself unless `fatal`."""

    code: str
    fatal: bool


@attrs.frozen
class LeaseExpired(Event):
    """No commit was confirmed within the session timeout: no send starts until one is."""

    seconds: float
    """Seconds since the last confirmed commit."""


HoldCause = Literal["failures", "account", "throttle", "codec"]


@attrs.frozen
class LaneHeld(Event):
    """The provider (or the codec's service) is unavailable: nothing of the lane is sent but a probe now and then."""

    reason: str
    """Code of the error."""
    wait: float
    """Seconds until the first probe."""
    cause: HoldCause
    """Many users' failures, a refusal of the account, a throttle of the sender, or the codec."""


@attrs.frozen
class LaneResumed(Event):
    """Probes were accepted: the lane is sent again."""

    held: float
    """Seconds for which it was held."""
    probes: int
    """Probes that were made meanwhile."""


@attrs.frozen
class DestinationHeld(Event):
    """One destination is held (a channel, or what `Consumer.destination` names), all others go on. Its name may be
    personal, so it is not told."""

    reason: str
    """Code of the error."""
    wait: float
    """Seconds until the first probe."""
    cause: HoldCause


@attrs.frozen
class DestinationResumed(Event):
    """Probes were accepted: notifications to the destination are sent again."""

    held: float
    """Seconds for which it was held."""
    probes: int


@attrs.frozen
class RefusalDisbelieved(Event):
    """A refusal (401, 402, 403) was not the account's: others were accepted within seconds. For ten minutes such
    refusals count as failures of their notifications."""

    code: str


@attrs.frozen
class PausesChanged(Event):
    """A worker learned that something was paused or resumed."""

    paused: tuple[str, ...]
    """Pauses that affect the worker now, such as `channel sms`; empty when there is none."""


OnEvent = Callable[[Event], object]


class Observable(Protocol):
    """A `Worker` or a `Producer`."""

    def listen(self, on_event: OnEvent, /) -> None:
        """Call `on_event` with each event.

        Args:
            on_event: Must be quick and must not block.
        """


def emitter(*listeners: OnEvent) -> OnEvent | None:
    """Return one callable for several listeners; an exception in one is logged (without its text) and changes nothing.

    Args:
        *listeners: Called in this order.

    Returns:
        None without listeners, so that no event is made that nobody hears.
    """
    if not listeners:
        return None

    def emit(event: Event) -> None:
        for listener in listeners:
            try:
                listener(event)
            except (
                BaseException
            ) as e:  # SystemExit in a listener would end the thread that tells of something
                if type(e) is KeyboardInterrupt and threading.current_thread() is threading.main_thread():
                    raise  # Ctrl-C
                log.error("on_event raised %s for %s", type(e).__name__, type(event).__name__)

    return emit
