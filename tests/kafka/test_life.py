"""How a worker ends, wanted or not, on real Apache Kafka: what it no longer does, and what it says."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kafka_notify import (
    Attempt,
    Category,
    Consumer,
    Lane,
    Notification,
    NotifyError,
    Producer,
    Receipt,
    Topology,
    Worker,
    run,
)
from kafka_notify.admin import create_topics
from kafka_notify.cli._backlog import Backlogs
from kafka_notify.testing import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]
COUNT = 50


@pytest.fixture
def topology() -> Topology:
    return Topology(
        lanes=[Lane("quick", partitions=3)],
        categories=[Category("otp", "quick")],
        channels=["sms"],
        prefix=f"t{uuid.uuid4().hex[:12]}",
    )


@pytest.fixture
def config(local_kafka: LocalKafka, topology: Topology) -> dict[str, Any]:
    config: dict[str, Any] = {"bootstrap.servers": local_kafka.bootstrap_servers}
    create_topics(topology, config)
    return config


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What hangs until the test is over."""
    event = threading.Event()
    yield event
    event.set()


class Gated(Consumer):
    """Sends wait for a permit each."""

    concurrency = 3

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.sent: list[str] = []
        self.gate: asyncio.Event | None = None

    async def setup(self) -> None:
        self.gate = asyncio.Event()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        assert self.gate is not None
        self.begun.release()
        await self.gate.wait()
        self.sent.append(notification.id)
        return Receipt("gated")


def produce(config: dict[str, Any], topology: Topology) -> None:
    with Producer(config, topology=topology) as producer:
        for n in range(COUNT):
            producer.send(Notification(user_id=f"u{n}", category="otp", channel="sms", data={"n": n}))
        producer.flush()


@pytest.mark.parametrize("way", ["start", "run"])
@pytest.mark.invariant(n=12)
def test_after_a_failure_nothing_is_sent_or_committed(
    config: dict[str, Any], topology: Topology, way: str
) -> None:
    """A callback that raised has left half-changed state: what runs is cancelled, the group is left as it was."""
    produce(config, topology)
    consumer = Gated()
    worker = Worker(consumer, config, lane="quick", topology=topology)
    raised: list[BaseException] = []
    runs = threading.Thread(target=lambda: _catch(lambda: run(worker), raised))
    if way == "run":
        runs.start()
    else:
        worker.start()
    for _ in range(consumer.concurrency):
        assert consumer.begun.acquire(timeout=60)
    running: Any = worker._running

    def fails() -> None:
        consumer.gate.set()  # type: ignore[union-attr]  # what runs now could end well
        raise RuntimeError("half-changed")

    running.engine.post(fails)
    if way == "run":
        runs.join(60)
        assert len(raised) == 1
        assert isinstance(raised[0], NotifyError)
        assert "RuntimeError at" in str(raised[0])
        assert "half-changed" not in str(raised[0])
    else:
        assert running.fetch.join(60), "it leaves its group by itself"
        assert not worker.health().live
        worker.stop()
    health = worker.health()
    assert not health.ok
    assert not health.live
    assert health.problems == ("it stopped on RuntimeError",)
    assert not consumer.begun.acquire(blocking=False), "nothing more began"
    assert Backlogs(config, topology).group("quick", "").open == COUNT, "nothing was committed"


def _catch(call: Callable[[], object], into: list[BaseException]) -> None:
    try:
        call()
    except BaseException as e:
        into.append(e)


@pytest.mark.parametrize("part", ["payload_reloader", "control"])
def test_no_thread_of_a_worker_ends_unnoticed(config: dict[str, Any], topology: Topology, part: str) -> None:
    """Where a reader ends on an exception, its worker ends, and says why."""
    consumer = Gated()
    worker = Worker(consumer, config, lane="quick", topology=topology)
    worker.start()
    try:
        running: Any = worker._running
        if part == "payload_reloader":
            running.payload_reloader.request(object())  # no request: reading it raises
        else:
            running.control._turn = None  # what its thread calls next
        assert running.fetch.join(60)
        assert not worker.health().ok
        assert not worker.health().live
        assert worker.health().problems[0].startswith("it stopped on ")
    finally:
        worker.stop()


class HangingSetup(Gated):
    """A plain `setup` that hangs."""

    def __init__(self, released: threading.Event) -> None:
        super().__init__()
        self.entered = threading.Event()
        self._released = released

    def setup(self) -> None:  # type: ignore[override]
        self.entered.set()
        self._released.wait()


class HangingAsyncSetup(Gated):
    """The same, async."""

    def __init__(self, released: threading.Event) -> None:
        super().__init__()
        self.entered = threading.Event()

    async def setup(self) -> None:
        self.entered.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("kind", [HangingSetup, HangingAsyncSetup])
def test_a_stop_ends_a_setup_that_hangs(
    config: dict[str, Any], topology: Topology, released: threading.Event, kind: Any
) -> None:
    """From another thread; the start says that it gave up."""
    consumer = kind(released)
    worker = Worker(consumer, config, lane="quick", topology=topology)
    raised: list[BaseException] = []
    starts = threading.Thread(target=lambda: _catch(worker.start, raised))
    starts.start()
    assert consumer.entered.wait(60)
    assert worker.health().problems == ("starting",)
    worker.stop()
    starts.join(60)
    assert "stopped before it had started" in str(raised[0])
    assert worker.health().problems == ("stopped",)


@pytest.mark.parametrize("away", [False, True])
def test_a_signal_ends_a_start(
    config: dict[str, Any], topology: Topology, released: threading.Event, away: bool
) -> None:
    """SIGTERM while `setup` hangs, or while no broker answers: `run` returns, as it does at any other time."""
    consumer = HangingSetup(released)
    if away:
        config = {"bootstrap.servers": "127.0.0.1:1"}
    worker = Worker(consumer, config, lane="quick", topology=topology)

    def kill() -> None:
        if not away:
            assert consumer.entered.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=kill)
    _Await(worker).then(killer.start)
    run(worker)
    killer.join()
    assert worker.health().problems == ("stopped",)


class _Await:
    """Calls something once a worker's start is under way."""

    def __init__(self, worker: Worker) -> None:
        self._life = worker._life
        self._to = worker._life.to

    def then(self, call: Callable[[], object]) -> None:
        called: list[object] = []

        def to(state: Any) -> bool:
            gone = self._to(state)
            if not called:
                called.append(state)
                call()
            return gone

        self._life.to = to  # type: ignore[method-assign]


def test_stop_without_drain_hurries_a_stop_that_runs(config: dict[str, Any], topology: Topology) -> None:
    """`stop(timeout=0)` cancels what the first one waits for."""
    produce(config, topology)
    consumer = Gated()
    worker = Worker(consumer, config, lane="quick", topology=topology, drain_timeout=3600)
    worker.start()
    for _ in range(consumer.concurrency):
        assert consumer.begun.acquire(timeout=60)
    first = threading.Thread(target=worker.stop)
    first.start()
    while worker.health().problems[:1] != ("stopping",):
        assert first.is_alive()
    worker.stop(timeout=0)
    first.join(60)
    assert not first.is_alive()
    assert worker.health().problems == ("stopped",)
    assert not consumer.sent
