"""Requested waits of 0 or into the past: how often the provider is still called."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

import attrs
from confluent_kafka import Consumer as RawConsumer
from confluent_kafka import TopicPartition

from benchmarks.bench import Bench
from benchmarks.cluster import Child, until
from benchmarks.report import Row
from kafka_notify import (
    Attempt,
    Category,
    CircuitBreaker,
    Consumer,
    Defer,
    Lane,
    Notification,
    Producer,
    Receipt,
    Send,
    ThrottledError,
    Topology,
    Verdict,
    Worker,
    classify_http,
)
from kafka_notify.admin import create_topics

LANE: Final = "bulk"
PARTITIONS: Final = 2
USERS: Final = (3, 60)
PROBES: Final = 50
"""Probes at the same time, once they are accepted."""
LATENCY: Final = 0.005
"""Duration of one call, in seconds."""
OTHERS: Final = 3
"""Users whose notifications are accepted, in variants that have any."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def _http(**headers: str) -> BaseException:
    error = classify_http(429, {name.replace("_", "-"): value for name, value in headers.items()})
    assert error is not None
    return error


ERRORS: Final[Mapping[str, Callable[[], BaseException]]] = {
    "retry-after-0": lambda: _http(Retry_After="0"),
    "past-date": lambda: _http(Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "epoch-ms": lambda: _http(RateLimit_Reset=str(int(time.time() * 1000))),
    "30,30": lambda: _http(Retry_After="30, 30"),
    "recipient-0": lambda: ThrottledError("http.429", scope="recipient", retry_after=0),
    "sender-0": lambda: ThrottledError("http.429", scope="sender", retry_after=0),
    "provider-0": lambda: ThrottledError("http.429", scope="provider", retry_after=0),
    "sender-0-beside": lambda: ThrottledError("http.429", scope="sender", retry_after=0),
    "negative": lambda: ThrottledError("http.429", scope="recipient", retry_after=-5),
}
"""The provider's answer, by variant; with `beside`, other users' notifications are accepted meanwhile."""
DEFERS: Final[Mapping[str, Callable[[], Defer]]] = {
    "defer-datetime": lambda: Defer(_now() - dt.timedelta(hours=1), "past"),
    "defer-timedelta": lambda: Defer(dt.timedelta(hours=-1), "past"),  # type: ignore[arg-type]  # a mistake
}
VARIANTS: Final = (*ERRORS, *DEFERS)


@attrs.frozen
class Seen:
    """The calls of one variant."""

    calls: Sequence[tuple[float, str]]
    """Time in monotonic seconds, and user."""
    dead: int
    until: float
    """Monotonic seconds."""


class _Asked(Consumer):
    concurrency = 100

    def __init__(self, error: Callable[[], BaseException] | None) -> None:
        self.breaker = CircuitBreaker(3 * PROBES, accepted=3)
        self.calls: list[tuple[float, str]] = []
        self._error = error

    async def send(self, notification: Notification[Any], attempt: Attempt, /) -> Receipt:
        if notification.user_id.startswith("other"):
            await asyncio.sleep(10 * LATENCY)
            return Receipt("simulated")
        self.calls.append((time.monotonic(), notification.user_id))
        await asyncio.sleep(LATENCY)
        if self._error is not None:
            raise self._error()
        return Receipt("simulated")


class _Deferring(_Asked):
    def __init__(self, verdict: Callable[[], Defer]) -> None:
        super().__init__(None)
        self._verdict = verdict

    async def should_send(self, notification: Notification[Any], /) -> Verdict:
        if notification.user_id.startswith("other"):
            return Send()
        self.calls.append((time.monotonic(), notification.user_id))
        return self._verdict()


def _topology(variant: str, users: int) -> Topology:
    return Topology(
        lanes=[Lane(LANE, partitions=PARTITIONS, profile="latency")],
        categories=[Category("news", LANE)],
        channels=["email"],
        prefix=f"bench-waits-{variant.replace(',', '-')}-{users}",
    )


def _work(connection: Connection, bootstrap: str, users: int) -> None:
    workers: dict[str, Worker] = {}
    consumers: dict[str, _Asked] = {}
    for variant in VARIANTS:
        consumer = _Deferring(DEFERS[variant]) if variant in DEFERS else _Asked(ERRORS[variant])
        consumers[variant] = consumer
        workers[variant] = Worker(
            consumer, {"bootstrap.servers": bootstrap}, lane=LANE, topology=_topology(variant, users),
            drain_timeout=0,
        )  # fmt: skip
        workers[variant].start()
    while connection.recv() != "stop":
        connection.send(all(len(worker.stats().partitions) == PARTITIONS for worker in workers.values()))
    now = time.monotonic()
    seen = {v: Seen(list(consumers[v].calls), workers[v].stats().dead, now) for v in VARIANTS}
    connection.send(seen)
    connection.close()


def _produce(bootstrap: str, variant: str, users: int, seconds: float) -> None:
    def note(user: str) -> Notification[Any]:
        return Notification(
            user_id=user, category="news", channel="email", recipient="someone@example.com", data={}
        )

    with Producer({"bootstrap.servers": bootstrap}, topology=_topology(variant, users)) as producer:
        for n in range(users):
            producer.send(note(f"user-{n}"))
        if variant.endswith("beside"):
            for n in range(OTHERS * int(seconds / (10 * LATENCY))):
                producer.send(note(f"other-{n % OTHERS}"))
        producer.flush(30)


def most(times: Sequence[float], seconds: float = 1.0) -> int:
    """Return the largest number of these sorted times within any interval of `seconds`."""
    return max((bisect_left(times, at + seconds) - n for n, at in enumerate(times)), default=0)


def _written(bootstrap: str, topic: str) -> int:
    reader = RawConsumer({"bootstrap.servers": bootstrap, "group.id": "none"})
    ends = (reader.get_watermark_offsets(TopicPartition(topic, n), timeout=60) for n in range(PARTITIONS))
    try:
        return sum(end for _, end in ends)
    finally:
        reader.close()


def waits(bench: Bench) -> Iterator[Row]:
    """Run each variant for 60 s, all at the same time, with one notification per user.

    A row shows the most calls of the provider, or of `should_send`, for one user within any second, the same for the
    lane, and the number of records in the retry topic.
    """
    bootstrap, seconds = bench.cluster.bootstrap, max(60 * bench.scale, 10)
    for users in USERS:
        for variant in VARIANTS:
            create_topics(_topology(variant, users), {"bootstrap.servers": bootstrap})
            _produce(bootstrap, variant, users, seconds)
    children = {users: Child(_work, bootstrap, users) for users in USERS}
    for child in children.values():
        until(lambda child=child: child.ask("partitions"), "partitions", 300)  # type: ignore[misc]
    time.sleep(seconds)
    rows: list[tuple[str, int, Seen]] = []
    for users, child in children.items():
        seen: Mapping[str, Seen] = child.ask("stop")
        child.kill()
        for variant in VARIANTS:
            rows.append((variant, users, seen[variant]))
    for row in rows:
        yield _row(bootstrap, *row)


def _row(bootstrap: str, variant: str, users: int, seen: Seen) -> Row:
    by_user: dict[str, list[float]] = {}
    for at, user in seen.calls:
        by_user.setdefault(user, []).append(at)
    times = [at for at, _ in seen.calls]
    first = times[0] if times else seen.until
    return Row(
        f"waits-{variant}-{users}", "/s", [max(map(most, by_user.values()), default=0)],
        facts={
            "calls": len(times),
            "of a user": max(map(len, by_user.values()), default=0),
            "lane in a second": most(times),
            "after the first": most([at for at in times if at >= first + 2]),
            "lane /s": len(times) / max(seen.until - first, 1.0),
            "retry records": _written(bootstrap, _topology(variant, users).retry_topic(LANE, "")),
            "dead": seen.dead,
        },
    )  # fmt: skip
