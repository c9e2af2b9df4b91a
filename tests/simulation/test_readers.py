"""What reads outside the group, on simulated brokers: pauses, evicted payloads, stretches of topics, spills."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from kafka_notify._fetch.control import ControlReader
from kafka_notify._fetch.payload_reloader import PayloadReloader
from kafka_notify._fetch.spills import read_spills
from kafka_notify._kafka.log_reader import LogReader
from kafka_notify.errors import NotifyError
from tests.simulation.kafka import Cluster, VirtualTime
from tests.simulation.kafka.clients import SERVERS, clients_of

CONFIG = {**SERVERS, "group.id": "g", "auto.offset.reset": "earliest"}


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(VirtualTime())
    made.create("t", 2)
    return made


def fill(cluster: Cluster, count: int, partition: int = 0, topic: str = "t") -> None:
    for n in range(count):
        cluster.append(topic, b"v%d" % n, b"k%d" % n, partition=partition)


# -- the control topic --------------------------------------------------------------------------------


class Control:
    """A reader of the control topic, and what it learned."""

    def __init__(self, cluster: Cluster) -> None:
        self.time = cluster.time
        self.learned: list[list[tuple[bytes, bytes | None]]] = []
        self.ended: list[BaseException] = []
        self.reader = ControlReader(
            CONFIG, "control", lambda records: self.learned.append(list(records)), self.ended.append,
            clients_of(cluster),
        )  # fmt: skip

    def start(self) -> None:
        self.time.call(self.reader.start)

    def close(self) -> None:
        self.time.call(self.reader.close)


@pytest.fixture
def control(cluster: Cluster) -> Iterator[Control]:
    made = Control(cluster)
    yield made
    made.close()
    assert made.ended == []


def test_all_pauses_are_known_when_start_returns(cluster: Cluster, control: Control) -> None:
    """Also when compaction has taken the last offsets away, so that only the end itself says where they end."""
    cluster.create("control", 1)
    fill(cluster, 3, topic="control")
    cluster.log("control").compact(2)
    control.start()
    assert control.learned == [[(b"k0", b"v0"), (b"k1", b"v1")]]


def test_later_pauses_are_learned_while_it_runs(cluster: Cluster, control: Control) -> None:
    cluster.create("control", 1)
    control.start()
    assert control.learned == [[]]
    cluster.append("control", None, b"resumed")
    control.time.until(lambda: len(control.learned) > 1)
    assert control.learned[1:] == [[(b"resumed", None)]]


def test_a_missing_control_topic_pauses_nothing(
    cluster: Cluster, control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    control.start()
    assert control.learned == []
    assert "create_topics" in caplog.text


def test_a_control_topic_that_cannot_be_read_now_is_asked_for_again(
    cluster: Cluster, control: Control
) -> None:
    cluster.create("control", 1)
    fill(cluster, 1, topic="control")
    fault = cluster.faults.fail("offsets_for_times", KafkaError.NOT_LEADER_FOR_PARTITION)
    control.start()
    assert (fault.hits, control.learned) == (1, [[(b"k0", b"v0")]])


# -- evicted payloads ---------------------------------------------------------------------------------


class Wanted:
    """A request for a payload, as `Load` is for its reader."""

    def __init__(self, number: int, at: int) -> None:
        self.number, self.at = number, at
        self.entry: Any = object()


def reloaded(cluster: Cluster, *wanted: Wanted) -> dict[tuple[int, int], bytes | None]:
    """What is answered to requests."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    count = [0]

    def loaded(found: Any) -> None:
        for each in found:
            answers.put(each)
            count[0] += 1

    failed: list[BaseException] = []
    reader = PayloadReloader(CONFIG, "t", loaded, failed.append, clients_of(cluster))
    for each in wanted:
        reader.request(each)  # type: ignore[arg-type]
    awaited = sum(each.entry is not None for each in wanted)
    cluster.time.until(lambda: count[0] == awaited)
    cluster.time.call(reader.close)
    assert failed == []
    found = [answers.get() for _ in range(awaited)]
    return {(w.number, w.at): None if message is None else message.value() for w, message in found}


def test_payloads_are_read_by_their_offset(cluster: Cluster) -> None:
    fill(cluster, 5, 0)
    fill(cluster, 5, 1)
    found = reloaded(cluster, Wanted(0, 1), Wanted(0, 3), Wanted(1, 4))
    assert found == {(0, 1): b"v1", (0, 3): b"v3", (1, 4): b"v4"}


def test_a_removed_payload_is_answered_as_gone(cluster: Cluster) -> None:
    fill(cluster, 5)
    cluster.log("t").delete_before(2)
    cluster.log("t").compact(4)
    assert reloaded(cluster, Wanted(0, 1), Wanted(0, 2), Wanted(0, 4)) == {
        (0, 1): None, (0, 2): b"v2", (0, 4): None,
    }  # fmt: skip


def test_a_payload_that_nobody_waits_for_is_not_read(cluster: Cluster) -> None:
    fill(cluster, 2)
    cancelled = Wanted(0, 0)
    cancelled.entry = None
    assert reloaded(cluster, cancelled, Wanted(0, 1)) == {(0, 1): b"v1"}


# -- stretches of topics ------------------------------------------------------------------------------


def test_a_stretch_is_read_from_its_begin_to_its_end(cluster: Cluster) -> None:
    fill(cluster, 6, 0)
    fill(cluster, 3, 1)
    cluster.log("t", 1).hole()
    cluster.log("t").compact(4)
    with LogReader(SERVERS, "g", clients=clients_of(cluster)) as reader:
        assert (reader.partitions("t"), reader.partitions("missing")) == (2, 0)
        assert reader.extent("t", 1) == (0, 4)
        found = [(m.partition(), m.offset()) for m in reader.read({("t", 0): (2, 5), ("t", 1): (0, 4)})]
    assert sorted(found) == [(0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]


def test_an_offset_by_time(cluster: Cluster) -> None:
    for n in range(3):
        cluster.append("t", b"v", b"k", timestamp=1_000 * n)
    with LogReader(SERVERS, "g", clients=clients_of(cluster)) as reader:
        assert reader.offset_at("t", 0, 500) == 1
        assert reader.offset_at("t", 0, 5_000) is None


def test_a_stretch_that_may_not_be_read_says_so(cluster: Cluster) -> None:
    fill(cluster, 2)
    cluster.faults.fail("consume", KafkaError.TOPIC_AUTHORIZATION_FAILED, topic="t")
    with (
        LogReader(SERVERS, "g", clients=clients_of(cluster)) as reader,
        pytest.raises(NotifyError, match="Read"),
    ):
        list(reader.read({("t", 0): (0, 2)}))


def test_an_election_interrupts_no_question(cluster: Cluster) -> None:
    fill(cluster, 2)
    fault = cluster.faults.fail("offsets_for_times", KafkaError.NOT_LEADER_FOR_PARTITION)
    with LogReader(SERVERS, "g", clients=clients_of(cluster)) as reader:
        assert reader.extent("t", 0) == (0, 2)
    assert fault.hits == 1


# -- spills -------------------------------------------------------------------------------------------


def test_spills_are_read_by_their_offset_with_their_writer(cluster: Cluster) -> None:
    fill(cluster, 2)
    cluster.append("t", b"bits", b"kafka-notify-spill", [("notif-writer", b"spill:w")])
    fill(cluster, 1, 1)
    cluster.log("t", 1).compact(0)
    fill(cluster, 1, 1)
    found = read_spills(CONFIG, "t", {0: 2, 1: 0}, 5.0, clients_of(cluster))
    assert found == {0: ("spill:w", b"bits"), 1: ("", None)}


def test_a_spill_that_cannot_be_read_is_not_taken_to_be_missing(cluster: Cluster) -> None:
    fill(cluster, 2)
    cluster.faults.fail("consume", KafkaError.TOPIC_AUTHORIZATION_FAILED, topic="t")
    with pytest.raises(KafkaException):
        read_spills(CONFIG, "t", {0: 1}, 5.0, clients_of(cluster))


def test_threads_of_readers_end(cluster: Cluster) -> None:
    before = threading.active_count()
    control = Control(cluster)
    cluster.create("control", 1)
    control.start()
    control.close()
    assert threading.active_count() == before
