"""How long topics keep records, and what of that a notification may count on."""

from __future__ import annotations

from typing import Final

from kafka_notify._base.names import is_retry_topic

DAY_MS: Final = 86_400_000
MAX_WAIT_MS: Final = DAY_MS
"""How long a notification without expiry may be throttled in a row before it is dead-lettered, whatever the backoff;
how long one whose codec cannot decode it, though it decodes others, may wait."""
SOURCE_DEFAULT_MS: Final = 7 * DAY_MS
"""What `create_topics` gives source topics, and what is assumed where settings may not be read."""
RETRY_DEFAULT_MS: Final = 9 * DAY_MS
"""The same of retry topics."""


def default_ms(topic: str) -> int:
    """The one of the two that a topic has."""
    return RETRY_DEFAULT_MS if is_retry_topic(topic) else SOURCE_DEFAULT_MS


def margin(retention_ms: int) -> int:
    """How long before its end a record counts as in danger: a day, or a quarter of a short retention."""
    return min(DAY_MS, retention_ms // 4)


def keepable(retention_ms: int) -> int | None:
    """How long a retry may wait in a topic with this `retention.ms`, in ms; None when there is no limit.

    A retry that is late, because its provider or its workers were away, needs the margin.
    """
    return None if retention_ms < 0 else retention_ms - margin(retention_ms)


def rewritten_after(retention_ms: int) -> int:
    """The age of its copy, in ms, at which a waiting retry is written again in a topic with this `retention.ms`."""
    return retention_ms // 2


def keeps_any_wait(retention_ms: int) -> bool:
    """Whether a retry may wait for longer than its topic keeps a record: it is written again in time if no worker is
    away for longer than what is left then, and that must be as much as any wait has to have left: a day."""
    return retention_ms < 0 or retention_ms - rewritten_after(retention_ms) >= DAY_MS
