"""Failover between two providers: email through SendGrid, or through SMTP while SendGrid is unavailable.

    export KAFKA_NOTIFY_BOOTSTRAP_SERVERS=localhost:9092
    export SENDGRID_API_KEY=... SENDGRID_SENDER=... SMTP_HOST=... SMTP_SENDER=...
    python -m examples.providers.failover

The second provider gets a notification only if the first one has certainly not sent it. After a timeout that is
unknown, and the second provider does not know the first one's key: it would send a second email.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

import attrs

from examples.providers.sendgrid_email import SendGridEmail, SendGridSettings
from examples.providers.smtp_email import Email, SmtpSettings
from kafka_notify import (
    Attempt,
    Category,
    ConfigError,
    Consumer,
    DeliveryError,
    Notification,
    PermanentError,
    ProviderUnavailableError,
    Receipt,
    RetryPolicy,
    ThrottledError,
    Topology,
    TransientError,
    UnknownOutcomeError,
    Worker,
    config_from_env,
)
from kafka_notify.classify import classify_exception

log = logging.getLogger(__name__)


# -- what is sent: shared with the services that send ----------------------------------------------


@attrs.frozen
class PasswordReset:
    """Data of a `password_reset`."""

    url: str


PASSWORD_RESET = Category(
    "password_reset", "high_priority", payload=PasswordReset, ttl=30 * 60, sensitive=True
)
TOPOLOGY = Topology.default().extend(categories=[PASSWORD_RESET])


def content(data: object, attempt: Attempt) -> tuple[str, str]:
    """Return subject and text, whichever provider sends them."""
    match data:
        case PasswordReset(url=url):
            return "Your new password", f"Choose it here: {url}\n"
        case _:
            raise PermanentError("email.no_template")


# -- the consumer ----------------------------------------------------------------------------------

Send = Callable[[Notification[Any], Attempt], Awaitable[Receipt]]

COOL_DOWN: Final = 30.0
"""Seconds for which an unavailable provider is skipped, unless all of them are unavailable."""
MARGIN: Final = 0.1
"""Share of an attempt's time that is reserved for reporting which provider did not answer."""


class Failover(Consumer):
    """Tries its providers in order until one accepts, or until one of them may have sent.

    Args:
        providers: Consumers with an async `send`, by the name in their receipts; the preferred one first.

    Raises:
        ConfigError: One of them has a plain `send`, which would block every other send.
    """

    name = "email"
    channels = frozenset({"email"})
    concurrency = 20
    send_timeout = 60
    retry = RetryPolicy(max_attempts=5, initial_delay=5, multiplier=4, max_delay=600)

    def __init__(self, providers: Mapping[str, Consumer]) -> None:
        for name, provider in providers.items():
            if not inspect.iscoroutinefunction(provider.send):
                raise ConfigError(f"the send of {name!r} must be async")
        self._providers = providers
        self._away_until = dict.fromkeys(providers, 0.0)

    async def setup(self) -> None:
        """Set up the providers."""
        for provider in self._providers.values():
            done = provider.setup()
            if inspect.isawaitable(done):
                await done

    async def teardown(self) -> None:
        """Tear down the providers."""
        for provider in self._providers.values():
            done = provider.teardown()
            if inspect.isawaitable(done):
                await done

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """Send through the first provider that accepts, within the time of this one attempt."""
        deadline = time.monotonic() + attempt.timeout * (1 - MARGIN)
        failure: DeliveryError = ProviderUnavailableError("failover.no_provider")
        for name in self._candidates(attempt):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                return await self._ask(name, notification, attrs.evolve(attempt, timeout=left))
            except (TransientError, ThrottledError, ProviderUnavailableError) as e:
                if isinstance(e, ThrottledError) and e.scope == "recipient":
                    raise  # the recipient's mailbox asks to wait, whichever provider calls it
                if not isinstance(e, TransientError):
                    self._away_until[name] = time.monotonic() + COOL_DOWN
                log.warning("notification %s: not sent by %s (%s)", notification.id, name, e.code)
                failure = e
        raise failure

    def _candidates(self, attempt: Attempt) -> list[str]:
        """Names of the providers to try, in order."""
        names = list(self._providers)
        if attempt.maybe_sent:
            # Only the provider that may have sent can recognise a second copy.
            return [attempt.last_provider] if attempt.last_provider in names else names[:1]
        now = time.monotonic()
        return [name for name in names if self._away_until[name] <= now] or names

    async def _ask(self, name: str, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """Call one provider's `send`, and name that provider in its error: the next attempt reads the name."""
        send = cast(Send, self._providers[name].send)
        try:
            return await asyncio.wait_for(send(notification, attempt), attempt.timeout)
        except asyncio.TimeoutError:
            raise UnknownOutcomeError("timeout", provider=name) from None
        except DeliveryError as e:
            e.provider = name
            raise
        except Exception as e:
            error = self._providers[name].classify(e) or classify_exception(e, provider=name)
            error = error or UnknownOutcomeError(f"unhandled.{type(e).__name__}", provider=name)
            error.provider = name
            raise error from None


# -- the process -----------------------------------------------------------------------------------


def make_sender() -> Failover:
    """Create the consumer from the environment."""
    return Failover(
        {
            "sendgrid": SendGridEmail(SendGridSettings.from_env(), content),
            "smtp": Email(SmtpSettings.from_env(), content),
        }
    )


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Worker(make_sender, config_from_env(), lane="high_priority", topology=TOPOLOGY).run()


if __name__ == "__main__":
    main()
