"""Workers in processes, the log that they share, and what is done to them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import attrs
import confluent_kafka
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from typing_extensions import Self

import kafka_notify
from kafka_notify import Category, Lane, Notification, Producer, RetryPolicy, Topology, Worker
from kafka_notify.testing.attempt_log import (
    Accepted,
    AttemptLog,
    Committed,
    Copied,
    DeadLettered,
    Disturbed,
    Ended,
    Line,
    LogTail,
    Owned,
    Produced,
    Skipped,
    Started,
)
from kafka_notify.testing.guarantees import Guarantees, Letter, LogEnds, Observation
from kafka_notify.testing.kafka_watch import KafkaWatch
from kafka_notify.wire import Headers, identity
from tests.guarantees.worker_process import Spec, make_worker

ROOT: Final = Path(__file__).parents[2]
PATH: Final = os.pathsep.join([str(ROOT), str(Path(kafka_notify.__file__).parents[1])])
"""So that worker processes import what this one imports."""
SESSION_MS: Final = 3_000
QUICK_RETRY: Final = RetryPolicy(4, first=0.3, factor=1.5, cap=1, jitter=0.1)
PATIENCE: Final = 90.0


def topology(*, partitions: int = 4, retry: RetryPolicy = QUICK_RETRY) -> Topology:
    """One lane, under a prefix that no other test uses."""
    return Topology(
        lanes=[Lane("l", partitions=partitions, retry=retry)],
        categories=[Category("news", "l"), Category("secret", "l", sensitive=True)],
        channels=["sms", "push"],
        prefix=f"t{uuid.uuid4().hex[:12]}",
    )


class Fleet:
    """A topology of its own on a cluster, its producer, its watch, and any number of workers.

    Args:
        bootstrap_servers: The cluster.
        directory: For the attempt log and the workers' own logs.
        partitions: Of the lane.
        retry: Backoff of the lane.
        consumer: Name of a class in `provider`.
        spec: Further fields of `Spec`, for all workers.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        directory: Path,
        *,
        partitions: int = 4,
        retry: RetryPolicy = QUICK_RETRY,
        **spec: Any,
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.directory = directory
        self.topology = topology(partitions=partitions, retry=retry)
        self.log_path = directory / "attempts.jsonl"
        self.lines: list[Line] = []
        self.produced: list[Produced] = []
        self.terminal: set[str] = set()
        self._spec = spec
        self._tail = LogTail(self.log_path)
        self._log = AttemptLog(self.log_path, "")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._open = ExitStack()
        self.config = {"bootstrap.servers": bootstrap_servers}
        self.admin = AdminClient(self.config)
        self.source = self.topology.source_topic("l")
        self.retry_topic = self.topology.retry_topic("l")
        self.watch = KafkaWatch(self.config, self.topology, "l", self._log)
        self.partitions = range(partitions)
        self._final: list[Observation] | None = None

    def __enter__(self) -> Self:
        names = {self.source: len(self.partitions), self.retry_topic: len(self.partitions)}
        names[self.topology.dlq_topic("l")] = 2
        for created in self.admin.create_topics([NewTopic(n, p) for n, p in names.items()]).values():
            created.result(60)
        self._open.callback(self._end_processes)
        self.producer = self._open.enter_context(
            Producer({**self.config, "delivery.timeout.ms": 120_000}, topology=self.topology)
        )
        self._open.enter_context(self.watch)
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self._open.close()
        self._log.close()

    def _end_processes(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    # -- what is sent ---------------------------------------------------------------------------------

    def notification(self, user: str, **data: Any) -> Notification[Any]:
        category, channel = data.pop("category", "news"), data.pop("channel", "sms")
        own = {k: data.pop(k) for k in ("expires_at", "id", "headers") if k in data}
        return Notification(
            user_id=user, category=category, channel=channel, recipient=f"+{user}", data=data, **own
        )

    def produce(self, notifications: Iterable[Notification[Any]]) -> list[Produced]:
        """Send them, in order, and note each acknowledgement."""
        sent = [(n, self.producer.send(n)) for n in notifications]
        found: list[Produced] = []
        for n, pending in sent:
            record = pending.result(PATIENCE)
            self._log.produced(n, record)
            expires = n._expires_ms
            found.append(
                Produced(n.id, n.user_id, record.partition, record.offset, expires, n.channel, at=0)
            )
        self.produced += found
        return found

    def produce_raw(
        self, key: bytes | None, value: bytes | None, headers: Headers, partition: int = 0
    ) -> Produced:
        """Write a record as any client could, past our producer."""
        reports: list[Message] = []
        raw = confluent_kafka.Producer(self.config)
        raw.produce(
            self.source, value, key, partition, headers=headers, on_delivery=lambda _, m: reports.append(m)
        )
        assert raw.flush(60) == 0
        offset: Any = reports[0].offset()
        id, _ = identity(headers, self.source, partition, offset, reports[0].timestamp()[1])
        seen = Produced(id, (key or b"").decode(errors="replace"), partition, offset)
        self._log.write(seen)
        self.produced.append(seen)
        return seen

    def traffic(
        self, count: int, *, users: int, seed: int, failures: bool = True, seconds: float = 0.02
    ) -> Iterable[Notification[Any]]:
        """Notifications of which some fail: 10 % transiently, 1 % for good, some hang, some end unknown."""
        rng = random.Random(seed)
        for n in range(count):
            plan = ["ok"]
            if failures:
                draw = rng.random()
                if draw < 0.10:
                    plan = ["transient"] * rng.randint(1, 3) + ["ok"]
                elif draw < 0.11:
                    plan = ["permanent"]
                elif draw < 0.115:
                    plan = ["transient"]
                elif draw < 0.125:
                    plan = ["accepted_unknown", "ok"]
                elif draw < 0.135:
                    plan = ["unknown", "ok"]
                elif draw < 0.14:
                    plan = ["hang", "ok"]
            yield self.notification(f"u{rng.randrange(users)}", n=n, plan=plan, seconds=rng.random() * 2 * seconds)

    # -- workers --------------------------------------------------------------------------------------

    def start(self, *names: str, **changes: Any) -> None:
        """Start worker processes; they join the group when they are ready."""
        for name in names:
            spec = self._spec_of(name, **{**self._spec, **changes})
            command = [sys.executable, "-m", "tests.guarantees.worker_process", json.dumps(attrs.asdict(spec))]
            with open(self.directory / f"worker-{name}.log", "ab") as log:
                self._processes[name] = subprocess.Popen(
                    command, cwd=ROOT, env={**os.environ, "PYTHONPATH": PATH}, stdout=log, stderr=log
                )

    @contextmanager
    def worker_here(self, consumer: str = "AsyncSender", **changes: Any) -> Iterator[Worker]:
        """A worker in this process: quicker to start, and it can be asked how it is."""
        fields: dict[str, Any] = {**self._spec, **changes}
        name = f"here-{uuid.uuid4().hex[:6]}"
        log = AttemptLog(self.log_path, name)
        spec = self._spec_of(name, consumer=consumer, **fields)
        worker = make_worker(spec, log)
        try:
            with worker:
                yield worker
                self._log.write(Disturbed(name, "stopped"))
        finally:
            self.look()
            log.close()

    def _spec_of(self, name: str, **fields: Any) -> Spec:
        quick = {"session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": 300}
        return Spec(
            name=name,
            log=str(self.log_path),
            bootstrap_servers=self.bootstrap_servers,
            topology=self.topology.to_dict(),
            **{"consumer_config": quick, **fields},
        )

    def worker(self, name: str) -> str:
        """How the log calls the running process of that name."""
        return f"{name}-{self._processes[name].pid}"

    @property
    def running(self) -> Sequence[str]:
        """Names of the workers that were started and not ended."""
        return [name for name, process in self._processes.items() if process.poll() is None]

    def _signal(self, name: str, how: Any, number: signal.Signals) -> None:
        self._log.write(Disturbed(self.worker(name), how))
        self._processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """SIGKILL, and wait for the end."""
        self._signal(name, "killed", signal.SIGKILL)
        self._processes.pop(name).wait(30)

    def stop(self, name: str) -> None:
        """SIGTERM, and wait for the end, which must be a good one."""
        self.look()
        good = (0,) if self.owned(name) else (0, -signal.SIGTERM)  # it may not even have begun
        self._signal(name, "stopped", signal.SIGTERM)
        code = self._processes.pop(name).wait(60)
        assert code in good, f"worker {name} ended with {code}:\n{self.worker_log(name)}"

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        self._signal(name, "paused", signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._signal(name, "resumed", signal.SIGCONT)

    def disturb_cluster(self) -> None:
        """Note that something is about to happen to a broker."""
        self._log.write(Disturbed("", "broker"))

    def worker_log(self, name: str) -> str:
        return (self.directory / f"worker-{name}.log").read_text(errors="replace")[-4_000:]

    # -- waiting --------------------------------------------------------------------------------------

    def look(self) -> None:
        """Read what was logged since the last look."""
        for line in self._tail:
            self.lines.append(line)
            if isinstance(line, (Accepted, Skipped, DeadLettered)):
                self.terminal.add(line.id)

    def until(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition over `lines`."""
        deadline = time.monotonic() + patience
        while True:
            self.look()
            if condition():
                return
            for name, process in self._processes.items():
                assert process.poll() is None, (
                    f"worker {name} ended with {process.returncode}:\n{self.worker_log(name)}"
                )
            assert time.monotonic() < deadline, f"no {what} in {patience:g} s; {self._state()}"
            time.sleep(0.02)

    def _state(self) -> str:
        left = [p for p in self.produced if p.id not in self.terminal]
        logs = "\n".join(f"--- {name}\n{self.worker_log(name)}" for name in self._processes)
        return f"{len(left)} are not terminal, such as {left[:3]}; {self.last_commits()}\n{logs}"

    def all(self, kind: type[Line]) -> list[Any]:
        """The lines of one kind so far."""
        return [line for line in self.lines if type(line) is kind]

    def starts(self, id: str) -> list[Started]:
        """The attempts of a notification so far."""
        return [line for line in self.all(Started) if line.id == id]

    def copies(self, id: str) -> list[Copied]:
        """The retry copies of a notification that the watch saw so far."""
        return [line for line in self.all(Copied) if line.id == id]

    def owned(self, *names: str) -> bool:
        """Whether each of these workers has begun to work on a partition."""
        workers = {line.worker for line in self.all(Owned)}
        return all(self.worker(name) in workers for name in names)

    def until_owned(self, *names: str) -> None:
        """Wait until each of these workers has begun to work on a partition."""
        self.until(lambda: self.owned(*names), f"partition for each of {names}")

    def until_terminal(self, count: int) -> None:
        """Wait until so many notifications are terminal."""
        self.until(lambda: len(self.terminal) >= count, f"{count} terminal notifications")

    def last_commits(self) -> dict[int, Committed]:
        """What the watch saw committed last, by partition."""
        return {line.partition: line for line in self.all(Committed)}

    def until_caught_up(self) -> None:
        """Wait until everything that lies in source and retry topic is committed."""
        ends: dict[int, LogEnds] = {}

        def caught_up() -> bool:
            at = self.last_commits()
            return all(
                n in at and (at[n].source, at[n].retry) == (end.source, end.retry)
                for n, end in ends.items()
                if end.source or end.retry
            )

        while True:  # retries may be copied while this waits
            ends = {o.partition: o for o in self.final() if isinstance(o, LogEnds)}
            self.until(caught_up, f"commit of everything up to {ends}", 30)
            if ends == {o.partition: o for o in self.final() if isinstance(o, LogEnds)}:
                return

    def finish(self, patience: float = PATIENCE) -> None:
        """Wait until everything produced is terminal and committed, then end the workers well."""
        self.until_all_terminal(patience)
        self.until_caught_up()
        self.end()

    def until_all_terminal(self, patience: float = PATIENCE) -> None:
        """Wait until everything produced is terminal."""
        ids = {p.id for p in self.produced}
        self.until(lambda: ids <= self.terminal, "end of all notifications", patience)

    def end(self) -> None:
        """End the workers well, and look at what lies in Kafka."""
        for name in tuple(self._processes):
            self.stop(name)
        self.watch.stop()
        self.look()
        self._final = self.final()

    # -- what came of it ------------------------------------------------------------------------------

    def final(self) -> list[Observation]:
        """What lies in the topics now."""
        return list(self.watch.final()) if self._final is None else self._final

    def letters(self) -> dict[str, Letter]:
        """Dead letters by id."""
        places = {(p.partition, p.offset): p.id for p in self.produced}
        return {
            places[o.partition, o.origin]: o
            for o in self.final()
            if isinstance(o, Letter) and (o.partition, o.origin) in places
        }

    def judge(self, held: Guarantees | None = None) -> Guarantees:
        """Give everything that was observed to the checkers."""
        held = held or Guarantees.all(max_attempts=4)
        for seen in (*self.lines, *self.final()):
            held.observe(seen)
        return held

    def verify(self, held: Guarantees | None = None) -> Guarantees:
        """Raise an AssertionError if a guarantee was broken."""
        held = self.judge(held)
        held.verify()
        return held

    def accepted(self) -> dict[str, int]:
        """How often each notification was accepted."""
        counts: defaultdict[str, int] = defaultdict(int)
        for line in self.all(Accepted):
            counts[line.id] += 1
        return counts

    def outcomes(self, id: str) -> list[str]:
        """How the attempts of a notification ended."""
        return [line.outcome for line in self.all(Ended) if line.id == id]


def checker(held: Guarantees, kind: type[Any]) -> Any:
    """The checker of that class."""
    return next(c for c in held.checkers if isinstance(c, kind))
