"""One producer shared by threads and coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from kafka_notify import Config, NotifyError, ProduceError, Producer, QueueFullError, Topology
from kafka_notify.producer import RecordMetadata
from tests.producer.conftest import NOWHERE, note
from tests.producer.records import ids, read_all

TINY: Config = {"queue.buffering.max.messages": 3}


def test_200_threads_share_a_producer(producer: Producer, topology: Topology, config: Config) -> None:
    """Each of 200 threads gets its own acknowledgements, each notification arrives once, each thread's in order."""
    threads, each = 200, 20
    failures: list[BaseException] = []
    together = threading.Barrier(threads)

    def run(number: int) -> None:
        try:
            together.wait(60)
            pending = [producer.send(note(f"u{number}", id=f"{number}-{i}")) for i in range(each)]
            offsets = [p.result(60).offset for p in pending]
            assert offsets == sorted(set(offsets))
        except BaseException as e:
            failures.append(e)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(120)
    assert failures == []
    arrived = ids(read_all(str(config["bootstrap.servers"]), topology.source_topic("high")))
    assert Counter(arrived) == Counter(f"{n}-{i}" for n in range(threads) for i in range(each))
    order: dict[str, list[int]] = {}
    for id in arrived:
        number, _, i = id.partition("-")
        order.setdefault(number, []).append(int(i))
    assert all(seen == list(range(each)) for seen in order.values())


async def test_2000_tasks_share_a_producer(producer: Producer, topology: Topology, config: Config) -> None:
    """Each of 2,000 concurrent tasks gets its own acknowledgement, and each notification arrives once."""
    sent = [note(f"u{i % 97}", id=f"n{i}") for i in range(2_000)]
    places = await asyncio.gather(*map(producer.asend, sent))
    assert len({(place.partition, place.offset) for place in places}) == 2_000
    records = await asyncio.to_thread(
        read_all, str(config["bootstrap.servers"]), topology.source_topic("high")
    )
    assert Counter(ids(records)) == Counter(n.id for n in sent)
    where = {
        (record.partition(), record.offset()): id for record, id in zip(records, ids(records), strict=True)
    }
    assert [where[place.partition, place.offset] for place in places] == [n.id for n in sent]


async def test_2000_tasks_get_through_a_small_queue(config: Config, topology: Topology) -> None:
    """Tasks that find the queue full wait for room, and all get through when the brokers keep up."""
    small: Config = {"queue.buffering.max.messages": 50}
    producer = Producer(config, topology=topology, max_block=60, lane_config={"high": small})
    places = await asyncio.gather(*(producer.asend(note(f"u{i}")) for i in range(2_000)))
    assert len({(place.partition, place.offset) for place in places}) == 2_000
    await asyncio.to_thread(producer.close)


async def test_a_full_queue_does_not_block_the_loop(topology: Topology) -> None:
    """While asend waits for room in a full queue, other coroutines run; then it raises QueueFullError."""
    producer = Producer(NOWHERE, topology=topology, max_block=0.05, lane_config={"high": TINY})
    for _ in range(3):
        producer.send(note())
    waiting = asyncio.create_task(producer.asend(note()))
    for _ in range(3):  # a call that blocked the loop for max_block would be done by now
        await asyncio.sleep(0)
        assert not waiting.done()
    with pytest.raises(QueueFullError, match="the queue stayed full"):
        await waiting
    with pytest.raises(NotifyError, match=r"^3 notifications"):
        producer.close(0)


async def test_cancelling_a_send_that_waits_for_room_sends_nothing(topology: Topology) -> None:
    """A task cancelled while it waits for room leaves nothing in the queue."""
    producer = Producer(NOWHERE, topology=topology, max_block=60, lane_config={"high": TINY})
    for _ in range(3):
        producer.send(note())
    waiting = asyncio.create_task(producer.asend(note()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(NotifyError, match=r"^3 notifications"):
        producer.close(0)


async def test_a_cancelled_send_harms_no_other(config: Config, topology: Topology) -> None:
    """Tasks cancelled while they wait for the acknowledgement end at once, and the others get theirs."""
    producer = Producer(config, topology=topology, lane_config={"high": {"linger.ms": 100}})
    tasks = [asyncio.create_task(producer.asend(note(id=f"n{i}"))) for i in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert all(isinstance(result, RecordMetadata) for result in results[1::2])
    await asyncio.to_thread(producer.close)


async def test_a_send_that_is_not_acknowledged_in_time_says_that_the_outcome_is_open(
    topology: Topology,
) -> None:
    """asend(timeout=...) raises an error that is a ProduceError and a TimeoutError and says what to do."""
    producer = Producer(NOWHERE, topology=topology)
    with pytest.raises(ProduceError, match=r"within 0\.02 s.+send it again with the same id") as caught:
        await producer.asend(note(), timeout=0.02)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(NotifyError, match=r"^1 notifications"):
        producer.close(0)


async def test_a_failed_delivery_raises_in_its_task(topology: Topology) -> None:
    """asend raises the same ProduceError as PendingSend.result when the broker does not acknowledge."""
    producer = Producer(NOWHERE, topology=topology, lane_config={"high": {"delivery.timeout.ms": 50}})
    with pytest.raises(
        ProduceError, match=f"^{topology.source_topic('high')}: not acknowledged: _MSG_TIMED_OUT"
    ):
        await producer.asend(note())
    await asyncio.to_thread(producer.close)


def test_a_loop_that_ended_costs_the_next_one_nothing(
    producer: Producer, topology: Topology, config: Config
) -> None:
    """Reports for a loop that is closed meanwhile are dropped; the next loop's sends are acknowledged."""

    async def send_and_leave() -> None:
        task = asyncio.create_task(producer.asend(note(id="left")))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(send_and_leave())
    assert asyncio.run(producer.asend(note(id="next"))).offset >= 0
    producer.flush()
    arrived = ids(read_all(str(config["bootstrap.servers"]), topology.source_topic("high")))
    assert sorted(arrived) == ["left", "next"]


async def test_the_async_context_flushes(config: Config, topology: Topology) -> None:
    """Leaving `async with` closes the producer: what was sent inside is acknowledged."""
    async with Producer(config, topology=topology, lane_config={"high": {"linger.ms": 200}}) as producer:
        pending = producer.send(note())
    assert pending.result(0).offset >= 0
