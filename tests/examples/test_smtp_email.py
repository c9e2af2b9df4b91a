"""The e-mail example against a real SMTP server: alone, and as a worker on a real Apache Kafka."""

from __future__ import annotations

import asyncio
import datetime as dt
import email
import logging
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from email.message import EmailMessage
from email.policy import default as email_policy
from typing import Any, cast

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from examples.providers.smtp_email import (
    LOGIN_LINK,
    ORDER_UPDATE,
    Email,
    LoginLink,
    OrderUpdate,
    SmtpSettings,
)
from kafka_notify import (
    DeadLetter,
    InvalidRecipientError,
    Lane,
    Notification,
    PermanentError,
    Producer,
    ProviderUnavailableError,
    Receipt,
    RetryPolicy,
    ThrottledError,
    Topology,
    TransientError,
    UnknownOutcomeError,
    Worker,
)
from kafka_notify.admin import create_topics
from kafka_notify.deadletters import DeadLetters
from kafka_notify.events import DeadLettered, Event
from kafka_notify.outcome import Dead, Retry, Sent
from kafka_notify.testing import LocalKafka, check_sender, deliver
from tests.examples.conformance import told

OK = "250 OK"
PASSWORD = "smtp-password-1"


class MailStub:
    """The same server, told what to answer by the names that `check_sender` knows."""

    def __init__(self, server: MailServer) -> None:
        self._server = server

    def answer(self, kind: str) -> None:
        """From now on, to everybody."""
        server = self._server
        if server.hanging is not None:
            server.hanging.set()
        server.mails = []
        server.hanging = asyncio.Event() if kind == "hang" else None
        server.to_mail = {"unavailable": "530 5.7.0 Authentication required"}.get(kind, OK)
        refusals = {
            "invalid_recipient": "550 5.1.1 <ada@example.com> no such user",
            "greylisted": "451 4.7.1 Greylisted",
        }
        server.refuses = {"ada@example.com": refusals[kind]} if kind in refusals else {}
        server.after_data = {
            "throttled": "454 Throttling failure: Maximum sending rate exceeded.",
            "permanent": "554 5.7.1 <ada@example.com> rejected",
            "unknown": "451 4.3.0 Local error",
            "hang_up": "",
        }.get(kind, OK)

    def received(self) -> list[bytes]:
        """One entry for each MAIL, with the mail once it was handed over."""
        return self._server.mails


class MailServer:
    """An SMTP server on the loopback interface: answers RCPT and DATA as it is told, once each, then with 250.

    `refuses` is for ever.
    """

    def __init__(self) -> None:
        self.refuses: dict[str, str] = {}
        self.to_mail = OK
        self.greylists: dict[str, str] = {}
        self.after_data = OK
        self.received: list[EmailMessage] = []
        self.refused: Counter[str] = Counter()
        self.connections = 0
        self.changed = asyncio.Condition()
        self.mails: list[bytes] = []
        self.envelopes: list[tuple[str, str]] = []
        self.options: dict[str, Any] = {}
        self.hanging: asyncio.Event | None = None
        self.port = 0

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Whether it takes mail from us."""
        self.mails.append(b"")
        envelope.mail_from = address
        return self.to_mail

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Whether it takes mail for this address."""
        answer = self.refuses.get(address) or self.greylists.pop(address, OK)
        if answer == OK:
            envelope.rcpt_tos.append(address)
        else:
            self.refused[address] += 1
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """The mail is here; an empty answer stands for hanging up."""
        self.mails[-1] = cast(bytes, envelope.content)
        if self.hanging is not None:
            await self.hanging.wait()
        if not self.after_data:
            cast(asyncio.Transport, server.transport).abort()
            return OK
        if self.after_data == OK:
            content = cast(bytes, envelope.content)
            self.received.append(email.message_from_bytes(content, policy=email_policy))
            self.envelopes.append((str(envelope.mail_from), envelope.rcpt_tos[0]))
            async with self.changed:
                self.changed.notify_all()
        return self.after_data

    def protocol(self, **options: Any) -> SMTP:
        """A connection."""
        self.connections += 1
        options = {"authenticator": self.login, "auth_require_tls": False, **self.options, **options}
        return SMTP(self, hostname="localhost", ident="test", **options)

    def login(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        """It knows one password."""
        known = isinstance(data, LoginPassword) and data.password == PASSWORD.encode()
        return AuthResult(success=known, handled=False)  # the server itself says 535

    def settings(self, **other: Any) -> SmtpSettings:
        """How to reach it."""
        return SmtpSettings(
            **{
                "host": "127.0.0.1",
                "port": self.port,
                "sender": "Shop <shop@example.com>",
                "tls": "none",
                **other,
            }
        )


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    mail_server = MailServer()
    listening = await asyncio.get_running_loop().create_server(mail_server.protocol, "127.0.0.1", 0)
    async with listening:
        mail_server.port = listening.sockets[0].getsockname()[1]
        yield mail_server


@pytest.fixture
async def consumer(server: MailServer) -> AsyncIterator[Email]:
    example = Email(server.settings())
    yield example
    await example.teardown()


def update(**fields: Any) -> Notification[OrderUpdate]:
    return Notification(
        **{
            "user_id": "ada",
            "category": ORDER_UPDATE,
            "channel": "email",
            "recipient": "ada@example.com",
            "data": OrderUpdate("1815", "shipped"),
            **fields,
        }
    )


async def test_conformance(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender gets right what every sender has to; SMTP has no HTML, no expiry, and its replies are certain."""
    monkeypatch.setattr(logging.getLogger("mail.log"), "disabled", True)  # the server's, in this same process
    report = await check_sender(
        lambda: Email(server.settings(username="shop", password=PASSWORD)),
        MailStub(server),
        update(),
        retry_after=None,
        secrets=[PASSWORD],
        expects={"unknown": TransientError, "greylisted": ThrottledError},
        without=["html_page", "remaining_ttl"],
    )
    report.verify()
    assert len(report.checked) > 40


# -- the mail


async def test_accepted(server: MailServer, consumer: Email) -> None:
    """A mail arrives as it was composed, and the receipt holds its Message-ID."""
    notification = update(id="n-1")

    outcome = await deliver(consumer, notification)

    assert outcome == Sent(Receipt("smtp", "<n-1@example.com>"))
    (mail,) = server.received
    assert mail["Message-ID"] == "<n-1@example.com>"
    assert (mail["From"], mail["To"]) == ("Shop <shop@example.com>", "ada@example.com")
    assert mail["Subject"] == "Order 1815: shipped"
    assert mail.get_content().strip() == "Your order 1815 is now: shipped."


async def test_remaining_time(server: MailServer, consumer: Email) -> None:
    """A mail says how long its link works from now, not from when it was asked for."""
    asked = dt.datetime.now(dt.timezone.utc) - dt.timedelta(minutes=5, seconds=30)
    link = Notification(
        user_id="ada",
        category=LOGIN_LINK,
        channel="email",
        recipient="ada@example.com",
        data=LoginLink("https://shop.example/l/1"),
        created_at=asked,
    )

    assert isinstance(await deliver(consumer, link), Sent)
    assert "works for 9 more minutes" in server.received[0].get_content()


async def test_other_letters(server: MailServer, consumer: Email) -> None:
    """Text beyond ASCII arrives, also at a server that takes seven bits only."""
    await deliver(consumer, update(data=OrderUpdate("1815", "unterwegs nach Köln")))

    assert server.received[0]["Subject"] == "Order 1815: unterwegs nach Köln"
    assert "Köln" in server.received[0].get_content()


@pytest.mark.parametrize(
    "recipient",
    [
        None,
        "",
        "ada",
        "ada@",
        "@exämple.com",
        "ada@example.com, eve@example.com",
        "ada@exämple..com",
        "ada@\u2603.com",
        "ä da@example.com",
        "ä<@example.com",
    ],
)
async def test_no_address(server: MailServer, consumer: Email, recipient: str | None) -> None:
    """What is no address is a dead letter without asking the server."""
    outcome = await deliver(consumer, update(recipient=recipient))

    assert told(outcome) == (Dead, InvalidRecipientError, "email.address")
    assert server.connections == 0


@pytest.mark.parametrize(
    ("recipient", "ascii_address"),
    [
        ("user@exämple.com", "user@xn--exmple-cua.com"),
        ("user@EXÄMPLE.com", "user@xn--exmple-cua.com"),
        ("user@straße.de", "user@xn--strae-oqa.de"),  # strasse.de is somebody else's
        ("user@例え.jp", "user@xn--r8jz45g.jp"),
    ],
)
async def test_other_domains(server: MailServer, consumer: Email, recipient: str, ascii_address: str) -> None:
    """A domain beyond ASCII is encoded, in the envelope and in the mail; any server takes it."""
    assert isinstance(await deliver(consumer, update(recipient=recipient)), Sent)

    assert server.envelopes == [("shop@example.com", ascii_address)]
    assert server.received[0]["To"] == ascii_address


async def test_sender_of_another_domain(server: MailServer) -> None:
    """The same for our own address."""
    consumer = Email(server.settings(sender="Shöp <shop@exämple.com>"))

    assert isinstance(await deliver(consumer, update()), Sent)

    assert server.envelopes == [("shop@xn--exmple-cua.com", "ada@example.com")]
    assert server.received[0]["From"] == "Shöp <shop@xn--exmple-cua.com>"
    await consumer.teardown()


async def test_other_local_part(server: MailServer, consumer: Email) -> None:
    """A local part beyond ASCII needs a server with SMTPUTF8; without one the address cannot be reached."""
    outcome = await deliver(consumer, update(recipient="ädä@exämple.com"))

    assert told(outcome) == (Dead, InvalidRecipientError, "email.no_smtputf8")
    assert server.mails == []
    assert isinstance(await deliver(consumer, update()), Sent)
    await consumer.teardown()

    server.options = {"enable_SMTPUTF8": True}
    assert isinstance(await deliver(consumer, update(recipient="ädä@exämple.com")), Sent)
    assert server.envelopes[-1] == ("shop@example.com", "ädä@xn--exmple-cua.com")
    assert "ädä@xn--exmple-cua.com" in server.received[-1]["To"]


async def test_no_sender(server: MailServer) -> None:
    """Our own address that is none is a matter of the configuration: the lane waits."""
    consumer = Email(server.settings(sender="Shop"))

    assert told(await deliver(consumer, update())) == (Retry, ProviderUnavailableError, "email.sender")


async def test_added_header(server: MailServer, consumer: Email) -> None:
    """Data with a line break cannot add headers."""
    outcome = await deliver(consumer, update(data=OrderUpdate("1", "x\r\nBcc: eve@example.com")))

    assert told(outcome) == (Dead, PermanentError, "email.header")
    assert server.connections == 0


async def test_unknown_data(consumer: Email) -> None:
    """Data of a category without a template is a dead letter."""
    outcome = await deliver(consumer, update(category="marketing", data={"title": "hello"}))

    assert told(outcome) == (Dead, PermanentError, "email.no_template")


# -- what the server says


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("550 5.1.1 No such user", (Dead, InvalidRecipientError, "smtp.550-5.1.1")),
        ("554 5.7.1 Rejected", (Dead, PermanentError, "smtp.554-5.7.1")),
        ("450 Try later", (Retry, TransientError, "smtp.450")),
        ("451 4.7.1 Greylisted", (Retry, ThrottledError, "smtp.451-4.7.1")),
    ],
)
async def test_refused_recipient(
    server: MailServer, consumer: Email, reply: str, expected: tuple[object, ...]
) -> None:
    """What the server says to RCPT decides, and the connection serves the next mail."""
    server.refuses["eve@example.com"] = reply

    outcome = await deliver(consumer, update(recipient="eve@example.com"))

    assert told(outcome) == expected
    assert isinstance(await deliver(consumer, update()), Sent)
    assert server.connections == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("553 5.1.0 Sender rejected", (Retry, ProviderUnavailableError, "smtp.553-5.1.0")),
        ("550 5.7.1 Not yours", (Retry, ProviderUnavailableError, "smtp.550-5.7.1")),
        ("450 4.7.1 Too fast", (Retry, ThrottledError, "smtp.450-4.7.1")),
        ("550 5.4.5 Daily quota", (Retry, ThrottledError, "smtp.550-5.4.5")),
        ("552 5.3.4 Too big", (Dead, PermanentError, "smtp.552-5.3.4")),
    ],
)
async def test_refused_sender(
    server: MailServer, consumer: Email, reply: str, expected: tuple[object, ...]
) -> None:
    """Our own address is the same for every mail: the lane waits, nobody's address is called invalid."""
    server.to_mail = reply

    outcome = await deliver(consumer, update())

    assert told(outcome) == expected
    if isinstance(outcome, Retry):
        assert not outcome.counted
        assert not isinstance(outcome.error, ThrottledError) or outcome.error.scope == "provider"


async def test_greylisted(server: MailServer, consumer: Email) -> None:
    """Greylisting lets one recipient wait, not the lane, and is no attempt."""
    server.greylists["ada@example.com"] = "451 4.7.1 Greylisted"

    outcome = await deliver(consumer, update())

    assert isinstance(outcome, Retry)
    assert (outcome.after, outcome.counted) == (Email.greylist_wait, False)
    assert isinstance(outcome.error, ThrottledError)
    assert outcome.error.scope == "recipient"


async def test_refused_mail(server: MailServer, consumer: Email) -> None:
    """A reply to the mail itself is certain."""
    server.after_data = "552 5.3.4 Too big"

    assert told(await deliver(consumer, update())) == (Dead, PermanentError, "smtp.552-5.3.4")


async def test_no_reply(server: MailServer, consumer: Email) -> None:
    """When the server hangs up after the mail, nobody knows whether it took it; the next mail has a new connection."""
    server.after_data = ""

    assert told(await deliver(consumer, update())) == (Retry, UnknownOutcomeError, "smtp.no_reply")

    server.after_data = OK
    assert isinstance(await deliver(consumer, update()), Sent)
    assert server.connections == 2


# -- the connection


async def test_reused_connection(server: MailServer, consumer: Email) -> None:
    """Mails that follow each other share a connection; mails at once have their own."""
    for _ in range(3):
        await deliver(consumer, update())
    assert server.connections == 1

    await asyncio.gather(*(deliver(consumer, update()) for _ in range(3)))
    assert len(server.received) == 6
    assert server.connections == 3


async def test_server_away(server: MailServer, consumer: Email) -> None:
    """While the server is away the lane waits: no attempt is used up, nothing dies."""
    away = Email(server.settings(port=1))

    outcome = await deliver(away, update(), attempt=away.retry.max_attempts)

    assert told(outcome)[:2] == (Retry, ProviderUnavailableError)


async def test_wrong_password(server: MailServer) -> None:
    """A password that is refused is a matter of the account: the lane waits."""
    stranger = Email(server.settings(username="shop", password="old-password"))

    assert told(await deliver(stranger, update())) == (Retry, ProviderUnavailableError, "smtp.535-5.7.8")


async def test_no_tls(server: MailServer) -> None:
    """A server without the TLS that was asked for is not given the mail."""
    strict = Email(server.settings(tls="starttls"))

    assert told(await deliver(strict, update()))[:2] == (Retry, ProviderUnavailableError)
    assert server.received == []


# -- on Kafka


class Impatient(Email):
    """The example with delays for a test."""

    retry = RetryPolicy(4, initial_delay=0.2, multiplier=2)
    greylist_wait = 0.3


@pytest.mark.kafka
async def test_on_kafka(server: MailServer, local_kafka: LocalKafka) -> None:
    """All mails arrive, each user's in order, those of greylisted users after their retry; the refused are dead
    letters that hold the server's code."""
    users = [f"user-{n}" for n in range(20)]
    server.refuses = {
        "user-3@example.com": "550 5.1.1 No such user",
        "user-8@example.com": "550 5.1.1 No such user",
        "user-13@example.com": "554 5.7.1 Rejected",
    }
    greylisted = {
        "user-1@example.com": "451 4.7.1 Greylisted",
        "user-5@example.com": "450 Try later",
        "user-9@example.com": "451 4.7.1 Greylisted",
    }
    server.greylists = dict(greylisted)
    config = {"bootstrap.servers": local_kafka.bootstrap_servers}
    topology = Topology(
        lanes=[Lane("high_priority", partitions=4)],
        categories=[ORDER_UPDATE, LOGIN_LINK],
        channels=["email"],
        prefix=f"t-{uuid.uuid4()}",
    )
    steps = ["paid", "packed", "shipped", "delivered"]
    notifications = [
        update(user_id=user, recipient=f"{user}@example.com", data=OrderUpdate(user, step))
        for step in steps
        for user in users
    ]
    loop, dead = asyncio.get_running_loop(), asyncio.Semaphore(0)

    def on_event(event: Event) -> None:
        if isinstance(event, DeadLettered):
            loop.call_soon_threadsafe(dead.release)

    def begin() -> Worker:
        create_topics(topology, config, consumers=["email"])
        with Producer(config, topology=topology) as producer:
            for notification in notifications:
                producer.send(notification)
        worker = Worker(
            lambda: Impatient(server.settings()),
            config,
            lane="high_priority",
            topology=topology,
            on_event=on_event,
        )
        worker.start()
        return worker

    refused_users = {address.partition("@")[0] for address in server.refuses}
    worker = await asyncio.to_thread(begin)
    try:
        async with server.changed:
            await server.changed.wait_for(
                lambda: len(server.received) >= len(steps) * (len(users) - len(refused_users))
            )
        for _ in range(len(steps) * len(refused_users)):
            await dead.acquire()
    finally:
        await asyncio.to_thread(worker.stop)

    arrived: defaultdict[str, list[str]] = defaultdict(list)
    for mail in server.received:
        order, _, status = str(mail["Subject"]).removeprefix("Order ").partition(": ")
        assert mail["To"] == f"{order}@example.com"
        arrived[order].append(status)
    assert dict(arrived) == {user: steps for user in users if user not in refused_users}
    assert {address: server.refused[address] for address in greylisted} == dict.fromkeys(greylisted, 1)

    letters = await asyncio.to_thread(lambda: list(DeadLetters(config, topology=topology).find()))
    assert _by_user(letters) == {
        "user-3": [("invalid_recipient", "smtp.550-5.1.1")] * len(steps),
        "user-8": [("invalid_recipient", "smtp.550-5.1.1")] * len(steps),
        "user-13": [("permanent", "smtp.554-5.7.1")] * len(steps),
    }


def _by_user(letters: list[DeadLetter]) -> Mapping[str | None, list[tuple[str, str | None]]]:
    found: defaultdict[str | None, list[tuple[str, str | None]]] = defaultdict(list)
    for letter in letters:
        found[letter.user_id].append((letter.reason, letter.error_code))
    return dict(found)
