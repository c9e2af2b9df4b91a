"""One-time passwords: from `Producer.send` to the call of `send`, while other things happen to the cluster."""

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
"""Of each phase, at full scale."""


@attrs.define
class Phase:
    """What was seen in one kind of time, over all turns."""

    seen: list[tuple[str, float]] = attrs.field(factory=list)
    """Id and seconds from `Producer.send` to `send`, duplicates included."""
    produced: int = 0
    low: list[float] = attrs.field(factory=list)
    """Marketing sends per second meanwhile."""

    def row(self, name: str, idle: Phase | None) -> Row:
        """p99 as the value, the rest as facts."""
        first: dict[str, float] = {}
        for id, seconds in self.seen:
            first[id] = min(seconds, first.get(id, seconds))
        found = {f"{p} ms": seconds * 1000 for p, seconds in percentiles(list(first.values())).items()}
        return Row(
            name, "ms p99", [found["p99 ms"]],
            "idle" if idle else "", [idle.row("", None).values[0]] if idle else [],
            {
                **found,
                "max ms": max(first.values()) * 1000,
                "samples": len(first),
                "missing": self.produced - len(first),
                "duplicates": len(self.seen) - len(first),
                **({"marketing/s": statistics.median(self.low)} if self.low else {}),
            },
        )  # fmt: skip


def otp(bench: Bench) -> Iterator[Row]:
    """50 one-time passwords a second to a worker of their own: idle; beside marketing that is drained flat out, or
    1,000 × 100 ms at a time, or hangs; and while their own two workers are restarted one after the other."""
    seconds = max(SECONDS * bench.scale, 4)
    backlog = bench.count(1_000_000, 100_000)
    prefix = bench.cluster.backlog(backlog)
    name = bench.cluster.consumer(prefix)
    high = Work(bench.cluster.bootstrap, prefix, name, 1)
    producer = Child(_produce, high)
    workers = [Child(_receive, high) for _ in range(2)]
    _settled(workers)
    phases = {
        name: Phase() for name in ("otp-idle", "otp-drain", "otp-drain-100ms", "otp-hang", "otp-restart")
    }

    def measure(phase: Phase, meanwhile: Callable[[], None] = lambda: None) -> None:
        producer.begin(seconds)
        meanwhile()
        phase.produced += producer.finish()
        deadline = time.monotonic() + 30
        while len({id for id, _ in phase.seen}) < phase.produced and time.monotonic() < deadline:
            for worker in workers:
                phase.seen += worker.ask("seen")
            time.sleep(0.1)

    def beside(phase: Phase, **how: Any) -> None:
        work = attrs.evolve(high, consumer=bench.cluster.consumer(prefix), records=backlog, **how)
        low = Child(drain_until_told, work)
        until(lambda: bool(low.ask("in_flight") or low.ask("sent")), "marketing")
        begin = time.perf_counter()
        measure(phase)
        ended = low.end()
        phase.low.append(sum(begin < at <= begin + seconds for at in ended) / seconds)

    def restart() -> None:
        for i in range(len(workers)):
            time.sleep(seconds / 6)
            phases["otp-restart"].seen += workers[i].end()
            workers[i] = Child(_receive, high)
            _settled(workers)

    producer.ask(1.0)
    for worker in workers:
        worker.ask("seen")  # the first ones open connections
    for _ in range(bench.repeat):
        measure(phases["otp-idle"])
        beside(phases["otp-drain"])
        measure(phases["otp-idle"])
        beside(phases["otp-drain-100ms"], latency=0.1)
        measure(phases["otp-idle"])
        beside(phases["otp-hang"], latency=3600.0)
    for _ in range(bench.repeat):
        measure(phases["otp-restart"], restart)
    for child in (producer, *workers):
        child.end()
    for name, phase in phases.items():
        yield phase.row(name, None if name == "otp-idle" else phases["otp-idle"])


def _settled(workers: list[Child]) -> None:
    share = [PARTITIONS // len(workers)] * len(workers)
    until(lambda: [len(worker.ask("partitions")) for worker in workers] == share, "an even assignment")


def _produce(connection: Connection, work: Work) -> None:
    """Send at an even pace for as many seconds as asked; answers with how many."""
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
