"""Refusals of the brokers to this worker's consumer, of a right or of its credentials, for the worker's health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError

from kafka_notify._kafka.rights import is_refusal, told

MAX: Final = 20
"""Refusals remembered at most: a worker uses three topics and a group."""


class Refusals:
    """The current refusals. Each is kept until the next assignment, or until the refused thing works again.

    Used from any thread.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._found: dict[str, KafkaError] = {}
        """Errors by topic; those of the group and of the client have an empty name."""

    def __bool__(self) -> bool:
        return bool(self._found)

    def note(self, error: KafkaError, topic: str = "") -> None:
        """Remember an error if it is a refusal."""
        if is_refusal(error) and (topic in self._found or len(self._found) < MAX):
            self._found = {**self._found, topic: error}

    def assigned(self) -> None:
        """Forget all refusals, as the group gave partitions to this worker: what is still refused is noted again."""
        self._found = {}

    def committed(self) -> None:
        """Forget all refusals, as the group took a commit: that needs the right to read the group and both topics."""
        self._found = {}

    def works(self, topic: str) -> None:
        """Forget the refusal of a topic of which a record was read."""
        if topic in self._found:
            self._found = {name: error for name, error in self._found.items() if name != topic}

    def sentences(self) -> Sequence[str]:
        """The current refusals as sentences for a person."""
        return [
            told(error, "Read", f"topic {topic}" if topic else f"group {self._group}")
            for topic, error in self._found.items()
        ]
