"""Errors that end a consumer's membership in its group permanently."""

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
    """The client library has given up this consumer: the worker sends and commits nothing more."""


def is_fatal(error: KafkaError) -> bool:
    """Return True for an error after which the consumer cannot go on."""
    return bool(error.fatal()) or error.code() in _CODES


def missing_right(error: KafkaError) -> KafkaError | None:
    """The missing right that an error reports, as an error of its own; None for any other error.

    With `group.protocol=consumer` librdkafka gives up a consumer that may not use its group, and names the cause only
    in the text of its error. Once the right is granted again, a new consumer can go on.
    """
    if error.code() in RIGHTS:
        return KafkaError(error.code())
    if error.code() == KafkaError._FATAL:
        said = error.str()
        return next((right for code in RIGHTS if (right := KafkaError(code)).str() in said), None)
    return None


def ended(error: KafkaError, group: str) -> ConsumerEnded:
    """The exception, as a sentence for a person, for a fatal `error` in `group`."""
    text = error.str()
    said = text.lower()
    if "instance id" in said or "instance.id" in said or "instance" in error.name().lower():
        return ConsumerEnded(
            f"another member of the group {group} has the same group.instance.id: give each process its own "
            f"({error.name()}: {text})"
        )
    return ConsumerEnded(f"the consumer of the group {group} cannot go on: {error.name()} ({text})")
