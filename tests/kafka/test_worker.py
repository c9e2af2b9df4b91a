"""The life of a worker, on real Apache Kafka: start, signals, stop, and what it says when something is off."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from typing import Any

import pytest
from confluent_kafka import Message
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # confluent_kafka re-exports without saying so
    AdminClient,
    NewTopic,
)

from kafka_notify import (
    Attempt,
    Category,
    ConfigError,
    Consumer,
    DeadLetter,
    Lane,
    Notification,
    NotifyError,
    PermanentError,
    Producer,
    Receipt,
    RetryPolicy,
    Topology,
    TransientError,
    UnknownOutcomeError,
    Worker,
    events,
    run,
)
from kafka_notify._partition.entry import Entry
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._settle.copies import Copy
from kafka_notify.admin import create_topics
from kafka_notify.events import Event
from kafka_notify.testing import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture
def topology() -> Topology:
    """A topology of its own for each test, with few partitions."""
    return Topology(
        lanes=[Lane("quick", partitions=3)],
        categories=[Category("otp", "quick")],
        channels=["sms", "email"],
        prefix=f"t{uuid.uuid4().hex[:12]}",
    )


@pytest.fixture
def config(local_kafka: LocalKafka, topology: Topology) -> dict[str, Any]:
    """Client settings; the topics exist."""
    config: dict[str, Any] = {"bootstrap.servers": local_kafka.bootstrap_servers}
    create_topics(topology, config, consumers=["", "texts"])
    return config


OF_ONE_ATTEMPT = (Notification, Attempt, Exception, Message, Entry, RetryRecord, Copy)
"""What a worker makes anew for each record."""


class Recorder(Consumer):
    """Keeps what it was given."""

    def __init__(self, expected: int = 0) -> None:
        self.ids: list[str] = []
        self.life: list[str] = []
        self.all = threading.Event()
        self.expected = expected

    def setup(self) -> None:
        self.life.append("setup")

    async def teardown(self) -> None:
        self.life.append("teardown")

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        self.ids.append(notification.id)
        if len(self.ids) >= self.expected:
            self.all.set()
        return Receipt("recorder")


def produce(config: dict[str, Any], topology: Topology, count: int, channel: str = "sms") -> list[str]:
    """Send notifications of ten users; their ids."""
    with Producer(config, topology=topology) as producer:
        made = [
            Notification(user_id=f"u{n % 10}", category="otp", channel=channel, data={"n": n})
            for n in range(count)
        ]
        for notification in made:
            producer.send(notification)
        producer.flush()
    return [notification.id for notification in made]


def test_a_second_worker_goes_on_where_the_first_stopped(config: dict[str, Any], topology: Topology) -> None:
    """What one worker sent and committed at its stop is not sent by the next one; setup and teardown run once."""
    first_ids = produce(config, topology, 50)
    first = Recorder(50)
    with Worker(first, config, lane="quick", topology=topology):
        assert first.all.wait(60)
    second_ids = produce(config, topology, 50)
    second = Recorder(50)
    with Worker(second, config, lane="quick", topology=topology):
        assert second.all.wait(60)

    assert sorted(first.ids) == sorted(first_ids)
    assert sorted(second.ids) == sorted(second_ids)
    assert first.life == ["setup", "teardown"]


def test_a_worker_reads_only_its_channels(config: dict[str, Any], topology: Topology) -> None:
    """A named consumer passes over other channels' notifications in its own group, and leaves them to theirs."""

    class Texts(Recorder):
        name = "texts"
        channels = frozenset({"sms"})

    produce(config, topology, 20, "email")
    ids = produce(config, topology, 20, "sms")
    texts, everything = Texts(20), Recorder(40)
    with Worker(texts, config, lane="quick", topology=topology) as worker:
        assert texts.all.wait(60)
        with Worker(everything, config, lane="quick", topology=topology):
            assert everything.all.wait(60)
        passed_over = worker.stats().passed_over

    assert sorted(texts.ids) == sorted(ids)
    assert passed_over == 20
    assert len(set(everything.ids)) == 40


class Uneven(Consumer):
    """Accepts at the first attempt, at the second one, or never; notes what is terminal."""

    retry = RetryPolicy(3, initial_delay=0.05, multiplier=1)

    def __init__(self, expected: int) -> None:
        self.open = expected
        self.all = threading.Event()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        await asyncio.sleep(0)
        kind = notification.data["n"] % 5
        if kind == 1:
            raise PermanentError("refused")
        if kind == 2 and attempt.number == 1:
            raise TransientError("busy")
        if kind == 3 and attempt.number == 1:
            raise RuntimeError("a bug")
        if kind == 4 and attempt.number == 1:
            raise UnknownOutcomeError("gone")
        self.ended()
        return Receipt("uneven")

    async def on_dead_letter(self, letter: DeadLetter) -> None:
        self.ended()

    def ended(self) -> None:
        self.open -= 1
        if not self.open:
            self.all.set()


def test_no_reference_cycles_are_left_behind(config: dict[str, Any], topology: Topology) -> None:
    """However an attempt ends, nothing of it waits for the cyclic garbage collector, whose pauses delay all others."""
    consumer = Uneven(200)
    produce(config, topology, 200)
    gc.collect()
    gc.disable()
    try:
        with Worker(consumer, config, lane="quick", topology=topology) as worker:
            assert consumer.all.wait(60)
            counts = worker.stats()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = Counter(type(one).__name__ for one in gc.garbage if isinstance(one, OF_ONE_ATTEMPT))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

    assert (counts.sent, counts.retried, counts.dead) == (160, 120, 40)
    assert not left


def test_missing_topics_are_named_at_the_start(local_kafka: LocalKafka, topology: Topology) -> None:
    """Without its topics a worker does not start, and says what creates them."""
    worker = Worker(
        Recorder, {"bootstrap.servers": local_kafka.bootstrap_servers}, lane="quick", topology=topology
    )

    with pytest.raises(ConfigError, match=r"\.quick: UNKNOWN_TOPIC.*create_topics"):
        worker.start()
    assert not worker.health().ok


def test_topics_that_do_not_match_are_refused_at_the_start(
    local_kafka: LocalKafka, topology: Topology
) -> None:
    """Source and retry topic with different partition counts could not keep a user's order."""
    config: dict[str, Any] = {"bootstrap.servers": local_kafka.bootstrap_servers}
    names = {
        topology.source_topic("quick"): 3,
        topology.retry_topic("quick"): 2,
        topology.dlq_topic("quick"): 1,
    }
    admin = AdminClient(config)
    for future in admin.create_topics([NewTopic(name, count, 1) for name, count in names.items()]).values():
        future.result()

    with pytest.raises(ConfigError, match=r"3 partitions and .* has 2"):
        Worker(Recorder, config, lane="quick", topology=topology).start()


def test_a_failing_setup_stops_the_start(config: dict[str, Any], topology: Topology) -> None:
    """What `setup` raises is what `start` raises, and nothing was read."""

    class Broken(Recorder):
        def setup(self) -> None:
            raise RuntimeError("no credentials")

    broken = Broken()
    produce(config, topology, 5)
    with pytest.raises(RuntimeError, match="no credentials"):
        Worker(broken, config, lane="quick", topology=topology).start()
    assert broken.ids == []


def test_a_worker_is_started_once(config: dict[str, Any], topology: Topology) -> None:
    """A second start is refused, also after the stop."""
    worker = Worker(Recorder, config, lane="quick", topology=topology)
    with worker, pytest.raises(NotifyError, match="started once"):
        worker.start()
    with pytest.raises(NotifyError, match="started once"):
        worker.start()
    worker.stop()


def test_system_exit_in_setup_is_told_at_the_start(config: dict[str, Any], topology: Topology) -> None:
    """`setup` may end the process: `start` raises what it raised."""

    class Leaving(Recorder):
        async def setup(self) -> None:  # type: ignore[override]
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        Worker(Leaving, config, lane="quick", topology=topology).start()


def test_several_named_consumers_run_in_one_process(config: dict[str, Any], topology: Topology) -> None:
    """Each has a group of its own, sends its own channel, and retries through its own topic; a stop ends all."""
    create_topics(topology, config, consumers=["", "texts", "mails"])

    class Named(Recorder):
        retry = RetryPolicy(3, initial_delay=0.05, multiplier=1)

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            if attempt.number == 1 and notification.data["n"] % 3 == 0:
                raise TransientError("busy")
            return await super().send(notification, attempt)

    class Texts(Named):
        name, channels = "texts", frozenset({"sms"})

    class Mails(Named):
        name, channels = "mails", frozenset({"email"})

    texts, mails = Texts(30), Mails(30)
    ids = {kind: produce(config, topology, 30, kind) for kind in ("sms", "email")}
    workers = [Worker(c, config, lane="quick", topology=topology) for c in (texts, mails)]
    ended: list[BaseException] = []

    def go() -> None:
        try:
            run(*workers)
        except BaseException as e:
            ended.append(e)

    thread = threading.Thread(target=go)
    thread.start()
    assert texts.all.wait(60)
    assert mails.all.wait(60)
    for worker in workers:
        worker.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert ended == []
    assert (sorted(texts.ids), sorted(mails.ids)) == (sorted(ids["sms"]), sorted(ids["email"]))


def test_events_tell_the_whole_way(config: dict[str, Any], topology: Topology) -> None:
    """Assignment, start of each partition, attempts and revocation are told; an exception in the hook is not felt."""
    seen: list[Event] = []

    def on_event(event: Event) -> None:
        seen.append(event)
        raise RuntimeError("a bug of the hook")

    produce(config, topology, 10)
    recorder = Recorder(10)
    with Worker(recorder, config, lane="quick", topology=topology, on_event=on_event):
        assert recorder.all.wait(60)

    kinds = [type(event) for event in seen]
    assert kinds.count(events.PartitionStarted) == 3
    assert kinds.count(events.AttemptEnded) == 10
    assert {events.PartitionsAssigned, events.PartitionsRevoked} <= set(kinds)


SIGNALLED = """
import asyncio, sys
from kafka_notify import Category, Consumer, Lane, Receipt, Topology, Worker

class Slow(Consumer):
    async def send(self, notification, attempt):
        print("sending", flush=True)
        try:
            await asyncio.sleep(float(sys.argv[3]))
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
        print("sent", flush=True)
        return Receipt("slow")

topology = Topology(lanes=[Lane("quick", partitions=3)], categories=[Category("otp", "quick")],
                    channels=["sms", "email"], prefix=sys.argv[2])
Worker(Slow, {"bootstrap.servers": sys.argv[1]}, lane="quick", topology=topology, drain_timeout=60).run()
print("ended", flush=True)
"""


@pytest.mark.parametrize(("seconds", "signals", "expected"), [(1.0, 1, "sent"), (3_600.0, 2, "cancelled")])
def test_signals(
    config: dict[str, Any], topology: Topology, seconds: float, signals: int, expected: str
) -> None:
    """SIGTERM lets a running send end; a second one cancels it, and its notification is sent by the next worker."""
    ids = produce(config, topology, 1)
    servers = config["bootstrap.servers"]
    with subprocess.Popen(
        [sys.executable, "-c", SIGNALLED, servers, topology.prefix, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sending\n"
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            # the second signal must find the first one handled
            threading.Event().wait(0.5)
        said = process.stdout.read().split()
    assert process.returncode == 0
    assert said == [expected, "ended"]

    after = Recorder(1)
    with Worker(after, config, lane="quick", topology=topology):
        if expected == "cancelled":
            assert after.all.wait(60)
        else:
            more = produce(config, topology, 1)
            assert after.all.wait(60)
            ids = more
    assert after.ids == ids


async def test_a_worker_can_be_used_beside_a_running_loop(config: dict[str, Any], topology: Topology) -> None:
    """A worker has a loop of its own: one can run in the process of an asyncio application."""
    recorder = Recorder(10)
    worker = Worker(recorder, config, lane="quick", topology=topology)
    await asyncio.to_thread(worker.start)
    async with Producer(config, topology=topology) as producer:
        for n in range(10):
            await producer.asend(Notification(user_id=f"u{n}", category="otp", channel="sms", data={}))
    assert await asyncio.to_thread(recorder.all.wait, 60)
    await asyncio.to_thread(worker.stop)
    assert len(recorder.ids) == 10


def test_transactions_are_not_respected(topology: Topology, config: dict[str, Any]) -> None:
    """What a transactional producer aborted is sent all the same, as the documentation says: the isolation level is the
    retry topic's, too, where an open transaction would hide copies."""
    sent = threading.Event()

    class Sends(Consumer):
        def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            sent.set()
            return Receipt("acme")

    producer = KafkaProducer({**config, "transactional.id": topology.prefix})
    producer.init_transactions(60)
    producer.begin_transaction()
    headers: Any = [("notif-category", b"otp"), ("notif-channel", b"sms")]
    producer.produce(topology.source_topic("quick"), b"{}", b"u", headers=headers)
    producer.flush(60)
    producer.abort_transaction(60)
    with Worker(Sends(), config, lane="quick", topology=topology):
        assert sent.wait(60)
