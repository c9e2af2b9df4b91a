"""Email over SMTP: a complete consumer.

    export KAFKA_NOTIFY_BOOTSTRAP_SERVERS=localhost:9092
    export SMTP_HOST=smtp.example.com SMTP_USERNAME=shop SMTP_PASSWORD=... SMTP_SENDER='Shop <shop@example.com>'
    python -m examples.providers.smtp_email

Needs `pip install aiosmtplib idna`. The services that send share `TOPOLOGY` with it.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as ASCII_POLICY
from email.policy import SMTPUTF8 as UTF8_POLICY
from email.utils import format_datetime
from typing import Any

import aiosmtplib
import attrs
import idna

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
    classify_smtp,
    config_from_env,
)
from kafka_notify.classify import SmtpPhase, classify_exception

log = logging.getLogger(__name__)


# -- what is sent: shared with the services that send ----------------------------------------------


@attrs.frozen
class LoginLink:
    """Data of a `login_link`."""

    url: str


@attrs.frozen
class OrderUpdate:
    """Data of an `order_update`."""

    order: str
    status: str


LOGIN_LINK = Category("login_link", "high_priority", payload=LoginLink, ttl=15 * 60, sensitive=True)
ORDER_UPDATE = Category("order_update", "high_priority", payload=OrderUpdate, ttl=2 * 24 * 3600)
TOPOLOGY = Topology.default().extend(categories=[LOGIN_LINK, ORDER_UPDATE])


# -- the connection --------------------------------------------------------------------------------


@attrs.frozen
class SmtpSettings:
    """The SMTP server and how to log in."""

    host: str
    port: int
    sender: str
    tls: str = "starttls"
    """`starttls`, `implicit` (the port speaks TLS from the first byte) or `none` (a relay on this machine)."""
    ca_file: str | None = None
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> SmtpSettings:
        """Read the settings from the environment.

        These are SMTP_HOST, SMTP_SENDER and, optionally, SMTP_PORT, SMTP_TLS, SMTP_CA_FILE, SMTP_USERNAME and
        SMTP_PASSWORD.
        """
        missing = [name for name in ("SMTP_HOST", "SMTP_SENDER") if not environ.get(name)]
        if missing:
            raise SystemExit(f"set {' and '.join(missing)}")
        tls = environ.get("SMTP_TLS", "starttls")
        ports = {"starttls": 587, "implicit": 465, "none": 25}
        if tls not in ports:
            raise SystemExit(f"SMTP_TLS must be one of {', '.join(ports)}")
        return cls(
            host=environ["SMTP_HOST"],
            port=int(environ.get("SMTP_PORT", ports[tls])),
            sender=environ["SMTP_SENDER"],
            tls=tls,
            ca_file=environ.get("SMTP_CA_FILE"),
            username=environ.get("SMTP_USERNAME"),
            password=environ.get("SMTP_PASSWORD"),
        )


class SmtpPool:
    """Reuses connections: each sends one email at a time, and opening one takes several round trips.

    There are as many connections as emails being sent, so `Consumer.concurrency` limits their number.
    """

    CONNECT_TIMEOUT = 10.0
    MAX_IDLE = 30.0
    """Seconds; servers close connections that are idle for longer, possibly in the middle of a send."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._tls = None if settings.tls == "none" else ssl.create_default_context(cafile=settings.ca_file)
        self._idle: list[tuple[float, aiosmtplib.SMTP]] = []

    async def take(self, timeout: float) -> aiosmtplib.SMTP:
        """Return an open, authenticated connection; each step may take `timeout` seconds.

        Raises:
            ProviderUnavailableError: The server cannot be reached or refuses the login. The email is not the cause,
                so the lane waits and no attempt is used up.
            ThrottledError: The server asks to try again later.
        """
        while self._idle:
            since, connection = self._idle.pop()
            if time.monotonic() - since < self.MAX_IDLE and await self._cleared(connection, timeout):
                return connection
            connection.close()
        settings = self._settings
        connection = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            username=settings.username,
            password=settings.password,
            timeout=min(self.CONNECT_TIMEOUT, timeout),
            use_tls=settings.tls == "implicit",
            start_tls=settings.tls == "starttls",
            tls_context=self._tls,
        )
        try:
            await connection.connect()
        except (aiosmtplib.SMTPException, OSError) as e:
            answer = classify_exception(e, provider="smtp")
            if isinstance(answer, (ThrottledError, ProviderUnavailableError)):
                raise answer from None
            code = answer.code if answer else f"smtp.{type(e).__name__}"
            raise ProviderUnavailableError(code, provider="smtp") from None
        return connection

    async def _cleared(self, connection: aiosmtplib.SMTP, timeout: float) -> bool:
        """Reset a transaction that was refused half-way. Return whether the connection still works."""
        try:
            await connection.rset(timeout=min(self.CONNECT_TIMEOUT, timeout))
        except (aiosmtplib.SMTPException, OSError):
            return False
        return True

    def give_back(self, connection: aiosmtplib.SMTP) -> None:
        """Keep a connection for the next email, if it is still open."""
        if connection.is_connected:
            self._idle.append((time.monotonic(), connection))

    async def close(self) -> None:
        """Close all idle connections."""
        while self._idle:
            connection = self._idle.pop()[1]
            try:
                await connection.quit()
            except (aiosmtplib.SMTPException, OSError):  # the server had closed it already
                connection.close()


# -- the consumer ----------------------------------------------------------------------------------


class Email(Consumer):
    """Sends notifications of the channel `email` through an SMTP server."""

    name = "email"
    channels = frozenset({"email"})
    concurrency = 20
    send_timeout = 120
    retry = RetryPolicy(max_attempts=6, initial_delay=30, multiplier=3, max_delay=1800)

    command_timeout = 20.0
    """Seconds for an answer to MAIL and RCPT; the answer to DATA may take the rest of the attempt."""
    greylist_wait = 60.0
    """Seconds to wait when a recipient's server asks to try again later."""

    def __init__(self, settings: SmtpSettings, content: Content | None = None) -> None:
        self._settings = settings
        self._content = content or default_content
        self._pool = SmtpPool(settings)

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """Send one email on a connection of the pool."""
        deadline = time.monotonic() + attempt.timeout
        mail = compose(notification, attempt, self._settings.sender, self._content)
        connection = await self._pool.take(attempt.timeout)
        try:
            await self._hand_in(connection, mail, deadline)
        except DeliveryError:
            self._pool.give_back(connection)
            raise
        except BaseException:
            # Cancelled in the middle: the outstanding answer would be taken for that of the next command.
            connection.close()
            raise
        self._pool.give_back(connection)
        return Receipt("smtp", mail["Message-ID"])

    async def _hand_in(self, connection: aiosmtplib.SMTP, mail: EmailMessage, deadline: float) -> None:
        """Send MAIL, RCPT and DATA one by one: what a refusal means depends on which of them was refused."""
        sender, recipient = _address(mail, "From"), _address(mail, "To")
        utf8 = not (sender.isascii() and recipient.isascii())
        content = mail.as_bytes(policy=UTF8_POLICY if utf8 else ASCII_POLICY)
        options, encoding = (["SMTPUTF8", "BODY=8BITMIME"], "utf-8") if utf8 else ([], "ascii")
        phase: SmtpPhase = "connect"
        try:
            if utf8:
                await self._check_utf8(connection, sender)
            phase = "sender"
            timeout = min(self.command_timeout, _left(deadline))
            await connection.mail(sender, options=options, encoding=encoding, timeout=timeout)
            phase = "recipient"
            timeout = min(self.command_timeout, _left(deadline))
            await connection.rcpt(recipient, encoding=encoding, timeout=timeout)
            left = _left(deadline)
            phase = "data"
            await connection.data(content, timeout=left)
        except aiosmtplib.SMTPResponseException as e:
            answer = classify_smtp(
                e.code, e.message, phase=phase, after_data=phase == "data", provider="smtp"
            )
            if isinstance(answer, ThrottledError) and answer.scope == "recipient":
                answer.retry_after = self.greylist_wait
            raise _error(answer, e.code) from None
        except (aiosmtplib.SMTPException, OSError):  # no reply: the connection broke, or a timeout
            connection.close()
            raise _error(
                classify_smtp(0, phase=phase, after_data=phase == "data", provider="smtp"), 0
            ) from None

    async def _check_utf8(self, connection: aiosmtplib.SMTP, sender: str) -> None:
        """Check that the server accepts non-ASCII local parts: there is no other way to write such an address.

        Raises:
            InvalidRecipientError: The recipient's address needs it.
            ProviderUnavailableError: The sender's address needs it.
        """
        if connection.is_ehlo_or_helo_needed:
            await connection.ehlo(timeout=self.command_timeout)
        if not connection.supports_extension("smtputf8"):
            kind = InvalidRecipientError if sender.isascii() else ProviderUnavailableError
            raise kind("email.no_smtputf8", provider="smtp")

    def on_dead_letter(self, letter: DeadLetter) -> None:
        """Report an address that does not exist, so that it can be deleted."""
        if letter.reason == "invalid_recipient":
            log.warning("notification %s: no such address (%s)", letter.id, letter.error_code)

    async def teardown(self) -> None:
        """Close the connections."""
        await self._pool.close()


def _left(deadline: float) -> float:
    """Seconds left for the next command; never 0, which means "no limit" to aiosmtplib."""
    return max(deadline - time.monotonic(), 0.001)


def _address(mail: EmailMessage, header: str) -> str:
    return str(mail[header].addresses[0].addr_spec)


_LOCAL_PART = re.compile(r'[^\s"(),:;<>@\[\\\]\x00-\x1f\x7f]+')


def _parsed(addr_spec: str, display_name: str = "") -> Address:
    """Return the address with its domain as ASCII (`exämple.com` is `xn--exmple-cua.com`).

    Raises:
        ValueError, HeaderParseError, IndexError: Email cannot be sent to it.
    """
    local, _, domain = addr_spec.rpartition("@")
    if not domain.isascii():
        # Python's own codec `idna` turns straße.de into strasse.de, which is a different domain
        domain = idna.encode(domain, uts46=True).decode()
    if local.isascii():
        return Address(display_name, addr_spec=f"{local}@{domain}")
    if not _LOCAL_PART.fullmatch(local):
        raise ValueError("local part")
    Address(addr_spec=f"x@{domain}")  # checks the domain
    return Address(display_name, username=local, domain=domain)


def _error(answer: DeliveryError | None, code: int) -> DeliveryError:
    """Return the error to raise; after an unexpected positive reply the outcome is unknown."""
    return answer or UnknownOutcomeError(f"smtp.{code}", provider="smtp")


# -- the mail --------------------------------------------------------------------------------------


Content = Callable[[object, Attempt], tuple[str, str]]
"""Makes subject and text from a notification's data."""


def compose(notification: Notification[Any], attempt: Attempt, sender: str, content: Content) -> EmailMessage:
    """Build the email, with the idempotency key in its Message-ID: many mailboxes drop a second copy.

    Raises:
        InvalidRecipientError: There is no recipient, or email cannot be sent to it.
        PermanentError: There is no template for the data, or a header contains a line break.
    """
    mail = EmailMessage()
    try:
        recipient = _parsed(notification.recipient or "")
    except (HeaderParseError, ValueError, IndexError):
        raise InvalidRecipientError("email.address", provider="smtp") from None
    subject, text = content(notification.data, attempt)
    try:
        mail["From"] = _sender(sender)
        mail["To"] = recipient
        mail["Subject"] = subject
    except ValueError:  # a line break in a header could add headers
        raise PermanentError("email.header", provider="smtp") from None
    domain = mail["From"].addresses[0].domain
    mail["Message-ID"] = f"<{attempt.idempotency_key}@{domain}>"
    mail["Date"] = format_datetime(notification.created_at)
    mail["Auto-Submitted"] = "auto-generated"
    if notification.expires_at is not None:
        mail["Expires"] = format_datetime(notification.expires_at)
    mail.set_content(text, cte="quoted-printable")  # for servers without 8BITMIME
    return mail


def _sender(setting: str) -> Address:
    """Parse the sender: `Shop <shop@example.com>` or `shop@example.com`.

    Raises:
        ProviderUnavailableError: It is not an address. That affects every email, so the lane waits.
    """
    parsed = EmailMessage()
    try:
        parsed["From"] = setting
        address = parsed["From"].addresses[0]
        return _parsed(address.addr_spec, address.display_name)
    except (HeaderParseError, ValueError, IndexError):
        raise ProviderUnavailableError("email.sender", provider="smtp") from None


def default_content(data: object, attempt: Attempt) -> tuple[str, str]:
    """Return subject and text."""
    match data:
        case LoginLink(url=url):
            minutes = int((attempt.remaining_ttl or LOGIN_LINK.ttl or 0) // 60)
            works = f"for {minutes} more minutes" if minutes > 1 else "for about a minute"
            return "Your link to log in", f"Log in here: {url}\n\nThe link works {works}.\n"
        case OrderUpdate(order=order, status=status):
            return f"Order {order}: {status}", f"Your order {order} is now: {status}.\n"
        case _:
            raise PermanentError("email.no_template", provider="smtp")


# -- the process -----------------------------------------------------------------------------------


def make_sender() -> Email:
    """Create the consumer from the environment."""
    return Email(SmtpSettings.from_env())


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Worker(make_sender, config_from_env(), lane="high_priority", topology=TOPOLOGY).run()


if __name__ == "__main__":
    main()
