"""Checkers of sends and dead letters: loss, order, overlap, time, number of attempts, faithful dead letters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import get_args

from kafka_notify._base import codes
from kafka_notify._wire import headers as h
from kafka_notify.testing._checker import NEVER, Call, CallChecker, Checker, Letter, Observation, SourceRecord
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


class NothingLost(Checker):
    """Every notification that Kafka acknowledged was accepted, skipped, or is in the dead-letter topic."""

    def __init__(self) -> None:
        super().__init__()
        self._produced: dict[tuple[int, int], str] = {}
        self._ended: set[str] = set()
        self._letters: set[tuple[int, int]] = set()

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Produced():
                self._produced[seen.partition, seen.offset] = seen.id
            case Accepted() | Skipped():
                self._ended.add(seen.id)
            case Letter():
                self._letters.add((seen.partition, seen.origin))
            case _:
                pass

    def violations(self) -> Sequence[str]:
        return [
            f"{id} (partition {at[0]}, offset {at[1]}) is lost: neither accepted, skipped nor dead-lettered"
            for at, id in self._produced.items()
            if id not in self._ended and at not in self._letters
        ]


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

    def violations(self) -> Sequence[str]:
        found: list[str] = []
        for lane in self._lanes.values():
            latest, blocker = -1, ""
            for _, id in sorted(lane.items()):
                accepted = self._accepted.get(id, NEVER)
                if accepted < latest:
                    found.append(f"{id} was accepted before the earlier {blocker} of its user was terminal")
                terminal = self._terminal.get(id, NEVER)
                if terminal > latest:
                    latest, blocker = terminal, id
        return found


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

    def violations(self) -> Sequence[str]:
        return [
            f"{second.started.id} was sent by {second.started.worker} while {first.started.id} of the same user "
            f"was being sent by {first.started.worker}"
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
        self._starts: list[Started] = []

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Copied():  # after a crash there may be several copies; the earliest due time counts
                place = (seen.id, seen.attempts)
                self._due[place] = min(seen.due, self._due.get(place, NEVER))
            case Produced() if seen.expires_at is not None:
                self._expires[seen.id] = seen.expires_at
            case Started():
                self._starts.append(seen)
            case _:
                pass

    def violations(self) -> Sequence[str]:
        found: list[str] = []
        for start in self._starts:
            due = self._due.get((start.id, start.attempt - 1), 0) if start.attempt > 1 else 0
            if start.at < due:
                found.append(f"attempt {start.attempt} of {start.id} started {due - start.at} ms early")
            late = start.at - self._expires.get(start.id, NEVER)
            if late > self._grace:
                found.append(f"attempt {start.attempt} of {start.id} started {late} ms after it had expired")
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
        self._found: list[str] = []

    def _on_start(self, call: Call) -> None:
        id, number = call.started.id, call.started.attempt
        if number > self._max:
            self._found.append(f"attempt {number} of {id} was made, {self._max} are allowed")
        durable = self._durable.get(id, 0)
        if number <= durable and not call.thawed:
            self._found.append(
                f"attempt {number} of {id} was made again although a copy with {durable} attempts "
                "was acknowledged"
            )
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
                del self._made[seen.id]
        elif isinstance(seen, Scheduled):
            # the copies of a worker that was frozen or fenced may be a zombie's, which count for nothing
            doubtful = any(how in ("paused", "fenced") for _, how in self._disturbances[seen.worker])
            if not doubtful:
                self._durable[seen.id] = max(seen.attempts, self._durable.get(seen.id, 0))

    def violations(self) -> Sequence[str]:
        return self._found + [
            f"attempt {call.started.attempt} of {call.started.id} was made again although nothing happened to "
            f"{worker}, which made it before"
            for call, worker, line in self._suspects
            if not self.disturbed(worker, line, call.line, cluster=True)
        ]


class Conserved(Checker):
    """Nothing is invented: each send, copy and dead letter is of a notification that was produced for that user, at
    that offset. A notification that a worker reports as dead-lettered is in the dead-letter topic."""

    def __init__(self) -> None:
        super().__init__()
        self._produced: dict[str, Produced] = {}
        self._places: dict[tuple[int, int], str] = {}
        self._seen: list[Started | Copied | Letter] = []
        self._dead: set[str] = set()

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Produced():
                self._produced[seen.id] = seen
                self._places[seen.partition, seen.offset] = seen.id
            case Started() | Copied() | Letter():
                self._seen.append(seen)
            case DeadLettered():
                self._dead.add(seen.id)
            case _:
                pass

    def violations(self) -> Sequence[str]:
        found: list[str] = []
        in_topic: set[str] = set()
        for seen in self._seen:
            if isinstance(seen, Started):
                origin = self._produced.get(seen.id)
                if origin is None or origin.user != seen.user:
                    found.append(f"{seen.id} was sent to a user for whom it was not produced")
                continue
            id = self._places.get((seen.partition, seen.origin))
            if isinstance(seen, Letter):
                if id is None:
                    found.append(f"a dead letter names origin {seen.origin} of partition {seen.partition}")
                in_topic.add(id or "")
            elif id != seen.id:
                found.append(f"a retry copy of {seen.id} names the origin of {id}")
        found += [
            f"{id} is reported dead, but is not in the dead-letter topic" for id in self._dead - in_topic
        ]
        return found


class LettersFaithful(Checker):
    """A dead letter is the record at its origin, byte for byte, or says that its value was redacted.

    The record's own headers come before those of the library, which cannot be forged. A dead letter that says that it
    was too large may lack its key and all headers of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[tuple[int, int], SourceRecord] = {}
        self._letters: list[Letter] = []

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case SourceRecord():
                self._records[seen.partition, seen.offset] = seen
            case Letter():
                self._letters.append(seen)
            case _:
                pass

    def violations(self) -> Sequence[str]:
        found: list[str] = []
        for letter in self._letters:
            where = f"the dead letter of partition {letter.partition}, offset {letter.origin}"
            record = self._records.get((letter.partition, letter.origin))
            if record is None:
                found.append(f"{where} has no original")
                continue
            if letter.reason not in get_args(DlqReason):
                found.append(f"{where} gives the unknown reason {letter.reason!r}")
            cut = letter.redacted and (h.LAST_ERROR_CODE, codes.RECORD_TOO_LARGE.encode()) in letter.headers
            if letter.key != record.key and not (cut and letter.key is None):
                found.append(f"{where} has another key")
            if letter.value != (None if letter.redacted else record.value):
                found.append(f"{where} has another value")
            own = [header for header in record.headers if header[0] not in h.HOP_HEADERS]
            if cut and not {name for name, _ in letter.headers} - h.HOP_HEADERS - {h.ID, h.CREATED_AT}:
                own = []
            if list(letter.headers[: len(own)]) != own:
                found.append(f"{where} has other headers")
            added = [name for name, _ in letter.headers[len(own) :]]
            if len(set(added)) != len(added) or set(added) - h.HOP_HEADERS - {h.ID, h.CREATED_AT}:
                found.append(f"{where} has unknown headers, or one header twice")
        return found
