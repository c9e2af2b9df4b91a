"""Records that were read and wait for room in the share of their partition."""

from __future__ import annotations

from collections import deque

from confluent_kafka import Message

from kafka_notify.wire import Headers

Unread = tuple[Message, Headers | None, int]
"""A waiting record or end-of-partition mark, its headers if they were read, and its size in bytes."""


class Waiting(deque[Unread]):
    """The waiting records of one partition."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
