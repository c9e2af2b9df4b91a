"""The module that a team's services share: categories with payload classes, and the topology."""

from __future__ import annotations

import dataclasses

import attrs

from kafka_notify import Category, Topology


@attrs.frozen
class OtpData:
    """What an OTP message needs."""

    code: str
    minutes: int = 5


@dataclasses.dataclass(frozen=True)
class OrderShipped:
    """What an order message needs."""

    order_id: str
    carrier: str | None = None


OTP = Category("otp", "high_priority", payload=OtpData, ttl=300, sensitive=True)
ORDERS = Category("order_shipped", "low_priority", payload=OrderShipped)
NEWS = Category("news", "low_priority")
TOPOLOGY = Topology.default().extend(categories=[OTP, ORDERS, NEWS])
