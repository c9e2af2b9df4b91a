"""Whatever is held has a fit probe at hand, also while no copy can be written."""

from __future__ import annotations

from typing import Any

from kafka_notify import Attempt, Consumer, Notification, Receipt, TransientError
from kafka_notify._decision.destinations import FAILURES
from kafka_notify._decision.reserve import EACH, ON_THE_WAY
from tests.unit.send.sends_alone import Alone

WAITING = 10


class Webhooks(Consumer):
    """One host, that fails until it is told to work."""

    concurrency = 8

    def __init__(self) -> None:
        self.works = False
        self.accepted: list[str] = []

    def destination(self, notification: Notification[Any]) -> str | None:
        return "host"

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        if not self.works:
            raise TransientError("http.503")
        self.accepted.append(notification.user_id)
        return Receipt("provider", "m")


def note(user: str) -> Notification[Any]:
    """A notification of a user."""
    return Notification(user_id=user, category="otp", channel="sms", data={})


async def test_few_copies_are_written_while_none_is_acknowledged() -> None:
    """The others stay fit to be probes, and are copied as earlier copies are acknowledged."""
    consumer = Webhooks()
    alone = Alone(consumer)
    alone.acknowledges = False
    for n in range(FAILURES):
        alone.put(note(f"failed{n}"))
    await alone.until(alone.sends.guard.destinations_held)
    destinations = alone.sends.guard._destinations
    assert destinations is not None
    (of,) = destinations.known.values()
    assert of.circuit is not None
    of.circuit.until += 600  # no probe: its own wait
    alone.written.clear()
    for n in range(3 * ON_THE_WAY):
        alone.put(note(f"waits{n}"))
    await alone.until(lambda: len(of.fresh) == 3 * ON_THE_WAY)
    assert len(alone.written) == ON_THE_WAY
    assert len(destinations.reserve) == 2 * ON_THE_WAY
    alone.acknowledge()
    await alone.until(lambda: alone.partition.open == EACH)
    assert len(destinations.reserve) == EACH
    assert len(alone.written) == 3 * ON_THE_WAY - EACH
    assert alone.failed == []
    await alone.close()


async def test_a_held_destination_is_probed_while_no_copy_is_acknowledged() -> None:
    """Notifications that never failed wait for it, the retry topic takes nothing, and the host works again: the hold
    ends."""
    consumer = Webhooks()
    alone = Alone(consumer)
    alone.acknowledges = False
    for n in range(FAILURES):
        alone.put(note(f"failed{n}"))
    await alone.until(alone.sends.guard.destinations_held)
    for n in range(WAITING):
        alone.put(note(f"waits{n}"))
    waiting = alone.sends.guard._destinations
    assert waiting is not None
    await alone.until(lambda: sum(len(of.fresh) for of in waiting.waiting()) == WAITING)
    consumer.works = True
    await alone.until(lambda: not alone.sends.guard.destinations_held())

    assert consumer.accepted
    assert {user[:-1] for user in consumer.accepted} == {"waits"}
    assert alone.failed == []
    await alone.close()
