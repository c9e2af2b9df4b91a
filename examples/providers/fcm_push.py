"""Push notifications through Firebase Cloud Messaging (HTTP v1): a complete consumer.

    export KAFKA_NOTIFY_BOOTSTRAP_SERVERS=localhost:9092
    export GOOGLE_APPLICATION_CREDENTIALS=/etc/secrets/service-account.json
    python -m examples.providers.fcm_push

Needs `pip install httpx google-auth requests`. The services that send share `TOPOLOGY` with it.

It uses plain HTTP instead of firebase-admin, which repeats 500 and 503 up to four times by itself and has one timeout
for all requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import attrs
import google.auth.exceptions
import google.auth.transport.requests
import httpx
from google.oauth2 import service_account

from kafka_notify import (
    Attempt,
    Category,
    Consumer,
    DeadLetter,
    DeliveryError,
    InvalidRecipientError,
    Notification,
    PermanentError,
    ProviderUnavailableError,
    Receipt,
    RetryPolicy,
    ThrottledError,
    Topology,
    UnknownOutcomeError,
    Worker,
    classify_http,
    config_from_env,
)
from kafka_notify.classify import classify_exception

log = logging.getLogger(__name__)

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
MAX_TTL: Final = 4 * 7 * 24 * 3600
"""Seconds for which FCM keeps a message for an offline device at most, and by default."""
MAX_COLLAPSE_ID: Final = 64
"""Bytes of an `apns-collapse-id`."""


# -- what is sent: shared with the services that send ----------------------------------------------


@attrs.frozen
class LoginAttempt:
    """Data of a `login_attempt`."""

    device: str
    place: str


LOGIN_ATTEMPT = Category("login_attempt", "high_priority", payload=LoginAttempt, ttl=10 * 60, sensitive=True)
TOPOLOGY = Topology.default().extend(categories=[LOGIN_ATTEMPT])


# -- the access token ------------------------------------------------------------------------------


class AccessToken:
    """Google's token for a service account, refreshed before it expires; one refresh at a time."""

    FETCH_TIMEOUT = 10.0

    def __init__(self, credentials: service_account.Credentials) -> None:
        self._credentials = credentials
        self._fetching = asyncio.Lock()

    async def get(self) -> str:
        """Return a valid token.

        Raises:
            ProviderUnavailableError: Google issues no token. That concerns the account, so the lane waits.
        """
        async with self._fetching:
            if not self._credentials.valid:
                request = partial(google.auth.transport.requests.Request(), timeout=self.FETCH_TIMEOUT)
                try:
                    await asyncio.to_thread(self._credentials.refresh, request)
                except google.auth.exceptions.GoogleAuthError as e:  # its text holds Google's answer
                    raise ProviderUnavailableError(f"google.{type(e).__name__}", provider="fcm") from None
            return str(self._credentials.token)

    def refused(self, token: str) -> None:
        """Drop a token that FCM refused (revoked, or clocks differ). The next send fetches another one."""
        if self._credentials.token == token:
            self._credentials.token = None


# -- the consumer ----------------------------------------------------------------------------------


@attrs.frozen
class FcmSettings:
    """The service account of the project, and FCM's address."""

    service_account: Mapping[str, str] = attrs.field(repr=False)
    """The content of the key file from the Firebase console."""
    api: str = "https://fcm.googleapis.com"


class FcmPush(Consumer):
    """Sends notifications of the channel `push` through FCM; the recipient is a registration token."""

    name = "push"
    channels = frozenset({"push"})
    concurrency = 200
    send_timeout = 20  # FCM answers within 10 s, and requires at least that timeout
    retry = RetryPolicy(
        max_attempts=4, initial_delay=10, multiplier=3, max_delay=300
    )  # FCM requires at least 10 s

    def __init__(self, settings: FcmSettings) -> None:
        self._settings = settings

    async def setup(self) -> None:
        """Create one client for all sends, with a connection for each of them, and load the credentials."""
        key_file = dict(self._settings.service_account)
        credentials = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
            key_file, scopes=[SCOPE]
        )
        self._path = f"/v1/projects/{credentials.project_id}/messages:send"
        self._token = AccessToken(credentials)
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        self._client = httpx.AsyncClient(base_url=self._settings.api, limits=limits)
        # httpx logs every request's URL. FCM's contains no recipient, but other providers' do.
        logging.getLogger("httpx").setLevel(logging.WARNING)

    async def teardown(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """Send one message to one device; accepted means that FCM will try to deliver it."""
        message = compose(notification, attempt)
        started = time.monotonic()
        token = await self._token.get()
        left = max(attempt.timeout - (time.monotonic() - started), 0.1)
        try:
            response = await self._client.post(
                self._path,
                json={"message": message},
                headers={"Authorization": f"Bearer {token}"},
                timeout=left,
            )
        except httpx.HTTPError as e:
            raise classify_exception(e, provider="fcm") or _unknown("fcm.no_answer") from None
        body = _json(response)
        if response.status_code != 200:
            if response.status_code == 401:
                self._token.refused(token)
            raise refusal(response.status_code, response.headers, body)
        name = body.get("name")
        if not isinstance(name, str):  # a proxy's page with a success status
            raise _unknown("fcm.unreadable")
        return Receipt("fcm", name.rpartition("/")[2])

    def on_dead_letter(self, letter: DeadLetter) -> None:
        """Report the registration token of an uninstalled app, so that it can be deleted."""
        if letter.reason == "invalid_recipient":
            log.warning("notification %s: token not registered (%s)", letter.id, letter.error_code)


# -- the message -----------------------------------------------------------------------------------


def compose(notification: Notification[Any], attempt: Attempt) -> dict[str, object]:
    """Build the message with the notification's remaining time, so that a device does not show a second copy.

    FCM has no idempotency key. A device replaces what it shows by a message with the same `tag` (Android, web) or
    `apns-collapse-id`. `collapse_key` is unsuitable for this, because a device stores at most four different ones.

    Raises:
        InvalidRecipientError: There is no registration token.
        PermanentError: There is no template for the data.
    """
    if not notification.recipient:
        raise InvalidRecipientError("push.no_recipient", provider="fcm")
    shown_as = notification.collapse_key or attempt.idempotency_key
    if len(shown_as.encode()) > MAX_COLLAPSE_ID:
        shown_as = hashlib.sha256(shown_as.encode()).hexdigest()
    title, text = content(notification.data)
    android: dict[str, object] = {"priority": "high", "notification": {"tag": shown_as}}
    apns: dict[str, str] = {"apns-collapse-id": shown_as, "apns-priority": "10"}
    web: dict[str, str] = {"Urgency": "high"}
    if notification.collapse_key is not None:
        android["collapse_key"] = notification.collapse_key
    if attempt.remaining_ttl is not None:
        ttl = min(max(int(attempt.remaining_ttl), 0), MAX_TTL)
        android["ttl"] = f"{ttl}s"
        apns["apns-expiration"] = str(int(time.time()) + ttl)
        web["TTL"] = str(ttl)
    return {
        "token": notification.recipient,
        "notification": {"title": title, "body": text},
        "data": {"notification_id": attempt.idempotency_key},  # for an app that remembers what it has shown
        "android": android,
        "apns": {"headers": apns},
        "webpush": {"headers": web, "notification": {"tag": shown_as}},
    }


def content(data: object) -> tuple[str, str]:
    """Return title and text."""
    match data:
        case LoginAttempt(device=device, place=place):
            return "New log-in", f"Was it you? {device}, {place}"
        case _:
            raise PermanentError("push.no_template", provider="fcm")


# -- the answer ------------------------------------------------------------------------------------


def refusal(status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> DeliveryError:
    """Classify FCM's answer by its own code, else by that of Google's APIs, else by the status."""
    code: object = None
    dead_token = one_device = False
    error = body.get("error")
    error = error if isinstance(error, dict) else {}
    code = error.get("status")
    for detail in _dicts(error.get("details")):
        if str(detail.get("@type")).endswith("FcmError"):
            code = detail.get("errorCode") or code
            # An invalid message has the same code; only the text differs.
            dead_token |= "registration token" in str(error.get("message"))
        for violation in _dicts(detail.get("fieldViolations")):
            dead_token |= violation.get("field") == "message.token"
        for violation in _dicts(detail.get("violations")):  # a quota of the project, a topic or a device
            one_device |= "device" in f"{violation.get('subject')} {violation.get('description')}".lower()
    code = code if isinstance(code, str) else None
    found = classify_http(status, headers, provider="fcm", code=code)
    if isinstance(found, PermanentError) and code == "INVALID_ARGUMENT" and dead_token:
        return InvalidRecipientError(found.code, provider="fcm")
    if isinstance(found, ThrottledError) and one_device:
        return ThrottledError(found.code, retry_after=found.retry_after, scope="recipient", provider="fcm")
    return found or _unknown("fcm.unknown")


def _json(response: httpx.Response) -> dict[str, Any]:
    """Return the body; empty for an HTML page, as of a 502."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    return (item for item in (value if isinstance(value, list) else []) if isinstance(item, dict))


def _unknown(code: str) -> UnknownOutcomeError:
    return UnknownOutcomeError(code, provider="fcm")


# -- the process -----------------------------------------------------------------------------------


def make_sender() -> FcmPush:
    """Create the consumer from the environment."""
    path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if not path:
        raise SystemExit("set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account")
    with open(path, encoding="utf-8") as file:
        return FcmPush(FcmSettings(json.load(file)))


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Worker(make_sender, config_from_env(), lane="high_priority", topology=TOPOLOGY).run()


if __name__ == "__main__":
    main()
