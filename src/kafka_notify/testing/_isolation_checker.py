"""The checker of isolation: no user's trouble delays another user.

It judges recorded times, by samples that a `WorkerSampler` writes; without samples there is nothing to judge.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import attrs

from kafka_notify.testing._checker import Call, Violation
from kafka_notify.testing._spans import FOREVER, Spans
from kafka_notify.testing._timeline import DEFERRAL, Story, Timeline
from kafka_notify.testing.attempt_log import Copied, DeadLettered, Ended, Skipped, Started


@attrs.frozen
class Wait:
    """The wait of an untroubled user's notification for its first attempt."""

    seconds: float
    """Seconds in which the worker could have started the attempt."""
    id: str
    user: str
    partition: int


class Isolation(Timeline):
    """No untroubled user waits longer than the bound while senders are free.

    A user is *untroubled* while no attempt of theirs has failed or is stuck, and none of their notifications waits for
    a retry or until a time of its own. A notification waits from when it was produced, or from when the one before it
    in its user's queue was settled, until its first attempt, or until it is settled without one. The *bound* is one
    send (the median of those accepted) + 1 second + `grace`.

    Only the time counts in which the worker that owns the partition had a free sender, by its samples. The time does
    not count while the worker is killed, frozen, restoring or handing over, while a broker is missing, while the lane
    is held, while something is paused, or while the rate limit decides. A user whose destination fails is not judged
    meanwhile.

    Args:
        grace: Seconds allowed beyond the promise, because other processes use the machine too. On two loaded cores
            waits of 1 s were measured.
        handover: Seconds that running sends get before a rebalance, the worker's `drain_timeout`.
        settle: Seconds after a broker is back, or after a lane is released, that do not count.
    """

    def __init__(self, *, grace: float = 4.0, handover: float = 20.0, settle: float = 10.0) -> None:
        super().__init__(handover=handover, settle=settle)
        self._grace = grace
        self._seconds: list[float] = []

    def _on_end(self, call: Call, seen: Ended) -> None:
        super()._on_end(call, seen)
        if seen.outcome == "accepted":
            self._seconds.append((seen.at - call.started.at) / 1000)

    @property
    def bound(self) -> float:
        """Seconds that an untroubled user may wait."""
        return (statistics.median(self._seconds) if self._seconds else 0.0) + 1.0 + self._grace

    def waits(self) -> list[Wait]:
        """Return the counted waits of all untroubled users, the longest first."""
        counted = self._counted()
        found = [wait for queue in self.queues() for wait in self._waits_of(queue, counted)]
        return sorted(found, key=lambda wait: -wait.seconds)

    @property
    def longest(self) -> float:
        """Seconds of the longest wait of an untroubled user."""
        waits = self.waits()
        return waits[0].seconds if waits else 0.0

    def violations(self) -> Sequence[Violation]:
        return [
            Violation(
                "user-delayed",
                f"{wait.id} of a user who had no trouble waited {wait.seconds:.1f} s in partition {wait.partition} "
                f"while senders were free; {self.bound:.1f} s are allowed",
            )
            for wait in self.waits()
            if wait.seconds > self.bound
        ]

    def _counted(self) -> dict[int, Spans]:
        """Return when each partition's owner could have started a send."""
        found: dict[int, Spans] = {}
        for worker in self.workers:
            held = Spans((begin, end + self._settle) for begin, end, _ in self.holds(worker))
            able = Spans(self.free[worker]) - self.cluster_away - held - self.failing()
            for partition, owned in self.owned_by(worker).items():
                found[partition] = found.get(partition, Spans()) | (owned & able)
        return found

    def _waits_of(self, queue: list[Story], counted: dict[int, Spans]) -> Iterator[Wait]:
        head = 0
        trouble = 0  # until when a notification of the user that failed or had to wait is open
        for story in queue:
            produced = story.produced
            assert produced is not None
            since, until = max(head, produced.at), self._first_look(story)
            if (
                until is not None
                and head < FOREVER
                and trouble <= produced.at
                and not self.failing(destination=produced.destination).length(since, until)
                and not self.failing(user=produced.user).length(since, until)
                and produced.partition in counted
            ):
                seconds = counted[produced.partition].length(since, until) / 1000
                yield Wait(seconds, produced.id, produced.user, produced.partition)
            head = max(head, story.settled)
            if story.failed:
                trouble = max(trouble, story.settled)

    def _first_look(self, story: Story) -> int | None:
        """Return when the first attempt began, or the notification was settled without one; None when it has to wait
        for a reason of its own."""
        for line in story.lines:
            match line:
                case Started() | Skipped() | DeadLettered():
                    return line.at
                case Copied() if line.attempts or line.due > line.at + DEFERRAL:
                    return None
                case _:
                    pass
        return self.end
