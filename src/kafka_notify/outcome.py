"""Outcomes of one send, as a closed union to match exhaustively, and middleware around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import attrs

from kafka_notify.errors import DeliveryError
from kafka_notify.notification import Attempt, Notification, Receipt


@attrs.frozen
class Sent:
    """The provider accepted the notification.

    Args:
        receipt: What `send` returned.
    """

    receipt: Receipt


@attrs.frozen
class Retry:
    """The notification waits in the retry topic, and is tried again.

    Args:
        after: Seconds until the next attempt may start.
        counted: True if the attempt counts towards `max_attempts`.
        error: The failure; its code is written to the retry record.
    """

    after: float
    counted: bool
    error: DeliveryError | None = None


@attrs.frozen
class Dead:
    """The notification goes to the dead-letter topic.

    Args:
        reason: Why, such as `permanent` or `max_attempts`.
        error: The failure; its code is written to the dead letter.
    """

    reason: str
    error: DeliveryError | None = None


@attrs.frozen
class Skipped:
    """The notification is never sent: skipped by `should_send`, superseded, or of another consumer's channel.

    Args:
        reason: A short token, such as `unsubscribed`.
    """

    reason: str


Outcome = Sent | Retry | Dead | Skipped


@attrs.frozen
class SendContext:
    """One send, as a middleware sees it.

    Args:
        notification: The notification to send.
        attempt: Number of the attempt, seconds that are left, and the idempotency key.
        topic: Source topic of the lane.
        group: Consumer group.
    """

    notification: Notification[Any]
    attempt: Attempt
    topic: str = ""
    group: str = ""


class Middleware(Protocol):
    """Code that wraps each send, for `Worker(middleware=...)`.

    It runs on the worker's event loop, after expiry, limits and breaker have let the send start, and within its
    deadline: it must not block. At a hand-over or stop it is cancelled together with its send.
    """

    async def __call__(
        self, context: SendContext, call_next: Callable[[SendContext], Awaitable[Outcome]], /
    ) -> Outcome:
        """Wrap one send.

        Args:
            context: The send.
            call_next: Makes the send and returns its outcome; call it at most once. It returns an outcome whatever
                `send` raised.

        Returns:
            That outcome, or another one.

        Raises:
            Exception: Counts as if `send` had raised it.
        """
        ...
