"""The double behaves as Apache Kafka and librdkafka do: the same tests on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    TopicPartition,
    murmur2,
)

from tests.simulation.sides import PATIENCE, Double, Real, Side, fill, poll_until, read


@pytest.fixture(params=["double", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.timeout(180)])])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    made: Side = (
        Double()
        if request.param == "double"
        else Real(request.getfixturevalue("local_kafka").bootstrap_servers)
    )
    yield made
    made.close()


def raised(call: Callable[..., object], *args: Any, **named: Any) -> KafkaError:
    """The error that a call raises."""
    with pytest.raises(KafkaException) as caught:
        call(*args, **named)
    error: KafkaError = caught.value.args[0]
    return error


class Callbacks:
    """Notes what a consumer is told of its partitions; does what it is given to do."""

    def __init__(self, then: Callable[[str, Any, list[TopicPartition]], object] | None = None) -> None:
        self.told: list[tuple[str, list[int]]] = []
        self._then = then

    def subscribe(self, consumer: Any, *topics: str) -> None:
        consumer.subscribe(
            list(topics),
            on_assign=lambda c, ps: self._note("assign", c, ps),
            on_revoke=lambda c, ps: self._note("revoke", c, ps),
            on_lost=lambda c, ps: self._note("lost", c, ps),
        )

    def _note(self, kind: str, consumer: Any, partitions: list[TopicPartition]) -> None:
        self.told.append((kind, sorted(tp.partition for tp in partitions)))
        if self._then is not None:
            self._then(kind, consumer, partitions)

    @property
    def not_empty(self) -> list[tuple[str, list[int]]]:
        return [told for told in self.told if told[1]]


# -- producing ----------------------------------------------------------------------------------------


def test_a_report_comes_in_a_poll_of_the_producer(side: Side) -> None:
    topic, reports = side.topic(4), []
    producer = side.producer()
    producer.produce(
        topic, b"v", b"key", on_delivery=lambda e, m: reports.append((e, m)), headers=[("h", b"1")]
    )
    assert (len(reports), len(producer)) == (0, 1)
    deadline = side.now() + PATIENCE
    while not reports:
        producer.poll(1.0)
        assert side.now() < deadline
    [(error, message)] = reports
    assert error is None
    assert (message.topic(), message.partition(), message.offset()) == (topic, murmur2(b"key", 4), 0)
    assert (message.key(), message.value(), message.headers()) == (b"key", b"v", None)
    assert len(producer) == 0


def test_flush_says_how_many_are_left(side: Side) -> None:
    topic, reports = side.topic(), []
    producer = side.producer()
    for n in range(10):
        producer.produce(topic, b"%d" % n, b"k", on_delivery=lambda e, m: reports.append(m.offset()))
    assert producer.flush(PATIENCE) == 0
    assert reports == list(range(10))


def test_what_a_report_raises_comes_out_of_poll_and_the_others_follow(side: Side) -> None:
    topic, seen = side.topic(), []
    producer = side.producer()

    def on_delivery(error: Any, message: Any) -> None:
        seen.append(message.offset())
        if message.offset() == 0:
            raise ValueError("mine")

    for _ in range(3):
        producer.produce(topic, b"v", b"k", on_delivery=on_delivery)
    raises = 0
    deadline = side.now() + PATIENCE
    while len(seen) < 3:
        try:
            producer.poll(0.5)
        except ValueError:
            raises += 1
        assert side.now() < deadline
    assert (raises, seen) == (1, [0, 1, 2])


def test_a_large_record_is_refused_by_produce(side: Side) -> None:
    topic = side.topic()
    error = raised(side.producer().produce, topic, bytes(2_000_000), b"k")
    assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_a_full_queue_raises_buffer_error(side: Side) -> None:
    topic = side.topic()
    producer = side.producer(queue_buffering_max_messages=2, linger_ms=900)
    producer.produce(topic, b"v", b"k")
    producer.produce(topic, b"v", b"k")
    with pytest.raises(BufferError):
        producer.produce(topic, b"v", b"k")
    assert producer.flush(PATIENCE) == 0
    producer.produce(topic, b"v", b"k")
    assert producer.flush(PATIENCE) == 0


# -- reading ------------------------------------------------------------------------------------------


def test_records_come_as_they_were_written(side: Side) -> None:
    topic = side.topic()
    producer = side.producer()
    producer.produce(
        topic, b"v", b"k", headers=[("a", b"1"), ("a", b"2"), ("b", None)], timestamp=1_700_000_000_123
    )
    producer.produce(topic, None, b"k")
    producer.flush(PATIENCE)
    consumer = side.consumer()
    consumer.assign([TopicPartition(topic, 0, 0)])
    first, second = read(side, consumer, 2)
    assert (first.key(), first.value(), first.offset()) == (b"k", b"v", 0)
    assert first.headers() == [("a", b"1"), ("a", b"2"), ("b", None)]
    assert first.timestamp() == (1, 1_700_000_000_123)
    assert (second.value(), second.headers(), second.error()) == (None, None, None)


def test_the_end_of_a_partition_is_told_whenever_it_is_reached(side: Side) -> None:
    topic = side.topic()
    fill(side, topic, 2)
    consumer = side.consumer(enable_partition_eof=True)
    consumer.assign([TopicPartition(topic, 0, 0)])
    *_, end = read(side, consumer, 3)
    assert (end.error().code(), end.offset()) == (KafkaError._PARTITION_EOF, 2)
    fill(side, topic, 1, first=2)
    record, end = read(side, consumer, 2)
    assert (record.offset(), end.error().code(), end.offset()) == (2, KafkaError._PARTITION_EOF, 3)


def test_consume_returns_what_is_there_at_once_without_a_timeout(side: Side) -> None:
    topic = side.topic()
    fill(side, topic, 10)
    consumer = side.consumer()
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert [m.offset() for m in consumer.consume(10, PATIENCE)] == list(range(10))
    assert consumer.consume(10, 0) == []


def test_a_position_out_of_range_is_reset(side: Side) -> None:
    topic = side.topic()
    fill(side, topic, 5)
    side.delete_before(topic, 3)
    consumer = side.consumer()
    consumer.assign([TopicPartition(topic, 0, 1)])
    assert read(side, consumer, 1)[0].offset() == 3
    consumer.assign([TopicPartition(topic, 0, 99)])
    assert read(side, consumer, 1)[0].offset() == 3


def test_without_a_reset_a_position_out_of_range_is_an_error(side: Side) -> None:
    topic = side.topic()
    fill(side, topic, 2)
    consumer = side.consumer(auto_offset_reset="error")
    consumer.assign([TopicPartition(topic, 0, 99)])
    [message] = read(side, consumer, 1)
    assert message.error().code() == KafkaError._AUTO_OFFSET_RESET


def test_an_assignment_begins_where_the_group_has_committed(side: Side) -> None:
    topic = side.topic()
    fill(side, topic, 5)
    consumer = side.consumer("g")
    consumer.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    consumer.assign([TopicPartition(topic, 0)])
    assert read(side, consumer, 1)[0].offset() == 3


# -- where to read ------------------------------------------------------------------------------------


def test_position_follows_what_was_returned(side: Side) -> None:
    topic = side.topic()
    fill(side, topic, 3)
    consumer = side.consumer()
    place = TopicPartition(topic, 0)
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert consumer.position([place])[0].offset == OFFSET_INVALID
    read(side, consumer, 2)
    assert consumer.position([place])[0].offset == 2


def test_seek_goes_back(side: Side) -> None:
    topic = side.topic()
    fill(side, topic, 4)
    consumer = side.consumer()
    consumer.assign([TopicPartition(topic, 0, 0)])
    read(side, consumer, 4)
    consumer.seek(TopicPartition(topic, 0, 1))
    assert [m.offset() for m in read(side, consumer, 2)] == [1, 2]
    assert consumer.position([TopicPartition(topic, 0)])[0].offset == 3


def test_seek_of_what_is_not_assigned_is_refused(side: Side) -> None:
    topic = side.topic(2)
    consumer = side.consumer()
    consumer.assign([TopicPartition(topic, 0, 0)])
    consumer.poll(1.0)
    assert raised(consumer.seek, TopicPartition(topic, 1, 0)).code() in (
        KafkaError._STATE,
        KafkaError._UNKNOWN_PARTITION,
    )


def test_what_is_paused_does_not_come_until_it_is_resumed(side: Side) -> None:
    topic = side.topic(2)
    fill(side, topic, 2, 0)
    fill(side, topic, 2, 1)
    consumer = side.consumer()
    consumer.assign([TopicPartition(topic, 0, 0), TopicPartition(topic, 1, 0)])
    consumer.pause([TopicPartition(topic, 0)])
    assert {m.partition() for m in read(side, consumer, 2)} == {1}
    assert consumer.poll(0.5) is None
    consumer.resume([TopicPartition(topic, 0)])
    assert [(m.partition(), m.offset()) for m in read(side, consumer, 2)] == [(0, 0), (0, 1)]


def test_a_pause_outlives_its_assignment(side: Side) -> None:
    topic = side.topic()
    fill(side, topic, 2)
    consumer = side.consumer()
    consumer.assign([TopicPartition(topic, 0, 0)])
    read(side, consumer, 1)
    consumer.pause([TopicPartition(topic, 0)])
    consumer.unassign()
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert consumer.poll(1.0) is None
    consumer.resume([TopicPartition(topic, 0)])
    assert read(side, consumer, 1)[0].offset() == 0


def test_incremental_assignments_add_and_take(side: Side) -> None:
    topic = side.topic(2)
    fill(side, topic, 1, 0)
    fill(side, topic, 1, 1)
    consumer = side.consumer()
    zero, one = TopicPartition(topic, 0, 0), TopicPartition(topic, 1, 0)
    consumer.incremental_assign([zero])
    consumer.incremental_assign([one])
    assert raised(consumer.incremental_assign, [one]).code() == KafkaError._CONFLICT
    consumer.incremental_unassign([zero])
    assert raised(consumer.incremental_unassign, [zero]).code() == KafkaError._INVALID_ARG
    assert [tp.partition for tp in consumer.assignment()] == [1]
    assert read(side, consumer, 1)[0].partition() == 1


# -- questions ----------------------------------------------------------------------------------------


def test_offsets_by_time_and_at_both_ends(side: Side) -> None:
    topic = side.topic()
    producer = side.producer()
    for n in range(4):
        producer.produce(topic, b"v", b"k", timestamp=1_700_000_000_000 + n * 1000)
    producer.flush(PATIENCE)
    side.delete_before(topic, 1)
    consumer = side.consumer()

    def asked(which: int) -> int:
        offset: int = consumer.offsets_for_times([TopicPartition(topic, 0, which)], timeout=PATIENCE)[
            0
        ].offset
        return offset

    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE) == (1, 4)
    assert (asked(OFFSET_BEGINNING), asked(OFFSET_END)) == (1, 4)
    assert asked(1_700_000_002_000) == 2
    assert asked(1_700_000_009_000) == OFFSET_END


def test_topics_are_listed_and_a_missing_one_is_an_error(side: Side) -> None:
    topic = side.topic(3)
    for client in (side.consumer(), side.producer(), side.admin()):
        assert len(client.list_topics(topic, timeout=PATIENCE).topics[topic].partitions) == 3
    missing = f"{topic}.missing"
    found = side.admin().list_topics(missing, timeout=PATIENCE).topics[missing]
    assert found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert len(found.partitions) == 0


# -- commits ------------------------------------------------------------------------------------------


def test_a_commit_keeps_offset_and_metadata_and_may_go_back(side: Side) -> None:
    topic = side.topic(2)
    consumer = side.consumer("g")
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    assert [tp.offset for tp in consumer.committed([zero, one], timeout=PATIENCE)] == [OFFSET_INVALID] * 2
    for offset in (9, 3):
        answer = consumer.commit(offsets=[TopicPartition(topic, 0, offset, f"m{offset}")], asynchronous=False)
        assert [(tp.offset, tp.error) for tp in answer] == [(offset, None)]
    found = consumer.committed([zero, one], timeout=PATIENCE)
    assert [tp.offset for tp in found] == [3, OFFSET_INVALID]
    assert (found[0].metadata, found[1].metadata) == ("m3", None)


def test_a_commit_of_which_one_partition_is_refused_raises_and_stores_the_others(side: Side) -> None:
    """Broker and librdkafka answer for each partition; the binding raises the error, and the answers are gone."""
    topic = side.topic(2)
    consumer = side.consumer("g")
    large, small = TopicPartition(topic, 0, 1, "x" * 5_000), TopicPartition(topic, 1, 1, "x" * 4_000)
    error = raised(consumer.commit, offsets=[large, small], asynchronous=False)
    assert error.code() == KafkaError.OFFSET_METADATA_TOO_LARGE
    places = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    assert [tp.offset for tp in consumer.committed(places, timeout=PATIENCE)] == [OFFSET_INVALID, 1]


def test_a_commit_of_a_missing_partition(side: Side) -> None:
    topic = side.topic(2)
    consumer = side.consumer("g")
    missing, known = TopicPartition(topic, 7, 1), TopicPartition(topic, 1, 1)
    error = raised(consumer.commit, offsets=[known, missing], asynchronous=False)
    assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert consumer.committed([TopicPartition(topic, 1)], timeout=PATIENCE)[0].offset == 1


def test_there_is_nothing_to_commit_before_anything_was_read(side: Side) -> None:
    consumer = side.consumer("g")
    consumer.assign([TopicPartition(side.topic(), 0, 0)])
    assert raised(consumer.commit, asynchronous=False).code() == KafkaError._NO_OFFSET


def test_who_is_no_member_may_not_commit_for_a_group_that_has_some(side: Side) -> None:
    topic = side.topic()
    member, told = side.consumer("g"), Callbacks()
    told.subscribe(member, topic)
    poll_until(side, lambda: told.not_empty, member)
    stranger = side.consumer("g")
    error = raised(stranger.commit, offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    assert error.code() == KafkaError.UNKNOWN_MEMBER_ID
    member.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)


# -- groups -------------------------------------------------------------------------------------------

CLASSIC = {
    "session_timeout_ms": 6_000,
    "heartbeat_interval_ms": 200,
    "partition_assignment_strategy": "range",
}
COOPERATIVE = CLASSIC | {"partition_assignment_strategy": "cooperative-sticky"}
CONSUMER = {"group_protocol": "consumer", "group_remote_assignor": "range"}


@pytest.mark.parametrize("config", [CLASSIC, COOPERATIVE, CONSUMER], ids=["eager", "cooperative", "consumer"])
def test_partitions_are_shared_and_come_back(side: Side, config: dict[str, Any]) -> None:
    """Everything is revoked for an eager rebalance, what moves for the others. A commit in `on_revoke` is accepted,
    `close` revokes, and what one member leaves the other one gets."""
    topic = side.topic(4)
    committed: list[Any] = []

    def then(kind: str, consumer: Any, partitions: list[TopicPartition]) -> None:
        if kind == "revoke" and partitions:
            offsets = [TopicPartition(topic, tp.partition, 5) for tp in partitions]
            committed.extend(consumer.commit(offsets=offsets, asynchronous=False))

    first, told = side.consumer("g", **config), Callbacks(then)
    told.subscribe(first, topic)
    poll_until(side, lambda: told.not_empty, first)
    assert told.not_empty == [("assign", [0, 1, 2, 3])]
    second, heard = side.consumer("g", **config), Callbacks()
    heard.subscribe(second, topic)
    poll_until(side, lambda: heard.not_empty and len(first.assignment()) == 2, first, second)

    [(_, mine)] = heard.not_empty
    rest = sorted({0, 1, 2, 3} - set(mine))
    assert len(mine) == 2
    if config is CLASSIC:
        assert told.not_empty[1:] == [("revoke", [0, 1, 2, 3]), ("assign", rest)]
    else:
        assert told.not_empty[1:] == [("revoke", mine)]
    assert [tp.error for tp in committed] == [None] * len(told.not_empty[1][1])

    second.close()
    assert heard.not_empty[1:] == [("revoke", mine)]
    poll_until(side, lambda: len(first.assignment()) == 4, first)
    assert told.not_empty[-1] == ("assign", [0, 1, 2, 3] if config is CLASSIC else mine)


@pytest.mark.parametrize("config", [CLASSIC, CONSUMER], ids=["eager", "consumer"])
def test_what_on_assign_raises_comes_out_of_poll_and_reading_goes_on(
    side: Side, config: dict[str, Any]
) -> None:
    topic = side.topic()
    fill(side, topic, 1)

    def then(kind: str, consumer: Any, partitions: list[TopicPartition]) -> None:
        if kind == "assign" and partitions:
            raise ValueError("mine")

    consumer, told = side.consumer("g", **config), Callbacks(then)
    told.subscribe(consumer, topic)
    with pytest.raises(ValueError, match="mine"):
        read(side, consumer, 1)
    assert [tp.partition for tp in consumer.assignment()] == [0]
    assert read(side, consumer, 1)[0].offset() == 0


@pytest.mark.parametrize("config", [CLASSIC, CONSUMER], ids=["eager", "consumer"])
def test_on_assign_may_say_where_to_begin(side: Side, config: dict[str, Any]) -> None:
    topic = side.topic()
    fill(side, topic, 4)

    def then(kind: str, consumer: Any, partitions: list[TopicPartition]) -> None:
        if kind == "assign" and partitions:
            assign = consumer.assign if config is CLASSIC else consumer.incremental_assign
            assign([TopicPartition(tp.topic, tp.partition, 2) for tp in partitions])

    consumer, told = side.consumer("g", **config), Callbacks(then)
    told.subscribe(consumer, topic)
    assert read(side, consumer, 1)[0].offset() == 2


def test_a_second_static_member_ends_the_first_one_of_the_classic_protocol(side: Side) -> None:
    """It is told once, in place of a record, and nothing is taken from it before it closes."""
    topic = side.topic(2)
    first, told = side.consumer("g", **CLASSIC, group_instance_id="i", error_cb=print), Callbacks()
    told.subscribe(first, topic)
    poll_until(side, lambda: told.not_empty, first)
    second, heard = side.consumer("g", **CLASSIC, group_instance_id="i", error_cb=print), Callbacks()
    heard.subscribe(second, topic)
    poll_until(side, lambda: heard.not_empty, second)
    [message] = read(side, first, 1)
    assert (message.error().code(), message.error().fatal()) == (KafkaError._FATAL, False)
    assert "instance" in message.error().str()
    assert first.poll(1.0) is None
    assert told.not_empty == [("assign", [0, 1])]
    assert heard.not_empty == [("assign", [0, 1])]


def test_a_second_static_member_is_refused_by_the_consumer_protocol(side: Side) -> None:
    topic = side.topic(2)
    first, told = side.consumer("g", **CONSUMER, group_instance_id="i", error_cb=print), Callbacks()
    told.subscribe(first, topic)
    poll_until(side, lambda: told.not_empty, first)
    second = side.consumer("g", **CONSUMER, group_instance_id="i", error_cb=print)
    second.subscribe([topic])
    [message] = read(side, second, 1)
    assert (message.error().code(), message.error().fatal()) == (KafkaError._FATAL, False)
    assert "instance" in message.error().str()
    assert first.poll(1.0) is None
    assert told.not_empty == [("assign", [0, 1])]


def test_the_coordinator_describes_its_members(side: Side) -> None:
    topic = side.topic(2)
    consumer, told = side.consumer("g", **CONSUMER), Callbacks()
    told.subscribe(consumer, topic)
    poll_until(side, lambda: told.not_empty, consumer)
    id = consumer.memberid()
    admin, group = side.admin(), side.group("g")
    [member] = admin.describe_consumer_groups([group])[group].result(PATIENCE).members
    assert member.member_id == id
    assert {tp.partition for tp in member.assignment.topic_partitions} == {0, 1}


@pytest.mark.parametrize("call", ["poll", "consume", "commit", "assignment"])
def test_a_closed_consumer_is_of_no_use(side: Side, call: str) -> None:
    consumer = side.consumer("g")
    consumer.close()
    with pytest.raises(RuntimeError):
        getattr(consumer, call)()
