"""`Producer.send`: what is written, and what is said when it is not."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, murmur2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafka_notify import (
    Config,
    ConfigError,
    InvalidNotificationError,
    NotifyError,
    PendingSend,
    ProduceError,
    Producer,
    QueueFullError,
    Topology,
    events,
)
from kafka_notify._kafka import handle as _handle
from kafka_notify._kafka import open_handles
from kafka_notify._kafka.config import producer_config
from kafka_notify.testing import MockKafka
from tests.producer.conftest import NOWHERE, new_topology, note
from tests.producer.records import ids, read_all

TINY: Config = {"queue.buffering.max.messages": 3}


def test_a_send_is_acknowledged_with_its_place(
    producer: Producer, topology: Topology, config: Config
) -> None:
    """The result names topic, partition and offset, and the record lies there under its key."""
    sent = note("u42")
    metadata = producer.send(sent).result(10)
    (record,) = read_all(str(config["bootstrap.servers"]), topology.source_topic("high"))
    assert metadata.topic == topology.source_topic("high")
    assert (metadata.partition, metadata.offset) == (record.partition(), record.offset())
    assert (record.key(), record.value()) == (b"u42", b'{"text":"hello"}')
    assert ids([record]) == [sent.id]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    user_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
        lambda text: text == text.strip()
    )
)
def test_a_user_is_where_a_java_producer_would_put_him(producer: Producer, user_id: str) -> None:
    """The partition is murmur2 of the UTF-8 user id, whatever characters it has."""
    assert producer.send(note(user_id)).result(10).partition == murmur2(user_id.encode(), 4)


def test_a_failure_that_nobody_looks_at_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As asyncio does for futures: an error with id, topic and reason; once, not once for each of thousands. Who looks
    at the result, gives a callback or listens to events is told there alone."""
    config: Config = {**NOWHERE, "delivery.timeout.ms": 100, "linger.ms": 0}

    def fail(
        look: Callable[[PendingSend], object] | None, on_event: events.OnEvent | None = None
    ) -> list[str]:
        topology = new_topology()
        producer = Producer(config, topology=topology, on_event=on_event)
        for n in range(3):
            pending = producer.send(note(f"u{n}", id=f"id-{n}"))
            if look is not None:
                look(pending)
            del pending
        with suppress(NotifyError):
            producer.close(10)
        gc.collect()
        # Producers of earlier tests may end meanwhile.
        said = [r.getMessage() for r in caplog.records if topology.source_topic("high") in r.getMessage()]
        return [message for message in said if "nobody looked" in message]

    def looked(pending: PendingSend) -> None:
        with pytest.raises(ProduceError):
            pending.result(10)

    (said,) = fail(None)
    assert "id-" in said
    assert "_MSG_TIMED_OUT" in said
    assert "send it again with the same id" in said
    assert fail(looked) == []
    assert fail(lambda pending: pending.add_done_callback(lambda _: None)) == []
    assert fail(None, on_event=lambda _: None) == []


def test_an_unknown_category_or_channel_is_refused_with_the_known_ones(producer: Producer) -> None:
    """A category or channel outside the topology never reaches Kafka; the error lists those inside."""
    with pytest.raises(InvalidNotificationError, match=r"unknown category 'opt'; known: marketing, otp"):
        producer.send(note(category="opt"))
    wrong = note()
    object.__setattr__(wrong, "channel", "fax")
    with pytest.raises(InvalidNotificationError, match=r"unknown channel 'fax'; known: email, sms"):
        producer.send(wrong)


def test_contradictions_are_found_when_it_is_made(topology: Topology) -> None:
    """An unknown lane, a property that breaks a promise in one lane: refused before anything is sent."""
    with pytest.raises(ConfigError, match=r"unknown lane 'hihg'; known lanes: high, low"):
        Producer(NOWHERE, topology=topology, lane_config={"hihg": {}})
    with pytest.raises(ConfigError, match="acks cannot have this value"):
        Producer(NOWHERE, topology=topology, lane_config={"low": {"acks": 1}})


def test_a_full_queue_is_reported_and_loses_nothing_that_was_accepted(topology: Topology) -> None:
    """With no broker to be reached, sends are refused once the queue is full; accepted ones stay in it."""
    producer = Producer(NOWHERE, topology=topology, max_block=0.05, lane_config={"high": TINY})
    accepted = [producer.send(note()) for _ in range(3)]
    with pytest.raises(
        QueueFullError, match=rf"{topology.source_topic('high')}: the queue stayed full for 0\.05 s"
    ):
        producer.send(note())
    with pytest.raises(
        NotifyError, match=r"^3 notifications were not acknowledged within 0\.01 s; still being sent"
    ):
        producer.flush(0.01)
    assert not any(pending.done() for pending in accepted)
    with pytest.raises(NotifyError, match=r"^3 notifications.+ given up"):
        producer.close(0)
    for pending in accepted:
        with pytest.raises(ProduceError, match="_PURGE_QUEUE"):
            pending.result(10)


def test_a_missing_topic_is_named_with_the_way_to_create_it(
    mock_kafka: MockKafka, topology: Topology
) -> None:
    """Where topics are not created automatically, the failure says which is missing and what to do."""
    config: Config = {
        "bootstrap.servers": mock_kafka.bootstrap_servers,
        "topic.metadata.propagation.max.ms": 50,
    }
    with Producer(config, topology=topology) as producer:
        topic = topology.source_topic("high")
        with pytest.raises(
            ProduceError, match=rf"^{topic}: not acknowledged: UNKNOWN_TOPIC.+create_topics\(\)"
        ):
            producer.send(note()).result(20)
        with pytest.raises(ConfigError, match=rf"^{topic}: UNKNOWN_TOPIC.+create_topics\(\)"):
            producer.warm_up(["high"])


def test_a_delivery_timeout_says_topic_and_reason_but_no_data(topology: Topology) -> None:
    """When no broker acknowledges in time, the error names topic and reason, never user, recipient or data."""
    producer = Producer(NOWHERE, topology=topology, lane_config={"high": {"delivery.timeout.ms": 50}})
    pending = producer.send(note("secret-user", recipient="secret-recipient", id="secret-id"))
    with pytest.raises(ProduceError, match="_MSG_TIMED_OUT") as caught:
        pending.result(20)
    assert str(caught.value).startswith(f"{topology.source_topic('high')}: not acknowledged: ")
    assert "secret" not in str(caught.value) + repr(pending)
    producer.close()


def test_a_result_that_does_not_come_is_a_timeout(topology: Topology) -> None:
    """result(timeout) raises an error that is both a ProduceError and a TimeoutError, and stays askable."""
    producer = Producer(NOWHERE, topology=topology)
    pending = producer.send(note())
    with pytest.raises(ProduceError, match=r"no acknowledgement within 0\.01 s") as caught:
        pending.result(0.01)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(NotifyError, match=r"^1 notifications"):
        producer.close(0)
    with pytest.raises(ProduceError, match="_PURGE_QUEUE"):
        pending.result()


def test_data_too_large_is_refused_by_the_send(producer: Producer) -> None:
    """A record beyond message.max.bytes is refused at once, without a word of its data."""
    large = note()
    object.__setattr__(large, "_data", {"text": "x" * 1_100_000})
    with pytest.raises(ProduceError, match="MSG_SIZE_TOO_LARGE") as caught:
        producer.send(large)
    assert "xxx" not in str(caught.value)


def test_an_otp_does_not_wait_for_marketings_full_queue(config: Config, topology: Topology) -> None:
    """While marketing's queue is full and unsent, a send of the other lane is acknowledged."""
    held: Config = {**TINY, "linger.ms": 200_000}
    producer = Producer(config, topology=topology, max_block=0, lane_config={"low": held})
    waiting = [producer.send(note(category="marketing")) for _ in range(3)]
    with pytest.raises(QueueFullError):
        producer.send(note(category="marketing"))
    producer.send(note(category="otp")).result(20)
    assert not any(pending.done() for pending in waiting)
    producer.close()
    assert all(pending.result(0).topic == topology.source_topic("low") for pending in waiting)


def test_callbacks_run_once_whenever_they_are_added(producer: Producer) -> None:
    """A callback runs exactly once, whether it was added before or after the report; a failing one harms none."""
    calls: list[tuple[str, PendingSend]] = []
    told = threading.Event()

    def fails(_: PendingSend) -> None:
        raise RuntimeError("user's mistake")

    pending = producer.send(note())
    pending.add_done_callback(fails)
    pending.add_done_callback(lambda p: calls.append(("early", p)))
    pending.add_done_callback(lambda _: told.set())
    assert told.wait(20)
    pending.add_done_callback(lambda p: calls.append(("late", p)))
    producer.flush()
    assert calls == [("early", pending), ("late", pending)]
    assert pending.done()


def test_a_flush_returns_after_the_last_callback(producer: Producer) -> None:
    """When flush returns, everything sent before is done and its callbacks have run."""
    reported: list[PendingSend] = []
    pending = [producer.send(note(f"u{i}")) for i in range(500)]
    for each in pending:
        each.add_done_callback(reported.append)
    producer.flush()
    assert all(each.done() for each in pending)
    assert len(reported) == 500


def test_a_closed_producer_refuses_and_closes_again(config: Config, topology: Topology) -> None:
    """After close, sends raise, whether their lane was open or not; a second close and a flush do nothing."""
    producer = Producer(config, topology=topology)
    pending = producer.send(note())
    producer.close()
    assert pending.done()
    producer.close()
    producer.flush()
    for category in ("otp", "marketing"):
        with pytest.raises(NotifyError, match="closed"):
            producer.send(note(category=category))
    assert "closed" in repr(producer)


def test_close_is_refused_in_a_callback_which_it_would_wait_for(producer: Producer) -> None:
    """close() from a delivery callback raises instead of waiting for itself."""
    raised: list[Exception] = []
    told = threading.Event()

    def close(_: PendingSend) -> None:
        try:
            producer._handles["high"].close(1)
        except NotifyError as e:
            raised.append(e)
        told.set()

    producer.send(note()).add_done_callback(close)
    assert told.wait(20)
    assert "must not be called from a delivery callback" in str(raised[0])


def test_events_tell_what_happened(config: Config, topology: Topology) -> None:
    """on_event is given Produced and ProduceFailed with id, category and channel; an exception in it is survived."""
    seen: list[events.Event] = []

    def on_event(event: events.Event) -> None:
        seen.append(event)
        raise RuntimeError("user's mistake")

    with Producer(config, topology=topology, on_event=on_event) as producer:
        metadata = producer.send(note(id="n1")).result(20)
    away = Producer(
        NOWHERE, topology=topology, on_event=on_event, lane_config={"high": {"delivery.timeout.ms": 50}}
    )
    with pytest.raises(ProduceError):
        away.send(note(id="n2")).result(20)
    away.close()
    produced = [e for e in seen if isinstance(e, events.Produced)]
    failed = [e for e in seen if isinstance(e, events.ProduceFailed)]
    assert [(e.id, e.category, e.channel, e.offset) for e in produced] == [
        ("n1", "otp", "sms", metadata.offset)
    ]
    assert [(e.id, e.topic) for e in failed] == [("n2", topology.source_topic("high"))]
    assert "_MSG_TIMED_OUT" in failed[0].reason
    assert any(isinstance(e, events.KafkaError) and not e.fatal for e in seen)


def test_a_fatal_error_costs_one_handle_not_the_producer(producer: Producer) -> None:
    """After a fatal error of librdkafka's the lane opens a new handle; what was acknowledged stays so."""
    first = producer.send(note())
    first.result(20)
    dead = producer._handles["high"]
    dead._on_error(KafkaError(KafkaError._FATAL, "sequence", fatal=True))
    assert producer.send(note()).result(20).offset >= 0
    assert producer._handles["high"] is not dead
    assert first.result(0).offset >= 0


class RaisesInFlush:
    """A librdkafka producer whose callbacks are run by `flush` and raise, once each."""

    def __init__(self, *raised: Exception) -> None:
        self.raised = list(raised)

    def flush(self, _: float) -> int:
        if self.raised:
            raise self.raised.pop(0)
        return 0

    def poll(self, _: float) -> int:
        return 0

    def purge(self) -> None: ...

    def __len__(self) -> int:
        return len(self.raised)


def test_what_a_callback_raises_does_not_end_a_flush(caplog: pytest.LogCaptureFixture) -> None:
    """librdkafka may run callbacks in the thread that flushes: a fatal error or a user's mistake raises from there."""
    handle = _handle.ProducerHandle(dict(NOWHERE), name="flushed")
    real = handle._producer
    fatal = KafkaError(KafkaError._FATAL, "no right", fatal=True)
    handle._producer = RaisesInFlush(RuntimeError("user's mistake"), KafkaException(), KafkaException(fatal))  # type: ignore[assignment]
    assert handle.flush(20) == 0
    assert handle.dead is not None
    assert "failed permanently" in handle.dead
    assert "a callback raised RuntimeError" in caplog.text
    assert "fatal" in caplog.text
    handle._producer = real
    assert handle.close(1) == 0


def test_an_error_callback_that_raises_leaves_the_other_reports(caplog: pytest.LogCaptureFixture) -> None:
    """A user's `error_cb` that raises at a fatal error is logged; the handle is dead all the same."""

    def error_cb(_: KafkaError) -> None:
        raise RuntimeError("user's mistake")

    handle = _handle.ProducerHandle({**NOWHERE, "error_cb": error_cb}, name="flushed")
    real = handle._producer
    handle._producer = RaisesInFlush(KafkaException(KafkaError(KafkaError._FATAL, "no right", fatal=True)))  # type: ignore[assignment]
    assert handle.flush(20) == 0
    assert handle.dead is not None
    assert "a callback raised RuntimeError" in caplog.text
    handle._producer = real
    assert handle.close(1) == 0


def test_a_users_own_error_callback_is_called_too(topology: Topology) -> None:
    """An error_cb in the config is called beside ours."""
    told = threading.Event()
    config: Config = {**NOWHERE, "error_cb": lambda _: told.set()}
    with Producer(config, topology=topology) as producer:
        producer._lane_handle("high")
        assert told.wait(20)


def test_a_warm_up_without_brokers_says_what_to_check(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """warm_up raises when no broker answers in time, with the settings to look at."""
    monkeypatch.setattr("kafka_notify.producer._WARM_UP_SECONDS", 0.1)
    problem = pytest.raises(NotifyError, match=r"no broker answered within 0\.1 s.+bootstrap\.servers")
    with Producer(NOWHERE, topology=topology) as producer, problem:
        producer.warm_up(["high"])


def test_a_warmed_up_producer_knows_its_topics(producer: Producer) -> None:
    """warm_up opens the lanes that are named, and all without names; an unknown one is refused."""
    producer.warm_up(["high"])
    assert producer._handles.keys() == {"high"}
    producer.warm_up()
    assert producer._handles.keys() == {"high", "low"}
    with pytest.raises(ConfigError, match="unknown lane 'hihg'"):
        producer.warm_up(["hihg"])


def test_a_forgotten_producer_still_sends(config: Config, topology: Topology) -> None:
    """A producer that is dropped without close sends what it accepted, then frees its handle."""
    producer = Producer(config, topology=topology, lane_config={"low": {"linger.ms": 500}})
    pending = producer.send(note(category="marketing"))
    handle = producer._handles["low"]
    gone = weakref.ref(producer)
    del producer
    gc.collect()
    assert gone() is None
    assert pending.result(20).offset >= 0
    handle._thread.join(20)
    assert handle not in open_handles._open


def test_no_secret_is_shown(topology: Topology) -> None:
    """repr shows the brokers of each lane and no credentials."""
    config: dict[str, Any] = {**NOWHERE, "sasl.password": "hunter2", "security.protocol": "sasl_plaintext"}
    text = repr(Producer(config, topology=topology))
    assert "127.0.0.1:1" in text
    assert "hunter2" not in text


class ReportWithoutOffset:
    """A delivery report that names no place in the log."""

    def error(self) -> None:
        return None

    def partition(self) -> int:
        return 3

    def offset(self) -> int | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return (1, 1)


def test_an_acknowledgement_without_offset_is_no_success(config: Config, topology: Topology) -> None:
    """After an election a broker may take a batch for a duplicate that it never wrote: that must not read as sent."""
    seen: list[events.Event] = []
    with Producer(config, topology=topology, on_event=seen.append) as producer:
        handle = producer._lane_handle("high")

        def lossy(*args: Any) -> None:
            args[4](None, ReportWithoutOffset())

        handle._produce = lossy
        pending = producer.send(note())

    with pytest.raises(ProduceError, match=r"without an offset.*same id"):
        pending.result(10)
    assert [type(event) for event in seen] == [events.ProduceFailed]


def test_one_request_is_in_flight() -> None:
    """More than one could reorder or lose a user's first notifications while a partition elects its leader."""
    name = "max.in.flight.requests.per.connection"

    assert producer_config(NOWHERE, "latency")[name] == producer_config(NOWHERE, "throughput")[name] == 1
    with pytest.raises(ConfigError, match="connection cannot have this value"):
        producer_config({**NOWHERE, "max.in.flight": 5}, "latency")
    assert producer_config({**NOWHERE, "max.in.flight": 3}, "latency", copies=True)[name] == 3
