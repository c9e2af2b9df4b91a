"""Email through SendGrid (v3): a complete consumer.

    export KAFKA_NOTIFY_BOOTSTRAP_SERVERS=localhost:9092
    export SENDGRID_API_KEY=SG... SENDGRID_SENDER=shop@example.com
    python -m examples.providers.sendgrid_email

Needs `pip install httpx`. The services that send share `TOPOLOGY` with it.

It uses plain HTTP instead of the `sendgrid` package, which is blocking, opens a connection per email, and has no
timeout unless you set one on the underlying client.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import httpx

from kafka_notify import (
    Attempt,
    Category,
    Consumer,
    DeadLetter,
    DeliveryError,
    InvalidRecipientError,
    Notification,
    PermanentError,
    Receipt,
    RetryPolicy,
    Topology,
    UnknownOutcomeError,
    Worker,
    classify_http,
    config_from_env,
)
from kafka_notify.classify import classify_exception

log = logging.getLogger(__name__)

RECIPIENT: Final = re.compile(r"personalizations\.[0-9]+\.to(\.[0-9]+(\.email)?)?")
"""The field that SendGrid names when it rejects an address; it has no error codes."""


# -- what is sent: shared with the services that send ----------------------------------------------


@attrs.frozen
class WeeklySummary:
    """Data of an `activity_summary`."""

    week: str
    visits: int


SUMMARY = Category("activity_summary", "low_priority", payload=WeeklySummary, ttl=2 * 24 * 3600)
TOPOLOGY = Topology.default().extend(categories=[SUMMARY])


# -- the consumer ----------------------------------------------------------------------------------


@attrs.frozen
class SendGridSettings:
    """The account and the sender's address."""

    api_key: str = attrs.field(repr=False)
    sender: str
    """A verified address. Marketing and OTPs should not share a sender, nor an IP pool."""
    api: str = "https://api.sendgrid.com"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> SendGridSettings:
        """Read SENDGRID_API_KEY and SENDGRID_SENDER."""
        names = ("SENDGRID_API_KEY", "SENDGRID_SENDER")
        missing = [name for name in names if not environ.get(name)]
        if missing:
            raise SystemExit(f"set {' and '.join(missing)}")
        return cls(*(environ[name] for name in names))


class SendGridEmail(Consumer):
    """Sends notifications of the channel `email` through SendGrid.

    SendGrid has no idempotency key and no expiry: after an unknown outcome a retry may send a second email. Only the
    Event Webhook reports what happened to an accepted email (a bounce, an address on the suppression list), with the
    notification's id.
    """

    name = "email"
    channels = frozenset({"email"})
    concurrency = 100
    send_timeout = 30
    retry = RetryPolicy(max_attempts=5, initial_delay=30, multiplier=4, max_delay=1800)

    def __init__(self, settings: SendGridSettings, content: Content | None = None) -> None:
        self._settings = settings
        self._content = content or default_content

    async def setup(self) -> None:
        """Create one client for all sends, with a connection for each of them."""
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        self._client = httpx.AsyncClient(
            base_url=self._settings.api,
            headers={"Authorization": f"Bearer {self._settings.api_key}"},
            limits=limits,
        )
        # httpx logs every request's URL. SendGrid's contains no recipient, but other providers' do.
        logging.getLogger("httpx").setLevel(logging.WARNING)

    async def teardown(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """Send one email to one address; accepted means queued at SendGrid."""
        mail = compose(notification, attempt, self._settings.sender, self._content)
        try:
            response = await self._client.post("/v3/mail/send", json=mail, timeout=attempt.timeout)
        except httpx.HTTPError as e:
            raise classify_exception(e, provider="sendgrid") or _unknown("sendgrid.no_answer") from None
        if response.status_code != 202:  # a 200 is a proxy's page, or the answer in sandbox mode
            raise refusal(response)
        return Receipt("sendgrid", response.headers.get("X-Message-Id"))

    def on_dead_letter(self, letter: DeadLetter) -> None:
        """Report an address that does not exist, so that it can be deleted."""
        if letter.reason == "invalid_recipient":
            log.warning("notification %s: no such address (%s)", letter.id, letter.error_code)


# -- the mail --------------------------------------------------------------------------------------


Content = Callable[[object, Attempt], tuple[str, str]]
"""Makes subject and text from a notification's data."""


def compose(
    notification: Notification[Any], attempt: Attempt, sender: str, content: Content
) -> dict[str, object]:
    """Build the email; every event of the Event Webhook returns the notification's id.

    Raises:
        InvalidRecipientError: There is no address.
        PermanentError: There is no template for the data.
    """
    if not notification.recipient:
        raise InvalidRecipientError("email.no_recipient", provider="sendgrid")
    subject, text = content(notification.data, attempt)
    return {
        "personalizations": [{"to": [{"email": notification.recipient}]}],
        "from": {"email": sender},
        "subject": subject,
        "content": [{"type": "text/plain", "value": text}],
        "custom_args": {"notification_id": notification.id},
        "categories": [notification.category],
    }


def default_content(data: object, attempt: Attempt) -> tuple[str, str]:
    """Return subject and text."""
    match data:
        case WeeklySummary(week=week, visits=visits):
            return f"Your week {week}", f"{visits} people have visited your page.\n"
        case _:
            raise PermanentError("email.no_template", provider="sendgrid")


# -- the answer ------------------------------------------------------------------------------------


def refusal(response: httpx.Response) -> DeliveryError:
    """Classify SendGrid's answer by the status, and a 400 by the field that it names."""
    found = classify_http(response.status_code, response.headers, provider="sendgrid")
    if response.status_code == 400 and _names_recipient(response):
        return InvalidRecipientError("sendgrid.invalid_address", provider="sendgrid")
    return found or _unknown("sendgrid.not_accepted")


def _names_recipient(response: httpx.Response) -> bool:
    """Return whether the recipient's address is the only error."""
    try:
        fields = [str(error["field"]) for error in response.json()["errors"]]
    except (ValueError, LookupError, TypeError):
        return False
    return bool(fields) and all(RECIPIENT.fullmatch(field) for field in fields)


def _unknown(code: str) -> UnknownOutcomeError:
    return UnknownOutcomeError(code, provider="sendgrid")


# -- the process -----------------------------------------------------------------------------------


def make_sender() -> SendGridEmail:
    """Create the consumer from the environment."""
    return SendGridEmail(SendGridSettings.from_env())


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Worker(make_sender, config_from_env(), lane="low_priority", topology=TOPOLOGY).run()


if __name__ == "__main__":
    main()
