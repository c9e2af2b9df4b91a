"""Checkers of sends: order, overlap, time, number of attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from kafka_notify.testing._checker import (
    NEVER,
    Call,
    CallChecker,
    Checker,
    Observation,
    Violation,
)
from kafka_notify.testing.attempt_log import (
    Accepted,
    Copied,
    DeadLettered,
    Ended,
    Produced,
    Scheduled,
    Skipped,
    Started,
    Uncounted,
)


class OrderKept(Checker):
    """A notification is first accepted only when every earlier one of its user is terminal.

    Args:
        key: Returns the key by which order is kept; by default the user.
    """

    def __init__(self, key: Callable[[Produced], Hashable] = lambda p: p.user) -> None:
        super().__init__()
        self._key = key
        self._lanes: defaultdict[Hashable, dict[int, str]] = defaultdict(dict)
        self._accepted: dict[str, int] = {}
        self._terminal: dict[str, int] = {}

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Produced():
                self._lanes[seen.partition, self._key(seen)][seen.offset] = seen.id
            case Accepted():
                self._accepted.setdefault(seen.id, self.line)
                self._terminal.setdefault(seen.id, self.line)
            case Skipped() | DeadLettered():
                self._terminal.setdefault(seen.id, self.line)
            case _:
                pass

    def violations(self) -> Sequence[Violation]:
        found: list[Violation] = []
        for lane in self._lanes.values():
            queue = [id for _, id in sorted(lane.items())]
            latest, blocker = -1, ""
            for id in queue:
                accepted = self._accepted.get(id, NEVER)
                if accepted < latest:
                    text = f"{id} was accepted before the earlier {blocker} of its user was terminal"
                    found.append(Violation("poll-skip", text, (accepted,)))
                terminal = self._terminal.get(id, NEVER)
                if terminal > latest:
                    latest, blocker = terminal, id
            first, later = NEVER, ""
            for id in reversed(queue):
                accepted = self._accepted.get(id, NEVER)
                if first < accepted < NEVER:
                    text = f"{id} was accepted after the later {later} of its user"
                    found.append(Violation("nonmonotonic-poll", text, (first, accepted)))
                if accepted < first:
                    first, later = accepted, id
        return found


class SendsMonotonic(Checker):
    """What one process sends to a partition, one after the other, gets growing offsets.

    Only notifications whose `Produced.process` is known are judged.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], tuple[Produced, int]] = {}
        self._found: list[Violation] = []

    def _observe(self, seen: Observation, /) -> None:
        if not isinstance(seen, Produced) or not seen.process:
            return
        before, line = self._last.get((seen.process, seen.partition), (None, 0))
        if before is not None and seen.offset <= before.offset:
            self._found.append(
                Violation(
                    "nonmonotonic-send",
                    f"{seen.id} got offset {seen.offset} of partition {seen.partition}, and {before.id}, which the "
                    f"same process had sent before it, got {before.offset}",
                    (line, self.line),
                )
            )
        self._last[seen.process, seen.partition] = seen, self.line

    def violations(self) -> Sequence[Violation]:
        return self._found


class OneAtATime(CallChecker):
    """A user never has two sends at once.

    Two exceptions are counted in `tolerated`: a send of a worker that was killed, stopped, frozen or fenced meanwhile
    may overlap with one of the worker that took over; and so may a plain send, which nothing can cancel, that outlived
    its deadline when its partition was handed over.

    Args:
        key: Returns the key whose sends exclude one another; by default the user.
    """

    def __init__(self, key: Callable[[Started], Hashable] = lambda s: s.user) -> None:
        super().__init__()
        self._key = key
        self._open: defaultdict[Hashable, list[Call]] = defaultdict(list)
        self._overlaps: list[tuple[Call, Call]] = []

    def _on_start(self, call: Call) -> None:
        calls = self._open[self._key(call.started)]
        calls[:] = [other for other in calls if other.ended == NEVER]
        self._overlaps += [(other, call) for other in calls]
        calls.append(call)

    def _excused(self, first: Call, second: Call) -> bool:
        overdue = second.started.at - first.started.at >= first.started.timeout * 1000
        return first.started.worker != second.started.worker and (
            overdue
            or first.thawed
            or second.thawed
            or self.disturbed(first.started.worker, first.line, first.ended)
        )

    @property
    def tolerated(self) -> int:
        """The number of sends that overlapped with one of the worker that took over."""
        return len({first.line for first, second in self._overlaps if self._excused(first, second)})

    def violations(self) -> Sequence[Violation]:
        return [
            Violation(
                "overlap",
                f"{second.started.id} was sent by {second.started.worker} while {first.started.id} of the same user "
                f"was being sent by {first.started.worker}",
                (first.line, second.line),
            )
            for first, second in self._overlaps
            if not self._excused(first, second)
        ]


class OnTime(Checker):
    """No attempt starts before it is due, and none after its notification has expired.

    Args:
        grace: Milliseconds allowed between the worker's look at the clock and the line in the log, as a loaded machine
            may suspend a process in between.
    """

    def __init__(self, *, grace: int = 100) -> None:
        super().__init__()
        self._grace = grace
        self._due: dict[tuple[str, int], int] = {}
        self._expires: dict[str, int] = {}
        self._starts: list[tuple[int, Started]] = []

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Copied():  # after a crash there may be several copies; the earliest due time counts
                place = (seen.id, seen.attempts)
                self._due[place] = min(seen.due, self._due.get(place, NEVER))
            case Produced() if seen.expires_at is not None:
                self._expires[seen.id] = seen.expires_at
            case Started():
                self._starts.append((self.line, seen))
            case _:
                pass

    def violations(self) -> Sequence[Violation]:
        found: list[Violation] = []
        for line, start in self._starts:
            due = self._due.get((start.id, start.attempt - 1), 0) if start.attempt > 1 else 0
            if start.at < due:
                text = f"attempt {start.attempt} of {start.id} started {due - start.at} ms early"
                found.append(Violation("early", text, (line,)))
            late = start.at - self._expires.get(start.id, NEVER)
            if late > self._grace:
                text = f"attempt {start.attempt} of {start.id} started {late} ms after it had expired"
                found.append(Violation("expired", text, (line,)))
        return found


class AttemptsBounded(CallChecker):
    """Attempt numbers grow, across restarts too, and never exceed the limit.

    Args:
        max_attempts: The limit of the retry policy.
    """

    def __init__(self, max_attempts: int) -> None:
        super().__init__()
        self._max = max_attempts
        self._made: dict[str, tuple[int, str, int]] = {}
        """Counted attempts by id, with the worker that made the last one, and the line where it started."""
        self._durable: dict[str, int] = {}
        """Counted attempts by id, from acknowledged copies."""
        self._uncounted: set[int] = set()
        """Lines of calls that were judged before they ended: plain sends that outlived their deadline."""
        self._suspects: list[tuple[Call, str, int]] = []
        self._found: list[Violation] = []

    def _on_start(self, call: Call) -> None:
        id, number = call.started.id, call.started.attempt
        if number > self._max:
            text = f"attempt {number} of {id} was made, {self._max} are allowed"
            self._found.append(Violation("attempts-exceeded", text, (call.line,)))
        durable = self._durable.get(id, 0)
        if number <= durable and not call.thawed:
            text = f"attempt {number} of {id} was made again although a copy with {durable} attempts was acknowledged"
            self._found.append(Violation("attempt-forgotten", text, (call.line,)))
            return
        made, worker, line = self._made.get(id, (0, "", 0))
        if number <= made:
            self._suspects.append((call, worker, line))

    def _on_end(self, call: Call, seen: Ended) -> None:
        if seen.counted and call.line not in self._uncounted:
            self._made[seen.id] = (seen.attempt, seen.worker, call.line)
        self._uncounted.discard(call.line)

    def _on_other(self, seen: Observation) -> None:
        if isinstance(seen, Uncounted):  # the failure was the provider's
            call = self._running.get((seen.worker, seen.id))
            if call is not None and call.started.attempt == seen.attempt:
                self._uncounted.add(call.line)
            elif self._made.get(seen.id, (0, "", 0))[0] == seen.attempt:
                self._made.pop(seen.id, None)
        elif isinstance(seen, Scheduled):
            # the copies of a worker that was frozen or fenced may be a zombie's, which count for nothing
            doubtful = any(how in ("paused", "fenced") for _, how in self._disturbances[seen.worker])
            if not doubtful:
                self._durable[seen.id] = max(seen.attempts, self._durable.get(seen.id, 0))

    def violations(self) -> Sequence[Violation]:
        return self._found + [
            Violation(
                "attempt-forgotten",
                f"attempt {call.started.attempt} of {call.started.id} was made again although nothing happened to "
                f"{worker}, which made it before",
                (line, call.line),
            )
            for call, worker, line in self._suspects
            if not self.disturbed(worker, line, call.line, cluster=True)
        ]
