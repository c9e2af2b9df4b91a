"""Latency of one-time passwords, from `Producer.send` to the call of `send`, under various disturbances."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Final

import attrs

from benchmarks.bench import Bench
from benchmarks.cluster import Child, until
from benchmarks.load import HIGH, PARTITIONS, topology, user_of
from benchmarks.report import Row, percentiles
from benchmarks.sending import Work, drain_until_told, worker_for
from kafka_notify import Attempt, Consumer, Notification, Producer, Receipt

RATE: Final = 50
"""One-time passwords per second."""
SECONDS: Final = 12
"""Duration of each phase at full scale, in seconds."""


Seen = list[tuple[str, float]]
"""Ids, and seconds from `Producer.send` to `send`, including duplicates."""


@attrs.define(eq=False)
class Phase:
    """The measurements of one phase."""

    name: str
    turns: list[Seen] = attrs.field(factory=list)
    idle: list[float] = attrs.field(factory=list)
    """p99 of the idle phase right before each turn."""
    produced: int = 0
    low: list[float] = attrs.field(factory=list)
    """Marketing sends per second meanwhile."""
    waited: float = 0.0
    """Seconds for which threads of the producer and the workers were ready to run but had no core."""

    def row(self) -> Row:
        """Build a row: the p99 of each turn next to the idle p99 before it, and the facts of all turns together."""
        first = _first([one for turn in self.turns for one in turn])
        return Row(
            self.name, "ms p99", [_p99(turn) for turn in self.turns],
            "idle" if self.idle else "", self.idle,
            {
                **{f"{p} ms": seconds * 1000 for p, seconds in percentiles(list(first.values())).items()},
                "max ms": max(first.values()) * 1000,
                "samples": len(first),
                "missing": self.produced - len(first),
                "duplicates": sum(map(len, self.turns)) - len(first),
                **({"ms no core": self.waited / self.produced * 1000} if self.waited else {}),
                **({"marketing/s": statistics.median(self.low)} if self.low else {}),
            },
        )  # fmt: skip


def _first(seen: Seen) -> dict[str, float]:
    first: dict[str, float] = {}
    for id, seconds in seen:
        first[id] = min(seconds, first.get(id, seconds))
    return first


def _p99(seen: Seen) -> float:
    return percentiles(list(_first(seen).values()))["p99"] * 1000


class _Lane:
    """The high lane: a producer at a constant rate and two workers, each in its own process."""

    def __init__(self, bench: Bench, prefix: str, seconds: float) -> None:
        self.work = Work(bench.cluster.bootstrap, prefix, bench.cluster.consumer(prefix), 1)
        self.seconds = seconds
        self.producer = Child(_produce, self.work)
        self.workers = [Child(_receive, self.work) for _ in range(2)]
        _settled(self.workers)
        self.measure(Phase("connections open"))

    def measure(self, phase: Phase, meanwhile: Callable[[], Seen] = list) -> None:
        """Run one turn of a phase, while `meanwhile` disturbs the workers."""
        children = (self.producer, *self.workers)
        before = sum(child.waited() for child in children)
        self.producer.begin(self.seconds)
        seen = meanwhile()
        produced = self.producer.finish()
        if children == (self.producer, *self.workers):
            phase.waited += sum(child.waited() for child in children) - before
        deadline = time.monotonic() + 30
        while len(_first(seen)) < produced and time.monotonic() < deadline:
            for worker in self.workers:
                seen += worker.ask("seen")
            time.sleep(0.1)
        phase.turns.append(seen)
        phase.produced += produced

    def restart(self) -> Seen:
        """Restart the workers one after the other, and return what the stopped ones measured."""
        seen: Seen = []
        for i in range(len(self.workers)):
            time.sleep(self.seconds / 6)
            seen += self.workers[i].end()
            self.workers[i] = Child(_receive, self.work)
            _settled(self.workers)
        return seen

    def end(self) -> None:
        """Stop everything."""
        for child in (self.producer, *self.workers):
            child.end()


def otp(bench: Bench) -> Iterator[Row]:
    """Measure 50 one-time passwords a second, idle and under each of these loads:

    - marketing at full speed, with and without `nice`; with 1,000 × 100 ms in flight; with a provider that hangs;
    - a process that keeps a core busy, without Kafka;
    - a marketing worker that crashes, and one with 100,000 waiting retries;
    - a restart of the two high workers, one after the other.
    """
    backlog = bench.count(1_000_000, 200_000)
    prefix = bench.cluster.backlog(backlog)
    lane = _Lane(bench, prefix, max(SECONDS * bench.scale, 4))
    idle = Phase("otp-idle")

    def idle_before(phase: Phase) -> None:
        lane.measure(idle)
        phase.idle.append(_p99(idle.turns[-1]))

    def low(**how: Any) -> Child:
        consumer = bench.cluster.consumer(prefix)
        return Child(drain_until_told, attrs.evolve(lane.work, consumer=consumer, records=backlog, **how))

    def beside(phase: Phase, **how: Any) -> None:
        idle_before(phase)
        child = low(**how)
        until(lambda: bool(child.ask("in_flight") or child.ask("sent")), "marketing")
        begin = time.perf_counter()
        lane.measure(phase)
        ended = child.end()
        phase.low.append(sum(begin < at <= begin + lane.seconds for at in ended) / lane.seconds)

    def beside_work(phase: Phase) -> None:
        idle_before(phase)
        child = Child(_compute)
        lane.measure(phase)
        child.end()

    def crash(phase: Phase) -> None:
        idle_before(phase)
        child = low()
        until(lambda: bool(child.ask("sent")), "marketing")

        def kill() -> Seen:
            time.sleep(lane.seconds / 3)
            child.kill()
            return []

        lane.measure(phase, kill)

    drains: dict[Phase, dict[str, Any]] = {
        Phase("otp-drain"): {},
        Phase("otp-drain-nice"): {"nice": 19},
        Phase("otp-drain-100ms"): {"latency": 0.1},
        Phase("otp-hang"): {"latency": 3600.0},
    }
    busy = Phase("otp-busy-core")
    crashes, restart, retries = Phase("otp-low-crash"), Phase("otp-restart"), Phase("otp-low-retries")
    for _ in range(bench.repeat):
        for phase, how in drains.items():
            beside(phase, **how)
        beside_work(busy)
        crash(crashes)
        idle_before(restart)
        lane.measure(restart, lane.restart)
    waiting = low(failing=1.0, concurrency=2_000)
    until(lambda: bool(waiting.ask("waiting") >= min(100_000, backlog // 2)), "waiting retries", 300)
    for _ in range(bench.repeat):
        lane.measure(retries)
    waiting.end()
    for _ in range(bench.repeat):
        idle_before(retries)
    lane.end()
    for phase in (idle, *drains, busy, crashes, retries, restart):
        yield phase.row()


def _compute(connection: Connection) -> None:
    """Keep a core busy until asked to stop."""
    while not connection.poll():
        sum(range(10_000))
    connection.recv()
    connection.send(None)


def _settled(workers: list[Child]) -> None:
    share = [PARTITIONS // len(workers)] * len(workers)
    until(lambda: [len(worker.ask("partitions")) for worker in workers] == share, "an even assignment")


def _produce(connection: Connection, work: Work) -> None:
    """Send at a constant rate for the requested number of seconds, and answer with the number sent."""
    number = 0
    with Producer({"bootstrap.servers": work.bootstrap}, topology=topology(work.prefix)) as producer:
        producer.warm_up([HIGH])
        while (seconds := connection.recv()) != "stop":
            begin, count = time.perf_counter(), int(seconds * RATE)
            for i in range(count):
                time.sleep(max(0.0, begin + i / RATE - time.perf_counter()))
                producer.send(_otp(number := number + 1))
            producer.flush()
            connection.send(count)
        connection.send(None)


def _otp(number: int) -> Notification[Any]:
    return Notification(
        user_id=f"user-{user_of(number):06d}",
        category="otp",
        channel="sms",
        recipient="someone",
        data={"sent_at": time.perf_counter()},
    )


class _Receiver(Consumer):
    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[tuple[str, float]] = []

    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        self.seen.append((notification.id, time.perf_counter() - notification.data["sent_at"]))
        return Receipt("simulated")


def _receive(connection: Connection, work: Work) -> None:
    consumer = _Receiver(work.consumer)
    worker = worker_for(consumer, work, HIGH)
    while (question := connection.recv()) != "stop":
        if question == "seen":
            seen, consumer.seen = consumer.seen, []
            connection.send(seen)
        else:
            connection.send(getattr(worker.stats(), question))
    worker.stop()
    connection.send(consumer.seen)
