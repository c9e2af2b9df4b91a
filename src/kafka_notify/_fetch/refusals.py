"""What the brokers refuse to this worker's consumer: a right, or its credentials. Part of its health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError

from kafka_notify._kafka.rights import is_refusal, told

MAX: Final = 20
"""Refusals that are remembered: there are three topics and a group."""


class Refusals:
    """Remembered until the next assignment, or until what was refused works again. Used from any thread."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._found: dict[str, KafkaError] = {}
        """By topic; the group's and the client's own under an empty name."""

    def __bool__(self) -> bool:
        return bool(self._found)

    def note(self, error: KafkaError, topic: str = "") -> None:
        """Remember an error if it is a refusal."""
        if is_refusal(error) and (topic in self._found or len(self._found) < MAX):
            self._found = {**self._found, topic: error}

    def assigned(self) -> None:
        """The group gave partitions to this worker: whatever was refused before is asked for again."""
        self._found = {}

    def committed(self) -> None:
        """The group took a commit: that needs the right to read the group and both topics."""
        self._found = {}

    def works(self, topic: str) -> None:
        """Something of it was read."""
        if topic in self._found:
            self._found = {name: error for name, error in self._found.items() if name != topic}

    def sentences(self) -> Sequence[str]:
        """What is refused now."""
        return [
            told(error, "Read", f"topic {topic}" if topic else f"group {self._group}")
            for topic, error in self._found.items()
        ]
