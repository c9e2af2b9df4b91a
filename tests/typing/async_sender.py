"""A sender with an `async def send`: it runs on the worker's event loop."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from kafka_notify import (
    Attempt,
    Consumer,
    Defer,
    Notification,
    Ordering,
    PermanentError,
    Receipt,
    Send,
    Verdict,
    Worker,
    classify_http,
)
from kafka_notify.outcome import Outcome, SendContext
from tests.typing.app_topology import TOPOLOGY


class ApiEmail(Consumer):
    """E-mail through an HTTP API."""

    name = "email"
    channels = frozenset({"email"})
    ordering = Ordering.USER_CHANNEL
    concurrency = 1000
    send_timeout = dt.timedelta(seconds=20)

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def should_send(self, notification: Notification[Any]) -> Verdict:
        """No marketing before eight."""
        now = dt.datetime.now(dt.timezone.utc)
        if notification.category == "news" and now.hour < 8:
            return Defer(now.replace(hour=8, minute=0), "quiet_hours")
        return Send()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """One request with the time that is left."""
        if notification.recipient is None:
            raise PermanentError("no_recipient", provider="mailer")
        response = await self.client.post(
            "/mail",
            json={"to": notification.recipient, "data": dict(notification.data)},
            headers={"Idempotency-Key": attempt.idempotency_key},
            timeout=attempt.timeout,
        )
        error = classify_http(response.status_code, response.headers, provider="mailer")
        if error is not None:
            raise error
        return Receipt("mailer", response.headers.get("x-message-id"))

    async def on_sent(self, notification: Notification[Any], receipt: Receipt) -> None:
        """Keep the provider's id for its delivery reports."""
        await self.client.put(f"/sent/{notification.id}", json={"id": receipt.message_id})

    async def teardown(self) -> None:
        """Close its connections."""
        await self.client.aclose()


async def counted(context: SendContext, call_next: Callable[[SendContext], Awaitable[Outcome]], /) -> Outcome:
    """A middleware is any async callable of this shape."""
    return await call_next(context)


worker = Worker(
    lambda: ApiEmail(httpx.AsyncClient(base_url="https://mail.example")),
    {"bootstrap.servers": "localhost:9092"},
    lane="low_priority",
    topology=TOPOLOGY,
    middleware=[counted],
    consumer_config={"group.protocol": "consumer"},
    on_event=print,
)
