"""A row about one user's backlog in the retry topic whose payloads had no room in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.cluster import Child, until
from benchmarks.report import Row
from kafka_notify import (
    Attempt,
    Category,
    Consumer,
    Lane,
    Notification,
    Producer,
    Receipt,
    RetryPolicy,
    Topology,
    TransientError,
    Worker,
)
from kafka_notify._worker import engine
from kafka_notify.admin import create_topics

BACKLOG: Final = 3_000
DELAY: Final = 20.0
"""Seconds until the retry of the first one is due: by then, the others wait behind it in the retry topic."""
LITTLE: Final = 2_000
"""Bytes of payloads that may stay in memory: enough for a few records."""


def reloads(bench: Bench) -> Iterator[Row]:
    """Measure how fast one user's waiting notifications are sent, one after the other, once the first retry is due.

    Nearly all of them wait in the retry topic without their payload in memory.
    """
    for _ in range(bench.repeat):
        yield run(bench.cluster.bootstrap, max(100, round(BACKLOG * bench.scale)))


def run(bootstrap: str, count: int) -> Row:
    """Run once with `count` notifications."""
    topology = _topology(f"reloads-{time.monotonic_ns()}")
    create_topics(topology, {"bootstrap.servers": bootstrap})
    with Producer({"bootstrap.servers": bootstrap}, topology=topology, max_block=60) as producer:
        for number in range(count):
            producer.send(
                Notification(
                    user_id="busy", category="news", channel="email", recipient="someone@example.com", id=f"{number}",
                    data={"template": "basket"},
                )
            )  # fmt: skip
        producer.flush(60)
    child = Child(_work, bootstrap, topology.prefix)
    until(lambda: child.ask("sent") == count, "the last send", 600)
    seconds, overtaken = child.ask("seconds"), child.ask("overtaken")
    child.kill()
    return Row("reloads", "/s", [count / seconds], facts={"backlog": count, "out of order": overtaken})


def _topology(prefix: str) -> Topology:
    return Topology(
        lanes=[Lane("bulk", partitions=2, profile="latency")],
        categories=[Category("news", "bulk")],
        channels=["email"],
        prefix=prefix,
    )


class _Timed(Consumer):
    """Fails the first notification once, and records when the others are sent."""

    retry = RetryPolicy(3, initial_delay=DELAY, max_delay=DELAY, jitter=0)
    breaker = None

    def __init__(self) -> None:
        self.sent = self.overtaken = 0
        self._began = self._ended = 0.0

    @property
    def seconds(self) -> float:
        return self._ended - self._began

    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        if attempt.number == 1 and notification.id == "0":
            raise TransientError("simulated")
        self._began = self._began or time.monotonic()
        self.overtaken += notification.id != str(self.sent)
        self.sent += 1
        self._ended = time.monotonic()
        return Receipt("")


def _work(connection: Connection, bootstrap: str, prefix: str) -> None:
    engine.PAYLOAD_BUDGET = LITTLE  # type: ignore[misc]
    consumer = _Timed()
    worker = Worker(consumer, {"bootstrap.servers": bootstrap}, lane="bulk", topology=_topology(prefix))
    worker.start()
    while True:
        connection.send(getattr(consumer, connection.recv()))
