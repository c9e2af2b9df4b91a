"""The provider that all workers of a world send to, and the team's consumer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import attrs

from kafka_notify import (
    Attempt,
    Consumer,
    DeliveryError,
    Notification,
    PermanentError,
    Receipt,
    RetryPolicy,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify.errors import ProviderUnavailableError, ThrottledError
from kafka_notify.testing.attempt_log import AttemptLog, Line
from tests.simulation.kafka import VirtualTime
from tests.simulation.workers.plan import Plan

MAX_ATTEMPTS: Final = 4
SEND_TIMEOUT: Final = 4.0


class MemoryLog(AttemptLog):
    """An attempt log of one worker, in memory. A killed worker writes nothing more."""

    def __init__(self, worker: str, time: VirtualTime, told: Callable[[Line], object]) -> None:
        self.worker = worker
        self._time = time
        self._told = told

    def write(self, line: Line) -> None:
        """Tell of a line, at virtual time."""
        if self.worker not in self._time.killed:
            self._told(line)

    def close(self) -> None:
        """Nothing is open."""


@attrs.frozen
class Answer:
    """How a call of the provider goes."""

    before: float
    """Seconds until the provider accepts, or fails; `after` those until the worker knows."""
    after: float
    accepts: bool
    error: DeliveryError | None


class Provider:
    """Decides how each call goes.

    Args:
        plan: The world.
        time: Its time.
    """

    def __init__(self, plan: Plan, time: VirtualTime) -> None:
        self.down = self.throttled = 0
        """Above zero while it fails."""
        self.healed = False
        """True once nothing fails but what is refused permanently. Users who always fail, and are alone after an
        outage, may hold a lane for a day."""
        self._plan = plan
        self._time = time
        self._random = random.Random(f"provider {plan.seed}")
        self._permanent = {
            f"n{n}" for n in range(len(plan.produced)) if self._random.random() < plan.permanent
        }

    def call(self, notification: Notification[Any]) -> Answer:
        """A call, which is answered later."""
        plan, rng = self._plan, self._random
        before, after = (rng.expovariate(2 / plan.latency) if plan.latency else 0.0 for _ in range(2))
        before, after = min(before, 1.0), min(after, 1.0)
        share = 1.0 if self.healed else rng.random()
        if self.down:
            return Answer(before, after, False, ProviderUnavailableError("down"))
        if self.throttled:
            return Answer(before, after, False, ThrottledError("slow", retry_after=rng.choice([None, 1.0])))
        if notification.user_id in plan.failing and not self.healed:
            return Answer(before, after, False, TransientError("always"))
        if notification.id in self._permanent:
            return Answer(before, after, False, PermanentError("never"))
        if (share := share - plan.transient) < 0:
            return Answer(before, after, False, TransientError("busy"))
        if (share := share - plan.unknown) < 0:
            return Answer(before, after, rng.random() < 0.5, UnknownOutcomeError("cut"))
        if share - plan.hang < 0:
            return Answer(before, SEND_TIMEOUT * 2, rng.random() < 0.5, TransientError("hung"))
        return Answer(before, after, True, None)


class Sender(Consumer):
    """The team's consumer."""

    name = "team"
    concurrency = 20
    send_timeout = SEND_TIMEOUT
    retry = RetryPolicy(
        max_attempts=MAX_ATTEMPTS, initial_delay=1.0, multiplier=2.0, max_delay=8.0, jitter=0.2
    )

    def __init__(self, host: str, provider: Provider, log: AttemptLog, time: VirtualTime) -> None:
        self._host = host
        self._provider = provider
        self._log = log
        self._time = time

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        with self._log.attempt(notification, attempt) as recorded:
            answer = self._provider.call(notification)
            await asyncio.sleep(answer.before)
            if answer.accepts:
                recorded.accepted()
            await asyncio.sleep(answer.after)
            if answer.error is not None:
                raise answer.error
            return Receipt("simulated")


class PlainSender(Sender):
    """The same, on threads."""

    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:  # type: ignore[override]
        with self._log.attempt(notification, attempt) as recorded:
            answer = self._provider.call(notification)
            self._time.sleep_of(self._host, answer.before)
            if answer.accepts:
                recorded.accepted()
            self._time.sleep_of(self._host, answer.after)
            if answer.error is not None:
                raise answer.error
            return Receipt("simulated")
