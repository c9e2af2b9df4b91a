"""`PendingSend`: awaited, asked from threads, cancelled and timed out."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, Message

from kafka_notify import Config, ConfigError, NotifyError, PendingSend, ProduceError, Producer, Topology
from kafka_notify.admin import create_topics
from kafka_notify.producer import RecordMetadata
from kafka_notify.testing.pytest_plugin import ExternalKafka
from tests.producer.conftest import NOWHERE, new_topology, note


class Report:
    """What librdkafka reports of a record that the broker wrote."""

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 42

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_000)


WRITTEN = cast(Message, Report())
REFUSED = KafkaError(KafkaError._MSG_TIMED_OUT)


class Handle:
    """A producer handle that takes records and reports them when the test says so."""

    dead: str | None = None
    inherited = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: list[Callable[[KafkaError | None, Message], None]] = []

    def produce(self, *record: Any) -> None:
        self.sent.append(record[-1])

    def report(self, error: KafkaError | None = None) -> None:
        """Report the oldest record, as the serving thread does."""
        self.sent.pop(0)(error, WRITTEN)

    def release(self) -> None:
        """The producer is gone."""


@pytest.fixture
def handle(topology: Topology) -> Handle:
    """What the producer writes to."""
    return Handle(topology.source_topic("high"))


@pytest.fixture
def producer(handle: Handle, topology: Topology) -> Producer:
    """A producer on the handle, without Kafka."""
    producer = Producer(NOWHERE, topology=topology)
    producer._handles["high"] = cast(Any, handle)
    return producer


async def _awaited(pending: PendingSend) -> RecordMetadata:
    return await pending


async def test_it_is_awaited(producer: Producer, handle: Handle) -> None:
    """Before and after the report; the serving thread wakes the loop."""
    pending = producer.send(note())
    waiting = asyncio.ensure_future(pending)
    await asyncio.sleep(0)
    await asyncio.to_thread(handle.report)
    written = await waiting
    assert (written.partition, written.offset) == (3, 42)
    assert await pending == written


async def test_many_await_one_send(producer: Producer, handle: Handle) -> None:
    """All of them are told, and so are `result`, `exception` and callbacks."""
    pending = producer.send(note())
    told: list[PendingSend] = []
    pending.add_done_callback(told.append)
    tasks = [asyncio.ensure_future(pending) for _ in range(3)]
    threads = [asyncio.to_thread(pending.result, 60), asyncio.to_thread(pending.exception, 60)]
    both = asyncio.gather(*threads)
    await asyncio.sleep(0)
    handle.report()
    assert {await task for task in tasks} == {pending.result()}
    assert await both == [pending.result(), None]
    assert told == [pending]


def test_another_loop_than_that_of_the_send_awaits_it(producer: Producer, handle: Handle) -> None:
    """Loops in several threads at once, none of which sent it."""

    async def sent() -> PendingSend:
        return producer.send(note())

    pending = asyncio.run(sent())
    waiting = threading.Barrier(4)

    async def awaited() -> RecordMetadata:
        task = asyncio.ensure_future(pending)
        await asyncio.sleep(0)  # its callback is in place
        waiting.wait(60)
        return await task

    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(asyncio.run, awaited()) for _ in range(3)]
        waiting.wait(60)
        handle.report()
        assert {result.result(60).offset for result in results} == {42}


async def test_a_cancelled_await_changes_nothing(producer: Producer, handle: Handle) -> None:
    """The others are told, the record is still sent, and nothing stays behind of who was cancelled."""
    pending = producer.send(note())
    tasks = [asyncio.ensure_future(pending) for _ in range(100)]
    await asyncio.sleep(0)
    for task in tasks[1:]:
        task.cancel()
    await asyncio.wait(tasks[1:])
    assert pending._callbacks is not None
    assert len(pending._callbacks) == 1
    handle.report()
    assert (await tasks[0]).offset == 42
    assert all(task.cancelled() for task in tasks[1:])
    assert (await pending).offset == 42


async def test_a_report_for_a_task_that_is_cancelled_meanwhile_is_dropped(
    producer: Producer, handle: Handle
) -> None:
    """The report is under way to the loop as the task is cancelled."""
    pending = producer.send(note())
    task = asyncio.ensure_future(pending)
    await asyncio.sleep(0)
    handle.report()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await pending).offset == 42


def test_a_loop_that_is_closed_misses_the_report_alone(producer: Producer, handle: Handle) -> None:
    """The loop of one waiter ends before the report: it raises nowhere, and the next waiter gets the report."""
    pending = producer.send(note())
    loop = asyncio.new_event_loop()
    waiter = loop.create_task(_awaited(pending))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    handle.report()
    assert asyncio.run(_awaited(pending)).offset == 42
    assert not waiter.done()
    waiter._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_a_failure_is_raised_and_returned(producer: Producer, handle: Handle) -> None:
    """`await` and `result` raise what `exception` returns."""
    pending = producer.send(note())
    waiting = asyncio.ensure_future(pending)
    await asyncio.sleep(0)
    handle.report(REFUSED)
    for failed in (waiting, pending):
        with pytest.raises(ProduceError, match="_MSG_TIMED_OUT"):
            await failed
    with pytest.raises(ProduceError, match="_MSG_TIMED_OUT"):
        pending.result()
    failure = pending.exception()
    assert type(failure) is ProduceError
    assert "send it again with the same id" in str(failure)
    assert "cancelled" not in repr(pending)


@pytest.mark.parametrize("timeout", [0, 0.01, dt.timedelta(milliseconds=10)])
def test_every_wait_takes_a_duration(producer: Producer, timeout: float | dt.timedelta) -> None:
    """Seconds or a timedelta; the error is a TimeoutError, and the outcome stays open."""
    pending = producer.send(note())
    for wait in (pending.result, pending.exception):
        with pytest.raises(ProduceError, match=r"no acknowledgement within 0(\.01)? s") as caught:
            wait(timeout)
        assert isinstance(caught.value, TimeoutError)
    assert not pending.done()
    assert not pending._callbacks


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True])
def test_what_is_not_a_duration_is_refused(producer: Producer, handle: Handle, timeout: Any) -> None:
    """Before and after the report; -1 meant to wait for ever."""
    pending = producer.send(note())
    for _ in range(2):
        for wait in (pending.result, pending.exception):
            with pytest.raises(ConfigError, match=r"^timeout must be a duration >= 0 in seconds"):
                wait(timeout)
        if not pending.done():
            handle.report()


def test_a_timeout_may_be_longer_than_a_lock_takes(
    producer: Producer, handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of `threading` raises for more than `TIMEOUT_MAX` seconds."""
    waited: list[float] = []

    class Lock:
        def acquire(self, timeout: float = -1) -> bool:
            waited.append(timeout)
            if len(waited) == 2:  # the first makes it locked
                handle.report()
            return True

        def release(self) -> None:
            """The report has come."""

    pending = producer.send(note())
    monkeypatch.setattr(
        "kafka_notify._kafka.pending.threading", SimpleNamespace(Lock=Lock, TIMEOUT_MAX=threading.TIMEOUT_MAX)
    )
    assert pending.result(1e12).offset == 42
    assert waited == [-1, threading.TIMEOUT_MAX]


async def _awaited_in_vain(producer: Producer) -> None:
    await asyncio.wait({asyncio.ensure_future(producer.send(note()))}, timeout=0)


async def _asent_in_vain(producer: Producer) -> None:
    with pytest.raises(TimeoutError):
        await producer.asend(note(), timeout=0)


async def _looked_at_in_vain(producer: Producer) -> None:
    with pytest.raises(TimeoutError):
        producer.send(note()).result(0)


@pytest.mark.parametrize("wait", [_awaited_in_vain, _asent_in_vain, _looked_at_in_vain])
def test_a_failure_that_comes_after_the_wait_is_logged(
    producer: Producer,
    handle: Handle,
    topology: Topology,
    caplog: pytest.LogCaptureFixture,
    wait: Callable[[Producer], Coroutine[Any, Any, None]],
) -> None:
    """Whoever gave up waiting, by a timeout or as their task was cancelled, was not told of it."""
    asyncio.run(wait(producer))
    handle.report(REFUSED)
    gc.collect()
    # Producers of earlier tests may end meanwhile.
    said = [r for r in caplog.records if topology.source_topic("high") in r.getMessage()]
    assert [r.levelname for r in said if "nobody looked" in r.getMessage()] == ["ERROR"]


def test_a_send_costs_no_more_objects_for_being_awaitable(producer: Producer, handle: Handle) -> None:
    """Nobody waits: no list, no future, no lock, and nothing besides the slots."""
    pending = producer.send(note())
    assert pending._callbacks is None
    assert not hasattr(pending, "__dict__")
    handle.report()
    assert pending._callbacks is None


@pytest.mark.kafka
async def test_on_kafka_an_awaited_send_has_its_place(local_kafka: ExternalKafka) -> None:
    """A thousand are sent first and awaited then, as a batch job does."""
    topology = new_topology()
    config: Config = {"bootstrap.servers": local_kafka.bootstrap_servers}
    await asyncio.to_thread(create_topics, topology, config)
    async with Producer(config, topology=topology) as producer:
        sends = [producer.send(note(f"u{n}")) for n in range(1_000)]
        written = await asyncio.gather(*sends)
        assert len({(each.partition, each.offset) for each in written}) == 1_000
        assert sends[0].exception(dt.timedelta(seconds=30)) is None


@pytest.mark.kafka
async def test_on_kafka_a_refused_send_raises_where_it_is_awaited(local_kafka: ExternalKafka) -> None:
    """The topic does not exist."""
    topology: Topology = new_topology()
    config: Config = {
        "bootstrap.servers": local_kafka.bootstrap_servers,
        "topic.metadata.propagation.max.ms": 50,
    }
    producer = Producer(config, topology=topology)
    pending = producer.send(note())
    with pytest.raises(ProduceError, match="UNKNOWN_TOPIC"):
        await pending
    assert "UNKNOWN_TOPIC" in str(pending.exception())
    await asyncio.to_thread(producer.close)
    with pytest.raises(NotifyError, match="closed"):
        producer.send(note())
