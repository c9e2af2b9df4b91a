"""A right that is taken from a worker that runs, and given back: it says so, and goes on by itself."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from confluent_kafka import Consumer as Client

from kafka_notify import Attempt, Consumer, Notification, Producer, Receipt, Topology, Worker
from kafka_notify._worker import report
from kafka_notify.admin import create_topics
from kafka_notify.cli._health import HealthServer
from tests.kafka import roles
from tests.kafka.secured import Secured, secured, unique

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]
PATIENCE: Final = 120.0
NEEDED: Final = {role.name: [right for right, _ in role.rights] for role in roles.ROLES}["worker"]
PROTOCOLS: Final[dict[str, dict[str, Any]]] = {
    "classic": {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 1_000},
    "consumer": {"group.protocol": "consumer"},
}


@pytest.fixture(scope="module")
def kafka() -> Iterator[Secured]:
    with secured() as kafka:
        yield kafka


class Accepts(Consumer):
    """Everything, and remembers it."""

    def __init__(self) -> None:
        self.sent: set[str] = set()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        self.sent.add(notification.id)
        return Receipt("x")


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for it; the failure says `what`."""
    pause, waited = threading.Event(), 0.0
    while not condition():
        assert waited < PATIENCE, what()
        waited += 0.05
        pause.wait(0.05)


@contextmanager
def running(worker: Worker) -> Iterator[HealthServer]:
    """A started worker and its probes."""
    probes = HealthServer(worker, "127.0.0.1", 0)
    probes.start()
    try:
        worker.start()
        yield probes
    finally:
        worker.stop(0)
        probes.close()


def asked(probes: HealthServer, path: str) -> tuple[int, str]:
    """What a probe is answered: the code, and the problems."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{probes.port}{path}", timeout=30) as answer:
            code, body = answer.status, answer.read()
    except urllib.error.HTTPError as e:
        code, body = e.code, e.read()
    return code, "\n".join(json.loads(body)["problems"])


def produce(kafka: Secured, site: Topology, n: int) -> None:
    with Producer(kafka.admin, topology=site) as producer:
        producer.send(roles.notification(n)).result(PATIENCE)


@pytest.mark.parametrize(
    ("lost", "protocol", "busy"),
    [
        (f"Read group {roles.GROUP}", "classic", True),
        (f"Read group {roles.GROUP}", "consumer", True),
        (f"Read topic {roles.SOURCE}", "classic", False),
        (f"Read topic {roles.SOURCE}", "consumer", False),
        (f"Read topic {roles.RETRY}", "classic", False),
    ],
)
def test_a_right_that_is_taken_away_is_named_until_it_is_back(
    kafka: Secured, lost: str, protocol: str, busy: bool
) -> None:
    """By operation and resource, in health and `/ready`; then the same worker goes on, with or without new records."""
    prefix = unique()
    site = roles.topology(prefix)
    create_topics(site, kafka.admin)
    config = kafka.user([roles.right(text, prefix) for text in NEEDED])
    user, right = config["sasl.username"], roles.right(lost, prefix)
    named = roles.lacks(*lost.replace("notif", prefix, 1).split(" ", 1))
    consumer = Accepts()
    worker = Worker(consumer, config, lane=roles.LANE, topology=site, consumer_config=PROTOCOLS[protocol])
    with running(worker) as probes:

        def says() -> str:
            return f"{asked(probes, '/ready')}, sent: {sorted(consumer.sent)}"

        produce(kafka, site, 1)
        until(lambda: "n1" in consumer.sent and asked(probes, "/ready") == (200, ""), says)

        kafka.revoke(user, right)
        until(lambda: named in asked(probes, "/ready")[1], says)
        if "group" in lost:  # not only a commit failed: the group has taken the worker's partitions away
            until(lambda: not worker.stats().partitions, says)
            assert named in asked(probes, "/ready")[1]
        assert asked(probes, "/ready")[0] == 503
        assert asked(probes, "/live")[0] == 200
        if busy:
            produce(kafka, site, 2)

        kafka.grant(user, [right])
        until(lambda: asked(probes, "/ready") == (200, ""), says)
        if not busy:
            produce(kafka, site, 2)
        until(lambda: "n2" in consumer.sent, says)


def test_a_group_that_does_not_answer_is_told(kafka: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is refused, but another member does not hand over: that is a problem until the group is joined."""
    monkeypatch.setattr(report, "UNASSIGNED_LIMIT", 0.5)
    site = roles.topology(unique())
    create_topics(site, kafka.admin)
    group = site.group(roles.LANE)
    neighbour = Client({**kafka.admin, "group.id": group, "partition.assignment.strategy": "range"})
    neighbour.subscribe([site.source_topic(roles.LANE)])
    worker = Worker(Accepts(), kafka.admin, lane=roles.LANE, topology=site)
    try:

        def neighbour_has_it() -> bool:
            neighbour.poll(0)
            return bool(neighbour.assignment())

        until(neighbour_has_it, lambda: "the neighbour got no partition")
        with running(worker) as probes:
            until(lambda: asked(probes, "/ready")[0] == 503, lambda: asked(probes, "/ready"))
            code, problems = asked(probes, "/ready")
            assert code == 503
            assert problems.startswith(f"it has not joined the group {group} for ")
            assert "\n" not in problems, "nothing else is said"
            neighbour.close()
            until(lambda: asked(probes, "/ready") == (200, ""), lambda: asked(probes, "/ready"))
    finally:
        neighbour.close()
