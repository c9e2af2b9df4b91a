"""Threads that cannot end unnoticed: the only place where this library starts a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kafka_notify._base.runtime import SYSTEM, Runtime
from kafka_notify._base.where import detail, origin

log = logging.getLogger("kafka_notify.threads")


def supervised(
    run: Callable[[], object],
    name: str,
    ended: Callable[[BaseException], object],
    runtime: Runtime = SYSTEM,
) -> threading.Thread:
    """Return a daemon thread, not started. An exception from `run` is logged by class and frames, and given to `ended`.

    Args:
        run: The work of the thread, which ends regularly when this returns.
        name: Name of the thread.
        ended: Called on the thread when `run` raised: the owner of the thread must stop, and report why.
        runtime: Makes the thread.
    """

    def supervise() -> None:
        try:
            run()
        except BaseException as e:
            log.error("the thread %s has ended: %s", name, origin(e))
            detail(log, e)
            ended(e)

    return runtime.thread(target=supervise, name=name, daemon=True)
