"""A provider that does what each notification tells it to, and the consumers that send through it.

`data["plan"]` names what happens at each attempt (the last step repeats), `data["seconds"]` how long it takes,
`data["gate"]` a file until which, from the attempt `data["gate_from"]` on, the provider does not answer, or
keeps saying "throttle", "away" or an HTTP status.

`Production` and `ProductionSync` also ask a `Switchboard`, by which a test lets everybody or one server fail. Their
provider counts the calls for a notification itself, as one in production cannot know which attempts were counted: who
is accepted at the third call is so whatever became of the first two. A plan of one step never heals.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import threading
import time
from pathlib import Path
from typing import Any

from kafka_notify import (
    Attempt,
    Consumer,
    DeadLetter,
    Defer,
    InvalidRecipientError,
    Notification,
    PermanentError,
    ProviderUnavailableError,
    Receipt,
    Send,
    Skip,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
    Verdict,
    classify_http,
)
from kafka_notify.testing.attempt_log import AttemptLog, Failing, Recorded

RECEIPT = Receipt("provider", "m")
HANG = 3600.0
BLOCK = 8.0
CANARY = "cAnArY +1 555"
"""Stands for a secret: it must show up nowhere."""


class Bug(Exception):
    """An exception that no table knows."""


def answer(step: str, call: Recorded, notification: Notification[Any], is_open: bool) -> Receipt:
    """What the provider says, once its time is over; some of it only until its gate is open, or at first."""
    match step:
        case "ok" | "block":
            return RECEIPT
        case "transient":
            raise TransientError("provider.busy")
        case "permanent":
            raise PermanentError("provider.refused", provider="provider")
        case "invalid":
            raise InvalidRecipientError("provider.no_such_recipient")
        case "unknown":
            raise UnknownOutcomeError("provider.504")
        case "accepted_unknown":
            call.accepted()
            raise UnknownOutcomeError("provider.504")
        case "down":
            raise UnknownOutcomeError("provider.503")
        case "refuse":
            raise ProviderUnavailableError("provider.402")
        case "slow_down":
            raise ThrottledError("provider.429", retry_after=0.3, scope="provider")
        case "throttle" if not is_open:
            raise ThrottledError("provider.429", retry_after=0.3, scope="recipient")
        case "throttle_now" if not is_open:
            raise ThrottledError("provider.429", retry_after=0, scope="recipient")
        case "away" if not is_open:
            raise ProviderUnavailableError("provider.402")
        case "throttle_young" if young(notification):
            raise ThrottledError("provider.429", retry_after=0.3, scope="recipient")
        case "away_young" if young(notification):
            raise ProviderUnavailableError("provider.402")
        case "away_then_throttle":
            if is_open:
                raise ThrottledError("provider.429", retry_after=0.1, scope="recipient")
            raise ProviderUnavailableError("provider.402")
        case "throttle" | "throttle_now" | "away" | "throttle_young" | "away_young":
            return RECEIPT
        case "401" | "403" | "429" | "429_900" | "503" if not is_open:
            headers = {"429": {"retry-after": "0.3"}, "429_900": {"retry-after": "900"}}.get(step, {})
            error = classify_http(int(step[:3]), headers, provider="provider")
            assert error is not None
            raise error
        case "401" | "403" | "429" | "429_900" | "503":
            return RECEIPT
        case "leak":
            raise TransientError(CANARY, detail=CANARY) from ValueError(CANARY)
        case "bug":
            raise Bug(CANARY)
        case "hang" | "accepted_hang":
            raise UnknownOutcomeError("provider.no_answer")
        case _:
            raise ValueError(step)


def young(notification: Notification[Any]) -> bool:
    """Whether it was made less than a second ago."""
    return dt.datetime.now(dt.timezone.utc) - notification.created_at < dt.timedelta(seconds=1)


def plan_of(notification: Notification[Any]) -> list[str]:
    return notification.data.get("plan") or ["ok"]


def step_of(notification: Notification[Any], number: int) -> str:
    plan = plan_of(notification)
    return str(plan[min(number, len(plan)) - 1])


def gate_open(notification: Notification[Any], attempt: Attempt) -> bool:
    data = notification.data
    return "gate" not in data or attempt.number < data.get("gate_from", 1) or os.path.exists(data["gate"])


def waits(step: str, notification: Notification[Any], attempt: Attempt) -> bool:
    """Whether the provider does not answer yet."""
    keeps_saying = (
        "throttle",
        "throttle_now",
        "away",
        "away_then_throttle",
        "401",
        "403",
        "429",
        "429_900",
        "503",
    )
    return step not in keeps_saying and not gate_open(notification, attempt)


class AsyncSender(Consumer):
    """Sends on the event loop."""

    def __init__(self, log: AttemptLog) -> None:
        self.log = log

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        data = notification.data
        with self.log.attempt(notification, attempt) as call:
            step = self.planned(notification, attempt)
            if step == "accepted_hang":
                call.accepted()
            if step in ("hang", "accepted_hang"):
                await asyncio.sleep(HANG)
            if step == "block":
                time.sleep(BLOCK)  # noqa: ASYNC251 - which no sender should do
            await asyncio.sleep(data.get("seconds", 0.01))
            while waits(step, notification, attempt):  # noqa: ASYNC110 - another process opens it
                await asyncio.sleep(0.01)
            return answer(self.step(step, notification), call, notification, gate_open(notification, attempt))

    def planned(self, notification: Notification[Any], attempt: Attempt) -> str:
        """What the notification planned for this attempt."""
        return step_of(notification, attempt.number)

    def step(self, planned: str, notification: Notification[Any]) -> str:
        """What happens instead of what was planned."""
        return planned


class Webhooks(AsyncSender):
    """Sends each notification to the host that `data["host"]` names."""

    def destination(self, notification: Notification[Any]) -> str | None:
        host = notification.data.get("host")
        return None if host is None else str(host)


class Stubborn(AsyncSender):
    """An async sender that cannot be cancelled while its provider does not answer."""

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        while True:
            try:
                return await super().send(notification, attempt)
            except asyncio.CancelledError:
                if gate_open(notification, attempt):
                    raise


class SyncSender(Consumer):
    """Sends on threads; what hangs there does so for 5 seconds."""

    def __init__(self, log: AttemptLog) -> None:
        self.log = log

    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        data = notification.data
        with self.log.attempt(notification, attempt) as call:
            step = self.planned(notification, attempt)
            if step == "accepted_hang":
                call.accepted()
            time.sleep(5.0 if step in ("hang", "accepted_hang") else data.get("seconds", 0.01))
            while waits(step, notification, attempt):
                time.sleep(0.01)
            return answer(self.step(step, notification), call, notification, gate_open(notification, attempt))

    def planned(self, notification: Notification[Any], attempt: Attempt) -> str:
        """What the notification planned for this attempt."""
        return step_of(notification, attempt.number)

    def step(self, planned: str, notification: Notification[Any]) -> str:
        """What happens instead of what was planned."""
        return planned


class Choosy(AsyncSender):
    """Asks `data["verdict"]` before each send: `skip`, `defer`, once, or `later`: not before the gate is open."""

    def __init__(self, log: AttemptLog) -> None:
        super().__init__(log)
        self._deferred: set[str] = set()
        self.until: dict[str, dt.datetime] = {}

    def should_send(self, notification: Notification[Any]) -> Verdict:
        verdict = notification.data.get("verdict")
        if verdict == "skip":
            return Skip("unsubscribed")
        if verdict == "defer_past" and not gate_open(notification, Attempt(1, 1, notification.id, 1.0, None)):
            return Defer(dt.datetime.now(dt.timezone.utc) - dt.timedelta(hours=1), "broken_clock")
        if verdict == "later" and not os.path.exists(notification.data["gate"]):
            return Defer(
                dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=notification.data["seconds_later"]),
                "night",
            )
        if verdict == "defer" and notification.id not in self._deferred:
            self._deferred.add(notification.id)
            until = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=0.5)
            self.until[notification.id] = until
            return Defer(until, "quiet_hours")
        return Send()


class BadHooks(AsyncSender):
    """Raises in every hook."""

    def __init__(self, log: AttemptLog) -> None:
        super().__init__(log)
        self.told = threading.Semaphore(0)

    async def on_sent(self, notification: Notification[Any], receipt: Receipt) -> None:
        self.told.release()
        raise Bug

    def on_dead_letter(self, letter: DeadLetter) -> None:
        self.told.release()
        raise Bug


class Switchboard:
    """Decides what a provider does for everybody, or for one server, from outside of its processes: by files.

    Args:
        directory: Shared by test and workers.
        log: Notes each change.
    """

    def __init__(self, directory: Path, log: AttemptLog) -> None:
        self._directory = directory
        self._log = log

    def fail(self, step: str, destination: str = "") -> None:
        """From now on each send ends like this, whatever its notification planned."""
        self._log.write(Failing(True, destination=destination))
        _switch(self._directory, destination).write_text(step)

    def work(self, destination: str = "") -> None:
        """From now on what notifications planned happens again."""
        _switch(self._directory, destination).unlink()
        self._log.write(Failing(False, destination=destination))


def _switch(directory: Path | str, destination: str) -> Path:
    return Path(directory) / f"fails-{destination or 'everybody'}"


def count_call(directory: Path | str, id: str) -> int:
    """Which call this is of all that were made for a notification, by whatever process."""
    with open(Path(directory) / f"calls-{id}", "ab", buffering=0) as calls:
        calls.write(b".")
        return calls.tell()


class InProduction:
    """What production adds: outages of everybody or one server, a provider that counts the calls for each notification,
    and campaigns that are put off until `data["defer_until"]`, in epoch seconds."""

    switches = "."

    def planned(self, notification: Notification[Any], attempt: Attempt) -> str:
        once = len(plan_of(notification)) == 1
        return step_of(notification, 1 if once else count_call(self.switches, notification.id))

    def step(self, planned: str, notification: Notification[Any]) -> str:
        for destination in ("", str(notification.data.get("destination", ""))):
            switch = _switch(self.switches, destination)
            if switch.exists():
                with contextlib.suppress(FileNotFoundError):
                    return switch.read_text() or planned
        return planned

    def should_send(self, notification: Notification[Any]) -> Verdict:
        until = notification.data.get("defer_until", 0.0)
        if until > time.time():
            return Defer(dt.datetime.fromtimestamp(until, dt.timezone.utc), "campaign")
        return Send()

    def destination(self, notification: Notification[Any]) -> str | None:
        destination: str | None = notification.data.get("destination")
        return destination


class Production(InProduction, AsyncSender):
    """In production, on the event loop."""


class ProductionSync(InProduction, SyncSender):
    """In production, on threads."""


CONSUMERS: dict[str, type[AsyncSender] | type[SyncSender]] = {
    cls.__name__: cls
    for cls in (AsyncSender, SyncSender, Webhooks, Stubborn, Choosy, BadHooks, Production, ProductionSync)
}
