"""Time that moves only when nobody can do anything without it, and threads that take turns.

The thread that makes a `VirtualTime` is its *driver*: the test. Every other thread that calls a simulated client runs
alone. It runs from one blocking call to the next, and a seeded random chooses who is next. So a run depends on its
seed, not on the machine.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, TypeVar

import attrs

T = TypeVar("T")

INF: Final = float("inf")
LOOK: Final = 0.001
"""Real seconds between two looks at threads that run: it bounds how soon the next one runs, and nothing else."""
SETTLED: Final = 300
"""Looks after which a thread that has not moved is taken to wait for something real, such as `time.sleep`."""
STANDSTILL: Final = 20_000
"""Turns without a step of time after which somebody goes round in circles."""
START: Final = 1_000.0
EPOCH: Final = 1_800_000_000.0


class StuckError(AssertionError):
    """Everybody waits for something that cannot happen any more."""


@attrs.define(eq=False)
class _Parked:
    """A thread that waits for its turn."""

    host: str
    ready: Callable[[], bool]
    until: float
    go: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))


class VirtualTime:
    """A clock, and the order in which threads run.

    Args:
        seed: Of the order in which threads run.
    """

    def __init__(self, seed: int = 0) -> None:
        self.now = START
        """Monotonic seconds."""
        self.frozen: set[str] = set()
        """Hosts whose threads do not run: a stopped process."""
        self._random = random.Random(seed)
        self._driver = threading.current_thread()
        self._others = frozenset(threading.enumerate())
        """Threads that were there before; they have no part in this."""
        self._moved = threading.Condition()
        self._parked: dict[threading.Thread, _Parked] = {}
        self._running: threading.Thread | None = None
        """The thread whose turn it is, unless that is the driver."""
        self._waits_at: dict[threading.Thread, tuple[object, int]] = {}
        """Where threads were seen last that are neither parked nor wait for a lock of `threading`."""
        self._settled: set[threading.Thread] = set()
        """Those that stayed there: they wait for something that cannot be looked into, such as a queue."""
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = itertools.count()

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def wall(self) -> float:
        """Epoch seconds."""
        return EPOCH + self.now - START

    @property
    def threads(self) -> list[str]:
        """Names of the threads that have not ended."""
        return [thread.name for thread in (*self._parked, *self._alive())]

    def at(self, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` in so many seconds from now, on the driver's thread."""
        heapq.heappush(self._agenda, (self.now + seconds, next(self._serial), call))

    # -- called by simulated clients ------------------------------------------------------------------

    def enter(self, host: str = "") -> None:
        """Wait for the turn of this thread: at the beginning of each call of a client."""
        me = threading.current_thread()
        if me is not self._driver and me is not self._running:
            self._park(host, lambda: True, self.now)

    def wait(self, ready: Callable[[], bool], seconds: float = INF, host: str = "") -> bool:
        """Block until `ready()`, for so many seconds at most; whether it is. Others run meanwhile.

        `ready` is called on the driver's thread.
        """
        until = self.now + max(seconds, 0.0)
        if threading.current_thread() is self._driver:
            return self._drive(ready, until)
        self._park(host, ready, until)
        return ready()

    # -- called by the test ---------------------------------------------------------------------------

    def until(self, done: Callable[[], bool], seconds: float = 600.0) -> None:
        """Let everybody run until `done()`.

        Raises:
            StuckError: It is not within so many virtual seconds, or never will be.
        """
        if not self._drive(done, self.now + seconds):
            raise StuckError(f"not within {seconds:g} s: {self._waiting()}")

    def sleep(self, seconds: float) -> None:
        """Let everybody run for so many seconds."""
        self._drive(lambda: False, self.now + seconds)

    def call(self, function: Callable[[], T], seconds: float = 600.0) -> T:
        """Call `function` on a thread of its own, let everybody run until it has returned, and return what it did."""
        answers: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                answers.append(function())
            except BaseException as e:
                errors.append(e)

        thread = threading.Thread(target=run, name="virtual call", daemon=True)
        thread.start()
        self.until(lambda: not thread.is_alive(), seconds)
        if errors:
            raise errors[0]
        return answers[0]

    # -- turns ----------------------------------------------------------------------------------------

    def _park(self, host: str, ready: Callable[[], bool], until: float) -> None:
        me, parked = threading.current_thread(), _Parked(host, ready, until)
        with self._moved:
            self._parked[me] = parked
            self._waits_at.pop(me, None)
            self._settled.discard(me)
            if self._running is me:
                self._running = None
            self._moved.notify_all()
        parked.go.acquire()

    def _drive(self, done: Callable[[], bool], until: float) -> bool:
        turns = 0
        while True:
            self._settle()
            while self._agenda and self._agenda[0][0] <= self.now:
                heapq.heappop(self._agenda)[2]()
            if done():
                return True
            able = self._able()
            if able:
                turns += 1
                if turns > STANDSTILL:
                    raise StuckError(f"time stands still: {self._waiting()}")
                self._resume(self._random.choice(able))
            elif self.now >= until:
                return False
            else:
                turns = 0
                self._pass_time(until)

    def _able(self) -> list[threading.Thread]:
        """Threads that may run, in an order that does not depend on the machine."""
        able = [
            thread
            for thread, parked in tuple(self._parked.items())
            if parked.host not in self.frozen and (parked.until <= self.now or parked.ready())
        ]
        return sorted(able, key=lambda thread: (self._parked[thread].host, thread.name))

    def _resume(self, thread: threading.Thread) -> None:
        with self._moved:
            self._running = thread
            parked = self._parked.pop(thread)
        parked.go.release()

    def _pass_time(self, until: float) -> None:
        moments = [p.until for p in self._parked.values() if p.host not in self.frozen]
        if self._agenda:
            moments.append(self._agenda[0][0])
        following = min([until, *moments])
        if following == INF or following not in moments:
            if any(
                map(self._may_go_on, self._alive())
            ):  # by itself, in real time: what follows is not known yet
                with self._moved:
                    self._moved.wait(LOOK)
                return
            if following == INF:
                raise StuckError(self._waiting())
        self.now = max(self.now, following)

    def _settle(self) -> None:
        """Wait until no thread runs: each is parked, or waits for another one."""
        looks: dict[threading.Thread, int] = {}
        with self._moved:
            while True:
                busy = [t for t in self._alive() if not self._is_blocked(t, looks)]
                if not busy:
                    self._running = None
                    return
                self._moved.wait(LOOK)

    def _alive(self) -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if thread is not self._driver and thread not in self._others and thread not in self._parked
        ]

    def _is_blocked(self, thread: threading.Thread, looks: dict[threading.Thread, int]) -> bool:
        """Whether a thread waits for another one: it cannot go on by itself."""
        frame = sys._current_frames().get(thread.ident or 0)
        if frame is None:
            return False  # it is about to start, or to end
        lock = _lock_of(frame)
        if lock is not None:
            return lock
        place = (frame.f_code, frame.f_lasti)
        if self._waits_at.get(thread) == place:
            looks[thread] = looks.get(thread, 0) + 1
        else:
            self._waits_at[thread] = place
            looks[thread] = 0
            self._settled.discard(thread)
        if looks[thread] >= SETTLED:
            self._settled.add(thread)
        return thread in self._settled

    def _may_go_on(self, thread: threading.Thread) -> bool:
        """Whether a thread that waits for something real may stop to do so by itself."""
        frame = sys._current_frames().get(thread.ident or 0)
        if frame is None or thread in self._settled:
            return False
        return _lock_of(frame) is None or frame.f_locals.get("timeout") is not None

    def _waiting(self) -> str:
        lines = [
            f"{thread.name} of {parked.host or 'nobody'} until {parked.until:g}"
            for thread, parked in self._parked.items()
        ]
        lines += [f"{thread.name} runs" for thread in self._alive()]
        return f"it is {self.now:g}; " + ("; ".join(lines) or "no thread is left")


def _lock_of(frame: FrameType) -> bool | None:
    """Whether the lock that a frame of `threading` waits for is taken; None for any other frame."""
    if frame.f_code.co_filename != threading.__file__:
        return None
    name, values = frame.f_code.co_name, frame.f_locals
    with contextlib.suppress(AttributeError):  # not set yet
        if name == "wait":  # of a Condition, on which events, futures and semaphores rest
            lock: Any = values.get("waiter")
            return None if lock is None else bool(lock.locked())
        if name in ("_wait_for_tstate_lock", "join"):
            joined: Any = values.get("self")
            return bool(joined.is_alive()) if name == "join" else bool(values["lock"].locked())
    return None
