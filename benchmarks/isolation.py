"""Rows about other users next to one user's or one partition's backlog: how many are served, and how late."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Final

import attrs

from benchmarks.bench import Bench
from benchmarks.cluster import Child, apart, until
from benchmarks.load import LoopWatch, users_in
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
from kafka_notify.admin import create_topics
from kafka_notify.worker import GC_THRESHOLD

OTHERS: Final = 60
EVERY: Final = 0.25
"""Seconds between two notifications of other users."""


@attrs.frozen
class Scene:
    """A backlog in partition 0, and notifications of others that arrive while it is processed."""

    name: str
    partitions: int
    backlog: int
    users: int = 1
    """Number of notifications in the backlog."""
    latency: float = 0.05
    """Duration of a send, in seconds."""
    concurrency: int = 100
    same: bool = False
    """The others' notifications are in the backlog's partition, behind it."""
    fails: bool = False
    """The first notification of the backlog fails once."""
    keys: bool = False
    """Each notification of the backlog has its own collapse key."""
    protocol: str = "classic"


SCENES: Final = (
    Scene("isolation-hot-user", 30, 40_000),
    Scene("isolation-hot-user-200", 200, 40_000),
    Scene("isolation-same-partition", 1, 40_000, same=True),
    Scene("isolation-hot-partition", 2, 20_000, users=20_000, latency=0.5, concurrency=50),
    Scene("isolation-first-fails", 30, 60_000, fails=True),
    Scene("isolation-first-fails-same", 1, 40_000, same=True, fails=True),
    Scene("isolation-collapse-keys", 2, 4_000, fails=True, keys=True),
)


def isolation(bench: Bench) -> Iterator[Row]:
    """Measure other users next to a backlog of one user, or of many users in one partition.

    60 notifications of others are sent. A row shows the seconds from `Producer.send` to the `send` of the last one
    served. Those not served count as a minute.
    """
    for scene in SCENES:
        for _ in range(bench.repeat):
            yield run(bench.cluster.bootstrap, scene)


def run(bootstrap: str, scene: Scene) -> Row:
    """One run of one scene."""
    topology = _topology(scene, f"isolation-{time.monotonic_ns()}")
    create_topics(topology, {"bootstrap.servers": bootstrap})
    apart(_fill, bootstrap, topology.prefix, scene)
    child = Child(_work, bootstrap, topology.prefix, scene)
    until(lambda: bool(child.ask("sent")), "a send")
    with Producer({"bootstrap.servers": bootstrap}, topology=topology) as producer:
        for user in _others(scene):
            producer.send(_note(user, user))
            time.sleep(EVERY)
        producer.flush(10)
    deadline = time.monotonic() + 15
    while len(child.ask("late")) < OTHERS and time.monotonic() < deadline:
        time.sleep(0.2)
    late, silent, parked, lease = (
        child.ask("late"),
        child.ask("silent"),
        child.ask("parked"),
        child.ask("lease"),
    )
    child.kill()
    waits = sorted([*late.values(), *[60.0] * (OTHERS - len(late))])
    return Row(
        scene.name, "s max", [waits[-1]],
        facts={
            "served": len(late), "of": OTHERS, "s p50": statistics.median(waits), "s loop silent": silent,
            "parked": parked, "lease lost": lease,
        },
    )  # fmt: skip


def _topology(scene: Scene, prefix: str) -> Topology:
    return Topology(
        lanes=[Lane("bulk", partitions=scene.partitions, profile="latency")],
        categories=[Category("news", "bulk")],
        channels=["email"],
        prefix=prefix,
    )


def _note(user: str, id: str, key: str | None = None) -> Notification[Any]:
    return Notification(
        user_id=user, category="news", channel="email", recipient="someone@example.com", id=id,
        data={"template": "basket"}, collapse_key=key,
    )  # fmt: skip


def _busy(scene: Scene) -> list[str]:
    return users_in(lambda n: n == 0, scene.users, "busy", scene.partitions)


def _others(scene: Scene) -> list[str]:
    return users_in(lambda n: (n == 0) is scene.same, OTHERS, "other", scene.partitions)


def _fill(bootstrap: str, prefix: str, scene: Scene) -> None:
    users = _busy(scene)
    topology = _topology(scene, prefix)
    with Producer({"bootstrap.servers": bootstrap}, topology=topology, max_block=60) as producer:
        for number in range(scene.backlog):
            key = f"key-{number}" if scene.keys else None
            producer.send(_note(users[number % scene.users], f"backlog-{number}", key))
        producer.flush(120)


class _Watching(Consumer):
    """Records how late others are, and how long the event loop was blocked."""

    retry = RetryPolicy(12, initial_delay=1, multiplier=1, max_delay=1)

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.concurrency = scene.concurrency
        self.late: dict[str, float] = {}
        self._watch = LoopWatch()
        self.sent = 0

    async def setup(self) -> None:
        self._watch.start()

    @property
    def silent(self) -> float:
        return self._watch.silent

    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        id = notification.id
        self.sent += 1
        if id.startswith("other"):
            created = notification.created_at.timestamp()
            self.late.setdefault(id, time.time() - created)
        await asyncio.sleep(self.scene.latency)
        if self.scene.fails and id == "backlog-0" and attempt.number == 1:
            raise TransientError("simulated")
        return Receipt("")


def _work(connection: Connection, bootstrap: str, prefix: str, scene: Scene) -> None:
    consumer = _Watching(scene)
    lost: list[object] = []

    def on_event(event: object) -> None:
        if type(event).__name__ == "LeaseExpired":
            lost.append(event)

    worker = Worker(
        consumer, {"bootstrap.servers": bootstrap}, lane="bulk", topology=_topology(scene, prefix),
        consumer_config={"group.protocol": scene.protocol}, on_event=on_event,
    )  # fmt: skip
    gc.set_threshold(*GC_THRESHOLD)
    worker.start()
    while True:
        question = connection.recv()
        if question == "parked":
            connection.send(worker.stats().parked)
        elif question == "lease":
            connection.send(len(lost))
        else:
            connection.send(getattr(consumer, question))
