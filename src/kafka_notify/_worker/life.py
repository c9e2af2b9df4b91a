"""The states of a worker, and the transitions between them."""

from __future__ import annotations

import enum
import threading
from collections.abc import Mapping
from typing import Final

from kafka_notify._base.runtime import SYSTEM, Runtime


class State(enum.Enum):
    """The state of a worker."""

    NEW = "not started"
    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    """It cannot go on: no send starts any more, and nothing is committed."""
    STOPPING = "stopping"
    STOPPED = "stopped"


_NEXT: Final[Mapping[State, frozenset[State]]] = {
    State.NEW: frozenset({State.STARTING, State.STOPPED}),
    State.STARTING: frozenset({State.RUNNING, State.FAILED, State.STOPPING}),
    State.RUNNING: frozenset({State.FAILED, State.STOPPING}),
    State.FAILED: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}


class Life:
    """One worker's state. Safe from any thread and from signal handlers, as it calls nothing while it is locked.

    Args:
        runtime: The waits for its end.
    """

    def __init__(self, runtime: Runtime = SYSTEM) -> None:
        self._lock = threading.RLock()
        self.state = State.NEW
        self.error: BaseException | None = None
        """The first error that kept the worker from going on. It stays after the end."""
        self.stop_asked = False
        """True once a stop was asked for: a start that is under way gives up."""
        self.keeper: int | None = None
        """Ident of the thread that starts or stops the worker now."""
        self.stopped = runtime.event()

    def to(self, state: State) -> bool:
        """Go to `state` if it may follow. Return True if it did: of several threads only one is told so."""
        with self._lock:
            if state not in _NEXT[self.state]:
                return False
            self.state = state
            if state in (State.STARTING, State.STOPPING):
                self.keeper = threading.get_ident()
        if state is State.STOPPED:
            self.stopped.set()
        return True

    def fail(self, error: BaseException) -> bool:
        """Note that the worker cannot go on. Return True for the first error.

        While the worker stops already, its state stays and only the error is kept.
        """
        with self._lock:
            if self.error is not None or self.state is State.STOPPED:
                return False
            self.error = error
            self.to(State.FAILED)
            return True
