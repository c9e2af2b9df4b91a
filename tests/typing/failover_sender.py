"""A sender with two providers, which changes to the second only when the first one certainly did not send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kafka_notify import (
    Attempt,
    Consumer,
    Notification,
    ProviderUnavailableError,
    Receipt,
    ThrottledError,
    TransientError,
)

Provider = Callable[[Notification[Any], Attempt], Awaitable[Receipt]]
CERTAINLY_NOT_SENT = (TransientError, ThrottledError, ProviderUnavailableError)


class FailoverPush(Consumer):
    """Push notifications through the first provider that takes them."""

    name = "push"
    channels = frozenset({"push"})

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.providers = providers

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """Try each provider once.

        An unknown outcome ends the round: another provider does not know the first one's idempotency key and would
        send a second time. So does an attempt that follows one: it stays with the provider that may have sent.
        """
        names = list(self.providers)
        if attempt.maybe_sent and attempt.last_provider in names:
            names = [attempt.last_provider]
        failure: TransientError | ThrottledError | ProviderUnavailableError | None = None
        for name in names:
            try:
                return await self.providers[name](notification, attempt)
            except CERTAINLY_NOT_SENT as e:
                failure = e
        raise failure or ProviderUnavailableError("no_provider")
