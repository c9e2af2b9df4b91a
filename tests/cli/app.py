"""What a team would have: a topology, and a consumer."""

from __future__ import annotations

import os
from typing import Any

from kafka_notify import (
    Attempt,
    Category,
    Consumer,
    Lane,
    Notification,
    PermanentError,
    Receipt,
    RetryPolicy,
    Topology,
    TransientError,
)
from kafka_notify.codec import CodecContext, JsonCodec

NOTHING = object()


def topology(partitions: int = 3) -> Topology:
    """Of a test's own: the environment names its prefix."""
    return Topology(
        lanes=[Lane("high", partitions=partitions)],
        categories=[Category("alert", "high"), Category("otp", "high", ttl=300, sensitive=True)],
        channels=["sms", "push"],
        prefix=os.environ["APP_PREFIX"],
    )


def grown() -> Topology:
    """With more partitions."""
    return topology(5)


def shrunk() -> Topology:
    """With fewer."""
    return topology(2)


class HexCodec(JsonCodec):
    """Another format than JSON."""

    content_type = "application/x-hex"
    reads = ()

    def encode(self, notification: Notification[Any], context: CodecContext, /) -> bytes:
        return super().encode(notification, context).hex().encode()

    def decode(self, value: bytes, context: CodecContext, /) -> Any:
        return super().decode(bytes.fromhex(value.decode()), context)


class Sms(Consumer):
    """Does what each notification tells it to, and notes in a file what it sent."""

    name = "sms"
    channels = frozenset({"sms"})
    retry = RetryPolicy(2, initial_delay=600, max_delay=600)

    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        plan = notification.data.get("plan")
        if plan == "permanent":
            raise PermanentError("acme.refused", provider="acme")
        if plan == "transient":
            raise TransientError("acme.busy", provider="acme")
        if "APP_SENT" in os.environ:
            with open(os.environ["APP_SENT"], "a") as sent:
                sent.write(f"{notification.user_id} {notification.id}\n")
        return Receipt("acme")
