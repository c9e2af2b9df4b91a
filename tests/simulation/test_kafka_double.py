"""What only the double can do: errors on demand, hosts that are cut off, time that a test moves, runs by a seed."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import ConfigResource, OffsetSpec, ResourceType  # type: ignore[attr-defined]

from tests.simulation.kafka import (
    Cluster,
    SimulatedAdmin,
    SimulatedConsumer,
    SimulatedProducer,
    StuckError,
    VirtualLoop,
    VirtualTime,
)
from tests.simulation.kafka.virtual_time import Event, Thread

EAGER = {"group.id": "g", "auto.offset.reset": "earliest"}
INCREMENTAL = EAGER | {"group.protocol": "consumer"}


def code(caught: pytest.ExceptionInfo[KafkaException]) -> int:
    return int(caught.value.args[0].code())


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(VirtualTime(seed=1))
    made.create("t", 4)
    return made


class Reports:
    """Delivery reports: the name of the error, or the offset."""

    def __init__(self) -> None:
        self.seen: list[str | int | None] = []

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.seen.append(message.offset() if error is None else error.name())


# -- time ---------------------------------------------------------------------------------------------


def test_a_blocking_call_moves_time_by_its_timeout_and_no_further(cluster: Cluster) -> None:
    consumer = SimulatedConsumer(cluster, EAGER)
    consumer.assign([TopicPartition("t", 0, 0)])
    before = cluster.time.now
    assert consumer.poll(2.5) is None
    assert cluster.time.now - before == 2.5
    cluster.time.at(1.0, lambda: cluster.append("t", b"v"))
    assert consumer.poll(60) is not None
    assert cluster.time.now - before == 3.5


def test_threads_run_one_at_a_time_in_an_order_given_by_the_seed() -> None:
    def run(seed: int) -> list[str]:
        time, order, inside = VirtualTime(seed), [], 0

        def work(name: str) -> None:
            nonlocal inside
            for _ in range(5):
                time.wait(lambda: False, 0.1)
                inside += 1
                assert inside == 1
                order.append(name)
                inside -= 1

        for name in "abc":
            Thread(time, "", target=work, args=(name,), name=name).start()
        time.until(lambda: len(order) == 15)
        return order

    assert run(3) == run(3)
    assert len({"".join(run(seed)) for seed in range(5)}) > 1


def test_a_thread_that_waits_for_another_one_holds_nobody_up() -> None:
    """As a hand-over does: one thread waits for an answer of the event loop, which needs time to pass."""
    time = VirtualTime()
    answered = Event(time, "")

    def answer() -> None:
        time.wait(lambda: False, 5.0)
        answered.set()

    def ask() -> str:
        time.enter()
        Thread(time, "", target=answer).start()
        answered.wait()
        time.enter()
        return "answered"

    assert time.call(ask) == "answered"
    assert time.now >= 1_005.0


def test_nobody_who_can_go_on_is_an_error() -> None:
    time = VirtualTime()
    thread = Thread(time, "", target=lambda: time.wait(lambda: False), name="waits for ever")
    thread.start()
    with pytest.raises(StuckError, match="waits for ever"):
        time.wait(lambda: False)


def test_threads_for_which_time_need_not_pass_are_an_error() -> None:
    time = VirtualTime()

    def spin() -> None:
        while True:
            time.wait(lambda: True, 1.0)
            time.wait(lambda: False, 0.0)

    Thread(time, "", target=spin).start()
    with pytest.raises(StuckError, match="stands still"):
        time.sleep(1.0)


def test_an_event_loop_sleeps_in_virtual_time() -> None:
    time = VirtualTime()
    loop = VirtualLoop(time)
    try:
        loop.run_until_complete(asyncio.sleep(3_600))
    finally:
        loop.close()
    assert 4_600 <= time.now < 4_601


def test_a_frozen_host_does_nothing_until_it_is_thawed(cluster: Cluster) -> None:
    seen: list[int | None] = []

    def read() -> None:
        consumer = SimulatedConsumer(cluster, EAGER, "frozen")
        consumer.assign([TopicPartition("t", 0, 0)])
        while len(seen) < 2:
            if (message := consumer.poll(1.0)) is not None:
                seen.append(message.offset())

    Thread(cluster.time, "frozen", target=read).start()
    cluster.append("t", b"v")
    cluster.time.until(lambda: seen == [0])
    cluster.time.frozen.add("frozen")
    cluster.append("t", b"v")
    cluster.time.sleep(60)
    assert seen == [0]
    cluster.time.frozen.clear()
    cluster.time.until(lambda: seen == [0, 1])


# -- produce failures ---------------------------------------------------------------------------------


def test_a_record_fails_before_the_write_or_after_it(cluster: Cluster) -> None:
    producer, reports = SimulatedProducer(cluster, {}), Reports()
    cluster.faults.fail("write", KafkaError._MSG_TIMED_OUT, topic="t")
    cluster.faults.fail("acknowledge", KafkaError._MSG_TIMED_OUT)
    for value in (b"before", b"after", b"good"):
        producer.produce("t", value, b"k", partition=0, on_delivery=reports)
    assert producer.flush(1) == 0
    assert reports.seen == ["_MSG_TIMED_OUT", "_MSG_TIMED_OUT", 1]
    assert [record.value for record in cluster.records("t")] == [b"after", b"good"]


def test_produce_itself_fails(cluster: Cluster) -> None:
    producer = SimulatedProducer(cluster, {})
    cluster.faults.fail("produce", KafkaError._QUEUE_FULL)
    with pytest.raises(BufferError):
        producer.produce("t", b"v", b"k")
    cluster.faults.fail("produce", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException) as caught:
        producer.produce("t", b"v", b"k")
    assert code(caught) == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert len(producer) == 0


def test_a_fatal_error_ends_a_producer(cluster: Cluster) -> None:
    said: list[KafkaError] = []
    producer, reports = SimulatedProducer(cluster, {"error_cb": said.append}), Reports()
    producer.say(KafkaError._ALL_BROKERS_DOWN)
    producer.poll(0)
    assert [error.name() for error in said] == ["_ALL_BROKERS_DOWN"]
    cluster.frozen = True
    producer.produce("t", b"v", b"k", on_delivery=reports)
    producer.say(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "out of order", True))
    with pytest.raises(KafkaException):
        producer.poll(0)
    producer.poll(0)
    assert reports.seen == ["_PURGE_QUEUE"]
    with pytest.raises(KafkaException) as caught:
        producer.produce("t", b"v", b"k")
    assert code(caught) == KafkaError._FATAL


def test_frozen_brokers_write_once_they_answer(cluster: Cluster) -> None:
    producer, reports = SimulatedProducer(cluster, {}), Reports()
    cluster.frozen = True
    producer.produce("t", b"v", b"k", partition=0, on_delivery=reports)
    assert producer.flush(5) == 1
    cluster.time.at(3, lambda: setattr(cluster, "frozen", False))
    cluster.time.sleep(4)
    assert producer.flush(5) == 0
    assert reports.seen == [0]


def test_a_record_takes_its_latency(cluster: Cluster) -> None:
    producer, reports = SimulatedProducer(cluster, {}), Reports()
    cluster.latency = 0.25
    producer.produce("t", b"v", b"k", on_delivery=reports)
    before = cluster.time.now
    producer.poll(10)
    assert (reports.seen, cluster.time.now - before) == ([0], 0.25)


# -- consumer failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
    ],
)
def test_a_commit_is_refused_on_demand_once(cluster: Cluster, refusal: int) -> None:
    consumer = SimulatedConsumer(cluster, EAGER)
    cluster.faults.fail("commit", refusal)
    offsets = [TopicPartition("t", 0, 5)]
    with pytest.raises(KafkaException) as caught:
        consumer.commit(offsets=offsets, asynchronous=False)
    assert code(caught) == refusal
    assert cluster.group("g").offsets == {}
    consumer.commit(offsets=offsets, asynchronous=False)
    assert cluster.group("g").offsets["t", 0].offset == 5


def test_one_partition_of_an_answer_fails_for_a_time(cluster: Cluster) -> None:
    consumer = SimulatedConsumer(cluster, EAGER)
    for call in ("commit", "committed", "offsets_for_times"):
        cluster.faults.fail(
            call, KafkaError.NOT_COORDINATOR, topic="t", partition=1, times=float("inf"), seconds=10
        )
    places = [TopicPartition("t", 0, 5), TopicPartition("t", 1, 5)]

    def errors() -> list[list[str | None]]:
        answers = (consumer.committed(places), consumer.offsets_for_times(places))
        return [[None if tp.error is None else tp.error.name() for tp in answer] for answer in answers]

    for _ in range(2):
        with pytest.raises(KafkaException) as caught:
            consumer.commit(offsets=places, asynchronous=False)
        assert code(caught) == KafkaError.NOT_COORDINATOR
        assert cluster.group("g").offsets.keys() == {("t", 0)}
        assert errors() == [[None, "NOT_COORDINATOR"]] * 2
    cluster.time.sleep(10)
    consumer.commit(offsets=places, asynchronous=False)
    assert errors() == [[None, None]] * 2


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.committed([TopicPartition("t", 0)], timeout=3),
        lambda c: c.offsets_for_times([TopicPartition("t", 0, 0)], timeout=3),
        lambda c: c.get_watermark_offsets(TopicPartition("t", 0), timeout=3),
        lambda c: c.list_topics("t", timeout=3),
        lambda c: c.commit(offsets=[TopicPartition("t", 0, 1)], asynchronous=False),
    ],
    ids=["committed", "offsets_for_times", "watermarks", "list_topics", "commit"],
)
def test_a_call_waits_for_frozen_brokers_and_times_out(cluster: Cluster, call: Any) -> None:
    consumer = SimulatedConsumer(cluster, EAGER)
    cluster.frozen = True
    before = cluster.time.now
    with pytest.raises(KafkaException) as caught:
        call(consumer)
    assert code(caught) == KafkaError._TIMED_OUT
    assert cluster.time.now - before in (3, 60)
    cluster.time.at(1, lambda: setattr(cluster, "frozen", False))
    call(consumer)


def test_errors_come_by_callback_in_place_of_a_record_and_as_exceptions(cluster: Cluster) -> None:
    said: list[KafkaError] = []
    consumer = SimulatedConsumer(cluster, EAGER | {"error_cb": said.append})
    consumer.assign([TopicPartition("t", 0, 0)])
    cluster.append("t", b"v")
    consumer.say(KafkaError._ALL_BROKERS_DOWN)
    consumer.inject(KafkaError.TOPIC_AUTHORIZATION_FAILED, "t", 0)
    cluster.faults.fail("consume", KafkaError._TRANSPORT, topic="t", partition=0)
    messages = consumer.consume(3, 1)
    found = [(m.offset(), None if (e := m.error()) is None else e.name()) for m in messages]
    assert [error.name() for error in said] == ["_ALL_BROKERS_DOWN"]
    assert found == [(None, "TOPIC_AUTHORIZATION_FAILED"), (None, "_TRANSPORT"), (0, None)]
    consumer.say(KafkaError(KafkaError.FENCED_INSTANCE_ID, "fenced", True))
    with pytest.raises(KafkaException):
        consumer.poll(0)


@pytest.mark.parametrize("config", [EAGER, INCREMENTAL], ids=["eager", "incremental"])
def test_an_expelled_member_learns_of_it_in_its_next_poll(cluster: Cluster, config: dict[str, Any]) -> None:
    """Until then its commits are refused, and another member has its partitions."""
    told: list[tuple[str, list[int]]] = []

    def note(kind: str) -> Any:
        return lambda c, ps: told.append((kind, [tp.partition for tp in ps]))

    zombie, other = (SimulatedConsumer(cluster, config, host) for host in ("zombie", "other"))
    zombie.subscribe(["t"], on_assign=note("assign"), on_revoke=note("revoke"), on_lost=note("lost"))
    zombie.poll(0)
    before = zombie.memberid()
    cluster.expel("zombie")
    other.subscribe(["t"])
    other.poll(0)
    assert len(other.assignment()) == 4
    with pytest.raises(KafkaException) as caught:
        zombie.commit(offsets=[TopicPartition("t", 0, 1)], asynchronous=False)
    assert code(caught) == KafkaError.UNKNOWN_MEMBER_ID
    assert told == [("assign", [0, 1, 2, 3])]
    for _ in range(3):
        zombie.poll(0)
        other.poll(0)
    assert told[1] == ("lost", [0, 1, 2, 3])
    assert len(zombie.assignment()) == len(other.assignment()) == 2
    assert zombie.memberid() != before


def test_a_member_that_does_not_poll_holds_up_an_eager_rebalance_alone(cluster: Cluster) -> None:
    for config, owned in ((EAGER, 0), (INCREMENTAL | {"group.id": "h"}, 0)):
        slow, new = SimulatedConsumer(cluster, config, "slow"), SimulatedConsumer(cluster, config, "new")
        slow.subscribe(["t"])
        slow.poll(0)
        new.subscribe(["t"])
        new.poll(5)
        assert len(new.assignment()) == owned
        slow.poll(0)
        new.poll(5)
        assert len(new.assignment()) == 2


def test_a_host_that_is_cut_off_learns_nothing_and_writes_nothing(cluster: Cluster) -> None:
    consumer, producer = SimulatedConsumer(cluster, EAGER, "cut"), SimulatedProducer(cluster, {}, "cut")
    consumer.subscribe(["t"])
    consumer.poll(0)
    cluster.cut.add("cut")
    SimulatedProducer(cluster, {}, "other").produce("t", b"theirs", b"k", partition=0)
    producer.produce("t", b"mine", b"k", partition=0)
    cluster.expel("cut")
    assert consumer.poll(1) is None
    assert len(consumer.assignment()) == 4
    assert [record.value for record in cluster.records("t")] == [b"theirs"]
    cluster.cut.clear()
    producer.flush(1)
    assert [record.value for record in cluster.records("t")] == [b"theirs", b"mine"]


def test_logs_lose_records_as_retention_elections_and_markers_do(cluster: Cluster) -> None:
    log = cluster.log("t")
    for n in range(6):
        cluster.append("t", b"%d" % n)
    log.hole()
    log.compact(4)
    log.delete_before(2)
    consumer = SimulatedConsumer(cluster, EAGER | {"enable.partition.eof": True})
    consumer.assign([TopicPartition("t", 0, 0)])
    assert [m.offset() for m in consumer.consume(9, 0)] == [2, 3, 5, 7]
    log.truncate(3)
    assert (log.end, [m.offset() for m in consumer.consume(9, 0)]) == (3, [2, 3])


# -- the admin client ---------------------------------------------------------------------------------


def test_questions_about_topics(cluster: Cluster) -> None:
    admin: Any = SimulatedAdmin(cluster, {})
    resource = ConfigResource(ResourceType.TOPIC, "t")
    assert admin.describe_configs([resource])[resource].result()["retention.ms"].value == "604800000"
    cluster.append("t", b"v")
    place: Any = TopicPartition("t", 0)
    spec: Any = OffsetSpec
    assert admin.list_offsets({place: spec.latest()})[place].result().offset == 1
    assert admin.list_offsets({place: spec.earliest()})[place].result().offset == 0
    first = admin.describe_topics(TopicCollection(["t"]))["t"].result().topic_id
    cluster.create("t", 4)
    assert admin.describe_topics(TopicCollection(["t"]))["t"].result().topic_id != first
    cluster.faults.fail("describe_configs", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException):
        admin.describe_configs([resource])[resource].result()
    cluster.delete("t")
    with pytest.raises(KafkaException):
        admin.describe_topics(TopicCollection(["t"]))["t"].result()


# -- runs by a seed -----------------------------------------------------------------------------------


def world(seed: int) -> list[tuple[Any, ...]]:
    """Three consumers that come and go, a producer and all kinds of faults, each on a thread of its own."""
    time = VirtualTime(seed)
    cluster = Cluster(time)
    cluster.create("t", 4)
    cluster.latency = 0.05
    rng = random.Random(seed)
    over = Event(time, "")

    def consume(host: str) -> None:
        mine = random.Random(f"{seed} {host}")
        while not over.is_set():
            consumer = SimulatedConsumer(cluster, EAGER if seed % 2 else INCREMENTAL, host)
            consumer.subscribe(["t"])
            for _ in range(mine.randrange(5, 20)):
                message = consumer.poll(mine.random())
                if message is not None and message.error() is None:
                    try:
                        consumer.commit(message, asynchronous=False)
                    except KafkaException as e:
                        cluster.note(host, "refused", e.args[0].name())
            consumer.close()

    def produce() -> None:
        producer = SimulatedProducer(cluster, {}, "producer")
        while not over.is_set():
            producer.produce("t", b"v", b"k%d" % rng.randrange(50))
            producer.poll(0.1)

    for n in range(3):
        Thread(time, f"c{n}", target=consume, args=(f"c{n}",), name=f"c{n}").start()
    Thread(time, "producer", target=produce, name="producer").start()
    for _ in range(10):
        time.sleep(rng.random() * 2)
        cluster.expel(f"c{rng.randrange(3)}")
        cluster.faults.fail(rng.choice(["write", "acknowledge", "commit"]), KafkaError._TRANSPORT, seconds=1)
    over.set()
    time.until(lambda: not time.threads)
    return cluster.journal


@pytest.mark.parametrize("seed", [1, 2])
def test_equal_seeds_have_equal_journals(seed: int) -> None:
    first = world(seed)
    assert first == world(seed)
    assert {"written", "expel", "lost", "refused"} <= {word for line in first for word in line[1:4]}
    assert first != world(seed + 2)


def test_a_killed_host_ends_at_once_and_does_nothing_more(cluster: Cluster) -> None:
    """Even code that catches everything: its threads run no line that reaches the brokers."""
    time, met = cluster.time, list[str]()

    def work() -> None:
        producer = SimulatedProducer(cluster, {}, "dead")
        while len(met) < 3:
            try:
                producer.poll(10.0)
            except BaseException as e:
                met.append(type(e).__name__)
        producer.produce("t", b"v")

    Thread(time, "dead", target=work).start()
    time.sleep(5)
    before = time.now
    time.kill("dead")
    time.until(lambda: not time.threads)
    assert (met, time.now) == (["Killed"] * 3, before)
    assert not cluster.records("t")


@pytest.mark.parametrize("config", [EAGER, INCREMENTAL], ids=["eager", "incremental"])
def test_a_rebalance_within_a_revocation_asks_for_nothing_twice(
    cluster: Cluster, config: dict[str, Any]
) -> None:
    """Else the group forgets what a member has: the next rebalance would not take it back."""
    group = cluster.group("g")
    first = SimulatedConsumer(cluster, config, "a")
    first.subscribe(["t"], on_revoke=lambda consumer, partitions: group.rebalance())
    first.poll(0)
    second = SimulatedConsumer(cluster, config, "b")
    second.subscribe(["t"])
    for _ in range(5):
        first.poll(0)
        second.poll(0)
    for consumer in (first, second):
        assert consumer.member is not None
        assert consumer.member.owned == frozenset(consumer.readings)
    assert first.readings or second.readings
