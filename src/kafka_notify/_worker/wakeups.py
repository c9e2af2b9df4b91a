"""Wake-ups of users' queues: after a read or a commit, and when a retry is due. Runs on the event loop."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from kafka_notify._base.turn import InTurns, Turn
from kafka_notify._decision.context import Context
from kafka_notify._fetch.commits import Commits
from kafka_notify._partition.entry import UserQueue
from kafka_notify._partition.partition import Partition
from kafka_notify._worker.calls import Calls
from kafka_notify._worker.timers import Timers


class WakeUps:
    """Wakes the queues of one worker's users, in turns of the loop, and the senders after each.

    Args:
        context: The worker's surroundings.
        calls: Runs the turns.
        commits: Commits soon for a restored partition, which waits for its fence.
        kick: Wakes the senders.
    """

    def __init__(self, context: Context, calls: Calls, commits: Commits, kick: Callable[[], object]) -> None:
        self._clock = context.clock
        self._commits = commits
        self._kick = kick
        self._unfinished: OrderedDict[Partition, None] = OrderedDict()
        """Partitions with queues that are to be looked at in the next turns of the loop."""
        self._in_turns = InTurns(calls.soon, self._step, context.clock.monotonic)
        self.timers = Timers(context.loop, context.clock, kick, calls.run)
        """The due times of all queues."""

    def look_on(self, partitions: Iterable[Partition]) -> None:
        """Step the queues of these partitions that waited for a read or a commit."""
        now = self._clock.now()
        for partition in partitions:
            if partition.alive:
                if not partition.active and partition.restored:
                    self._commits.soon()
                if partition.step_blocked(now):
                    self._unfinished[partition] = None
        if self._unfinished:
            self._in_turns()
        self._kick()

    def _step(self, turn: Turn) -> bool:
        now, unfinished = self._clock.now(), self._unfinished
        while unfinished:
            partition = unfinished.popitem(last=False)[0]
            if partition.alive and partition.step_blocked(now):
                unfinished[partition] = None  # after the others
            if turn.late:
                break
        self._kick()
        return bool(unfinished)

    def wake(self, queue: UserQueue, at: int) -> None:
        """Look at a user's queue again at epoch ms `at`."""
        self.timers.add(queue, at)

    def drop(self, partition: Partition) -> None:
        """Forget a partition whose assignment has ended."""
        self._unfinished.pop(partition, None)
