"""Checkers of commits: nothing open is committed, nothing committed is forgotten, and nothing is sent after it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from kafka_notify._partition.commit_metadata import Committed as Offsets
from kafka_notify.testing._checker import (
    NEVER,
    Call,
    CallChecker,
    Checker,
    LogEnds,
    Observation,
    Violation,
)
from kafka_notify.testing.attempt_log import (
    Accepted,
    Committed,
    Copied,
    DeadLettered,
    Owned,
    Produced,
    Skipped,
)
from kafka_notify.wire import REDRIVE_WRITER


class CommitChecker(Checker):
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

    def _covered(
        self, partition: int, unsettled: dict[int, str]
    ) -> Iterator[tuple[int, Offsets, Committed, list[int]]]:
        """Yield line, retry half and line's content of each commit, with the offsets of `unsettled` that it covers. The
        caller removes what is settled; what is not is yielded again. The work of a commit grows with what it covers,
        not with the history."""
        ahead, below, highest = sorted(unsettled, reverse=True), list[int](), 0
        for line, source, retry, seen in self._commits[partition]:
            highest = max(highest, source.frontier)
            while ahead and ahead[-1] < highest:
                below.append(ahead.pop())
            below = [offset for offset in below if offset in unsettled]
            beyond, at = list[int](), source.gaps.find(b"1")
            while at >= 0:
                if source.frontier + at in unsettled and source.frontier + at >= highest:
                    beyond.append(source.frontier + at)
                at = source.gaps.find(b"1", at + 1)
            yield line, retry, seen, [*filter(source.covers, below), *beyond]

    def _open_copy(
        self, partition: int, origin: int, retry: Offsets, seen: Committed, before: int = NEVER
    ) -> Copied | None:
        """Return a copy, written before a line, that the next owner of the partition will find by a commit."""
        for copied, copy in self._copies.get((partition, origin), ()):
            admitted = copy.offset < seen.fence_end or copy.writer in (seen.fence_writer, REDRIVE_WRITER)
            if copied < before and admitted and not retry.covers(copy.offset):
                return copy
        return None


class NothingOpenCommitted(CommitChecker):
    """A committed offset is safe: its notification is terminal, or the retry topic held a copy that the next owner of
    the partition will find."""

    def violations(self) -> Sequence[Violation]:
        found: list[Violation] = []
        for partition in tuple(self._commits):
            unsettled = dict(self._origins[partition])
            for line, retry, seen, covered in self._covered(partition, unsettled):
                for offset in covered:
                    id = unsettled[offset]
                    if self._terminal.get(id, NEVER) < line:
                        del unsettled[offset]
                    elif self._open_copy(partition, offset, retry, seen, line) is None:
                        text = f"{id} (partition {partition}, offset {offset}) was committed while open"
                        found.append(Violation("committed-ahead-of-done", text, (line,)))
                        del unsettled[offset]
        return found


class CommitsOnlyGrow(CommitChecker):
    """A finished offset that was committed once stays committed, whoever owns the partition.

    A retry offset may be left out again while the next owner knows by other means that it is finished: from a newer
    copy that is open, or from a fence.
    """

    def violations(self) -> Sequence[Violation]:
        found: list[Violation] = []
        for partition, commits in self._commits.items():
            self._fences: list[tuple[int, str]] = []
            for (line_before, *before, _), (line, *after, seen) in pairwise(commits):
                if (seen.fence_end, seen.fence_writer) not in self._fences:
                    self._fences.append((seen.fence_end, seen.fence_writer))
                for topic, old, new in zip(("source", "retry"), before, after, strict=True):
                    if new.frontier < old.frontier:
                        text = (
                            f"the commit of {topic} partition {partition} went back from {old.frontier} to "
                            f"{new.frontier}"
                        )
                        found.append(Violation("commit-went-back", text, (line_before, line)))
                    lost = [
                        old.frontier + i
                        for i, bit in enumerate(old.gaps)
                        if bit == ord("1") and not new.covers(old.frontier + i)
                    ]
                    if topic == "retry" and lost:
                        known = self._known(partition, line, new)
                        lost = [offset for offset in lost if offset not in known]
                    if lost:
                        text = f"{topic} partition {partition} forgot finished offsets {lost[:5]}"
                        found.append(Violation("commit-went-back", text, (line_before, line)))
        return found

    def _known(self, partition: int, line: int, retry: Offsets) -> set[int]:
        """Offsets of the retry partition that the next owner takes for finished, whatever the commit's bits say."""
        known: set[int] = set()
        for (number, _), copies in self._copies.items():
            written = [copy for at, copy in copies if at < line] if number == partition else ()
            newest = max((copy.offset for copy in written if not retry.covers(copy.offset)), default=-1)
            for copy in written:
                writer = next(
                    (writer for end, writer in reversed(self._fences) if copy.offset >= end), copy.writer
                )
                if copy.offset < newest or copy.writer not in (writer, REDRIVE_WRITER):
                    known.add(copy.offset)
        return known


class DuplicatesBounded(CommitChecker):
    """A notification is accepted twice only if it was in flight, or finished since the last commit, when its worker was
    disturbed, or if the provider left its outcome unknown. It is never sent again after its completion was committed.

    `duplicates` counts such acceptances, `exposed` those that could have become duplicates.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls = _AcceptedCalls()
        self._begun: defaultdict[int, list[int]] = defaultdict(list)
        """The lines at which a worker began to work on a partition."""

    def _observe(self, seen: Observation, /) -> None:
        super()._observe(seen)
        self._calls.observe(seen)
        if isinstance(seen, Owned):
            self._begun[seen.partition].append(self.line)

    @property
    def duplicates(self) -> int:
        """The number of acceptances beyond the first of each notification."""
        return sum(len(calls) - 1 for calls in self._calls.accepted.values())

    @property
    def exposed(self) -> int:
        """The bound of `duplicates`: acceptances that the worker could not learn of, and those whose worker was
        disturbed and whose partition began again before their commit was seen."""
        settled = self._settled()
        begun = {
            id: self._begun[partition]
            for partition, origins in self._origins.items()
            for id in origins.values()
        }
        return sum(
            self._calls.exposed(call, settled.get(id, NEVER), begun.get(id, ()))
            for id, calls in self._calls.accepted.items()
            for call in calls
        )

    def violations(self) -> Sequence[Violation]:
        found: list[Violation] = []
        for id, calls in self._calls.accepted.items():
            for first, second in pairwise(calls):
                if not self._calls.excused(first, second):
                    text = (
                        f"{id} was accepted again (from {second.started.worker}) although nothing happened to "
                        f"{first.started.worker}, from which it was accepted before"
                    )
                    found.append(Violation("duplicate", text, (first.line, second.line)))
        found += [
            Violation(
                "sent-after-commit",
                f"{id} was sent again after its completion had been committed",
                (line, self._calls.last_start[id]),
            )
            for id, line in self._settled().items()
            if self._calls.last_start.get(id, -1) > line
        ]
        return found

    def _settled(self) -> dict[str, int]:
        """The line at which each notification's completion was first seen committed."""
        settled: dict[str, int] = {}
        for partition in tuple(self._commits):
            unsettled = dict(self._origins[partition])
            for line, retry, _, covered in self._covered(partition, unsettled):
                for offset in covered:
                    if self._terminal.get(unsettled[offset], NEVER) < line and all(
                        retry.covers(copy.offset)
                        for copied, copy in self._copies.get((partition, offset), ())
                        if copied < line
                    ):
                        settled[unsettled.pop(offset)] = line
        return settled


class _AcceptedCalls(CallChecker):
    def __init__(self) -> None:
        super().__init__()
        self.accepted: defaultdict[str, list[Call]] = defaultdict(list)
        self.last_start: dict[str, int] = {}

    def _on_start(self, call: Call) -> None:
        if not call.thawed:
            self.last_start[call.started.id] = self.line

    def _on_other(self, seen: Observation) -> None:
        if isinstance(seen, Accepted):
            call = self._running.get((seen.worker, seen.id))
            if call is not None:
                self.accepted[seen.id].append(call)

    def excused(self, first: Call, second: Call) -> bool:
        if not first.known or first.thawed or second.thawed:
            return True  # the call raised, was cancelled or took too long after the provider had accepted
        one, other = sorted((first, second), key=lambda call: call.line)
        return self._hit(one, other.line if one.ended == NEVER else max(other.line, one.ended))

    def exposed(self, call: Call, until: int, begun: Iterable[int]) -> bool:
        """True when another call may follow, given the line `until` at which the completion was committed."""
        if not call.known or call.thawed:
            return True
        return any(call.line < line < until for line in begun) and self._hit(call, until)

    def _hit(self, call: Call, until: int) -> bool:
        # a worker that was stopped in an orderly way has committed every call that had ended
        orderly = () if call.ended == NEVER else ("stopped",)
        return self.disturbed(call.started.worker, call.line, until, cluster=True, but=orderly)


class CaughtUp(CommitChecker):
    """In the end everything is committed, without lag in the source and retry partitions."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[tuple[int, LogEnds]] = []

    def _observe(self, seen: Observation, /) -> None:
        super()._observe(seen)
        if isinstance(seen, LogEnds):
            self._ends.append((self.line, seen))

    def violations(self) -> Sequence[Violation]:
        found: list[Violation] = []
        for line, end in self._ends:
            commits = self._commits[end.partition]
            at = (commits[-1][1].frontier, commits[-1][2].frontier) if commits else (0, 0)
            if at != (end.source, end.retry):
                text = (
                    f"partition {end.partition} is committed up to {at[0]} and {at[1]}, but source and retry topic "
                    f"end at {end.source} and {end.retry}"
                )
                found.append(Violation("lag", text, (line,)))
        return found
