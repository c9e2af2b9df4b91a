"""`status --watch` while brokers are restarted one after the other."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from kafka_notify import Category, Config, Lane, Notification, Producer, Topology, Worker
from kafka_notify.admin import create_topics
from kafka_notify.testing import LocalKafka
from tests.cli.app import Sms

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.kafka


def test_a_watch_survives_a_rolling_restart(
    local_kafka_cluster: LocalKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinators move while it asks for commits: it goes on looking, and shows the cluster afterwards. (The
    AdminClient's way to ask for them ended the process with a segmentation fault.)"""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("APP_PREFIX", prefix)
    monkeypatch.setenv("KAFKA_NOTIFY_CLI_TOPOLOGY", "tests.cli.app:topology")
    topology = Topology(
        lanes=[Lane("high", partitions=3)],
        categories=[Category("alert", "high")],
        channels=["sms"],
        prefix=prefix,
    )
    kafka = local_kafka_cluster
    config: Config = {"bootstrap.servers": kafka.bootstrap_servers}
    create_topics(topology, config, consumers=["sms"])
    with Producer(config, topology=topology) as producer:
        for n in range(30):
            producer.send(
                Notification(user_id=f"u{n}", category="alert", channel="sms", data={"plan": "transient"})
            ).result(60)
    with Worker(Sms, config, lane="high", topology=topology) as worker:
        deadline = time.monotonic() + 60
        while worker.stats().waiting_retries < 30:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    out = tmp_path / "watch.txt"
    with out.open("w") as file:
        watches = [
            subprocess.Popen(
                [sys.executable, "-m", "kafka_notify", "status", "--watch", "--json", "--interval", "0.05",
                 "--bootstrap", kafka.bootstrap_servers],
                cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
            )
            for _ in range(2)
        ]  # fmt: skip
        try:
            for broker in sorted(kafka.pids):
                kafka.stop(broker)
                kafka.start(broker)
            seen = out.stat().st_size
            deadline = time.monotonic() + 180
            while out.stat().st_size <= seen + 4_000 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert [watch.poll() for watch in watches] == [None, None], out.read_text()[-2_000:]
            assert out.stat().st_size > seen + 4_000
        finally:
            for watch in watches:
                watch.kill()
                watch.wait()
