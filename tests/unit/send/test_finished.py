"""When a source record counts as finished: what a commit may say of it."""

from __future__ import annotations

import asyncio
from typing import Any

from kafka_notify import Attempt, Consumer, Notification, PermanentError, Receipt, TransientError
from tests.unit.send.sends_alone import Alone


def note(user: str) -> Notification[Any]:
    return Notification(user_id=user, category="otp", channel="sms", data={})


async def test_a_record_is_open_until_the_broker_has_its_copy() -> None:
    """A crash before that has it read again: nothing else knows of its retry."""

    class Failing(Consumer):
        breaker = None

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            raise TransientError("busy")

    alone = Alone(Failing(), max_attempts=2)
    alone.acknowledges = False
    try:
        alone.put(note("u"))
        await alone.until(lambda: alone.written)
        assert alone.partition.snapshot()[0].open_below(1) == 1

        alone.acknowledge()
        await alone.until(lambda: alone.partition.snapshot()[0].open_below(1) == 0)
    finally:
        await alone.close()


async def test_a_dead_letter_finishes_its_own_record_alone() -> None:
    """The records before it, whose sends are under way, stay open."""
    release = asyncio.Event()

    class Mixed(Consumer):
        breaker = None

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            if notification.user_id == "refused":
                raise PermanentError("refused")
            await release.wait()
            return Receipt("p")

    alone = Alone(Mixed())
    try:
        for user in ("slow", "refused", "slower"):
            alone.put(note(user))
        await alone.until(lambda: alone.partition.snapshot()[0].covers(1))
        committed = alone.partition.snapshot()[0]
        assert [committed.covers(offset) for offset in range(3)] == [False, True, False]

        release.set()
        await alone.until(lambda: alone.partition.snapshot()[0].frontier == 3)
    finally:
        release.set()
        await alone.close()
