"""Apache Kafka itself, started from Python on the loopback interface."""

from __future__ import annotations

import os
import random
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final

from kafka_notify.testing import _broker_files, _kafka_distribution
from kafka_notify.testing._guardian_process import GuardianProcess
from kafka_notify.testing._kafka_distribution import KAFKA_VERSION, Distribution, LocalKafkaUnavailable

if TYPE_CHECKING:
    from typing_extensions import Self

_POLL_SECONDS: Final = 0.02
_PORT_ATTEMPTS: Final = 3
# Below the ports that systems give to outgoing connections: a client that keeps trying to reach a killed
# broker could otherwise be given the broker's own port, and hold it.
_PORTS: Final = range(15_000, 32_000)


class LocalKafka:
    """Apache Kafka 4.4.0 in KRaft mode, each broker a Java process that is also a controller.

        with LocalKafka(brokers=3) as kafka:
            producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
            kafka.kill(0)

    It needs `pip install 'kafka-notify[local-kafka]'`. The first start on a machine downloads Kafka (46 MB) and
    prepares it, which takes about a minute; later starts take one to a few seconds. Topics are not created
    automatically. With three brokers or more, topics have three replicas, of which two must be in sync. Group timings
    are set low, so that tests see rebalances and dead members soon.

    A broker's number is its id in Kafka, from 0. `start`, `stop`, `kill`, `pause` and `resume` may be called from any
    thread, but only in the process that entered the block. No broker and no data outlive that process, even when it is
    killed. Processes forked from it may start and end meanwhile.

    Args:
        brokers: Number of brokers, 1 or 3 in most cases.
        config: Kafka server properties, which take precedence over the ones chosen here.
        more_listeners: Further listeners of each broker, such as `CLIENTS://127.0.0.1:9999`, for a cluster of one
            broker; `config` sets their security. LocalKafka itself uses the first listener, without credentials.
        java_options: Options added to each broker's command line, for example `-Xmx2g`.
        data_dir: An existing directory under which the data is kept; the system's temporary one by default.
        keep: True to leave the data on disk afterwards.
        start_timeout: Seconds that brokers may take to become ready.

    Raises:
        ValueError: `brokers` is not positive.
        LocalKafkaUnavailable: On entering the block: Java or Kafka is missing, or a broker does not start.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        config: Mapping[str, str] = MappingProxyType({}),
        more_listeners: Sequence[str] = (),
        java_options: Sequence[str] = (),
        data_dir: str | os.PathLike[str] | None = None,
        keep: bool = False,
        start_timeout: float = 60.0,
    ) -> None:
        if brokers < 1:
            raise ValueError(f"a cluster needs at least one broker, not {brokers}")
        self.brokers: range = range(brokers)
        self._config = dict(config)
        self._more_listeners = tuple(more_listeners)
        self._java_options = tuple(java_options)
        self._parent_dir = data_dir
        self._keep = keep
        self._start_timeout = start_timeout
        self._distribution: Distribution | None = None
        self._guardian: GuardianProcess | None = None
        self._directory: Path | None = None
        self._cluster_id = ""
        self._ports: tuple[int, ...] = ()
        self._pids: dict[int, int] = {}
        self._paused: set[int] = set()
        self._starting = threading.Lock()

    @property
    def bootstrap_servers(self) -> str:
        """The addresses of all brokers, running or not, for `bootstrap.servers`."""
        return ",".join(map(self.bootstrap_servers_of, self.brokers))

    def bootstrap_servers_of(self, broker: int) -> str:
        """The address of one broker."""
        self._running_cluster()
        return f"127.0.0.1:{self._ports[self._known(broker)]}"

    @property
    def data_dir(self) -> Path:
        """The directory of the brokers' data and logs, with a directory for each broker."""
        if self._directory is None:
            raise RuntimeError("this LocalKafka has not been started: use `with LocalKafka() as kafka:`")
        return self._directory

    @property
    def pids(self) -> Mapping[int, int]:
        """The process ids of the brokers that run."""
        return {broker: pid for broker, pid in dict(self._pids).items() if self._runs(broker)}

    def start(self, *brokers: int) -> None:
        """Start brokers again with their data, and wait until they and all others that run are ready.

        They may not have caught up with their partitions yet. Brokers that run already are left alone.

        Raises:
            LocalKafkaUnavailable: A broker died, or was not ready within `start_timeout`, for example because no
                majority of the cluster's brokers runs.
        """
        guardian = self._running_cluster()
        deadline = time.monotonic() + self._start_timeout
        with self._starting:
            for broker in brokers:
                if not self._runs(broker):
                    self._pids[broker] = guardian.ask(
                        "start",
                        broker=broker,
                        command=self._command(broker),
                        cwd=str(self._directory_of(broker)),
                        log=str(self._log_of(broker)),
                    )
        for broker in brokers:
            self._await_ready(guardian, broker, deadline)

    def stop(self, *brokers: int, timeout: float = 30.0) -> None:
        """Shut brokers down in an orderly way (SIGTERM) and wait for their end; kill them after `timeout` seconds."""
        self._end(brokers, signal.SIGTERM, timeout)

    def kill(self, *brokers: int) -> None:
        """End brokers at once (SIGKILL), as a crash would."""
        self._end(brokers, signal.SIGKILL, self._start_timeout)

    def pause(self, *brokers: int) -> None:
        """Freeze brokers (SIGSTOP): connections stay open, and nothing answers."""
        for broker in brokers:
            self._signal(broker, signal.SIGSTOP)
            self._paused.add(broker)

    def resume(self, *brokers: int) -> None:
        """Let paused brokers go on."""
        for broker in brokers:
            self._signal(broker, signal.SIGCONT)
            self._paused.discard(broker)

    def log_tail(self, broker: int, lines: int = 20) -> str:
        """Return the last lines of a broker's log, which holds warnings and errors."""
        log = self._log_of(self._known(broker))
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def __enter__(self) -> Self:
        if self._guardian is not None:
            raise RuntimeError("this LocalKafka is running already")
        if self._distribution is None:
            self._distribution = _kafka_distribution.install(_train)
        for attempts_left in reversed(range(_PORT_ATTEMPTS)):
            try:
                self._launch()
                break
            except LocalKafkaUnavailable:
                port_taken = any("Address already in use" in self.log_tail(broker) for broker in self.brokers)
                self._close()
                if not port_taken or not attempts_left:
                    raise
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self._close()

    def __repr__(self) -> str:
        state = self.bootstrap_servers if self._guardian else "not running"
        return f"<LocalKafka {KAFKA_VERSION} brokers={len(self.brokers)} {state}>"

    # -- the cluster's life

    def _launch(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="kafka-notify-", dir=self._parent_dir))
        self._guardian = GuardianProcess(self._directory, keep=self._keep)
        self._cluster_id = _broker_files.kafka_uuid()
        ports = _free_ports(2 * len(self.brokers))
        self._ports, controller_ports = ports[: len(self.brokers)], ports[len(self.brokers) :]
        assert self._distribution is not None
        for broker in self.brokers:
            _broker_files.write(
                self._directory_of(broker),
                node_id=broker,
                cluster_id=self._cluster_id,
                port=self._ports[broker],
                controller_ports=controller_ports,
                bootstrap_path=_kafka_distribution.BOOTSTRAP_PATH,
                bootstrap_checkpoint=self._distribution.bootstrap_checkpoint,
                more_listeners=self._more_listeners,
                config=self._config,
            )
        self.start(*self.brokers)

    def _close(self) -> None:
        # A process forked inside the block leaves it too, and must not end the brokers.
        if self._guardian is not None and self._guardian.is_mine:
            guardian, self._guardian = self._guardian, None
            self._pids.clear()
            self._paused.clear()
            guardian.close()

    # -- one broker's life

    def _command(self, broker: int) -> list[str]:
        assert self._distribution is not None
        properties = str(self._directory_of(broker) / "server.properties")
        return self._distribution.command("kafka.Kafka", properties, java_options=self._java_options)

    def _await_ready(self, guardian: GuardianProcess, broker: int, deadline: float) -> None:
        while not self._is_ready(broker):
            exit_code = guardian.ask("poll", broker=broker)
            if exit_code is not None:
                self._forget(broker)
                raise LocalKafkaUnavailable(
                    f"broker {broker} ended with exit code {exit_code} while starting; its last lines:\n"
                    + self.log_tail(broker)
                )
            if time.monotonic() > deadline:
                raise LocalKafkaUnavailable(
                    f"broker {broker} was not ready after {self._start_timeout:g} s; its last lines:\n"
                    + self.log_tail(broker)
                )
            time.sleep(_POLL_SECONDS)

    def _is_ready(self, broker: int) -> bool:
        """True when a broker answers as a member of this cluster and sees every other broker that runs."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            socket.create_connection(("127.0.0.1", self._ports[broker]), timeout=1).close()
        except OSError:
            return False
        # A new client each time, as one that knows the whole cluster might ask another broker.
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers_of(broker), "log_level": 0})
        try:
            seen = admin.list_topics(timeout=2)
        except KafkaException:
            return False
        expected = self.pids.keys() - self._paused
        return seen.cluster_id == self._cluster_id and expected <= seen.brokers.keys()

    def _runs(self, broker: int) -> bool:
        """True when a broker runs now. It may have ended by itself."""
        guardian = self._running_cluster()
        if self._known(broker) in self._pids and guardian.ask("poll", broker=broker) is not None:
            self._forget(broker)
        return broker in self._pids

    def _forget(self, broker: int) -> None:
        self._pids.pop(broker, None)
        self._paused.discard(broker)

    def _signal(self, broker: int, number: signal.Signals) -> None:
        if not self._runs(broker):
            raise RuntimeError(f"broker {broker} is not running")
        self._running_cluster().ask("signal", broker=broker, number=int(number))

    def _end(self, brokers: Iterable[int], number: signal.Signals, timeout: float) -> None:
        guardian = self._running_cluster()
        ending = [broker for broker in brokers if self._runs(broker)]
        for broker in ending:
            guardian.ask("signal", broker=broker, number=int(number))
            if broker in self._paused:  # a frozen broker would not notice SIGTERM
                guardian.ask("signal", broker=broker, number=int(signal.SIGCONT))
        deadline = time.monotonic() + timeout
        while any(self._runs(broker) for broker in ending):
            if time.monotonic() > deadline:
                for broker in ending:
                    guardian.ask("signal", broker=broker, number=int(signal.SIGKILL))
            time.sleep(_POLL_SECONDS)

    def _known(self, broker: int) -> int:
        if broker not in self.brokers:
            raise ValueError(f"there is no broker {broker}: they are numbered 0 to {len(self.brokers) - 1}")
        return broker

    def _running_cluster(self) -> GuardianProcess:
        if self._guardian is None:
            raise RuntimeError("this LocalKafka is not running: use `with LocalKafka() as kafka:`")
        return self._guardian

    def _directory_of(self, broker: int) -> Path:
        return self.data_dir / f"broker-{broker}"

    def _log_of(self, broker: int) -> Path:
        return self._directory_of(broker) / "broker.log"


def _train(distribution: Distribution, aot_cache: Path) -> None:
    """Run a broker whose loaded classes Java writes to a file when it ends."""
    kafka = LocalKafka(java_options=[f"-XX:AOTCacheOutput={aot_cache}"])
    kafka._distribution = distribution
    with kafka:
        kafka.stop(0, timeout=120)


def _free_ports(count: int) -> tuple[int, ...]:
    with ExitStack() as held:
        ports: list[int] = []
        # Not from the shared generator: parallel runs of a seeded test suite would all draw the same ports.
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            candidate = held.enter_context(socket.socket())
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return tuple(ports)
    raise LocalKafkaUnavailable(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")
