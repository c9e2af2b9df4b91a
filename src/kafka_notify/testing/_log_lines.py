"""The lines of an attempt log."""

from __future__ import annotations

import time
from typing import Final, Literal

import attrs


def now_ms() -> int:
    """Return epoch milliseconds."""
    return time.time_ns() // 1_000_000


@attrs.frozen
class Line:
    """Base of all lines."""

    at: int = attrs.field(factory=now_ms, kw_only=True)
    """Epoch milliseconds."""


@attrs.frozen
class Produced(Line):
    """The broker acknowledged a notification; `offset` is its origin."""

    id: str
    user: str
    partition: int
    offset: int
    expires_at: int | None = None
    """Epoch milliseconds."""
    channel: str = ""
    destination: str = ""
    """Server that receives it, for a provider of many servers."""
    process: str = ""
    """What sent it, if its lines are in the order of its sends: a thread of a producer. Empty when that is unknown."""


@attrs.frozen
class Owned(Line):
    """A worker began to work on a partition."""

    worker: str
    partition: int


@attrs.frozen
class Released(Line):
    """A rebalance took partitions from a worker, after their running sends had ended or were cancelled."""

    worker: str
    partitions: list[int]


@attrs.frozen
class Started(Line):
    """A call of `send` began."""

    worker: str
    id: str
    user: str
    attempt: int
    timeout: float = 3600.0
    """Seconds after which the worker takes the outcome for unknown."""
    maybe_sent: bool = False


@attrs.frozen
class Accepted(Line):
    """The provider accepted, whether the worker learns of it or not."""

    worker: str
    id: str
    attempt: int


@attrs.frozen
class Ended(Line):
    """A call of `send` ended; `outcome` is `accepted`, `cancelled`, or the class of what it raised."""

    worker: str
    id: str
    attempt: int
    outcome: str
    counted: bool
    """True for a failure that counts towards `max_attempts`."""
    asks: float | None = None
    """Seconds for which the error asks the whole lane to wait, 0 if it named no time; None without such an error."""


@attrs.frozen
class Skipped(Line):
    """A notification was finished without a send."""

    worker: str
    id: str
    reason: str


@attrs.frozen
class DeadLettered(Line):
    """A worker saw the acknowledgement of a dead letter."""

    worker: str
    id: str
    reason: str


@attrs.frozen
class Scheduled(Line):
    """A worker saw the acknowledgement of a retry copy."""

    worker: str
    id: str
    attempts: int
    """Counted attempts made."""
    offset: int


@attrs.frozen
class Disturbed(Line):
    """A worker was disturbed; the line is written just before. An empty `worker` stands for the cluster, which lacks a
    broker from `broker` to `broker back`, which is written just after."""

    worker: str
    how: Literal["killed", "paused", "resumed", "stopped", "fenced", "broker", "broker back"]


@attrs.frozen
class PausesSeen(Line):
    """A worker learned of the pauses in force; none of their notifications starts after this line."""

    worker: str
    paused: list[str]


@attrs.frozen
class Uncounted(Line):
    """A worker found that a failure was the provider's, so that it cost no attempt."""

    worker: str
    id: str
    attempt: int


@attrs.frozen
class LaneHeld(Line):
    """A worker holds its lane, or sends again."""

    worker: str
    held: bool
    wait: float = 0.0
    """Seconds until the first probe."""
    reason: str = ""
    """Code of the error."""


@attrs.frozen
class DestinationHeld(Line):
    """A worker holds a destination, whose name is not logged, or sends to it again."""

    worker: str
    held: bool


@attrs.frozen
class Failing(Line):
    """The provider begins to fail, or works again. The test that decides this writes the line just before the one and
    just after the other. Without `user` and `destination` the provider fails for everybody."""

    failing: bool
    user: str = ""
    destination: str = ""


@attrs.frozen
class Sampled(Line):
    """The state of a worker and its process at one moment: see `WorkerSampler`."""

    worker: str
    concurrency: int
    """Sends allowed at once; 0 before the worker was started."""
    in_flight: int
    held: bool = False
    """True while only probes may start, as the provider fails."""
    paused: bool = False
    """True while an operator has paused something."""
    limited: bool = False
    """True while notifications are ready and the rate limit decides when they start."""
    records: int = 0
    """Notifications in memory or in the table of waiting retries."""
    rss: int = 0
    """Resident memory of the process in bytes; 0 where it is unknown."""
    budgets: dict[str, list[int]] = attrs.field(factory=dict[str, list[int]])
    """Bytes in use and bytes allowed, by the name of the memory budget."""
    given_away: int = 0
    """Notifications queued for a send whose partition was given away."""
    destinations: list[str] = attrs.field(factory=list[str])
    """Names of the destinations that are held."""


@attrs.frozen
class Copied(Line):
    """A record was seen in the retry topic."""

    partition: int
    offset: int
    origin: int
    id: str
    attempts: int
    due: int
    """Epoch milliseconds."""
    writer: str


@attrs.frozen
class Committed(Line):
    """The group's commit of a partition pair, logged after every copy that the commit may rest on."""

    partition: int
    source: int
    source_gaps: str
    """One character per offset from `source` on: 1 finished, 0 not."""
    retry: int
    retry_gaps: str
    fence_end: int
    fence_writer: str


KINDS: Final[dict[str, type[Line]]] = {
    kind.__name__: kind
    for kind in (
        Produced, Owned, Released, LaneHeld, DestinationHeld, Uncounted, Started, Accepted, Ended, Skipped,
        DeadLettered, Scheduled, Disturbed, Failing, PausesSeen, Copied, Committed, Sampled,
    )
}  # fmt: skip
"""The lines by the name that the log gives them."""
