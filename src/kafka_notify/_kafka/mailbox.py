"""Wakes coroutines for reports that arrive on other threads."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import Final


class Mailbox:
    """Brings reports from the serving threads to one event loop: one wake-up for all that came meanwhile."""

    __slots__ = ("_awake", "_loop", "_reported")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # it is the key of the dictionary that holds this
        self._reported: deque[asyncio.Future[None]] = deque()
        self._awake = False

    def put(self, reported: asyncio.Future[None], _: object = None) -> None:
        """From any thread, and as a callback of the send."""
        self._reported.append(reported)
        if not self._awake:
            self._awake = True
            loop = self._loop()
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._empty)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._reported.clear()

    def _empty(self) -> None:
        # Cleared before the deque is emptied: what is put after the last look wakes the loop again.
        self._awake = False
        reported = self._reported
        while reported:
            future = reported.popleft()
            if not future.done():  # else its task was cancelled
                future.set_result(None)


_mailboxes: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox]] = weakref.WeakKeyDictionary()


def mailbox_of(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """The mailbox of an event loop; it lives as long as the loop."""
    found = _mailboxes.get(loop)
    if found is None:
        found = _mailboxes[loop] = Mailbox(loop)
    return found
