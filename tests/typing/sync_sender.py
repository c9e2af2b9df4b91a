"""A sender with a plain `send`: it runs on the worker's threads."""

from __future__ import annotations

from typing import Any

import httpx

from kafka_notify import (
    Attempt,
    Consumer,
    DeadLetter,
    DeliveryError,
    Notification,
    Receipt,
    RetryPolicy,
    Send,
    Skip,
    TransientError,
    Verdict,
    Worker,
    classify_http,
    config_from_env,
)
from tests.typing.app_topology import TOPOLOGY, OtpData


class GatewaySms(Consumer):
    """Text messages through an HTTP gateway."""

    name = "sms"
    channels = frozenset({"sms"})
    retry = RetryPolicy(5, initial_delay=1)
    concurrency = 50
    send_timeout = 10

    def __init__(self, url: str, blocked: set[str]) -> None:
        self.url = url
        self.blocked = blocked

    def setup(self) -> None:
        """One client per worker."""
        self.client = httpx.Client(base_url=self.url)

    def teardown(self) -> None:
        """Close its connections."""
        self.client.close()

    def should_send(self, notification: Notification[Any]) -> Verdict:
        """Ask once more just before the send."""
        return Skip("blocked") if notification.user_id in self.blocked else Send()

    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """One request; its key makes a repetition harmless."""
        response = self.client.post(
            "/messages",
            json={"to": notification.recipient, "text": notification.data_as(OtpData).code},
            headers={"Idempotency-Key": attempt.idempotency_key},
            timeout=attempt.timeout,
        )
        error = classify_http(response.status_code, response.headers, provider="gateway")
        if error is not None:
            raise error
        return Receipt("gateway", response.json()["id"])

    def classify(self, exc: Exception) -> DeliveryError | None:
        """Refused connections never reached the gateway."""
        return TransientError("connect") if isinstance(exc, httpx.ConnectError) else None

    def on_dead_letter(self, letter: DeadLetter) -> None:
        """Forget numbers that do not exist."""
        if letter.reason == "invalid_recipient" and letter.user_id is not None:
            self.blocked.add(letter.user_id)


def main() -> None:
    """Run it on the lane of OTPs until SIGTERM."""
    worker = Worker(
        lambda: GatewaySms("https://sms.example", set()),
        config_from_env(),
        lane="high_priority",
        topology=TOPOLOGY,
    )
    worker.run()
