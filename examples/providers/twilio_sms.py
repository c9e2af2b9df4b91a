"""SMS through Twilio: a complete consumer.

    export KAFKA_NOTIFY_BOOTSTRAP_SERVERS=localhost:9092
    export TWILIO_ACCOUNT_SID=AC... TWILIO_API_KEY=SK... TWILIO_API_SECRET=... TWILIO_SENDER=+15550100
    python -m examples.providers.twilio_sms

Needs `pip install twilio`. The services that send share `TOPOLOGY` with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import attrs
from aiohttp import ClientError, ClientSession, TCPConnector
from twilio.http.async_http_client import AsyncTwilioHttpClient  # type: ignore[import-untyped]
from twilio.http.response import Response  # type: ignore[import-untyped]
from twilio.rest import Client  # type: ignore[import-untyped]

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

MAX_VALIDITY: Final = 36_000
"""Seconds for which Twilio queues a message at most, and by default."""


# -- what is sent: shared with the services that send ----------------------------------------------


@attrs.frozen
class LoginCode:
    """Data of a `login_code`."""

    code: str


LOGIN_CODE = Category("login_code", "high_priority", payload=LoginCode, ttl=5 * 60, sensitive=True)
TOPOLOGY = Topology.default().extend(categories=[LOGIN_CODE])


# -- the client ------------------------------------------------------------------------------------


@attrs.frozen
class TwilioSettings:
    """The account and the sender."""

    account_sid: str
    api_key: str
    api_secret: str = attrs.field(repr=False)
    sender: str
    """A number (`+15550100`), or a Messaging Service (`MG...`). Give each lane its own: Twilio queues per sender, so
    marketing would make an OTP wait inside Twilio."""
    status_callback: str | None = None
    """URL to which Twilio reports what happened to a message (30003, 30005, ...); the notification's id is added."""
    api: str = "https://api.twilio.com"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> TwilioSettings:
        """Read the settings from the environment.

        These are TWILIO_ACCOUNT_SID, TWILIO_API_KEY, TWILIO_API_SECRET, TWILIO_SENDER and, optionally,
        TWILIO_STATUS_CALLBACK.
        """
        names = ("TWILIO_ACCOUNT_SID", "TWILIO_API_KEY", "TWILIO_API_SECRET", "TWILIO_SENDER")
        missing = [name for name in names if not environ.get(name)]
        if missing:
            raise SystemExit(f"set {' and '.join(missing)}")
        sid, key, secret, sender = (environ[name] for name in names)
        return cls(sid, key, secret, sender, status_callback=environ.get("TWILIO_STATUS_CALLBACK"))


_TIMEOUT: Final[ContextVar[float]] = ContextVar("timeout")  # the library has no argument for it per message


class TwilioHttp(AsyncTwilioHttpClient):  # type: ignore[misc]  # twilio has no types
    """Twilio's own client, with a timeout for each request, and errors that say whether the message was sent.

    By default, its asyncio variant has no timeout (the argument of that name is not used), its logger writes headers
    at INFO, and its exceptions contain the text of the answer, which includes the recipient's number.
    """

    def __init__(self, api: str, connections: int) -> None:
        logger = log.getChild("twilio")
        logger.setLevel(logging.WARNING)
        super().__init__(pool_connections=False, logger=logger)
        self.session = ClientSession(connector=TCPConnector(limit=connections))
        self._api = api

    async def request(self, method: str, url: str, *args: Any, **options: Any) -> Response:
        """Make one request, without repeating it.

        Raises:
            DeliveryError: Twilio did not accept it, or may have.
        """
        options["timeout"] = _TIMEOUT.get()
        try:
            response = await super().request(method, self._api + urlsplit(url).path, *args, **options)
        except (ClientError, OSError, asyncio.TimeoutError) as e:
            raise _certain(classify_exception(e, provider="twilio")) from None
        if response.status_code >= 300:
            raise _certain(
                classify_http(
                    response.status_code, response.headers, provider="twilio", code=_code(response.text)
                )
            )
        return response


def _code(text: str) -> str | int | None:
    """Return Twilio's own code from an answer; None for a proxy's HTML page."""
    try:
        body = json.loads(text)
    except ValueError:
        return None
    code = body.get("code") if isinstance(body, dict) else None
    return code if isinstance(code, (str, int)) else None


def _certain(error: DeliveryError | None) -> DeliveryError:
    return error or UnknownOutcomeError("twilio.unknown", provider="twilio")


# -- the consumer ----------------------------------------------------------------------------------


class TwilioSms(Consumer):
    """Sends notifications of the channel `sms` through Twilio.

    Twilio's Messages API has no idempotency key: after an unknown outcome a retry may send a second SMS. That is
    acceptable for an OTP. If it is not, raise `PermanentError` when `attempt.maybe_sent` is true.
    """

    name = "sms"
    channels = frozenset({"sms"})
    concurrency = 100
    send_timeout = 30  # Twilio answers within 26 s; a shorter timeout causes duplicates
    retry = RetryPolicy(max_attempts=4, initial_delay=2, multiplier=4, max_delay=60)

    def __init__(self, settings: TwilioSettings) -> None:
        self._settings = settings

    async def setup(self) -> None:
        """Create one session for all sends, with a connection for each of them."""
        settings = self._settings
        self._http = TwilioHttp(settings.api, self.concurrency)
        client = Client(settings.api_key, settings.api_secret, settings.account_sid, http_client=self._http)
        self._messages = client.messages  # here, because the first use imports modules for a second

    async def teardown(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """Send one message; accepted means queued at Twilio."""
        fields = self._fields(notification, attempt)
        _TIMEOUT.set(attempt.timeout)
        try:
            message = await self._messages.create_async(**fields)
        except (ValueError, TypeError, KeyError):  # a success status with a body that is not Twilio's
            raise UnknownOutcomeError("twilio.unreadable", provider="twilio") from None
        return Receipt("twilio", message.sid)

    def _fields(self, notification: Notification[Any], attempt: Attempt) -> dict[str, object]:
        if not notification.recipient:
            raise InvalidRecipientError("sms.no_recipient", provider="twilio")
        settings = self._settings
        service = settings.sender.startswith("MG")
        fields: dict[str, object] = {
            "to": notification.recipient,
            "messaging_service_sid" if service else "from_": settings.sender,
            "body": text(notification.data),
        }
        if attempt.remaining_ttl is not None:  # an OTP must not wait in Twilio's queue for ten hours
            fields["validity_period"] = min(max(int(attempt.remaining_ttl), 1), MAX_VALIDITY)
        if settings.status_callback is not None:
            key = urlencode({"notification": notification.id})
            fields["status_callback"] = f"{settings.status_callback}?{key}"
        return fields

    def on_dead_letter(self, letter: DeadLetter) -> None:
        """Report a number that does not exist or has replied STOP, so that it can be deleted."""
        if letter.reason == "invalid_recipient":
            log.warning("notification %s: no such number (%s)", letter.id, letter.error_code)


def text(data: object) -> str:
    """Return the text of the message."""
    match data:
        case LoginCode(code=code):
            return f"{code} is your code to log in."
        case _:
            raise PermanentError("sms.no_template", provider="twilio")


# -- the process -----------------------------------------------------------------------------------


def make_sender() -> TwilioSms:
    """Create the consumer from the environment."""
    return TwilioSms(TwilioSettings.from_env())


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Worker(make_sender, config_from_env(), lane="high_priority", topology=TOPOLOGY).run()


if __name__ == "__main__":
    main()
