"""What asks the cluster without waiting may end before it is answered, on real Apache Kafka."""

from __future__ import annotations

import gc
import os
import queue
import subprocess
import sys
import textwrap
import uuid
import weakref
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from kafka_notify import (
    Attempt,
    Category,
    Consumer,
    Lane,
    Notification,
    Producer,
    Receipt,
    Topology,
    Worker,
)
from kafka_notify._fetch import periodic_query, topic_ids
from kafka_notify._kafka.admin_client import shared_admin
from kafka_notify._kafka.client_errors import Noted
from kafka_notify._kafka.config import consumer_config
from kafka_notify.admin import create_topics
from kafka_notify.testing import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

ENDS_UNANSWERED = textwrap.dedent(
    """
    import gc, sys, threading
    import confluent_kafka.admin._config as made_of_answers
    from kafka_notify._fetch import periodic_query
    from kafka_notify._fetch.loop import FetchLoop

    if sys.argv[2] == "bug":
        periodic_query.keep_until_answered = lambda client, asked: None
    answered = threading.Event()
    make = made_of_answers.ConfigEntry.__init__

    def collect(self, *args, **kwargs):
        gc.collect()
        answered.set()
        make(self, *args, **kwargs)

    made_of_answers.ConfigEntry.__init__ = collect
    gc.disable()
    config = {"bootstrap.servers": sys.argv[1], "group.id": "g"}
    loop = FetchLoop(config, "asked", "asked.retry")
    loop._watch._retention.settings()
    loop.itself = loop
    del loop
    assert answered.wait(60)
    while periodic_query._unanswered:
        periodic_query.let_answered_go()
    gc.collect()
    print("alive")
    """
)


@pytest.fixture
def bootstrap_servers(local_kafka: LocalKafka) -> str:
    """Of a cluster that has the topics."""
    admin = AdminClient({"bootstrap.servers": local_kafka.bootstrap_servers})
    there = admin.list_topics(timeout=30).topics
    if missing := [NewTopic(name, 1, 1) for name in ("asked", "asked.retry") if name not in there]:
        for created in admin.create_topics(missing).values():
            created.result()
    return local_kafka.bootstrap_servers


@pytest.mark.parametrize("bug", [False, True])
def test_a_worker_that_ends_before_it_is_answered(bootstrap_servers: str, *, bug: bool) -> None:
    """The collector runs in the answer, on the client's own thread: the client must not be garbage. Without the rule
    librdkafka ends the process."""
    child = subprocess.run(
        [sys.executable, "-c", ENDS_UNANSWERED, bootstrap_servers, "bug" if bug else ""],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ("alive" in child.stdout) is not bug, child.stderr
    assert ("owned thread is prohibited" in child.stderr) is bug


# -- one for each process and cluster


class Recorder(Consumer):
    """Remembers what was sent, and says so."""

    def __init__(self) -> None:
        self.sent: queue.Queue[str] = queue.Queue()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        self.sent.put(notification.id)
        return Receipt("recorder")


def test_two_workers_of_a_process_share_one(local_kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they ask from time to time, and how different their groups are. When one stops, the other is answered
    and sends as before; when both have stopped, the client is closed."""
    topology = Topology(
        lanes=[Lane("first", partitions=1), Lane("second", partitions=1)],
        categories=[Category("one", "first"), Category("two", "second")],
        channels=["sms"],
        prefix=f"t{uuid.uuid4().hex[:12]}",
    )
    config: dict[str, Any] = {
        "bootstrap.servers": local_kafka.bootstrap_servers,
        "group.protocol": "consumer",  # which asks more
        "client.id": uuid.uuid4().hex,  # else a client of an earlier test, whose answer is still out, is shared too
    }
    create_topics(topology, config)
    made: list[weakref.ref[Any]] = []
    asked: queue.Queue[Any] = queue.Queue()
    make, describe = AdminClient.__init__, AdminClient.describe_topics

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(weakref.ref(self))
        make(self, *args, **kwargs)

    def heard(self: Any, *args: Any, **kwargs: Any) -> Any:
        answers = describe(self, *args, **kwargs)
        asked.put((set(answers), list(answers.values())))
        return answers

    monkeypatch.setattr(AdminClient, "__init__", counted)
    monkeypatch.setattr(AdminClient, "describe_topics", heard)
    monkeypatch.setattr(topic_ids, "LOOK", 1.0)
    recorders = [Recorder(), Recorder()]
    workers = [
        Worker(recorder, config, lane=lane, topology=topology)
        for recorder, lane in zip(recorders, ("first", "second"), strict=True)
    ]
    with Producer({"bootstrap.servers": local_kafka.bootstrap_servers}, topology=topology) as producer:

        def sends(number: int) -> None:
            id = uuid.uuid4().hex
            category = ("one", "two")[number]
            producer.send(Notification(user_id="u", category=category, channel="sms", data={}, id=id))
            assert recorders[number].sent.get(timeout=60) == id

        with workers[1]:
            with workers[0]:
                sends(0)
                sends(1)
                assert len(made) == 1
            while not asked.empty():
                asked.get()
            topics: set[str] = set()
            answers: list[Any] = []
            while not answers or any(answer.exception(60) for answer in answers):  # a broker may be slow
                topics, answers = asked.get(timeout=60)
            assert topics == {topology.source_topic("second"), topology.retry_topic("second")}
            sends(1)
    assert len(made) == 1
    del workers, topics, answers
    while not asked.empty():
        asked.get()
    while made[0]() is not None:
        periodic_query.let_answered_go()
        gc.collect()


FORKS = textwrap.dedent(
    """
    import os
    from kafka_notify._kafka.admin_client import shared_admin

    config = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    mine = shared_admin(config)
    assert shared_admin(dict(config)) is mine
    child = os.fork()
    if not child:
        os._exit(0 if shared_admin(config) is not mine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert shared_admin(config) is mine
    print("alive")
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_its_own() -> None:
    """The threads of the parent's client do not exist in the child: it would never be answered there."""
    ran = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=100, check=False
    )
    assert "alive" in ran.stdout, ran.stderr


def test_other_credentials_are_another_client() -> None:
    """What differs in any property that a client has, its callbacks included, is not shared; what a consumer alone
    has does not count."""
    config: dict[str, Any] = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "a"}
    first = shared_admin({**config, **login, "sasl.password": "one"})
    assert shared_admin({**config, **login, "sasl.password": "one"}) is first
    assert shared_admin({**config, **login, "sasl.password": "two"}) is not first

    def told(error: object) -> None: ...

    plain = shared_admin(config)
    heard = shared_admin({**config, "error_cb": told})
    assert heard is not plain
    for group in ("g", "h"):
        reading = consumer_config(config, "latency", group)
        assert shared_admin(reading) is plain
        assert shared_admin({**reading, "error_cb": Noted(told)}) is heard
