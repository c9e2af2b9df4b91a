"""Producers through forks and at the end of processes, on real Kafka: every notification arrives once."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import kafka_notify
from kafka_notify import Topology
from kafka_notify.admin import create_topics
from kafka_notify.testing.pytest_plugin import ExternalKafka
from tests.producer.conftest import new_topology
from tests.producer.records import ids, read_all

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]


class Site:
    """Topics of one test, and the environment in which its programs find them."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.servers = bootstrap_servers
        self.topology: Topology = new_topology()
        create_topics(self.topology, {"bootstrap.servers": bootstrap_servers})
        self.environ = {
            **os.environ,
            "KAFKA_NOTIFY_BOOTSTRAP_SERVERS": bootstrap_servers,
            "TOPOLOGY": json.dumps(self.topology.to_dict()),
            "PYTHONPATH": os.pathsep.join([str(Path(kafka_notify.__file__).parents[1]), str(ROOT)]),
        }

    def run(self, program: str) -> subprocess.CompletedProcess[str]:
        """One of the programs in processes.py, to its end."""
        return subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.producer.processes", program],
            env=self.environ,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def arrived(self) -> Counter[str]:
        """How often each id lies in the lane's topic."""
        return Counter(ids(read_all(self.servers, self.topology.source_topic("high"))))


@pytest.fixture
def site(local_kafka: ExternalKafka) -> Site:
    """Topics of the test's own on the session's Kafka."""
    return Site(local_kafka.bootstrap_servers)


@pytest.mark.parametrize("program", ["sends_and_ends", "is_forgotten_and_ends", "ends_with_an_error"])
def test_what_was_sent_arrives_when_the_process_just_ends(site: Site, program: str) -> None:
    """A process that sends and ends without close, by an exception or with the producer forgotten, loses nothing."""
    done = site.run(program)
    assert done.returncode == (1 if program == "ends_with_an_error" else 0), done.stderr
    assert site.arrived() == Counter(f"n{i}" for i in range(1_000))


def test_what_cannot_be_delivered_at_the_end_is_said_aloud(site: Site) -> None:
    """A process that ends while no broker can be reached says on stderr how many notifications it leaves."""
    site.environ["KAFKA_NOTIFY_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    done = site.run("ends_without_brokers")
    assert "the process ended with 1 records not acknowledged within 0.1 s" in done.stderr


def test_a_killed_process_keeps_what_was_acknowledged(site: Site) -> None:
    """After SIGKILL everything that was acknowledged is there, and nothing is there twice."""
    done = site.run("is_killed")
    assert done.returncode == -signal.SIGKILL, done.stderr
    arrived, acknowledged = site.arrived(), set(done.stdout.split())
    assert len(acknowledged) == 500
    assert acknowledged <= arrived.keys() <= {f"n{i}" for i in range(1_000)}
    assert set(arrived.values()) == {1}


def test_a_fork_neither_loses_nor_doubles(site: Site) -> None:
    """What was queued at a fork is sent by the parent alone; each child sends its own through a handle of its own."""
    done = site.run("forks")
    assert done.returncode == 0, done.stderr
    arrived = site.arrived()
    assert set(arrived.values()) == {1}
    assert {"before", "after"} <= arrived.keys()
    assert {f"child-{n}-{i}" for n in range(3) for i in range(10)} <= arrived.keys()
    (end,) = [id for id in arrived if id.startswith("thread-end-")]
    assert {f"thread-{i}" for i in range(int(end.removeprefix("thread-end-")))} <= arrived.keys()


def test_children_of_multiprocessing_flush_at_their_end(site: Site) -> None:
    """Forked multiprocessing children end without running atexit, and still lose nothing of what they sent."""
    done = site.run("forks_with_multiprocessing")
    assert done.returncode == 0, done.stderr
    children = {f"child-{n}-{i}" for n in range(2) for i in range(10)}
    assert site.arrived() == Counter({"before", "after"} | children)


def test_gunicorn_with_preload_loses_and_doubles_nothing(site: Site, tmp_path: Path) -> None:
    """The master sends while it preloads, workers send per request and are stopped: each notification arrives once."""
    address = tmp_path / "gunicorn.sock"
    gunicorn = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--bind", f"unix:{address}"),
            *("--log-level", "info", "tests.producer.processes:app"),
        ],
        env={**site.environ, "PRELOAD": "1"},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert gunicorn.stderr is not None
    try:
        seen = ""
        while len(re.findall("Booting worker", seen)) < 3:
            line = gunicorn.stderr.readline()
            assert line, f"gunicorn ended: {seen}"
            seen += line
        workers = {ask(address, f"/request-{i}") for i in range(60)}
    finally:
        gunicorn.send_signal(signal.SIGTERM)
        rest = gunicorn.communicate(timeout=60)[1]
    assert gunicorn.returncode == 0, rest
    assert workers
    assert str(gunicorn.pid) not in workers
    assert site.arrived() == Counter({"master"} | {f"request-{i}" for i in range(60)})


def ask(address: Path, path: str) -> str:
    """A GET request over a Unix socket, which needs no free port."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(address))
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()
    finally:
        connection.close()
