"""A cluster with topics of the test's own, and the command line."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from kafka_notify import Notification, Producer, Topology
from kafka_notify.cli import main
from kafka_notify.testing.pytest_plugin import ExternalKafka
from tests.cli import app

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that runs in this process logs to a stream that ends with its test."""
    root, names = logging.getLogger(), ("kafka_notify", "tests")
    handlers, levels = root.handlers[:], [logging.getLogger(name).level for name in ("", *names)]
    yield
    root.handlers[:] = handlers
    for name, level in zip(("", *names), levels, strict=True):
        logging.getLogger(name).setLevel(level)


@attrs.frozen
class Ran:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document of its output."""
        return json.loads(self.out)


@attrs.define
class Shell:
    """Runs commands against one topology on the session's Kafka."""

    servers: str
    prefix: str
    capture: pytest.CaptureFixture[str]
    processes: list[subprocess.Popen[str]] = attrs.field(factory=list)

    @property
    def config(self) -> dict[str, str | int | float | bool | Callable[..., object]]:
        return {"bootstrap.servers": self.servers}

    @property
    def topology(self) -> Topology:
        return app.topology()

    def __call__(self, *words: str) -> Ran:
        """Run a command in this process."""
        self.capture.readouterr()
        code = main(words)
        said = self.capture.readouterr()
        return Ran(code, said.out, said.err)

    def ok(self, *words: str) -> Ran:
        """The same; it must end well."""
        ran = self(*words)
        assert ran.code == 0, ran
        return ran

    def start(self, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Run a command in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "kafka_notify", *words],
            cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def produce(self, notifications: Sequence[Notification[Any]]) -> None:
        """Send them, and see them acknowledged."""
        with Producer(self.config, topology=self.topology) as producer:
            for pending in [producer.send(each) for each in notifications]:
                pending.result(60)

    def group(self, name: str, lane: str = "high") -> Any:
        """What `status` says of a consumer."""
        groups = self.ok("status", "--json", "--interval", "0.1").json["groups"]
        (found,) = [each for each in groups if (each["lane"], each["consumer"]) == (lane, name)]
        return found

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for it."""
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline, f"not in 90 s: {what}"
            time.sleep(0.1)


@pytest.fixture
def shell(
    local_kafka: ExternalKafka, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    """The command line; its environment names the cluster and a topology of the test's own."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("KAFKA_NOTIFY_BOOTSTRAP_SERVERS", local_kafka.bootstrap_servers)
    monkeypatch.setenv("KAFKA_NOTIFY_CLI_TOPOLOGY", "tests.cli.app:topology")
    monkeypatch.setenv("APP_PREFIX", prefix)
    shell = Shell(local_kafka.bootstrap_servers, prefix, capsys)
    yield shell
    for process in shell.processes:
        process.kill()
        process.communicate()
