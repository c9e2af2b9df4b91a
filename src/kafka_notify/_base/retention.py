"""How long topics keep records, and how much of that time a notification may rely on."""

from __future__ import annotations

from typing import Final

from kafka_notify._base.names import is_retry_topic

DAY_MS: Final = 86_400_000
MAX_WAIT_MS: Final = DAY_MS
"""How long a notification without expiry may be throttled in a row before it is dead-lettered, whatever the backoff.
Also how long a notification may wait that its codec cannot decode although it decodes others."""
SOURCE_DEFAULT_MS: Final = 7 * DAY_MS
"""The retention that `create_topics` gives source topics; also assumed where settings may not be read."""
RETRY_DEFAULT_MS: Final = 9 * DAY_MS
"""The retention that `create_topics` gives retry topics; also assumed where settings may not be read."""


def default_ms(topic: str) -> int:
    """The default retention of a source or retry topic, in ms."""
    return RETRY_DEFAULT_MS if is_retry_topic(topic) else SOURCE_DEFAULT_MS


def margin(retention_ms: int) -> int:
    """The last part of its retention in which a record is at risk, in ms: a day, or a quarter of a short retention."""
    return min(DAY_MS, retention_ms // 4)


def keepable(retention_ms: int) -> int | None:
    """How long a retry may wait in a topic with this `retention.ms`, in ms; None when there is no limit.

    The margin is for a retry that is late because its provider or its workers were unavailable.
    """
    return None if retention_ms < 0 else retention_ms - margin(retention_ms)


def rewritten_after(retention_ms: int) -> int:
    """The age of its copy, in ms, at which a waiting retry is written again in a topic with this `retention.ms`."""
    return retention_ms // 2


def keeps_any_wait(retention_ms: int) -> bool:
    """Return whether a retry may wait for longer than its topic keeps a record.

    A waiting retry is written again in time unless its workers are down for longer than what is then left of the
    retention. That must be a day, the margin of every wait.
    """
    return retention_ms < 0 or retention_ms - rewritten_after(retention_ms) >= DAY_MS
