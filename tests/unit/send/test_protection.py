"""What a consumer says about limits, unknown outcomes and remembered ids."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kafka_notify import (
    Attempt,
    ConfigError,
    Consumer,
    Notification,
    RateLimit,
    Receipt,
    Topology,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify._wire.undecoded import collapse_of
from kafka_notify.consumer import check_consumer
from kafka_notify.limits import SeenInMemory
from kafka_notify.outcome import Dead, Retry, Sent, Skipped
from kafka_notify.testing import deliver

RECEIPT = Receipt("provider", "m")


def hello(**changes: Any) -> Notification[Any]:
    """A notification."""
    return Notification(**{"user_id": "u", "category": "otp", "channel": "sms", "data": {}, **changes})


def sender(send: Callable[[], Awaitable[object]], **attributes: Any) -> Consumer:
    """A consumer with these attributes."""

    async def call(self: Consumer, notification: Notification[Any], attempt: Attempt) -> object:
        return await send()

    made: Consumer = type("Made", (Consumer,), {"send": call, **attributes})()
    return made


async def accept() -> Receipt:
    return RECEIPT


async def time_out() -> Receipt:
    raise UnknownOutcomeError("http.504", provider="acme")


async def forget() -> None:
    return None


@pytest.mark.parametrize(("policy", "kind"), [("retry", Retry), ("dead_letter", Dead), ("assume_sent", Sent)])
async def test_unknown_outcome(policy: str, kind: type) -> None:
    """The consumer decides what follows when nobody knows whether it was accepted."""
    outcome = await deliver(sender(time_out, unknown_outcome=policy), hello())

    assert isinstance(outcome, kind)
    assert not isinstance(outcome, Dead) or outcome.reason == "unknown_outcome"
    assert not isinstance(outcome, Sent) or outcome.receipt == Receipt("acme")


async def test_a_forgotten_receipt_is_never_assumed() -> None:
    """A `send` that returns nothing is a bug, whatever the policy."""
    outcome = await deliver(sender(forget, unknown_outcome="assume_sent"), hello())

    assert isinstance(outcome, Retry)


async def test_sent_once() -> None:
    """What was accepted is skipped when it comes again, and what failed is not."""
    store, first, second = SeenInMemory(), hello(), hello()
    consumer, failing = sender(accept, dedupe=store), sender(time_out, dedupe=store)

    assert isinstance(await deliver(failing, first), Retry)
    assert await deliver(consumer, first) == Sent(RECEIPT)
    assert await deliver(consumer, first) == Skipped("duplicate")
    assert await deliver(consumer, second) == Sent(RECEIPT)


async def test_the_window_is_bounded() -> None:
    """Of the accepted ids the newest are remembered."""
    store = SeenInMemory(2)
    for id in ("a", "b", "c"):
        await store.add(id)

    assert [await store.seen(id) for id in ("a", "b", "c")] == [False, True, True]


class Broken:
    """A store whose server is away."""

    async def seen(self, id: str) -> bool:
        raise ConnectionError("canary")

    async def add(self, id: str) -> None:
        raise ConnectionError("canary")


async def test_a_store_that_fails_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """While the store is away everything is sent, and it is logged without its text."""
    assert await deliver(sender(accept, dedupe=Broken()), hello()) == Sent(RECEIPT)
    assert caplog.text.count("ConnectionError") == 2
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_limit": 200}, {"rate_limit": RateLimit(5, reserved={"elsewhere": 0.5})}, {"breaker": True},
        {"unknown_outcome": "ignore"}, {"dedupe": object()}, {"dedupe": set()},
    ],
)  # fmt: skip
def test_refuses_attributes_that_make_no_sense(wrong: dict[str, Any]) -> None:
    """A mistake is found when the worker is made, and named."""
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}|RateLimit.reserved"):
        check_consumer(sender(accept, **wrong), Topology.default())


def test_what_collapses_with_what() -> None:
    """Only notifications with the same key and channel do."""

    def collapses(channel: bytes, key: bytes | None) -> str:
        own = [("notif-channel", channel)]
        return collapse_of(own if key is None else [*own, ("notif-collapse-key", key)])

    assert collapses(b"sms", b"k") == collapses(b"sms", b"k") != ""
    assert len({collapses(b"sms", b"k"), collapses(b"push", b"k"), collapses(b"sms", b"j")}) == 3
    assert collapses(b"sms", None) == collapses(b"sms", b"\xff") == ""


async def test_a_bug_is_no_outage() -> None:
    """An exception that nobody knows is counted as an attempt, with its class as code."""

    async def bug() -> None:
        raise KeyError("x")

    outcome = await deliver(sender(bug), hello())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, TransientError)
    assert outcome.error.code == "unhandled.KeyError"
