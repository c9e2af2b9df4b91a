"""A category carries the type of its notifications' data.

Every `type: ignore` here is a mistake that the type checker must find: an unused one is an error.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from typing_extensions import assert_type

from kafka_notify import Category, Notification
from kafka_notify.codec import Codec, CodecContext
from kafka_notify.outcome import Dead, Outcome, Retry, Sent, Skipped
from tests.typing.app_topology import NEWS, ORDERS, OTP, OrderShipped, OtpData

otp = Notification(
    user_id="u1", category=OTP, channel="sms", data=OtpData("123456"), recipient="+15550001111"
)
assert_type(OTP, Category[OtpData])
assert_type(otp, Notification[OtpData])
assert_type(otp.data, OtpData)
assert_type(otp.data.minutes, int)
assert_type(otp.expires_at, dt.datetime | None)

shipped = Notification(user_id="u1", category=ORDERS, channel="email", data=OrderShipped("o-1"))
assert_type(shipped.data, OrderShipped)

news = Notification(user_id="u1", category=NEWS, channel="email", data={"title": "hello"})
assert_type(NEWS, Category[Mapping[str, Any]])
assert_type(news, Notification[Mapping[str, Any]])

by_name = Notification(user_id="u1", category="otp", channel="sms", data={"code": "123456"})
assert_type(by_name.data_as(OtpData), OtpData)


def in_a_sender(notification: Notification[Any]) -> None:
    """A sender of one category reads the data as its class."""
    assert_type(notification.data_as(OtpData), OtpData)


Notification(user_id="u1", category=OTP, channel="sms", data=OrderShipped("o-1"))  # type: ignore[misc]
Notification(user_id="u1", category=OTP, channel="sms")  # type: ignore[call-arg]
Category("otp", "high_priority", "otp")  # type: ignore[call-overload]
otp.user_id = 5  # type: ignore[assignment]
otp.data = OtpData("1")  # type: ignore[misc]


def label(outcome: Outcome) -> str:
    """Outcomes are a closed union: this function needs no fallback."""
    match outcome:
        case Sent(receipt=receipt):
            return receipt.provider
        case Retry(after=after):
            return f"again in {after} s"
        case Dead(reason=reason) | Skipped(reason=reason):
            return reason


class Plain:
    """A user's own codec needs no base class."""

    content_type: str = "text/plain"

    def encode(self, notification: Notification[Any], context: CodecContext, /) -> bytes:
        """The data as bytes."""
        return str(notification.data["text"]).encode()

    def decode(self, value: bytes, context: CodecContext, /) -> Any:
        """The data of a record."""
        return {"text": value.decode(), "topic": context.topic}


codec: Codec = Plain()
