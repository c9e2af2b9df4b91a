"""The open producer handles of this process: flushed when the process ends, given up in a forked child."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from contextlib import AbstractContextManager
from typing import Final, Protocol

from kafka_notify.errors import NotifyError

EXIT_SECONDS: Final = 30.0
"""How long a process waits for acknowledgements when it ends."""


class Handle(Protocol):
    """A handle as its process sees it."""

    def close(self, timeout: float) -> int:
        """Flush for up to `timeout` seconds; return how many records were left."""
        ...

    def abandon(self) -> None:
        """Give the handle up in a child process."""
        ...


_open: set[Handle] = set()
_exit_registered = False
_lock = threading.RLock()  # a signal handler may send


def exclusive() -> AbstractContextManager[object]:
    """The lock of this process, for rare and short sections. Call it each time: after a fork the lock is a new one."""
    return _lock


def register(handle: Handle) -> None:
    """Flush a handle when the process ends."""
    global _exit_registered
    _open.add(handle)
    processes = sys.modules.get("multiprocessing")
    if not _exit_registered and processes is not None and processes.parent_process() is not None:
        # Children of multiprocessing end without atexit (before Python 3.13 or so), but run finalizers.
        from multiprocessing.util import Finalize

        Finalize(None, _close_all, exitpriority=0)
        _exit_registered = True


def unregister(handle: Handle) -> None:
    """Forget a handle that is closed."""
    _open.discard(handle)


@atexit.register
def _close_all() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    left = 0
    for handle in tuple(_open):
        left += handle.close(max(0.0, deadline - time.monotonic()))
    if left:
        # The interpreter prints it: the process is ending, and logging may have been shut down.
        raise NotifyError(
            f"the process ended with {left} records not acknowledged within {EXIT_SECONDS:g} s: they are lost "
            "unless a broker wrote them; call Producer.close(), and handle the error that it raises"
        )


def _after_fork() -> None:
    global _open, _exit_registered, _lock
    for handle in _open:
        handle.abandon()
    _open = set()
    _exit_registered = False
    _lock = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
