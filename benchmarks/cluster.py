"""Apache Kafka on this machine, with the topics and backlogs of each row."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil

from benchmarks.load import PARTITIONS, Mix, marketing, topology
from kafka_notify import Producer
from kafka_notify.admin import create_topics

T = TypeVar("T")
SPAWN: Final = get_context("spawn")


def apart(function: Callable[..., T], *args: Any) -> T:
    """Call `function` in a new process."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *args).result()


def until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait for a condition in other processes; the TimeoutError names the condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


class Child:
    """A process that runs `function(connection, *args)` and answers questions."""

    def __init__(self, function: Callable[..., None], *args: Any) -> None:
        self._connection, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=function, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()  # so that the connection ends with the process

    def ask(self, question: Any) -> Any:
        """Send a question and return the answer; an EOFError means that the process has failed."""
        self._connection.send(question)
        return self._connection.recv()

    def begin(self, question: Any) -> None:
        """Send a question whose answer `finish` awaits."""
        self._connection.send(question)

    def finish(self) -> Any:
        """Return the answer to a question that was sent before."""
        return self._connection.recv()

    def rss(self) -> int:
        """Resident memory of the process, in bytes."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def waited(self) -> float:
        """Seconds for which its threads were ready to run but had no core; 0 if the system does not report it."""
        found = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(stat.read_text().split()[1]) for stat in found) / 1e9

    def kill(self) -> None:
        """Kill the process, like a crash."""
        self._process.kill()
        self._process.join(60)

    def end(self) -> Any:
        """Stop the process and return its last message."""
        words = self.ask("stop")
        self._process.join(60)
        return words


class Cluster:
    """Topics and backlogs on one Kafka cluster."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._backlogs: dict[str, int] = {}
        self._names = itertools.count()

    def backlog(self, records: int, mix: Mix = "even", partitions: int = PARTITIONS) -> str:
        """Return the prefix of topics whose low lane contains at least `records` notifications."""
        prefix = f"bench-{mix}-{partitions}"
        if prefix not in self._backlogs:
            self._create(prefix, partitions)
        have = self._backlogs.get(prefix, 0)
        if have < records:
            apart(_fill, self.bootstrap, prefix, have, records, mix)
            self._backlogs[prefix] = records
        return prefix

    def consumer(self, prefix: str, partitions: int = PARTITIONS) -> str:
        """Return a new consumer name: its group starts at the beginning, its retry topic is empty."""
        name = f"run{next(self._names)}"
        self._create(prefix, partitions, name)
        return name

    def _create(self, prefix: str, partitions: int, *consumers: str) -> None:
        create_topics(
            topology(prefix, partitions), {"bootstrap.servers": self.bootstrap}, consumers=consumers
        )


def _fill(bootstrap: str, prefix: str, first: int, last: int, mix: Mix) -> None:
    with Producer({"bootstrap.servers": bootstrap}, topology=topology(prefix), max_block=60) as producer:
        for number in range(first, last):
            producer.send(marketing(number, mix))
        producer.flush(120)
