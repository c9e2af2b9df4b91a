"""What the library promises, as checkers that judge what happened: for suites and soak runs of your own.

Each checker is given everything that was observed (`observe`), in order, and then says what was wrong
(`violations`). Three sources feed them: the attempt log (`attempt_log`), which workers and the producing
side write; `kafka_watch`, which adds what the group committed and copied; and its final look at the topics.

    held = Guarantees.all(max_attempts=4)
    for line in LogTail("attempts.jsonl"):
        held.observe(line)
    for seen in watch.final():
        held.observe(seen)
    held.verify()

Order is the log's, not the clock's: a line stands after another when it was written after it. One log and one
set of checkers judge one consumer group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final

import attrs
from typing_extensions import Self

from kafka_notify import _headers as h
from kafka_notify._fetch.offsets import Committed as Offsets
from kafka_notify.testing.attempt_log import (
    Accepted,
    Committed,
    Copied,
    DeadLettered,
    Disturbed,
    Ended,
    Line,
    Produced,
    Scheduled,
    Skipped,
    Started,
)

NEVER: Final = 1 << 62
REDRIVE: Final = "redrive"


@attrs.frozen
class SourceRecord:
    """A record of the source topic, as the producer wrote it."""

    partition: int
    offset: int
    key: bytes | None = attrs.field(repr=False)
    value: bytes | None = attrs.field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = attrs.field(repr=False)


@attrs.frozen
class Letter:
    """A record of the dead-letter topic that this group wrote."""

    partition: int
    """Of the origin, as `origin`."""
    origin: int
    reason: str
    redacted: bool
    redrives: int
    key: bytes | None = attrs.field(repr=False)
    value: bytes | None = attrs.field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = attrs.field(repr=False)


@attrs.frozen
class LogEnds:
    """Where the source and retry partition ended when nothing was under way any more."""

    partition: int
    source: int
    retry: int


Observation = Line | SourceRecord | Letter | LogEnds


class Checker:
    """Judges one promise. `violations` may be asked at any time, and again later."""

    def __init__(self) -> None:
        self.line = 0
        """Number of the observation being looked at."""

    def observe(self, seen: Observation, /) -> None:
        """Take the next observation, in order."""
        self.line += 1
        self._observe(seen)

    def _observe(self, seen: Observation, /) -> None:
        raise NotImplementedError

    def violations(self) -> Sequence[str]:
        """What was wrong, one sentence each; empty when the promise held."""
        raise NotImplementedError


class NothingLost(Checker):
    """Every notification that Kafka acknowledged was accepted, skipped, or lies in the dead-letter topic."""

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
        key: Whose order is kept; by default the user's.
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


@attrs.define
class _Call:
    started: Started
    line: int
    ended: int = NEVER
    outcome: str = ""


class _Calls(Checker):
    """Base of checkers that look at calls of `send` and at what was done to workers."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[tuple[str, str], _Call] = {}
        """By worker and id."""
        self._disturbances: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Started():
                call = _Call(seen, self.line)
                self._running[seen.worker, seen.id] = call
                self._on_start(call)
            case Ended():
                ended = self._running.pop((seen.worker, seen.id), None)
                if ended is not None:
                    ended.ended, ended.outcome = self.line, seen.outcome
                    self._on_end(ended, seen)
            case Disturbed():
                self._disturbances[seen.worker].append((self.line, seen.how))
            case _:
                self._on_other(seen)

    def _on_start(self, call: _Call) -> None: ...

    def _on_end(self, call: _Call, seen: Ended) -> None: ...

    def _on_other(self, seen: Observation) -> None: ...

    def disturbed(self, worker: str, after: int, before: int, *, cluster: bool = False) -> bool:
        """Whether something was done to `worker` (with `cluster`: or to a broker) between two lines."""
        names = (worker, "") if cluster else (worker,)
        return any(after < line < before for name in names for line, _ in self._disturbances[name])


class OneAtATime(_Calls):
    """A user never has two sends at once, but between a worker that was killed, stopped, paused or fenced in
    the middle of a send and the one that took over: those are counted in `tolerated`.

    Args:
        key: Whose sends exclude one another; by default the user's.
    """

    def __init__(self, key: Callable[[Started], Hashable] = lambda s: s.user) -> None:
        super().__init__()
        self._key = key
        self._open: defaultdict[Hashable, list[_Call]] = defaultdict(list)
        self._overlaps: list[tuple[_Call, _Call]] = []

    def _on_start(self, call: _Call) -> None:
        calls = self._open[self._key(call.started)]
        calls[:] = [other for other in calls if other.ended == NEVER]
        self._overlaps += [(other, call) for other in calls]
        calls.append(call)

    def _excused(self, first: _Call, second: _Call) -> bool:
        return first.started.worker != second.started.worker and self.disturbed(
            first.started.worker, first.line, first.ended
        )

    @property
    def tolerated(self) -> int:
        """Overlaps between a disturbed worker and its successor."""
        return sum(self._excused(*pair) for pair in self._overlaps)

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
        grace: Milliseconds between the worker's look at the clock and the line in the log: a loaded machine may
            suspend a process in between.
    """

    def __init__(self, *, grace: int = 100) -> None:
        super().__init__()
        self._grace = grace
        self._due: dict[tuple[str, int], int] = {}
        self._expires: dict[str, int] = {}
        self._starts: list[Started] = []

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Copied():  # after a crash there may be several: the first one is due first
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


class AttemptsBounded(_Calls):
    """Attempts count up, across restarts too, and never beyond the limit.

    Args:
        max_attempts: Of the retry policy.
    """

    def __init__(self, max_attempts: int) -> None:
        super().__init__()
        self._max = max_attempts
        self._made: dict[str, tuple[int, str, int]] = {}
        """Counted attempts by id, with the worker that made the last one, and the line."""
        self._durable: dict[str, int] = {}
        """Counted attempts by id, as acknowledged copies say."""
        self._doubtful: set[str] = set()
        """Workers that were frozen or fenced: their later copies may be a zombie's, which count for nothing."""
        self._suspects: list[tuple[_Call, str, int]] = []
        self._found: list[str] = []

    def _on_start(self, call: _Call) -> None:
        id, number = call.started.id, call.started.attempt
        if number > self._max:
            self._found.append(f"attempt {number} of {id} was made, {self._max} are allowed")
        durable = self._durable.get(id, 0)
        if number <= durable:
            self._found.append(
                f"attempt {number} of {id} was made again although a copy with {durable} attempts "
                "was acknowledged"
            )
            return
        made, worker, line = self._made.get(id, (0, "", 0))
        if number <= made:
            self._suspects.append((call, worker, line))

    def _on_end(self, call: _Call, seen: Ended) -> None:
        if seen.counted:
            self._made[seen.id] = (seen.attempt, seen.worker, self.line)

    def _on_other(self, seen: Observation) -> None:
        if isinstance(seen, Scheduled):
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
    """Nothing is invented: what is sent, copied or dead-lettered was produced, by that user, at that place; and
    what a worker reports as dead-lettered lies in the dead-letter topic."""

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
        buried: set[str] = set()
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
                buried.add(id or "")
            elif id != seen.id:
                found.append(f"a retry copy of {seen.id} names the origin of {id}")
        found += [f"{id} is reported dead, but is not in the dead-letter topic" for id in self._dead - buried]
        return found


class _Commits(Checker):
    """Base of checkers that compare commits with what was open at that time."""

    def __init__(self) -> None:
        super().__init__()
        self._origins: defaultdict[int, dict[int, str]] = defaultdict(dict)
        self._terminal: dict[str, int] = {}
        self._copies: defaultdict[tuple[int, int], list[tuple[int, Copied]]] = defaultdict(list)
        self._commits: defaultdict[int, list[tuple[int, Offsets, Offsets, Committed]]] = defaultdict(list)

    def _observe(self, seen: Observation, /) -> None:
        match seen:
            case Produced():
                self._origins[seen.partition][seen.offset] = seen.id
            case Accepted() | Skipped() | DeadLettered():
                self._terminal.setdefault(seen.id, self.line)
            case Copied():
                self._copies[seen.partition, seen.origin].append((self.line, seen))
            case Committed():
                source = Offsets(seen.source, seen.source_gaps.encode())
                retry = Offsets(seen.retry, seen.retry_gaps.encode())
                self._commits[seen.partition].append((self.line, source, retry, seen))
            case _:
                pass


class NothingOpenCommitted(_Commits):
    """A committed offset rests on something: its notification is terminal, or a copy of it was in the retry
    topic that the next owner of the partition will find."""

    def violations(self) -> Sequence[str]:
        found: list[str] = []
        for partition, commits in self._commits.items():
            unsettled = dict(self._origins[partition])
            for line, source, retry, seen in commits:
                for offset, id in list(unsettled.items()):
                    if not source.covers(offset):
                        continue
                    if self._terminal.get(id, NEVER) < line:
                        del unsettled[offset]
                    elif not any(
                        copied < line
                        and not retry.covers(copy.offset)
                        and (copy.offset < seen.fence_end or copy.writer in (seen.fence_writer, REDRIVE))
                        for copied, copy in self._copies[partition, offset]
                    ):
                        found.append(f"{id} (partition {partition}, offset {offset}) was committed while open")
                        del unsettled[offset]
        return found


class CommitsOnlyGrow(_Commits):
    """What was committed once stays committed, whoever owns the partition."""

    def violations(self) -> Sequence[str]:
        found: list[str] = []
        for partition, commits in self._commits.items():
            for (_, *before, _), (_, *after, _) in zip(commits, commits[1:], strict=False):
                for topic, old, new in zip(("source", "retry"), before, after, strict=True):
                    if new.frontier < old.frontier:
                        found.append(
                            f"the commit of {topic} partition {partition} went back from {old.frontier} "
                            f"to {new.frontier}"
                        )
                    lost = [
                        old.frontier + i
                        for i, bit in enumerate(old.gaps)
                        if bit == ord("1") and not new.covers(old.frontier + i)
                    ]
                    if lost:
                        found.append(f"{topic} partition {partition} forgot finished offsets {lost[:5]}")
        return found


class DuplicatesBounded(_Commits):
    """Accepted twice is only what was in flight, or finished since the last commit, when something happened to
    its worker, and what the provider left unknown. `duplicates` counts them; nothing is sent again once its
    completion was seen committed."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = _AcceptedCalls()

    def _observe(self, seen: Observation, /) -> None:
        super()._observe(seen)
        self._calls.observe(seen)

    @property
    def duplicates(self) -> int:
        """Acceptances beyond the first of each notification."""
        return sum(len(calls) - 1 for calls in self._calls.accepted.values())

    def violations(self) -> Sequence[str]:
        found: list[str] = []
        for id, calls in self._calls.accepted.items():
            for first, second in zip(calls, calls[1:], strict=False):
                if not self._calls.excused(first, second):
                    found.append(
                        f"{id} was accepted again (from {second.started.worker}) although nothing happened to "
                        f"{first.started.worker}, from which it was accepted before"
                    )
        for partition, commits in self._commits.items():
            unsettled = dict(self._origins[partition])
            for line, source, retry, _ in commits:
                for offset, id in list(unsettled.items()):
                    if (
                        source.covers(offset)
                        and self._terminal.get(id, NEVER) < line
                        and all(
                            retry.covers(copy.offset)
                            for copied, copy in self._copies[partition, offset]
                            if copied < line
                        )
                    ):
                        del unsettled[offset]
                        if self._calls.last_start.get(id, -1) > line:
                            found.append(f"{id} was sent again after its completion had been committed")
        return found


class _AcceptedCalls(_Calls):
    def __init__(self) -> None:
        super().__init__()
        self.accepted: defaultdict[str, list[_Call]] = defaultdict(list)
        self.last_start: dict[str, int] = {}

    def _on_start(self, call: _Call) -> None:
        self.last_start[call.started.id] = self.line

    def _on_other(self, seen: Observation) -> None:
        if isinstance(seen, Accepted):
            call = self._running.get((seen.worker, seen.id))
            if call is not None:
                self.accepted[seen.id].append(call)

    def excused(self, first: _Call, second: _Call) -> bool:
        if first.outcome != "accepted" and first.ended < second.line:
            return True  # it raised, or was cancelled, after the provider had accepted
        one, other = sorted((first, second), key=lambda call: call.line)
        return self.disturbed(one.started.worker, one.line, max(other.line, one.ended), cluster=True)


class LettersFaithful(Checker):
    """A dead letter is the record that its origin names, byte for byte, or says that its value was redacted;
    its own headers stand in front of those of the library, which must not be forged."""

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
            if letter.key != record.key:
                found.append(f"{where} has another key")
            if letter.value != (None if letter.redacted else record.value):
                found.append(f"{where} has another value")
            own = [header for header in record.headers if header[0] not in h.HOP_HEADERS]
            if list(letter.headers[: len(own)]) != own:
                found.append(f"{where} has other headers")
            added = [name for name, _ in letter.headers[len(own) :]]
            if len(set(added)) != len(added) or set(added) - h.HOP_HEADERS - {h.ID, h.CREATED_AT}:
                found.append(f"{where} has headers that nobody knows, or one of them twice")
        return found


class CaughtUp(_Commits):
    """In the end everything is committed: no lag in the source and retry partitions."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[LogEnds] = []

    def _observe(self, seen: Observation, /) -> None:
        super()._observe(seen)
        if isinstance(seen, LogEnds):
            self._ends.append(seen)

    def violations(self) -> Sequence[str]:
        found: list[str] = []
        for end in self._ends:
            commits = self._commits[end.partition]
            at = (commits[-1][1].frontier, commits[-1][2].frontier) if commits else (0, 0)
            if at != (end.source, end.retry):
                found.append(
                    f"partition {end.partition} is committed up to {at[0]} and {at[1]}, but source and retry "
                    f"topic end at {end.source} and {end.retry}"
                )
        return found


class Guarantees:
    """Several checkers over the same observations.

    Args:
        checkers: Each is given every observation.
    """

    def __init__(self, checkers: Iterable[Checker]) -> None:
        self.checkers = tuple(checkers)

    @classmethod
    def all(cls, *, max_attempts: int) -> Self:
        """Every checker there is, for a consumer with `Ordering.USER`."""
        return cls(
            [
                NothingLost(), OrderKept(), OneAtATime(), OnTime(), AttemptsBounded(max_attempts), Conserved(),
                NothingOpenCommitted(), CommitsOnlyGrow(), DuplicatesBounded(), LettersFaithful(), CaughtUp(),
            ]
        )  # fmt: skip

    def observe(self, seen: Observation, /) -> None:
        """Give an observation to every checker."""
        for checker in self.checkers:
            checker.observe(seen)

    def violations(self) -> Sequence[str]:
        """What every checker has to say, each with its name."""
        return [f"{type(c).__name__}: {text}" for c in self.checkers for text in c.violations()]

    def verify(self) -> None:
        """Raise an AssertionError that lists the violations, if there are any."""
        found = self.violations()
        if found:
            raise AssertionError(f"{len(found)} violations:\n" + "\n".join(found[:30]))
