"""Production mixes: how long untroubled users wait while others fail."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

import attrs
from confluent_kafka import Consumer as RawConsumer
from confluent_kafka import KafkaException, TopicPartition

from benchmarks.bench import Bench
from benchmarks.cluster import Child, until
from benchmarks.load import LOW, PARTITIONS, LoopWatch, topology, users_in
from benchmarks.report import Row, percentiles
from kafka_notify import (
    Attempt,
    Consumer,
    Defer,
    Notification,
    Producer,
    Receipt,
    RetryPolicy,
    Send,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
    Verdict,
    Worker,
)
from kafka_notify.errors import ProviderUnavailableError

GOOD: Final = "good"
CROWD: Final = "crowd"
BUSY: Final = 0
"""The partition that is troubled, if only one is."""


@attrs.frozen
class One:
    """A notification to be sent."""

    user: str
    kind: str
    """How the provider answers: see `_Mixed.send`."""
    id: str | None = None


@attrs.frozen
class Setting:
    """Settings of the worker's process."""

    defers: bool = False
    concurrency: int = 100
    latency: float = 0.1
    """Duration of one send, in seconds."""
    retry: RetryPolicy | None = None


@attrs.frozen
class Mix:
    """A troubled backlog, and the traffic next to it."""

    name: str
    rate: float
    """Notifications per second of traffic."""
    seconds: float
    traffic: Callable[[int], One]
    """Creates notification `n` of the traffic."""
    backlog: Callable[[], Iterator[One]] = lambda: iter(())
    """Notifications written before the traffic starts."""
    worker: Setting = Setting()
    settle: float = 2.0
    """Seconds between backlog and traffic."""


@attrs.frozen
class Worked:
    """Measurements of the notifications of kind `good`."""

    waits: Sequence[tuple[str, float]]
    """Id, and seconds from `Producer.send` to the accepted send, without its latency."""
    silent: float
    """The longest block of the event loop, in seconds."""
    rss: int
    dead: int


class _Mixed(Consumer):
    def __init__(self, setting: Setting, name: str) -> None:
        self.name, self.concurrency, self.latency = name, setting.concurrency, setting.latency
        self.retry = setting.retry
        self.waits: list[tuple[str, float]] = []
        self.loop = LoopWatch()

    async def setup(self) -> None:
        self.loop.start()

    async def teardown(self) -> None:
        self.loop.stop()

    def destination(self, notification: Notification[Any], /) -> str | None:
        """Return the endpoint, if there are several."""
        endpoint = notification.data.get("endpoint")
        return None if endpoint is None else str(endpoint)

    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        kind = notification.data["kind"]
        started = time.perf_counter()
        await asyncio.sleep(self.latency)
        if kind == "bad":
            raise UnknownOutcomeError("http.500")
        if kind == "twice" and attempt.number <= 2:
            raise UnknownOutcomeError("http.503")
        if kind == "once" and attempt.number == 1:
            raise TransientError("http.503")
        if kind == "forbidden":
            raise ProviderUnavailableError("http.403")
        if kind == "throttled":
            raise ThrottledError("http.429", retry_after=900)
        if kind != CROWD:
            asked = notification.data["sent_at"]
            if kind == "once":  # the second attempt counts, from when it was due
                asked += self.latency + self.retry.delay(1) if self.retry else 0.0
            self.waits.append((notification.id, started - asked))
        return Receipt("simulated")


class _Deferring(_Mixed):
    breaker = None  # the only first sends that are not deferred fail, which would hold the lane

    async def should_send(self, notification: Notification[Any], /) -> Verdict:
        if notification.data["kind"] == "night":
            return Defer(dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=8), "quiet_hours")
        return Send()


def _work(connection: Connection, bootstrap: str, prefix: str, setting: Setting, name: str) -> None:
    import psutil

    consumer = (_Deferring if setting.defers else _Mixed)(setting, name)
    worker = Worker(
        consumer, {"bootstrap.servers": bootstrap}, lane=LOW, topology=topology(prefix), drain_timeout=0
    )
    worker.start()
    while (question := connection.recv()) != "stop":
        if question == "silent":
            consumer.loop.silent = 0.0
        connection.send(len(consumer.waits) if question == "waits" else getattr(worker.stats(), question, 0))
    words = Worked(
        consumer.waits, consumer.loop.silent, psutil.Process().memory_info().rss, worker.stats().dead
    )
    worker.stop(0)
    connection.send(words)


def _record(one: One, number: int) -> Notification[Any]:
    data: dict[str, Any] = {"kind": one.kind, "sent_at": time.perf_counter()}
    if one.user.startswith("endpoint"):
        data["endpoint"] = one.user.partition(".")[0]
    return Notification(
        user_id=one.user, category="marketing", channel="email", recipient="someone@example.com",
        id=one.id or f"n{number:08d}", data=data,
    )  # fmt: skip


def _retry_records(bootstrap: str, prefix: str, name: str) -> int:
    reader = RawConsumer({"bootstrap.servers": bootstrap, "group.id": "none"})
    topic = topology(prefix).retry_topic(LOW, name)
    try:
        return sum(
            reader.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[1] for n in range(PARTITIONS)
        )
    except KafkaException:
        return -1
    finally:
        reader.close()


def _run(bench: Bench, mix: Mix) -> tuple[list[float], dict[str, float]]:
    """Return the waits of the untroubled (the whole time for those not served by the end), and facts."""
    prefix = f"bench-mix-{mix.name}"
    bench.cluster._create(prefix, PARTITIONS)
    name = bench.cluster.consumer(prefix)
    child = Child(_work, bench.cluster.bootstrap, prefix, mix.worker, name)
    until(lambda: len(child.ask("partitions")) == PARTITIONS, "partitions")
    numbers = itertools.count()
    asked: dict[str, float] = {}
    config = {"bootstrap.servers": bench.cluster.bootstrap}
    held = looks = 0
    with Producer(config, topology=topology(prefix), max_block=60) as producer:
        producer.warm_up([LOW])
        for one in mix.backlog():
            producer.send(_record(one, next(numbers)))
        producer.flush(120)
        time.sleep(mix.settle)
        child.ask("silent")
        before = _retry_records(bench.cluster.bootstrap, prefix, name)
        begin = time.perf_counter()
        for n in range(int(mix.rate * mix.seconds)):
            time.sleep(max(0.0, begin + n / mix.rate - time.perf_counter()))
            one = mix.traffic(n)
            notification = _record(one, next(numbers))
            if one.kind in (GOOD, "once"):
                asked[notification.id] = time.perf_counter()
            producer.send(notification)
            if n % int(max(mix.rate // 4, 1)) == 0:
                looks += 1
                held += bool(child.ask("held"))
        producer.flush(30)
    end = time.perf_counter() + 3 + (mix.worker.retry.delay(1) * 1.2 if mix.worker.retry else 0.0)
    while time.perf_counter() < end and child.ask("waits") < len(asked):
        time.sleep(0.05)
    written = _retry_records(bench.cluster.bootstrap, prefix, name) - before
    words: Worked = child.end()
    first: dict[str, float] = {}
    for id, wait in words.waits:
        first.setdefault(id, wait)
    now = time.perf_counter()
    waits = [first.get(id, now - at) for id, at in asked.items()]
    return waits, {
        "served": sum(id in first for id in asked),
        "of": len(asked),
        "held %": 100 * held / max(looks, 1),
        "dead": words.dead,
        "loop silent ms": words.silent * 1000,
        "retry records": written,
        "MB RSS": words.rss >> 20,
    }


def _mixes(scale: float) -> Iterator[Mix]:
    seconds = max(90 * scale, 10)

    def bad(share: float, kind: str) -> Callable[[int], One]:
        def traffic(n: int) -> One:
            user = random.Random(n).randrange(2_000)
            troubled = random.Random(user).random() < share
            return One(f"user-{user}", kind if troubled else GOOD)

        return traffic

    for share in (0.1, 0.2, 0.35):
        yield Mix(
            f"bad-{share * 100:.0f}", 100, seconds, bad(share, "bad"), worker=Setting(retry=RetryPolicy())
        )
    yield Mix(
        "herd",
        100,
        seconds,
        bad(0.1, "twice"),
        worker=Setting(retry=RetryPolicy(4, initial_delay=0.5, multiplier=1)),
    )

    def endpoint(kind: str) -> Callable[[int], One]:
        def traffic(n: int) -> One:
            at = random.Random(n).randrange(20)
            return One(f"endpoint{at}.{n % 600}", GOOD if at else kind)

        return traffic

    yield Mix("endpoint-403", 20, seconds, endpoint("forbidden"))
    yield Mix("endpoint-429", 20, seconds, endpoint("throttled"))

    same = users_in(lambda partition: partition == BUSY, 60, "user")
    sleepers = users_in(lambda partition: partition == BUSY, int(60_000 * scale), "sleeper")
    yield Mix(
        "night", 4, 15, lambda n: One(same[n % 60], "once"), lambda: (One(u, "night") for u in sleepers),
        worker=Setting(True, latency=0.02, retry=RetryPolicy(4, initial_delay=2, jitter=0)), settle=max(20 * scale, 5),
    )  # fmt: skip


MIXES: Final = ("bad-10", "bad-20", "bad-35", "herd", "endpoint-403", "endpoint-429", "night")


def mixes(bench: Bench, only: Sequence[str] = MIXES) -> Iterator[Row]:
    """Measure how long notifications without a failure of their own wait in each mix.

    The wait is from `Producer.send` to the call of the accepted `send`; for a retry (`night`), from its due time.
    """
    for mix in _mixes(bench.scale):
        if mix.name not in only:
            continue
        worst: list[float] = []
        facts: dict[str, float] = {}
        for _ in range(bench.repeat):
            waits, facts = _run(bench, mix)
            worst.append(max(waits))
            facts = {**{f"{p} s": s for p, s in percentiles(waits).items()}, **facts}
        yield Row(f"mix-{mix.name}", "s max", worst, facts=facts)
