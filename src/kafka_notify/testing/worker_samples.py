"""Samples of a worker's state in the attempt log, for the checkers `Isolation`, `Memory` and `Liveness`."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Final

from typing_extensions import Self

from kafka_notify.testing.attempt_log import AttemptLog, Sampled
from kafka_notify.worker import Worker

INTERVAL: Final = 0.25
_STATUS: Final = Path("/proc/self/status")


class WorkerSampler:
    """Writes a `Sampled` line at once, and then a few times a second until its block ends.

    Enter it before the worker is started, as the first line tells how much memory the process takes without a worker.
    It runs in a thread of its own, so it goes on while the worker's event loop is blocked, and stops while the process
    is frozen. Run only one worker in the process, or its resident memory says nothing about that worker.

        worker = Worker(Logged, config, lane="high_priority", on_event=LOG.on_event)
        with WorkerSampler(LOG, worker):
            worker.run()

    Args:
        log: The log to write to.
        worker: The worker, started or not.
        interval: Seconds between two lines.
    """

    def __init__(self, log: AttemptLog, worker: Worker, *, interval: float = INTERVAL) -> None:
        self._log = log
        self._worker = worker
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker samples", daemon=True)

    def __enter__(self) -> Self:
        self._log.write(sample(self._log.worker, self._worker))
        self._thread.start()
        return self

    def __exit__(
        self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None, /
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._log.write(sample(self._log.worker, self._worker))


def sample(name: str, worker: Worker) -> Sampled:
    """Return the present state of a worker of this process.

    Args:
        name: Name of the worker in the log.
        worker: The worker, started or not.
    """
    stats, inside = worker.stats(), worker._sample()
    return Sampled(
        name,
        worker.concurrency or 0,
        stats.in_flight + stats.stuck,
        stats.circuit_open,
        bool(stats.paused),
        inside is not None and inside.limited,
        stats.buffered + stats.waiting_retries,
        resident(),
        {} if inside is None else inside.budgets,
        0 if inside is None else inside.given_away,
        [] if inside is None else inside.destinations,
    )


def resident() -> int:
    """Return the resident memory of this process in bytes; 0 on systems without `/proc`."""
    try:
        status = _STATUS.read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0)
