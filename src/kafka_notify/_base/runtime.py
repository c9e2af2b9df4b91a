"""The time, threads, waits and ids of a worker: the one seam where the simulation of tests takes their place."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import attrs

from kafka_notify._base.clock import Clock, boottime


def _wait(future: concurrent.futures.Future[Any], seconds: float) -> bool:
    return bool(concurrent.futures.wait([future], seconds).done)


def _id() -> str:
    return uuid.uuid4().hex


@attrs.frozen(eq=False)
class Runtime:
    """What a worker takes from the interpreter and the machine. Parts bind the functions that they call often.

    Locks are not part of it: a thread that holds one neither waits nor calls a client of Kafka. Jitter comes from
    Python's own generator, which a seed determines.

    Args:
        wall: Returns epoch seconds.
        monotonic: Returns seconds.
        boottime: Returns seconds that go on in suspension.
        sleep: Blocks the thread for so many seconds.
        event: Makes a `threading.Event`.
        queue: Makes a `queue.SimpleQueue`.
        thread: Makes a thread, as `threading.Thread` does.
        wait: Blocks until a future is done, for so many seconds at most; returns True if it is.
        new_id: Returns an id that nobody else has: 32 hexadecimal digits.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    boottime: Callable[[], float] = boottime
    sleep: Callable[[float], object] = time.sleep
    event: Callable[[], threading.Event] = threading.Event
    queue: Callable[[], queue.SimpleQueue[Any]] = queue.SimpleQueue
    thread: Callable[..., threading.Thread] = threading.Thread
    wait: Callable[[concurrent.futures.Future[Any], float], bool] = _wait
    new_id: Callable[[], str] = _id

    def clock(self) -> Clock:
        """Return a new clock, which remembers the jumps of the wall clock."""
        return Clock(self.wall, self.monotonic, self.boottime)


SYSTEM: Final = Runtime()
"""The interpreter and the machine themselves."""
