"""Every command of Kafka's own tools that the documents and `check_topics` print, run as it is printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Consumer as Client
from confluent_kafka import Producer as Writer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from kafka_notify import Category, Lane, Topology
from kafka_notify.admin import Finding, check_topics, create_topics
from kafka_notify.testing import LocalKafka
from kafka_notify.testing._kafka_distribution import KAFKA_VERSION

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
ROOT: Final = Path(__file__).parents[2]
BEFORE_4_4: Final = tuple(map(int, KAFKA_VERSION.split("."))) < (4, 4)
TOOLS: Final = {
    "kafka-consumer-groups.sh": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand" if BEFORE_4_4 else "org.apache.kafka.tools.ConfigCommand",
    "kafka-reassign-partitions.sh": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
}
COMMON: Final = "--bootstrap-server HOST:PORT --command-config client.properties "
OLD, NEW, SOURCE, PARTITION = "notif.high_priority.sms", "notif.high_priority.text", "notif.high_priority", 7
_FENCED: Final = re.compile(r"^ *```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_TOOL: Final = re.compile(r"\S*kafka-[a-z-]+\.sh\b")
_INLINE: Final = re.compile(r"`(kafka-[a-z-]+\.sh [^`]*)`")
_IN_FINDING: Final = re.compile(r"kafka-[a-z-]+\.sh [^;]*")
_PLACEHOLDER: Final = re.compile(r"\b(HOST:PORT|[A-Z]+(_[A-Z]+)*)\b(?!=)")


def commands(text: str) -> Iterator[str]:
    """Those of Kafka's tools in a document, each on one line, without comments."""
    for block in _FENCED.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if _TOOL.match(line.strip()):
                yield " ".join(shlex.split(line, comments=True))
    for span in _INLINE.findall(_FENCED.sub("", text)):
        yield " ".join(span.split())


def documented() -> list[str]:
    files = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    return [command for file in files for command in commands(file.read_text())]


@pytest.fixture(scope="module")
def tools_jars() -> str:
    """The jars that a broker does without, as a part of a class path."""
    jgo = pytest.importorskip("jgo")
    from jgo.config import GlobalSettings

    found = jgo.resolve(
        f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}", repositories=GlobalSettings.load().repositories
    )
    return os.pathsep.join(
        str(artifact.resolve())
        for artifact in found
        if artifact.artifactId in ("kafka-tools", "jackson-dataformat-csv")
    )


@pytest.fixture
def run(local_kafka_cluster: LocalKafka, tools_jars: str, tmp_path: Path) -> Callable[..., str]:
    """Runs a command in a directory of its own."""
    (tmp_path / "client.properties").write_text("security.protocol=PLAINTEXT\n")

    def run(command: str, **names: str) -> str:
        known = {"HOST:PORT": local_kafka_cluster.bootstrap_servers, **names}
        command = _PLACEHOLDER.sub(lambda found: known.get(found[0], found[0]), command)
        unknown = [found[0] for found in _PLACEHOLDER.finditer(command)]
        assert not unknown, f"{unknown} in: {command}"
        line, _, into = command.partition(" > ")
        tool, *arguments = shlex.split(line)
        distribution: Any = local_kafka_cluster._distribution
        program, *rest = distribution.command(TOOLS[tool], *arguments)
        rest[rest.index("-cp") + 1] += f"{os.pathsep}{tools_jars}"
        done = subprocess.run(
            [program, *rest], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        said = f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        assert "Error" not in done.stdout + done.stderr, said
        if into:
            (tmp_path / into.strip()).write_text(done.stdout)
        return done.stdout

    return run


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    pause, waited = threading.Event(), 0.0
    while not condition():
        assert waited < 120, what()
        waited += 0.2
        pause.wait(0.2)


class Cluster:
    """What the commands of the documents are about, and what has become of it."""

    def __init__(self, kafka: LocalKafka) -> None:
        self.config: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap_servers}
        self.site = Topology(
            lanes=[Lane("high_priority", partitions=8)],
            categories=[Category("otp", "high_priority")],
            channels=["sms"],
        )
        create_topics(self.site, self.config)
        writer = Writer(self.config)
        for _ in range(3):
            writer.produce(SOURCE, b"x", partition=PARTITION)
        assert not writer.flush(60)
        client = Client({**self.config, "group.id": OLD})
        client.commit(offsets=[TopicPartition(SOURCE, PARTITION, 2)], asynchronous=False)
        client.close()

    def committed(self, group: str) -> int:
        client = Client({**self.config, "group.id": group})
        (found,) = client.committed([TopicPartition(SOURCE, PARTITION)], timeout=60)
        client.close()
        return found.offset

    def topics(self) -> set[str]:
        admin: Any = AdminClient(self.config)
        return set(admin.list_topics(timeout=60).topics)


Effect = Callable[[Cluster, str], bool]
_GROUPS: Final = f"kafka-consumer-groups.sh {COMMON}"
_RESET: Final = f"{_GROUPS}--group {OLD} --topic {SOURCE}:{PARTITION} --reset-offsets --to-earliest"
EFFECTS: Final[dict[str, Effect]] = {
    _RESET: lambda c, _: c.committed(OLD) == 2,
    f"{_RESET} --execute": lambda c, _: c.committed(OLD) == 0,
    f"{_GROUPS}--group OLD_GROUP --topic {SOURCE} --reset-offsets --to-current --export > offsets.csv": (
        lambda c, said: f"{SOURCE},{PARTITION},0" in said.replace('"', "")
    ),
    f"{_GROUPS}--group NEW_GROUP --topic {SOURCE} --reset-offsets --from-file offsets.csv --execute": (
        lambda c, _: c.committed(NEW) == 0
    ),
    f"{_GROUPS}--group NEW_GROUP --describe": lambda c, said: SOURCE in said,
    f"kafka-topics.sh {COMMON}--delete --topic notif.control": lambda c, _: "notif.control" not in c.topics(),
}
"""What each command has done once it has ended, by the command and what it printed; in their order."""


def test_every_documented_command_is_tried() -> None:
    """One that is new, or written in another way, needs its effect here."""
    assert documented() == list(EFFECTS)


def test_documented_commands_do_what_is_said(
    local_kafka_cluster: LocalKafka, run: Callable[..., str]
) -> None:
    """As they stand, with nothing but their placeholders filled in."""
    cluster = Cluster(local_kafka_cluster)
    for command in documented():
        said = run(command, OLD_GROUP=OLD, NEW_GROUP=NEW)
        until(lambda: EFFECTS[command](cluster, said), lambda: f"no effect: {command}\n{said}")  # noqa: B023


def test_what_check_prints_mends_what_it_found(
    local_kafka_cluster: LocalKafka, run: Callable[..., str], tmp_path: Path
) -> None:
    """Each finding is gone once its commands have run."""
    site = Topology(
        lanes=[Lane("low", partitions=2)], categories=[Category("a", "low")], channels=["sms"], prefix="off"
    )
    config: dict[str, Any] = {"bootstrap.servers": local_kafka_cluster.bootstrap_servers}
    bad = {
        "cleanup.policy": "compact",
        "max.message.bytes": "1000",
        "min.insync.replicas": "1",
        "retention.bytes": "1000000000",
        "retention.ms": "1000000",
        "unclean.leader.election.enable": "true",
    }
    admin: Any = AdminClient(config)
    made = [
        NewTopic("off.low", 1, 3, config=bad),
        NewTopic("off.retry.low.sms", 2, 3, config=bad),
        NewTopic("off.retry.low.gone", 2, 3),
        NewTopic("off.control", 1, 1, config={"min.insync.replicas": "1"}),
    ]
    for future in admin.create_topics(made).values():
        future.result(60)
    client = Client({**config, "group.id": "off.low.gone"})
    client.commit(offsets=[TopicPartition("off.low", 0, 0)], asynchronous=False)
    client.close()
    plan = {"topic": "off.control", "partition": 0, "replicas": [0, 1, 2]}
    (tmp_path / "plan.json").write_text(json.dumps({"version": 1, "partitions": [plan]}))

    def found() -> list[Finding]:
        return [f for f in check_topics(site, config, consumers=["sms"]) if "kafka-" in f.text]

    until(lambda: len(found()) >= 14, found)
    while findings := found():
        tried = findings[0]
        for command in _IN_FINDING.findall(tried.text):
            run(command, FILE="plan.json")
        until(lambda: tried.text not in [f.text for f in found()], lambda: f"still there: {tried.text}")  # noqa: B023
