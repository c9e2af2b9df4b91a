"""Workers, in processes of their own or in this one, and what is done to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import attrs
from typing_extensions import Self

import kafka_notify
from kafka_notify import Worker
from kafka_notify.testing.attempt_log import AttemptLog, Disturbed, Owned
from tests.guarantees.deployment import PATIENCE, Deployment
from tests.guarantees.worker_process import Spec, make_worker

ROOT: Final = Path(__file__).parents[2]
PATH: Final = os.pathsep.join([str(ROOT), str(Path(kafka_notify.__file__).parents[1])])
"""So that worker processes import what this one imports."""
QUICK: Final = {"session.timeout.ms": 3_000, "heartbeat.interval.ms": 300}


class Fleet(Deployment):
    """A deployment with any number of workers.

    Args:
        bootstrap_servers: The cluster.
        directory: For the attempt log and the workers' own logs.
        partitions: Of the lane.
        spec: Further fields of `Spec`, for all workers.
    """

    def __init__(self, bootstrap_servers: str, directory: Path, *, partitions: int = 4, **spec: Any) -> None:
        super().__init__(bootstrap_servers, directory, partitions=partitions)
        self._spec = spec
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        self.open.callback(self._end_processes)
        return self

    def _end_processes(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _spec_of(self, name: str, changes: dict[str, Any]) -> Spec:
        return Spec(
            name=name,
            log=str(self.directory / "attempts.jsonl"),
            bootstrap_servers=self.bootstrap_servers,
            switches=str(self.directory),
            **{
                "topology": self.topology.to_dict(),
                "consumer_config": QUICK,
                **self._spec,
                **changes,
            },
        )

    # -- in processes ---------------------------------------------------------------------------------

    def start(self, *names: str, root: Path = ROOT, **changes: Any) -> None:
        """Start worker processes; they join the group when they are ready.

        Args:
            names: One name for each worker.
            root: The project whose workers they are: an older version of this one knows fewer fields of `Spec`.
            changes: Fields of `Spec`.
        """
        path = PATH if root == ROOT else os.pathsep.join([str(root), str(root / "src")])
        for name in names:
            spec = json.dumps(attrs.asdict(self._spec_of(name, changes), filter=_is_chosen))
            with open(self.directory / f"worker-{name}.log", "ab") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "tests.guarantees.worker_process", spec],
                    cwd=root,
                    env={**os.environ, "PYTHONPATH": path, "KAFKA_NOTIFY_DEBUG": "1"},
                    stdout=log,
                    stderr=log,
                )

    @property
    def running(self) -> Sequence[str]:
        """Names of the workers that were started and not ended."""
        return list(self._processes)

    def kill(self, name: str) -> None:
        """SIGKILL, and wait for the end."""
        self._signal(name, "killed", signal.SIGKILL)
        self._processes.pop(name).wait(30)

    def stop(self, name: str) -> None:
        """SIGTERM, and wait for the end, which must be a good one."""
        self.look()
        good = (0,) if self.owned(name) else (0, -signal.SIGTERM)  # it may not even have begun
        self._signal(name, "stopped", signal.SIGTERM)
        code = self._processes.pop(name).wait(PATIENCE)
        assert code in good, f"worker {name} ended with {code}:\n{self.worker_log(name)}"

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        self._signal(name, "paused", signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._signal(name, "resumed", signal.SIGCONT)

    def _signal(
        self, name: str, how: Literal["killed", "stopped", "paused", "resumed"], number: signal.Signals
    ) -> None:
        self.log.write(Disturbed(self.logged_as(name), how))
        self._processes[name].send_signal(number)

    def logged_as(self, name: str) -> str:
        """What a worker calls itself in the attempt log."""
        return f"{name}-{self._processes[name].pid}"

    def owned(self, *names: str) -> bool:
        """Whether each of these workers has begun to work on a partition."""
        return {self.logged_as(name) for name in names} <= {line.worker for line in self.all(Owned)}

    def until_owned(self, *names: str) -> None:
        """Wait until each of these workers has begun to work on a partition."""
        self.until(lambda: self.owned(*names), f"partition for each of {names}")

    def check_alive(self) -> None:
        """Raise an AssertionError when a worker ended by itself."""
        for name, process in self._processes.items():
            code = process.poll()
            assert code is None, f"worker {name} ended with {code}:\n{self.worker_log(name)}"

    def state(self) -> str:
        """For a person who looks for what went wrong."""
        for process in self._processes.values():
            process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)  # while they write their stacks
        return "\n".join([super().state(), *(f"{name}: {self.worker_log(name)}" for name in self._processes)])

    def worker_log(self, name: str) -> str:
        """The end of what a worker process logged."""
        return (self.directory / f"worker-{name}.log").read_text(errors="replace")[-8_000:]

    def end(self) -> None:
        """End the workers well, then look at what lies in Kafka."""
        for name in self.running:
            self.stop(name)
        super().end()

    # -- in this process ------------------------------------------------------------------------------

    @contextmanager
    def worker_here(self, consumer: str = "AsyncSender", **changes: Any) -> Iterator[Worker]:
        """A worker in this process: quicker to start, and it can be asked how it is."""
        name = f"here-{uuid.uuid4().hex[:6]}"
        log = AttemptLog(self.directory / "attempts.jsonl", name)
        try:
            with make_worker(self._spec_of(name, {"consumer": consumer, **changes}), log) as worker:
                yield worker
        finally:
            self.look()
            log.close()


def _is_chosen(field: attrs.Attribute[Any], value: Any) -> bool:
    return bool(value != field.default)
