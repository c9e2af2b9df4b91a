"""Whole workers on simulated brokers, in virtual time: how they are started, stopped, frozen and killed."""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import attrs

from kafka_notify import (
    Attempt,
    Category,
    Consumer,
    DeliveryError,
    Lane,
    Notification,
    Receipt,
    RetryPolicy,
    Topology,
    TransientError,
    Worker,
)
from kafka_notify._admin.wanted import wanted_topics
from kafka_notify._worker.life import Life
from kafka_notify._worker.running import WorkerPlan
from tests.simulation.kafka import Cluster, SimulatedProducer, VirtualLoop, VirtualTime
from tests.simulation.kafka.clients import SERVERS, clients_of

LANE: Final = "lane"
TOPOLOGY: Final = Topology(
    lanes=[Lane(LANE, partitions=2, profile="latency")],
    categories=[Category("news", LANE, ttl=1_000_000)],
    channels=["sms"],
)


@attrs.frozen
class Call:
    """A call of `send`."""

    at: float
    """Virtual seconds; of the end likewise."""
    worker: str
    user: str
    id: str
    attempt: int


class Provider:
    """What all workers send to. It accepts at once, unless the test says otherwise."""

    def __init__(self, time: VirtualTime) -> None:
        self.calls: list[Call] = []
        self.accepted: list[Call] = []
        self.fails: Callable[[Call], DeliveryError | None] = lambda call: None
        self.hanging: set[str] = set()
        """Ids whose sends do not end, until they are taken out."""
        self.overlaps: list[Call] = []
        self._running: dict[str, int] = defaultdict(int)
        self._by: dict[str, str] = {}
        self._dead: set[str] = set()
        self._time = time

    def died(self, worker: str) -> None:
        """What a killed worker had under way is over."""
        for user, host in tuple(self._by.items()):
            if host == worker:
                self._running[user] -= 1
                del self._by[user]
        self._dead.add(worker)

    async def send(self, worker: str, n: Notification[Any], attempt: Attempt) -> None:
        """Take a call."""
        call = Call(self._time.now, worker, n.user_id, n.id, attempt.number)
        self.calls.append(call)
        self._running[n.user_id] += 1
        self._by[n.user_id] = worker
        if self._running[n.user_id] > 1:
            self.overlaps.append(call)
        try:
            while n.id in self.hanging:  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0.01)
            error = self.fails(call)
            if error is not None:
                raise error
            self.accepted.append(call)
        finally:
            if worker not in self._dead:
                self._running[n.user_id] -= 1
                del self._by[n.user_id]


class Member(Consumer):
    """The team's consumer, of one worker."""

    name = "team"
    concurrency = 10
    breaker = None
    retry = RetryPolicy(max_attempts=3, initial_delay=10.0, multiplier=2.0, max_delay=60.0, jitter=0.0)

    def __init__(self, host: str, provider: Provider) -> None:
        self._host = host
        self._provider = provider

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        await self._provider.send(self._host, notification, attempt)
        return Receipt("simulated")


class SimulatedWorker(Worker):
    """A worker whose clients, clock and event loop are simulated: the plan of the real one, with other factories."""

    def __init__(self, cluster: Cluster, host: str, provider: Provider, **config: Any) -> None:
        self._cluster = cluster
        self.host = host
        super().__init__(
            Member(host, provider),
            SERVERS | config,
            lane=LANE,
            topology=TOPOLOGY,
            drain_timeout=2.0,
            loop_factory=lambda: VirtualLoop(cluster.time, host),
        )
        self._life = Life(cluster.time.runtime(host))

    def _plan(self, consumer: Consumer) -> WorkerPlan:
        return attrs.evolve(super()._plan(consumer), clients=clients_of(self._cluster, self.host))


class Fleet:
    """Workers, their cluster, and a producer.

    Args:
        seed: Of the order in which threads run.
        config: Of the workers' clients.
    """

    def __init__(self, seed: int = 0, **config: Any) -> None:
        self.time = VirtualTime(seed)
        self.cluster = Cluster(self.time)
        for name, partitions in _topics():
            self.cluster.create(name, partitions)
        self.provider = Provider(self.time)
        self.workers: dict[str, SimulatedWorker] = {}
        self.sent: dict[str, list[str]] = defaultdict(list)
        """Ids by user, in the order in which they were produced."""
        self._config = config
        self._producer = SimulatedProducer(self.cluster, {}, "producer")

    def start(self, host: str) -> SimulatedWorker:
        """Start a worker."""
        worker = self.workers[host] = SimulatedWorker(self.cluster, host, self.provider, **self._config)
        self.time.call(worker.start, host=host)
        return worker

    def stop(self, host: str) -> None:
        """Stop a worker."""
        self.time.call(self.workers.pop(host).stop)

    def freeze(self, host: str) -> None:
        """Stop its process, as SIGSTOP does."""
        self.time.frozen.add(host)

    def thaw(self, host: str) -> None:
        """Let it go on."""
        self.time.frozen.discard(host)

    def kill(self, host: str) -> None:
        """End its process, as SIGKILL does: nothing of it reaches brokers or provider any more."""
        self.freeze(host)
        self.cluster.cut.add(host)
        self.cluster.expel(host)

    def produce(self, user: str, count: int = 1) -> list[str]:
        """Notifications of a user; their ids."""
        made = []
        for _ in range(count):
            id = f"{user}-{len(self.sent[user])}"
            self.sent[user].append(id)
            headers = [("notif-schema", b"1"), ("notif-id", id.encode()), ("notif-category", b"news")]
            headers.append(("notif-channel", b"sms"))
            self._producer.produce(
                TOPOLOGY.source_topic(LANE), b"{}", user.encode(), headers=headers,
                timestamp=int(self.time.wall() * 1000),
            )  # fmt: skip
            made.append(id)
        self._producer.flush(1)
        return made

    def accepted(self) -> dict[str, list[str]]:
        """Ids by user, in the order in which they were first accepted."""
        found: dict[str, list[str]] = defaultdict(list)
        for call in self.provider.accepted:
            if call.id not in found[call.user]:
                found[call.user].append(call.id)
        return found

    def dead(self) -> set[str]:
        """Ids of dead letters."""
        return {
            (dict(record.headers)["notif-id"] or b"").decode()
            for record in self.cluster.records(TOPOLOGY.dlq_topic(LANE))
        }

    def settled(self) -> bool:
        """Whether everything was accepted or dead-lettered."""
        done = self.dead() | {call.id for call in self.provider.accepted}
        return all(id in done for ids in self.sent.values() for id in ids)

    def check(self) -> None:
        """Nothing is lost, each user's order is kept, and no two sends of a user ran at once."""
        accepted, dead = self.accepted(), self.dead()
        for user, ids in self.sent.items():
            assert [id for id in ids if id not in dead] == accepted[user]
        assert self.provider.overlaps == []

    def end(self) -> None:
        """Free what is left: also what was killed, whose clients stay cut off."""
        self.cluster.gone |= self.cluster.cut
        self.time.frozen.clear()
        for worker in self.workers.values():
            self.time.call(functools.partial(worker.stop, 0))


def _topics() -> list[tuple[str, int]]:
    return [(name, wanted.partitions) for name, wanted in wanted_topics(TOPOLOGY, [Member.name]).items()]


def transient(*ids: str, times: int = 1) -> Callable[[Call], DeliveryError | None]:
    """A provider's failures: the first `times` attempts of these."""
    return lambda call: TransientError("busy") if call.id in ids and call.attempt <= times else None
