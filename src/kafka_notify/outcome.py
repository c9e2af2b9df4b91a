"""How one send ended, as a closed union: match it exhaustively."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import attrs

from kafka_notify.errors import DeliveryError
from kafka_notify.notification import Attempt, Notification, Receipt


@attrs.frozen
class Sent:
    """The provider accepted it."""

    receipt: Receipt


@attrs.frozen
class Retry:
    """It waits and is tried again."""

    after: float
    """Seconds until the next attempt may start."""
    counted: bool
    """Whether the attempt counts towards `max_attempts`."""
    error: DeliveryError | None = None


@attrs.frozen
class Dead:
    """It goes to the dead-letter topic."""

    reason: str
    error: DeliveryError | None = None


@attrs.frozen
class Skipped:
    """It is terminal without a send: skipped by `should_send`, superseded, or another consumer's channel."""

    reason: str


Outcome = Sent | Retry | Dead | Skipped


@attrs.frozen
class SendContext:
    """What a middleware sees of one send."""

    notification: Notification[Any]
    attempt: Attempt
    topic: str = ""
    """The lane's source topic."""
    group: str = ""
    """The consumer group."""


class Middleware(Protocol):
    """Wraps one send, inside expiry, limits and breaker, outside the deadline.

    Call `call_next(context)` at most once and return its outcome, or another one. Raising is the same as
    `send` raising. Runs on the worker's event loop: it must not block.
    """

    async def __call__(
        self, context: SendContext, call_next: Callable[[SendContext], Awaitable[Outcome]], /
    ) -> Outcome:
        """Wrap one send."""
        ...
