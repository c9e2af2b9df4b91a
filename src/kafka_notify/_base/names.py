"""Names of topics and groups: built from prefix, lane and consumer, and parsed again. Pure.

The parts contain no dot, so parsing is unambiguous.
"""

from __future__ import annotations

import re
from typing import Final

from kafka_notify.errors import ConfigError

DEFAULT_CONSUMER: Final = "workers"
"""The name of an unnamed consumer in groups, and wherever a person reads or types it."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def is_name(text: str) -> bool:
    """Return whether `text` can be part of a topic's or group's name."""
    return _NAME.fullmatch(text) is not None


def check_name(what: str, name: object) -> None:
    """Raise `ConfigError` unless `name` can be part of a topic's or group's name."""
    if not isinstance(name, str) or not is_name(name):
        raise ConfigError(
            f"{what} must be lower-case letters, digits, '_' or '-' (at most 63, a letter first), not {name!r}"
        )


def consumer_key(name: str) -> str:
    """The `Consumer.name` of a consumer: empty for `workers`."""
    return "" if name == DEFAULT_CONSUMER else name


# -- building --------------------------------------------------------------------------------------


def source_topic(prefix: str, lane: str) -> str:
    """The topic that producers write: `notif.high_priority`."""
    return f"{prefix}.{lane}"


def retry_topic(prefix: str, lane: str, consumer: str) -> str:
    """The retry topic of a consumer: `notif.retry.high_priority.sms`, without `.sms` when it has no name."""
    key = consumer_key(consumer)
    return f"{prefix}.retry.{lane}.{key}" if key else f"{prefix}.retry.{lane}"


def dead_letter_topic(prefix: str) -> str:
    """The dead-letter topic of lanes that name none: `notif.dlq`."""
    return f"{prefix}.dlq"


def control_topic(prefix: str) -> str:
    """The topic of the pauses: `notif.control`."""
    return f"{prefix}.control"


RESERVED: Final = frozenset({"retry", "dlq", "control"})
"""Names that a lane must not have, because its source topic would be one of the other topics."""


def group_name(prefix: str, lane: str, consumer: str) -> str:
    """A consumer group: `notif.high_priority.sms`, or `notif.high_priority.workers`."""
    return f"{source_topic(prefix, lane)}.{consumer or DEFAULT_CONSUMER}"


def tool_group(prefix: str, tool: str) -> str:
    """The group id under which a tool reads without joining a group: `notif.dead-letters`."""
    return f"{prefix}.{tool}"


# -- parsing ---------------------------------------------------------------------------------------


def of_retry_topic(prefix: str, topic: str) -> tuple[str, str] | None:
    """Lane and consumer of a retry topic, "" for the unnamed one; None for any topic that is not a retry topic of this
    prefix."""
    before = f"{prefix}.retry."
    if not topic.startswith(before):
        return None
    lane, _, consumer = topic.removeprefix(before).partition(".")
    return lane, consumer


def is_retry_topic(topic: str) -> bool:
    """Return whether a topic is a retry topic, whatever its prefix."""
    return topic.partition(".")[2].startswith("retry.")


def of_group(group: str) -> tuple[str, str]:
    """Source topic and consumer of a group, `workers` for the unnamed one."""
    source, _, consumer = group.rpartition(".")
    return source, consumer


def has_prefix(prefix: str, name: str) -> bool:
    """Return whether a topic or group has this prefix, whatever its lane and consumer."""
    return name.startswith(f"{prefix}.")
