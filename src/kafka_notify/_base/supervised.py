"""Threads that cannot end unnoticed: the one place where this library starts a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kafka_notify._base.where import detail, origin

log = logging.getLogger("kafka_notify.threads")


def supervised(
    run: Callable[[], object], name: str, ended: Callable[[BaseException], object]
) -> threading.Thread:
    """A daemon thread, not started. What `run` raises is logged by class and frames, and given to `ended`.

    Args:
        run: What the thread does; returning is its regular end.
        name: Of the thread.
        ended: Called on the thread when `run` raised: whoever needs this thread has to stop, and to say why.
    """

    def supervise() -> None:
        try:
            run()
        except BaseException as e:
            log.error("the thread %s has ended: %s", name, origin(e))
            detail(log, e)
            ended(e)

    return threading.Thread(target=supervise, name=name, daemon=True)
