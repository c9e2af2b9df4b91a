"""The switch-over example, between providers that do as they are told."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from examples.providers.failover import COOL_DOWN, PASSWORD_RESET, Failover, PasswordReset, content
from examples.providers.sendgrid_email import SendGridEmail, SendGridSettings
from examples.providers.smtp_email import Email, SmtpSettings
from kafka_notify import (
    Attempt,
    ConfigError,
    Consumer,
    DeliveryError,
    InvalidRecipientError,
    Notification,
    PermanentError,
    ProviderUnavailableError,
    Receipt,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify.outcome import Sent
from kafka_notify.testing import FakeProvider, HttpAnswer, HttpStub, Outage
from tests.examples.conformance import one


class Through(Consumer):
    """Sends through a fake provider."""

    name = "email"
    channels = frozenset({"email"})

    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        return await self.provider.send(notification, attempt)


def reset(**fields: Any) -> Notification[PasswordReset]:
    return Notification(
        **{
            "user_id": "ada",
            "category": PASSWORD_RESET,
            "channel": "email",
            "recipient": "ada@example.com",
            "data": PasswordReset("https://shop.example/r/1"),
            **fields,
        }
    )


def attempt_at(notification: Notification[Any], **fields: Any) -> Attempt:
    return attrs.evolve(Attempt(1, 5, notification.id, timeout=30.0, remaining_ttl=None), **fields)


class Pair:
    """Two providers, and the consumer that asks them."""

    def __init__(self, **second: Any) -> None:
        self.first = FakeProvider("first")
        self.second = FakeProvider("second", **second)
        self.consumer = Failover({"first": Through(self.first), "second": Through(self.second)})

    async def send(self, notification: Notification[Any], **attempt: Any) -> Receipt | DeliveryError:
        """What it returns or raises."""
        try:
            return await self.consumer.send(notification, attempt_at(notification, **attempt))
        except DeliveryError as e:
            return e

    @property
    def calls(self) -> tuple[int, int]:
        return self.first.calls, self.second.calls


async def test_first_choice() -> None:
    """While the first provider accepts, the second is not asked."""
    pair = Pair()

    assert await pair.send(reset(id="n")) == Receipt("first", "n-1")
    assert pair.calls == (1, 0)


@pytest.mark.parametrize("answer", ["transient", "throttled", "unavailable"])
async def test_certainly_not_sent(answer: Any) -> None:
    """After an answer that says "not sent" the second provider sends it."""
    pair = Pair()
    pair.first.always("ada@example.com", answer)

    assert await pair.send(reset(id="n")) == Receipt("second", "n-1")
    assert pair.calls == (1, 1)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("unknown", UnknownOutcomeError),
        ("accepted_unheard", UnknownOutcomeError),
        ("permanent", PermanentError),
        ("invalid_recipient", InvalidRecipientError),
    ],
)
async def test_no_switch(answer: Any, kind: type[DeliveryError]) -> None:
    """Nobody else is asked when it may have been sent, or never will be."""
    pair = Pair()
    pair.first.script("ada@example.com", answer)

    error = await pair.send(reset())

    assert type(error) is kind
    assert isinstance(error, DeliveryError)
    assert error.provider == "first"
    assert pair.calls == (1, 0)


async def test_no_answer() -> None:
    """A provider that does not answer in time may have sent, and the error says which one it was."""
    pair = Pair()
    pair.first.script("ada@example.com", "hang")

    error = await pair.send(reset(), timeout=0.05)

    assert isinstance(error, UnknownOutcomeError)
    assert error.provider == "first"
    assert pair.calls == (1, 0)


@pytest.mark.parametrize(("last", "asked"), [("second", (0, 1)), ("first", (1, 0)), (None, (1, 0))])
async def test_attempt_after_an_unknown_one(last: str | None, asked: tuple[int, int]) -> None:
    """It stays with the provider that may have sent, whatever that one says now."""
    pair = Pair()
    pair.first.always("ada@example.com", "unavailable")
    pair.second.always("ada@example.com", "unavailable")

    error = await pair.send(reset(), number=2, maybe_sent=True, last_provider=last)

    assert isinstance(error, ProviderUnavailableError)
    assert pair.calls == asked


async def test_none_left() -> None:
    """When none has sent, the last one's answer decides what becomes of the notification."""
    pair = Pair()
    pair.first.always("ada@example.com", "unavailable")
    pair.second.script("ada@example.com", "transient")

    error = await pair.send(reset())

    assert isinstance(error, TransientError)
    assert error.provider == "second"


async def test_greylisted_recipient() -> None:
    """A mailbox that wants to wait is not bothered through somebody else."""

    class Greylisted(Consumer):
        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            raise ThrottledError("smtp.451", scope="recipient", retry_after=60)

    second = FakeProvider("second")
    consumer = Failover({"first": Greylisted(), "second": Through(second)})

    with pytest.raises(ThrottledError):
        await consumer.send(reset(), attempt_at(reset()))
    assert second.calls == 0


async def test_cool_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that was away is not asked for a while, unless all are away."""
    now = [1000.0]
    monkeypatch.setattr("examples.providers.failover.time.monotonic", lambda: now[0])
    pair = Pair()
    pair.first.always("ada@example.com", "unavailable")

    await pair.send(reset())
    await pair.send(reset())
    assert pair.calls == (1, 2)

    pair.second.always("ada@example.com", "unavailable")
    await pair.send(reset())
    assert pair.calls == (1, 3)
    await pair.send(reset())
    assert pair.calls == (2, 4), "when all are away, all are asked"

    now[0] += COOL_DOWN
    pair.first.always("ada@example.com", "accepted")
    assert isinstance(await pair.send(reset()), Receipt)


async def test_time_is_shared() -> None:
    """The second provider gets what the first one has left of the attempt's time."""
    seen: list[float] = []

    class Slow(Consumer):
        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            seen.append(attempt.timeout)
            await asyncio.sleep(0.01)
            raise TransientError("slow")

    consumer = Failover({"first": Slow(), "second": Slow()})
    with pytest.raises(TransientError):
        await consumer.send(reset(), attempt_at(reset()))

    assert seen[1] <= seen[0] - 0.01
    assert seen[0] < 30


async def test_strange_exception() -> None:
    """An exception that no table knows says nothing for certain, so nobody else is asked."""

    class Odd(Consumer):
        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            raise KeyError("ada@example.com")

    second = FakeProvider("second")
    with pytest.raises(UnknownOutcomeError, match=r"^unhandled\.KeyError$"):
        await Failover({"first": Odd(), "second": Through(second)}).send(reset(), attempt_at(reset()))
    assert second.calls == 0


def test_plain_provider() -> None:
    """A provider with a plain `send` is refused at the start."""

    class Plain(Consumer):
        def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            return Receipt("plain")

    with pytest.raises(ConfigError, match="'plain' must be async"):
        Failover({"plain": Plain()})


async def test_the_examples_own_pair() -> None:
    """SendGrid's account being refused, the same text leaves through SMTP; here it too is away, and says so."""
    denied = HttpAnswer(401, {"errors": []})
    with HttpStub({"accepted": HttpAnswer(202), "unavailable": denied}) as stub:
        pair = {
            "sendgrid": SendGridEmail(SendGridSettings("key", "shop@example.com", stub.url), content),
            "smtp": Email(SmtpSettings("127.0.0.1", 1, "shop@example.com", tls="none"), content),
        }
        assert isinstance(await one(Failover(pair), reset()), Sent)
        assert stub.requests[0].json()["subject"] == "Your new password"

        stub.answer("unavailable")
        consumer = Failover(pair)
        await consumer.setup()
        with pytest.raises(ProviderUnavailableError) as raised:
            await consumer.send(reset(), attempt_at(reset()))
        await consumer.teardown()
    assert raised.value.provider == "smtp"


async def test_outage() -> None:
    """Through an outage of the first provider nothing is sent twice, and nothing fails."""
    first = FakeProvider("first", outages=[Outage(0, 3600)])
    second = FakeProvider("second")
    consumer = Failover({"first": Through(first), "second": Through(second)})
    notifications = [reset(user_id=f"u{n}") for n in range(50)]

    await asyncio.gather(*(consumer.send(n, attempt_at(n)) for n in notifications))

    assert {d.key for d in second.delivered} == {n.id for n in notifications}
    assert not second.duplicates
    assert not first.delivered
