"""Time that moves only when nobody can do anything without it, and threads that take turns.

The thread that makes a `VirtualTime` is its *driver*: the test. Every other thread comes from `VirtualTime.runtime`,
and exactly one thread runs at any moment: it hands its turn over when it waits, and at calls of simulated clients. A
seeded random chooses who is next. So a run depends on its seed, not on the machine.
`VirtualTime.frozen` stops the threads of a host, as SIGSTOP does, and `VirtualTime.kill` ends them, as SIGKILL does.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final, TypeVar, cast

import attrs

from kafka_notify._base.runtime import Runtime

T = TypeVar("T")

INF: Final = float("inf")
STANDSTILL: Final = 50_000
"""Turns without a step of time after which somebody goes round in circles."""
START: Final = 1_000.0
EPOCH: Final = 1_800_000_000.0
STUBBORN: Final = 20
"""Times that a thread of a killed host is told so, before it is left behind: its code catches everything."""


class StuckError(AssertionError):
    """Everybody waits for something that cannot happen any more."""


class Killed(BaseException):
    """The host of this thread was killed. The thread runs on alone, and can do nothing but end."""


@attrs.define(eq=False, slots=True)
class Turn:
    """A thread of the simulation, and what it waits for."""

    serial: int
    name: str
    host: str
    go: threading.Lock
    ready: Callable[[], bool] | None = None
    until: float = INF
    waits: int = 0
    """Counts its waits: a timer of an earlier one is stale."""
    parked: bool = False
    ident: int = 0
    told: int = 0
    """How often it was told that its host was killed."""


class VirtualTime:
    """A clock, and the order in which threads run.

    Args:
        seed: Of the order in which threads run.
        stalls: The share of calls of clients at which a thread stands still for up to `stall` seconds, as on a
            machine that has too little time for it.
        stall: Seconds.
    """

    def __init__(self, seed: int = 0, *, stalls: float = 0.0, stall: float = 0.0) -> None:
        self.now = START
        """Monotonic seconds."""
        self.frozen: set[str] = set()
        """Hosts whose threads do not run: a stopped process."""
        self.killed: set[str] = set()
        """Hosts whose threads do nothing but end; see `kill`."""
        self.steps: dict[str, float] = {}
        """Seconds by which the wall clock of a host is wrong."""
        self.stalls, self.stall = stalls, stall
        self._random = random.Random(seed)
        self._serial = itertools.count()
        self._driver = self._running = Turn(next(self._serial), "driver", "", _taken())
        self._driver.ident = threading.get_ident()
        self._polled: dict[Turn, None] = {}
        """Those that wait for a condition, which is asked before each turn."""
        self._asking: dict[Turn, None] = {}
        """Those that wait for a condition of a client, which is asked once anybody has used a client."""
        self._touched = True
        """True once somebody has used a client since the conditions of clients were asked."""
        self._due: dict[Turn, None] = {}
        """Those that were woken, or whose time is over."""
        self._timers: list[tuple[float, int, int, Turn]] = []
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._threads: dict[Turn, None] = {}
        self.turns = 0
        """Turns that were taken."""
        self.over = False
        """True once the run is over, and only ends."""
        self._still = 0
        self._error: BaseException | None = None

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def wall(self, host: str = "") -> float:
        """Epoch seconds, as a host sees them."""
        return EPOCH + self.now - START + self.steps.get(host, 0.0)

    @property
    def threads(self) -> list[str]:
        """Names of the threads that have not ended."""
        return [turn.name for turn in self._threads]

    def at(self, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` in so many seconds from now, between two turns; it must not wait."""
        heapq.heappush(self._agenda, (self.now + max(seconds, 0.0), next(self._serial), call))

    def runtime(self, host: str = "") -> Runtime:
        """What the programs of a host take their time, threads and waits from."""
        return Runtime(
            wall=lambda: self.wall(host),
            monotonic=self.monotonic,
            boottime=self.monotonic,
            sleep=lambda seconds: self.sleep_of(host, seconds),
            event=lambda: Event(self, host),
            queue=lambda: cast(Any, Queue(self, host)),
            thread=lambda **given: Thread(self, host, **given),
            wait=lambda future, seconds: self.wait(future.done, seconds, host),
            new_id=lambda: f"{self._random.getrandbits(128):032x}",
        )

    # -- called by threads ----------------------------------------------------------------------------

    def enter(self, host: str = "") -> None:
        """Let others run first, if chance says so: at the beginning of each call of a client."""
        if self._running is not self._driver:
            self.give_way(host)
        self._touched = True

    def touch(self) -> None:
        """Tell that a call of a client changes something after it has waited."""
        self._touched = True

    def give_way(self, host: str = "") -> None:
        """Let others run first, if chance says so."""
        me = self._running
        if me.host in self.killed and me is not self._driver:
            self._end(me)
        if self.stalls and self._random.random() < self.stalls:
            self.sleep_of(host, self._random.random() * self.stall)
            return
        if self._others_may_run():
            self._due[me] = None
            self._park(me, None, INF)

    def wait(
        self, ready: Callable[[], bool] | None, seconds: float = INF, host: str = "", *, client: bool = False
    ) -> bool:
        """Block until `ready()`, for so many seconds at most; whether it is. Others run meanwhile.

        `ready` is called between turns; with `client` only after somebody has used a client. None: until `wake`.
        """
        me = self._running
        assert me.ident == threading.get_ident(), (
            "a thread that is not of the simulation, or a call that waits"
        )
        self._park(me, ready, self.now + max(seconds, 0.0), client=client)
        if client:
            self._touched = True
        return ready is not None and ready()

    def sleep_of(self, host: str, seconds: float) -> None:
        """Let a thread of a host sleep."""
        self.wait(_never, seconds, host)

    def wake(self, turn: Turn) -> None:
        """End the wait of a thread that waits for no condition."""
        if turn.parked:
            self._due[turn] = None

    @property
    def running(self) -> Turn:
        """The thread that runs."""
        return self._running

    # -- called by the test ---------------------------------------------------------------------------

    def until(self, done: Callable[[], bool], seconds: float = 600.0) -> None:
        """Let everybody run until `done()`.

        Raises:
            StuckError: It is not within so many virtual seconds, or never will be.
        """
        if not self.wait(done, seconds):
            raise StuckError(f"not within {seconds:g} s: {self._waiting()}")

    def sleep(self, seconds: float) -> None:
        """Let everybody run for so many seconds."""
        self.wait(_never, seconds)

    def call(self, function: Callable[[], T], seconds: float = 600.0, host: str = "") -> T:
        """Call `function` on a thread of its own, let everybody run until it has returned, and return what it did."""
        answer = self.begin(function, host)
        self.until(answer.done, seconds)
        return answer.result(0)

    def begin(self, function: Callable[[], T], host: str = "") -> Future[T]:
        """Call `function` on a thread of its own, and return at once."""
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(function())
            except BaseException as e:
                answer.set_exception(e)

        Thread(self, host, target=run, name="virtual call").start()
        return answer

    def kill(self, host: str) -> None:
        """End the threads of a host: whatever they call raises, until they have ended. No time passes.

        Call it from the driver, or from the agenda.
        """
        self.killed.add(host)
        self.frozen.discard(host)
        for turn in self._threads:
            if turn.host == host and turn.parked:
                self._due[turn] = None

    def finish(self) -> None:
        """Let the threads of killed hosts end; no time passes, and nothing of the agenda is done."""
        self._agenda.clear()
        self.wait(lambda: not any(turn.host in self.killed for turn in self._threads), 0.0)

    # -- turns ----------------------------------------------------------------------------------------

    def _park(
        self, me: Turn, ready: Callable[[], bool] | None, until: float, *, client: bool = False
    ) -> None:
        if me is self._driver:
            self._touched = True
        elif me.host in self.killed:
            self._end(me)
        me.ready, me.until = ready, until
        me.waits += 1
        me.parked = True
        if ready is not None and ready is not _never and me is not self._driver:
            (self._asking if client else self._polled)[me] = None
        if until < INF:
            heapq.heappush(self._timers, (until, me.serial, me.waits, me))
        self._pass_on(me)
        if me is self._driver:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
        elif me.host in self.killed:
            self._end(me)

    def _end(self, me: Turn) -> None:
        me.told += 1
        if me.told > STUBBORN:  # it never runs again
            self._threads.pop(me, None)
            following = self._running = self._next()
            following.go.release()
            me.go.acquire()
        raise Killed

    def _pass_on(self, me: Turn) -> None:
        following = self._running = self._next()
        if following is not me:
            following.go.release()
            me.go.acquire()

    def _next(self) -> Turn:
        """The thread whose turn it is: time passes until there is one."""
        try:
            turn = self._chosen()
        except BaseException as e:  # the test is told
            self._error = e
            turn = self._driver
        turn.ready, turn.until = None, INF
        turn.waits += 1
        turn.parked = False
        self._due.pop(turn, None)
        self._polled.pop(turn, None)
        self._asking.pop(turn, None)
        return turn

    def _chosen(self) -> Turn:
        agenda, timers = self._agenda, self._timers
        driver = self._running = self._driver  # what is called here calls clients as if the test did
        while True:
            now = self.now
            while agenda and agenda[0][0] <= now:
                self._touched = True
                heapq.heappop(agenda)[2]()
            while timers and timers[0][0] <= now:
                _, _, waits, turn = heapq.heappop(timers)
                if turn.waits == waits:
                    self._due[turn] = None
            if driver.ready is not None and driver.ready():
                return driver
            if able := self._able():
                self.turns += 1
                self._still += 1
                if self._still > STANDSTILL:
                    raise StuckError(f"time stands still: {self._waiting()}")
                return able[0] if len(able) == 1 else able[int(self._random.random() * len(able))]
            if driver in self._due:
                return driver
            while timers and timers[0][3].waits != timers[0][2]:
                heapq.heappop(timers)
            following = min(timers[0][0] if timers else INF, agenda[0][0] if agenda else INF)
            if following == INF:
                raise StuckError(self._waiting())
            self._still = 0
            self.now = max(now, following)

    def _others_may_run(self) -> bool:
        """False when a choice would be none: it costs as much as a switch of threads."""
        timers, agenda, now = self._timers, self._agenda, self.now
        return bool(
            self._due
            or self._polled
            or (self._touched and self._asking)
            or (timers and timers[0][0] <= now)
            or (agenda and agenda[0][0] <= now)
        )

    def _able(self) -> list[Turn]:
        """Threads that may run, in an order that does not depend on the machine."""
        frozen, killed, driver = self.frozen, self.killed, self._driver
        able = [turn for turn in self._due if turn is not driver and turn.host not in frozen]
        if killed and (dying := [turn for turn in able if turn.host in killed]):
            able = dying
        else:
            asked = [*self._polled, *self._asking] if self._touched else self._polled
            self._touched = False
            for turn in asked:
                if turn not in self._due and turn.host not in frozen:
                    assert turn.ready is not None
                    if turn.ready():
                        able.append(turn)
                        if turn in self._asking:
                            self._touched = True  # it is still to be chosen
        if len(able) > 1:
            able.sort(key=_by_serial)
        return able

    def _waiting(self) -> str:
        lines = [f"{turn.name} of {turn.host or 'nobody'} until {turn.until:g}" for turn in self._threads]
        return f"it is {self.now:g}; " + ("; ".join(lines) or "no thread is left")


class Thread(threading.Thread):
    """A thread of the simulation."""

    def __init__(self, time: VirtualTime, host: str, **given: Any) -> None:
        super().__init__(**{**given, "daemon": True})
        self._time = time
        self.turn = Turn(next(time._serial), self.name, host, _taken())
        self._over = False

    def start(self) -> None:
        """Begin to take turns."""
        time = self._time
        if self.turn.host in time.killed:
            raise Killed
        time._threads[self.turn] = None
        time._due[self.turn] = None
        self.turn.parked = True
        super().start()

    def run(self) -> None:
        """Wait for the first turn, run, and pass the turn on."""
        self.turn.ident = threading.get_ident()
        self.turn.go.acquire()
        time = self._time
        try:
            if self.turn.host not in time.killed:
                super().run()
        except Killed:
            pass
        finally:
            self._over = True
            time._threads.pop(self.turn, None)
            following = time._running = time._next()
            following.go.release()

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.ident is not None and not self._over

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        self._time.wait(lambda: self._over, INF if timeout is None else timeout, self.turn.host)


class Event(threading.Event):
    """An event that is waited for in virtual time."""

    def __init__(self, time: VirtualTime, host: str) -> None:
        super().__init__()
        self._time = time
        self._host = host
        self._waiters: list[Turn] = []

    def set(self) -> None:
        """Wake all that wait."""
        self._flag = True
        for turn in self._waiters:
            self._time.wake(turn)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set."""
        if not self._flag:
            me = self._time.running
            self._waiters.append(me)
            try:
                self._time.wait(None, INF if timeout is None else timeout, self._host)
            finally:
                self._waiters.remove(me)
        return self._flag


class Queue:
    """What `queue.SimpleQueue` is, in virtual time."""

    def __init__(self, time: VirtualTime, host: str) -> None:
        self._time = time
        self._host = host
        self._items: deque[Any] = deque()
        self._waiters: deque[Turn] = deque()

    def put(self, item: Any) -> None:
        """Add an item."""
        self._items.append(item)
        if self._waiters:
            self._time.wake(self._waiters.popleft())

    def get(self) -> Any:
        """Block until there is an item, and take it."""
        while not self._items:
            me = self._time.running
            self._waiters.append(me)
            try:
                self._time.wait(None, INF, self._host)
            finally:
                if me in self._waiters:
                    self._waiters.remove(me)
        return self._items.popleft()

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _never() -> bool:
    return False


def _by_serial(turn: Turn) -> int:
    return turn.serial
