"""Asks a `SeenStore` without depending on it: each call has a time limit, and a store that hangs is left alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from kafka_notify._base.runtime import SYSTEM
from kafka_notify._base.where import name_of
from kafka_notify._wire.send_key import SendKey
from kafka_notify.limits import SeenInMemory, SeenStore

log = logging.getLogger("kafka_notify.send")

PATIENCE: Final = 1.0
"""Seconds that the store has to answer."""
AWAY: Final = 5.0
"""Seconds before a store that did not answer is asked again."""
MAX_LEFT: Final = 100
"""Calls that ignored their cancellation and still run, at which the store is not asked any more."""


class Remember:
    """The store of one consumer. Nothing here raises but CancelledError, when the caller of `seen` is cancelled.

    Args:
        store: The team's store.
        monotonic: Returns seconds.
    """

    def __init__(self, store: SeenStore, monotonic: Callable[[], float] = SYSTEM.monotonic) -> None:
        self._monotonic = monotonic
        self._store = store
        self._answers_at_once = type(store) is SeenInMemory
        self._away_until = 0.0
        self._away = False
        self._left: set[asyncio.Task[Any]] = set()

    async def seen(self, key: SendKey) -> bool:
        """True when a notification was accepted before; False when the store does not answer."""
        return bool(await self._ask("seen", key, "is sent"))

    async def add(self, key: SendKey) -> None:
        """Remember a notification that was accepted. Nothing that happens here, a cancellation included, undoes its
        send."""
        try:
            await self._ask("add", key, "is not remembered")
        except asyncio.CancelledError:
            pass  # the deadline of a send that has succeeded

    async def _ask(self, what: str, key: SendKey, then: str) -> Any:
        id, store = str(key), self._store
        if self._answers_at_once:
            return await (store.seen(id) if what == "seen" else store.add(id))
        if self._monotonic() < self._away_until or len(self._left) >= MAX_LEFT:
            return None
        task = asyncio.ensure_future(_answer(store.seen(id) if what == "seen" else store.add(id)))
        try:
            await asyncio.wait({task}, timeout=PATIENCE)
        finally:
            if not task.done():
                self._left.add(task)
                task.add_done_callback(self._left.discard)
                # an `add` whose caller was cancelled keeps the rest of its time
                asyncio.get_running_loop().call_later(PATIENCE if what == "add" else 0.0, task.cancel)
        if task.done():
            answer, error = task.result()
            if self._away and not error:
                self._away = False
                log.warning("dedupe: the store answers again")
            if error:
                log.warning("dedupe: %s() raised %s: notification %s %s", what, error, key.id, then)
            return answer
        task.cancel()
        self._away_until = self._monotonic() + AWAY
        if not self._away:
            self._away = True
            log.warning(
                "dedupe: the store did not answer %s() within %.0f s: notification %s %s, and it is asked again in "
                "%.0f s",
                what, PATIENCE, key.id, then, AWAY,
            )  # fmt: skip
        return None


async def _answer(call: Awaitable[Any]) -> tuple[Any, str]:
    """The store's answer and the class of its exception, else ''. So its task never fails."""
    try:
        return bool(await call), ""
    except (asyncio.CancelledError, GeneratorExit):
        return None, "CancelledError"
    except BaseException as e:
        return None, name_of(e)
