"""Errors after which a consumer is no member of its group any more, and never will be again."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

from kafka_notify._kafka.rights import RIGHTS
from kafka_notify.errors import NotifyError

_CODES: Final = frozenset(
    {KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID}
)
"""librdkafka reports the second as the first, and does not mark either as fatal where a commit fails with it."""


class ConsumerEnded(NotifyError):
    """The client library has given up this consumer: nothing is sent or committed any more."""


def is_fatal(error: KafkaError) -> bool:
    """Whether the consumer cannot go on after it."""
    return bool(error.fatal()) or error.code() in _CODES


def missing_right(error: KafkaError) -> KafkaError | None:
    """The refusal of a right in an error, as an error of its own; None when it is about something else.

    With `group.protocol=consumer` librdkafka gives a consumer up when its group is refused to it, and then names the
    cause in the text alone. The right may be granted again: another consumer can go on.
    """
    if error.code() in RIGHTS:
        return KafkaError(error.code())
    if error.code() == KafkaError._FATAL:
        said = error.str()
        return next((right for code in RIGHTS if (right := KafkaError(code)).str() in said), None)
    return None


def ended(error: KafkaError, group: str) -> ConsumerEnded:
    """What to tell a person."""
    text = error.str()
    said = text.lower()
    if "instance id" in said or "instance.id" in said or "instance" in error.name().lower():
        return ConsumerEnded(
            f"another member of the group {group} has the same group.instance.id: give each process one of its own "
            f"({error.name()}: {text})"
        )
    return ConsumerEnded(f"the consumer of the group {group} cannot go on: {error.name()} ({text})")
