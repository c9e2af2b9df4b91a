"""Checkers of sends and dead letters: order, overlap, time, number of attempts, faithful dead letters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import get_args

from kafka_notify._base import codes
from kafka_notify._wire import headers as h
from kafka_notify.testing._checker import (
    NEVER,
    Call,
    CallChecker,
    Checker,
    Letter,
    Observation,
    SourceRecord,
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
from kafka_notify.wire import DlqReason


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


class Conserved(Checker):
    """Nothing is invented: each send, copy and dead letter is of a notification that was produced for that user, at
    that offset. All sources agree on which notification is at an offset. A notification that a worker reports as
    dead-lettered is in the dead-letter topic."""

    def __init__(self) -> None:
        super().__init__()
        self._produced: dict[str, Produced] = {}
        self._places: dict[tuple[int, int], str] = {}
        self._seen: list[tuple[int, Started | Copied | Letter | SourceRecord]] = []
        self._dead: dict[str, int] = {}

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Produced():
                self._produced[seen.id] = seen
                self._places[seen.partition, seen.offset] = seen.id
            case Started() | Copied() | Letter() | SourceRecord():
                self._seen.append((self.line, seen))
            case DeadLettered():
                self._dead.setdefault(seen.id, self.line)
            case _:
                pass

    def violations(self) -> Sequence[Violation]:
        in_topic = {
            self._places.get((seen.partition, seen.origin), "")
            for _, seen in self._seen
            if isinstance(seen, Letter)
        }
        found = [found for line, seen in self._seen for found in self._wrong(line, seen)]
        found += [
            Violation(
                "dead-letter-missing", f"{id} is reported dead, but is not in the dead-letter topic", (line,)
            )
            for id, line in self._dead.items()
            if id not in in_topic
        ]
        return found

    def _wrong(self, line: int, seen: Started | Copied | Letter | SourceRecord) -> Iterator[Violation]:
        match seen:
            case Started():
                origin = self._produced.get(seen.id)
                if origin is None or origin.user != seen.user:
                    text = f"{seen.id} was sent to a user for whom it was not produced"
                    yield Violation("invented", text, (line,))
            case Letter() if (seen.partition, seen.origin) not in self._places:
                text = f"a dead letter names origin {seen.origin} of partition {seen.partition}"
                yield Violation("invented", text, (line,))
            case Copied():
                id = self._places.get((seen.partition, seen.origin))
                if id != seen.id:
                    text = f"a retry copy of {seen.id} names the origin of {id}"
                    yield Violation("inconsistent-offsets" if id else "invented", text, (line,))
            case SourceRecord():
                id = self._places.get((seen.partition, seen.offset))
                if id and seen.id and id != seen.id:
                    where = f"partition {seen.partition}, offset {seen.offset}"
                    text = f"{where} was acknowledged for {id}, and holds {seen.id}"
                    yield Violation("inconsistent-offsets", text, (line,))
            case _:
                pass


class LettersFaithful(Checker):
    """A dead letter is the record at its origin, byte for byte, or says that its value was redacted.

    The record's own headers come before those of the library, which cannot be forged. A dead letter that says that it
    was too large may lack its key and all headers of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[tuple[int, int], SourceRecord] = {}
        self._letters: list[tuple[int, Letter]] = []

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case SourceRecord():
                self._records[seen.partition, seen.offset] = seen
            case Letter():
                self._letters.append((self.line, seen))
            case _:
                pass

    def violations(self) -> Sequence[Violation]:
        return [
            Violation(
                "dead-letter-altered",
                f"the dead letter of partition {letter.partition}, offset {letter.origin} {what}",
                (line,),
            )
            for line, letter in self._letters
            for what in self._altered(letter)
        ]

    def _altered(self, letter: Letter) -> Iterator[str]:
        record = self._records.get((letter.partition, letter.origin))
        if record is None:
            yield "has no original"
            return
        if letter.reason not in get_args(DlqReason):
            yield f"gives the unknown reason {letter.reason!r}"
        cut = letter.redacted and (h.LAST_ERROR_CODE, codes.RECORD_TOO_LARGE.encode()) in letter.headers
        if letter.key != record.key and not (cut and letter.key is None):
            yield "has another key"
        if letter.value != (None if letter.redacted else record.value):
            yield "has another value"
        own = [header for header in record.headers if header[0] not in h.HOP_HEADERS]
        if cut and not {name for name, _ in letter.headers} - h.HOP_HEADERS - {h.ID, h.CREATED_AT}:
            own = []
        if list(letter.headers[: len(own)]) != own:
            yield "has other headers"
        added = [name for name, _ in letter.headers[len(own) :]]
        if len(set(added)) != len(added) or set(added) - h.HOP_HEADERS - {h.ID, h.CREATED_AT}:
            yield "has unknown headers, or one header twice"
