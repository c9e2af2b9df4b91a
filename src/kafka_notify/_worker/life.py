"""The states of a worker, and which follow which."""

from __future__ import annotations

import enum
import threading
from collections.abc import Mapping
from typing import Final


class State(enum.Enum):
    """What a worker is at."""

    NEW = "not started"
    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    """Something went wrong that it cannot put right: no send starts any more, and nothing is committed."""
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
    """One worker's state; safe from any thread and from signal handlers, as nothing is called while it is locked."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.state = State.NEW
        self.error: BaseException | None = None
        """Why it cannot go on: the first reason. It stays after the end."""
        self.stop_asked = False
        """Somebody wants it to stop: a start that is under way gives up."""
        self.keeper: int | None = None
        """Ident of the thread that starts or stops it now."""
        self.stopped = threading.Event()

    def to(self, state: State) -> bool:
        """Go to `state` if it may follow; whether it was so. Of several threads one alone is told True."""
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
        """It cannot go on; whether this is the first to say so. While it stops already, only the reason is kept."""
        with self._lock:
            if self.error is not None or self.state is State.STOPPED:
                return False
            self.error = error
            self.to(State.FAILED)
            return True
