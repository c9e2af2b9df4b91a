"""The demo's notifications, and the worker processes that send them through a provider that sometimes fails."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import threading
import time
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Final, TextIO

from kafka_notify._kafka.config import Config
from kafka_notify.classify import classify_http
from kafka_notify.consumer import Consumer
from kafka_notify.events import DeadLettered, Event
from kafka_notify.notification import Attempt, Notification, Receipt
from kafka_notify.policy import RetryPolicy
from kafka_notify.topology import Lane, Topology
from kafka_notify.worker import Worker

USERS: Final = 300
HIGH: Final = "high_priority"
LOW: Final = "low_priority"
MOCK_PARTITIONS: Final = 4
"""Partitions of every topic of the mock, whatever number was requested."""


def topology(prefix: str, partitions: int | None) -> Topology:
    """The default lanes and categories, below `prefix`; with `partitions` in each topic when given."""
    default = Topology.default()
    lanes = [
        Lane(lane.name, partitions=partitions or lane.partitions, profile=lane.profile)
        for lane in default.lanes.values()
    ]
    return Topology(
        lanes=lanes, categories=default.categories.values(), channels=default.channels, prefix=prefix
    )


def marketing(number: int) -> Notification[Any]:
    """The `number`th mail of a campaign that goes round all users."""
    user = f"user-{number % USERS}"
    return Notification(
        user_id=user,
        category=Topology.default().categories["marketing"],
        channel="email",
        recipient=f"{user}@example.com",
        id=f"mail-{number}",
        data={"offer": number, "answers": _answers(number)},
    )


def otp(number: int) -> Notification[Any]:
    """The `number`th one-time password."""
    user = number % USERS
    return Notification(
        user_id=f"user-{user}",
        category=Topology.default().categories["otp"],
        channel="sms",
        recipient=f"+1555{user:07}",
        id=f"otp-{number}",
        data={"code": f"{random.randrange(10**6):06}", "answers": _answers(number)},
    )


def _answers(number: int) -> list[int]:
    """The provider's answers, attempt by attempt; the last answer is repeated for all further attempts."""
    if number % 89 == 7:
        return [404]  # no such recipient
    if number % 199 == 11:
        return [504]  # times out at every attempt
    if number % 11 == 3:
        return [504, 200]
    if number % 41 == 5:
        return [504, 503, 200]
    return [200]


class Delivery(Consumer):
    """Sends through a provider that answers within 20 to 180 ms, and logs each attempt."""

    concurrency = 40
    retry = RetryPolicy(4, initial_delay=0.4, multiplier=2)

    def __init__(self, log: AttemptLog) -> None:
        self.log = log

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        """One call of the provider."""
        started = time.time()
        await asyncio.sleep(random.uniform(0.02, 0.18))  # the provider at work
        answers = notification.data["answers"]
        status = answers[min(attempt.number, len(answers)) - 1]
        self.log.attempt(notification.id, attempt.number, started, status)
        if error := classify_http(status, provider="simulated"):
            raise error
        return Receipt("simulated", f"accepted-{notification.id}")

    def teardown(self) -> None:
        """Close the log."""
        self.log.close()


class AttemptLog:
    """A file to which one process appends what it did, a JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1, encoding="utf-8")

    def attempt(self, id: str, number: int, started: float, status: int) -> None:
        """Log one call of the provider, which has ended; `started` is in epoch seconds."""
        self._write(id=id, number=number, started=started, ended=time.time(), status=status)

    def event(self, event: Event) -> None:
        """Log dead letters, as the `on_event` callback, for the display during the demo."""
        if isinstance(event, DeadLettered):
            self._write(id=event.id, dead=event.reason)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, **entry: object) -> None:
        self._file.write(json.dumps(entry) + "\n")


def work(
    lane: str, config: Config, topology: Topology, directory: Path, metrics_port: int | None = None
) -> None:
    """Run the worker process of one lane until it is told to stop, with its metrics on a port of this machine."""
    logging.basicConfig(
        filename=directory / "workers.log",
        level=logging.WARNING,
        format=f"%(asctime)s {lane} %(name)s: %(message)s",
    )
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = AttemptLog(directory / f"{lane}.attempts")
    worker = Worker(
        Delivery(log),
        config,
        lane=lane,
        topology=topology,
        on_event=log.event,
    )
    if metrics_port is not None:
        from kafka_notify.prometheus import Metrics  # an extra that the demo itself does not need

        metrics = Metrics()
        metrics.watch(worker)
        metrics.serve(metrics_port)
    worker.run()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
