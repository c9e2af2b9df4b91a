"""Whatever user code returns or raises, the worker goes on, and it costs that notification an attempt."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from kafka_notify import (
    Attempt,
    Category,
    Consumer,
    DeadLetter,
    DeliveryError,
    Lane,
    Notification,
    PermanentError,
    Producer,
    Receipt,
    RetryPolicy,
    Send,
    Topology,
    Verdict,
    Worker,
)
from kafka_notify.admin import create_topics
from kafka_notify.events import Event
from kafka_notify.testing import LocalKafka
from tests.guarantees.rubbish import EVERYTHING, Frozen, answered, meddling

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


class Base(Consumer):
    """Makes each case of rubbish once, and sends well afterwards; notes which attempt was accepted."""

    retry = RetryPolicy(2, initial_delay=0.05, multiplier=1)
    breaker = None
    concurrency = 20

    def __init__(self) -> None:
        self.accepted: dict[str, list[int]] = {}
        self.asked: Counter[str] = Counter()
        self.dead: list[str] = []
        self.done = threading.Event()

    def case(self, notification: Notification[Any]) -> tuple[str, Callable[[], Any]]:
        return EVERYTHING.get(notification.data["rubbish"], ("", Send))

    def accept(self, notification: Notification[Any], attempt: Attempt) -> None:
        self.accepted.setdefault(notification.data["rubbish"], []).append(attempt.number)
        self.ended()

    def ended(self) -> None:
        if len(self.accepted) + len(self.dead) == len(EVERYTHING) + 2:
            self.done.set()

    def should_send(self, notification: Notification[Any]) -> Verdict:
        where, make = self.case(notification)
        self.asked[notification.id] += 1
        return make() if where == "verdict" and self.asked[notification.id] == 1 else Send()

    def classify(self, exc: Exception) -> DeliveryError | None:
        return exc.args[0]() if isinstance(exc, LookupError) and exc.args else None

    def on_dead_letter(self, letter: DeadLetter) -> None:
        self.dead.append(str(letter.error_code))
        self.ended()
        raise SystemExit(4)


class Async(Base):
    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        where, make = self.case(notification)
        await asyncio.sleep(0)
        if attempt.number == 1 and where == "send":
            told: Receipt = await answered(make)
            return told
        if attempt.number == 1 and where == "classify":
            raise LookupError(make)
        if notification.data["rubbish"] == "dead":
            raise PermanentError("refused")
        self.accept(notification, attempt)
        receipt: Receipt = await answered(make) if where == "accepted" else Receipt("p")
        return receipt

    async def on_sent(self, notification: Notification[Any], receipt: Receipt) -> None:
        raise (SystemExit(3), asyncio.CancelledError(), GeneratorExit(), Frozen())[len(self.accepted) % 4]


class Plain(Base):
    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        where, make = self.case(notification)
        receipt: Receipt
        if attempt.number == 1 and where == "send":
            receipt = make()
            return receipt
        if attempt.number == 1 and where == "classify":
            raise LookupError(make)
        if notification.data["rubbish"] == "dead":
            raise PermanentError("refused")
        self.accept(notification, attempt)
        receipt = make() if where == "accepted" else Receipt("p")
        return receipt

    def on_sent(self, notification: Notification[Any], receipt: Receipt) -> None:
        raise SystemExit(3)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


@pytest.mark.parametrize("kind", [Async, Plain])
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.invariant(n=22)
def test_nothing_that_user_code_does_ends_a_worker(
    local_kafka: LocalKafka, kind: type[Base], protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind of rubbish costs one counted attempt of its notification, receipts with odd fields count as accepted,
    hooks that raise change nothing, and the log says what was wrong, without values."""
    topology = Topology(
        lanes=[Lane("quick", partitions=3)], categories=[Category("otp", "quick")], channels=["sms"],
        prefix=f"t{uuid.uuid4().hex[:12]}",
    )  # fmt: skip
    config: dict[str, Any] = {"bootstrap.servers": local_kafka.bootstrap_servers}
    create_topics(topology, config)
    with Producer(config, topology=topology) as producer:
        for n, case in enumerate([*EVERYTHING, "nothing", "dead"]):
            data = {"rubbish": case, "text": "sEcReT"}
            producer.send(Notification(user_id=f"u{n}", category="otp", channel="sms", data=data))
        producer.flush()
    consumer = kind()
    told: list[Event] = []
    caplog.set_level(logging.WARNING)
    worker = Worker(
        consumer, config, lane="quick", topology=topology, middleware=[meddling], on_event=told.append,
        consumer_config={"group.protocol": protocol},
    )  # fmt: skip
    with worker:
        ended = consumer.done.wait(60)
        problems = worker.health().problems
        assert not problems
        assert ended, sorted(set(EVERYTHING) - set(consumer.accepted))
        until(lambda: worker.stats().sent == len(EVERYTHING) + 1)

    assert consumer.dead == ["refused"]
    assert {case: ns for case, ns in consumer.accepted.items() if ns != [2]} == {
        "nothing": [1],
        **{case: [1] for case in EVERYTHING if case.startswith("accepted")},
    }
    said = caplog.text + repr(told)
    for part in (
        "raised Uninitialised, whose code is missing", "provider was a int, not a str",
        "raised SystemExit", "Retry.after is a float",
        "Skipped.reason is a NoneType", "Sent.receipt is a NoneType", "Dead.error is a str", "whose provider is a list",
        "should_send returned a Skip, whose reason is not a str", "classify returned a int", "send returned a Odd",
    ):  # fmt: skip
        assert part in said
    assert "sEcReT" not in said
    assert "soon" not in caplog.text
