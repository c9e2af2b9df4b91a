"""What one user has waiting delays nobody else, in other partitions and in the user's own. No time is asserted: others
are served while the busy user's first notification is still being sent, or before their own backlog has ended."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka import murmur2

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
from kafka_notify._partition.source_offsets import READ_WINDOW
from kafka_notify.admin import create_topics
from kafka_notify.testing import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

OTHERS = 60


class Sender(Consumer):
    """Sends of busy users wait for `go`; what was accepted, in its order."""

    concurrency = 100
    retry = RetryPolicy(5, initial_delay=0.5, multiplier=1)

    def __init__(self, accepted: list[str], go: threading.Event, *, fails: bool = False) -> None:
        self.accepted = accepted
        self.go = go
        self.fails = fails
        self.new = threading.Condition()

    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        if notification.user_id.startswith("busy"):
            if self.fails and notification.id == "busy-0-0" and attempt.number == 1:
                raise TransientError("first")
            while not self.go.is_set():  # noqa: ASYNC110 - the test's thread sets it
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.005)
        with self.new:
            self.accepted.append(notification.id)
            self.new.notify_all()
        return Receipt("")


class Site:
    """A lane, what is produced into it, and workers."""

    def __init__(self, kafka: LocalKafka, partitions: int) -> None:
        self.partitions = partitions
        self.config = {"bootstrap.servers": kafka.bootstrap_servers}
        self.topology = Topology(
            lanes=[Lane("l", partitions=partitions, profile="latency")],
            categories=[Category("news", "l")],
            channels=["sms"],
            prefix=f"t{uuid.uuid4().hex[:12]}",
        )
        create_topics(self.topology, self.config)
        self.accepted: list[str] = []
        self.go = threading.Event()

    def users(self, count: int, name: str, where: Callable[[int], bool]) -> list[str]:
        names = (f"{name}-{n}" for n in range(1_000_000))
        return [user for user, _ in zip(
            (user for user in names if where(murmur2(user.encode(), self.partitions))), range(count), strict=False
        )]  # fmt: skip

    def produce(self, users: Sequence[str], each: int = 1) -> list[str]:
        ids: list[str] = []
        with Producer(self.config, topology=self.topology, max_block=60) as producer:
            for n in range(each):
                for user in users:
                    ids.append(f"{user}-{n}")
                    producer.send(
                        Notification(user_id=user, category="news", channel="sms", data={}, id=ids[-1])
                    )
            producer.flush(60)
        return ids

    def worker(self, sender: Sender | None = None, **consumer_config: Any) -> Worker:
        return Worker(
            sender or Sender(self.accepted, self.go), self.config, lane="l", topology=self.topology,
            consumer_config=consumer_config, drain_timeout=1,
        )  # fmt: skip

    def until(self, sender: Sender, done: Callable[[], bool], what: str) -> None:
        with sender.new:
            assert sender.new.wait_for(done, 60), f"{what}: {len(self.accepted)} accepted"


@pytest.fixture
def site(local_kafka: LocalKafka) -> Iterator[Callable[[int], Site]]:
    """Makes a site; busy users' sends end with the test."""
    made: list[Site] = []

    def make(partitions: int) -> Site:
        made.append(Site(local_kafka, partitions))
        return made[-1]

    yield make
    for one in made:
        one.go.set()


def polled(condition: Callable[[], bool], what: str) -> None:
    """Wait for what no callback tells."""
    waited = threading.Event()
    for _ in range(3_000):
        if condition():
            return
        waited.wait(0.02)
    pytest.fail(what)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_others_in_other_partitions(site: Callable[[int], Site], protocol: str) -> None:
    """While one user fills the memory of a partition until it is paused, users of 29 others, idle before, are all
    served, and the first of the busy user is still being sent."""
    s = site(30)
    hot = s.users(1, "busy", lambda n: n == 0)
    s.produce(hot, 20_000)
    sender = Sender(s.accepted, s.go)
    how = {"session.timeout.ms": 6_000} if protocol == "classic" else {}
    with s.worker(sender, **{"group.protocol": protocol, **how}) as worker:
        fetch: Any = worker._running.fetch  # type: ignore[union-attr]
        polled(
            lambda: bool(fetch._member.paused & {0}) and worker.stats().in_flight == 1,
            "the busy partition is paused",
        )
        ids = s.produce(s.users(OTHERS, "other", lambda n: n != 0))
        s.until(sender, lambda: len(s.accepted) >= OTHERS, "all others served")
        assert sorted(s.accepted) == sorted(ids)


def test_others_behind_a_busy_user_in_the_same_partition(site: Callable[[int], Site]) -> None:
    """Who is behind a busy user in the log is read past them, while the busy user's first is still being sent."""
    s = site(1)
    s.produce(["busy-0"], READ_WINDOW - 3_000)
    ids = s.produce(s.users(OTHERS, "other", lambda n: True))
    sender = Sender(s.accepted, s.go)
    with s.worker(sender) as worker:
        s.until(sender, lambda: len(s.accepted) >= OTHERS, "all others served")
        assert sorted(s.accepted) == sorted(ids)
        assert worker.stats().parked == 0


@pytest.mark.parametrize("fails", [False, True])
def test_others_behind_more_than_the_window(site: Callable[[int], Site], fails: bool) -> None:
    """With more of one user than a commit can describe, as many are parked as it takes: others behind them are served
    long before the busy user's end, whose order holds. It is no different when their first one fails."""
    s = site(1)
    count = READ_WINDOW + 6_000
    s.produce(["busy-0"], count)
    ids = s.produce(s.users(OTHERS, "other", lambda n: True))
    s.go.set()
    sender = Sender(s.accepted, s.go, fails=fails)
    with s.worker(sender) as worker:
        s.until(
            sender, lambda: len([i for i in s.accepted if i.startswith("other")]) >= OTHERS, "others served"
        )
        busy = [id for id in s.accepted if id.startswith("busy")]
        assert sorted(set(s.accepted) - set(busy)) == sorted(ids)
        assert len(busy) < count // 2
        assert busy == [f"busy-0-{n}" for n in range(len(busy))]
        assert worker.stats().parked > 0


def test_rebalance_while_partitions_are_paused(site: Callable[[int], Site]) -> None:
    """Partitions that are paused, because much of them waits in memory, change hands: everything is sent once, in
    order, and nothing waits for good."""
    s = site(4)
    hot = [s.users(1, "busy", lambda n, p=p: n == p)[0] for p in range(4)]  # type: ignore[misc]
    s.produce(hot, 12_000)
    first = Sender(s.accepted, s.go)
    with s.worker(first, **{"session.timeout.ms": 6_000}) as worker:
        fetch: Any = worker._running.fetch  # type: ignore[union-attr]
        polled(lambda: len(fetch._member.paused) == 4, "all partitions are paused")
        second = Sender(s.accepted, s.go)
        second.new = first.new
        with s.worker(second, **{"session.timeout.ms": 6_000}) as other:
            polled(
                lambda: len(other.stats().partitions) == 2 and len(worker.stats().partitions) == 2,
                "half each",
            )
            ids = s.produce(s.users(OTHERS, "other", lambda n: True))
            s.until(first, lambda: len(s.accepted) >= OTHERS, "all others served")
            assert sorted(s.accepted) == sorted(ids)
            s.go.set()
            s.until(first, lambda: len(s.accepted) >= OTHERS + 400, "the busy users go on")
    for user in hot:
        mine = [id for id in s.accepted if id.rsplit("-", 1)[0] == user]
        assert mine == [f"{user}-{n}" for n in range(len(mine))]
