"""Users' queues whose head is due and waits for an offset. So each event looks only at the queues that it frees."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kafka_notify._partition.entry import UserQueue

STEP_AT_ONCE: Final = 64
"""Queues that one event looks at, at most; the rest stays on the agenda."""

Heap = list[tuple[int, int, "UserQueue"]]
"""Queues by the offset that they wait for; those that wait for the same offset are in order of arrival."""


class Waiting:
    """Queues by the offset that they wait for, and the agenda of queues that are to be looked at.

    `UserQueue.blocked` is the head that waits here. A queue whose head has changed since is looked at once in vain.
    """

    __slots__ = ("_order", "agenda", "beyond", "tainted", "uncovered", "unreached")

    def __init__(self) -> None:
        self.agenda: deque[UserQueue] = deque()
        """Queues to be looked at, a few at each event."""
        self.unreached: Heap = []
        """Queues that wait until the source was read past an offset."""
        self.tainted: Heap = []
        """Queues that wait until the retry partition was read past an offset."""
        self.beyond: Heap = []
        """Queues that wait until a retry offset comes into the window."""
        self.uncovered: list[UserQueue] = []
        """Queues that wait until a commit is confirmed."""
        self._order = itertools.count()

    def wait(self, heap: Heap, offset: int, queue: UserQueue) -> None:
        """Let a queue wait for an offset."""
        heapq.heappush(heap, (offset, next(self._order), queue))

    def look_at(self, queues: Iterable[UserQueue]) -> None:
        """Put queues on the agenda."""
        self.agenda.extend(queues)

    def confirmed(self) -> None:
        """Put on the agenda the queues that waited for a commit."""
        uncovered, self.uncovered = self.uncovered, []
        for queue in uncovered:
            queue.blocked = None
        self.agenda.extend(uncovered)

    def free(self, source: int, retry: int, sayable: int) -> bool:
        """Put on the agenda the queues that waited for these offsets, as many as one event looks at. Return True when
        there are more.

        Args:
            source: Offset below which the source was read.
            retry: Offset below which the retry partition was read.
            sayable: Retry offset below which a notification may be sent.
        """
        agenda, more = self.agenda, False
        for heap, offset in ((self.unreached, source), (self.tainted, retry), (self.beyond, sayable)):
            while heap and heap[0][0] < offset:
                if len(agenda) >= STEP_AT_ONCE:
                    more = True
                    break
                queue = heapq.heappop(heap)[2]
                queue.blocked = None
                agenda.append(queue)
        return more

    @property
    def is_empty(self) -> bool:
        """True when no queue waits for an offset or is to be looked at."""
        return not (self.agenda or self.unreached or self.tainted or self.beyond)

    def clear(self) -> None:
        """Forget everything."""
        for table in (self.agenda, self.unreached, self.tainted, self.beyond, self.uncovered):
            table.clear()
