"""What must hold in the hostile world, checked after every step against the logs alone.

- ORDER: a notification is first accepted when every earlier one of its user is terminal.
- OVERLAP: an owner has at most one send of a user under way.
- LOSS: what a stored commit covers is terminal, or held in a copy that the next restore will honour.
- EARLY: no attempt before its due time, and none of a copy whose origin the stored commit does not cover.
- DUP: what was finished and durably committed is not sent or dead-lettered again by a later owner.
- ATTEMPTS: an acknowledged copy's attempts are never forgotten.
- CAUSE: a dead letter says why: the reason of the decision that led to it, and all attempts made.
- PAYLOAD: every hop carries the bytes that were produced.
- BUDGET: what counts as held in memory is what is held.
- PINNED: nothing stays in the source behind a notification that waits in the retry topic.
- CROWD: while a busy user keeps others out, what waits behind their head is parked.
- BOUND: of what has ended beyond the window of the bitmap, a bounded number is in no half that can be said.
- JUNK: nobody takes a spill for a notification.
- SKIPPED: what is superseded, is so by a newer one of its user.
- STUCK: once the world is calm, everything is finished and committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

import attrs

from kafka_notify._partition.commit_metadata import MAX_METADATA, Committed, decode_metadata, encode_metadata
from kafka_notify._partition.strangers import place
from kafka_notify.wire import SPILL_ORIGIN

if TYPE_CHECKING:
    from kafka_notify.wire import Headers
    from tests.model.owner import Owner

REDRIVE: Final = "redrive"
IDS: Final = ("idS", "idR")
"""Of the topics."""
SOURCE, RETRY = ("workers", "source", 0), ("workers", "retry", 0)

Finished = dict[int, tuple[int, int | None]]
"""Origins to redrives and retry offset (None: from the source) of what an owner has finished."""


class Violation(AssertionError):
    """A promise was broken; `kind` is the check that saw it, the text ends with what led to it."""

    def __init__(self, kind: str, text: str, trace: list[tuple[int, str, tuple[object, ...]]]) -> None:
        super().__init__(kind, text)
        self.kind, self.text, self._trace = kind, text, trace

    def __str__(self) -> str:
        lines = [f"[{now:4}] {text.format(*args)}" for now, text, args in self._trace]
        return "\n".join([f"{self.kind}: {self.text}", *lines, f"{self.kind}: {self.text}"])


class Bytes:
    """What an entry reads of a record from Kafka."""

    def __init__(self, key: bytes | None, value: bytes | None, time: int = 0) -> None:
        self._key, self._value, self._time = key, value, time

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return (1, self._time)


@attrs.frozen
class Record:
    """A record of the source topic."""

    user: str
    expires: int | None
    collapse: str = ""
    channel: str = ""
    """Empty: one that workers of every version send."""

    @property
    def headers(self) -> Headers:
        return (
            [("notif-channel", b"sms"), ("notif-collapse-key", self.collapse.encode())]
            if self.collapse
            else []
        )

    @property
    def key(self) -> bytes:
        return self.user.encode()


@attrs.frozen(cache_hash=True)
class Copy:
    """A record of the retry topic; `attempt` is -1 when nobody can read it."""

    origin: int
    redrives: int
    attempt: int
    due: int
    writer: str
    time: int = 0
    spill: bytes | None = None
    """Its value, if it is a spill."""
    old: bool = False
    """Whether its origin is an offset of a source topic that was deleted since."""
    topic: str = ""
    """What it says of the id of its origin's topic."""

    @property
    def id(self) -> str:
        return f"{'old' if self.old else 'id'}{self.origin}"

    @property
    def what(self) -> int:
        """Which notification it is of."""
        return place(self.origin, self.id, self.origin) if self.old else self.origin


@attrs.define
class Stored:
    """What the broker holds of one partition: a number and a text, as Kafka does."""

    where: tuple[str, str, int]
    frontier: int = 0
    metadata: str = ""

    def put(self, committed: Committed, marked: bool) -> None:
        self.frontier = committed.frontier
        self.metadata = encode_metadata(committed, *self.where, IDS, committed.channels, marked=marked)
        assert len(self.metadata) <= MAX_METADATA

    def get(self) -> Committed:
        return decode_metadata(self.frontier, self.metadata, *self.where)


class Promises:
    """The topics, what the broker holds committed, and the checks."""

    def __init__(self) -> None:
        self.now = 100
        self.source: list[Record | None] = []
        """None is an offset that is never delivered: compacted, or a transaction marker."""
        self.low = 0
        """Log start of the source."""
        self.retry_low = 0
        self.strangers: dict[int, tuple[Record, Copy]] = {}
        """What died in a source topic before this one, and was redriven since."""
        self.retry: list[Copy | None] = []
        self.letters: list[tuple[int, int]] = []
        """Origin and redrives of each dead letter."""
        self.redrivable: set[tuple[int, int]] = set()
        self.redriven: set[tuple[int, int]] = set()
        self.redrives = 0
        self.buried: set[int] = set()
        """Retry offsets of unreadable records that have a dead letter."""
        self.accepted: set[int] = set()
        self.dead: set[int] = set()
        self.skipped: set[int] = set()
        self.stored_source, self.stored_retry = Stored(SOURCE), Stored(RETRY)
        self.committed_source, self.committed_retry = Committed(0), Committed(0)
        self.settled: dict[int, tuple[int, int]] = {}
        """Origin to the redrives, and the serial of the owner whose commit stored durably that it is finished."""
        self.attempts: dict[tuple[int, int], int] = {}
        """Attempts in acknowledged copies, by origin and redrives."""
        self.serial = 0
        """Of the owner that was assigned last, and so is the one that the group knows."""
        self.trace: list[tuple[int, str, tuple[object, ...]]] = []

    def log(self, text: str, *args: object) -> None:
        self.trace.append((self.now, text, args))

    def fail(self, kind: str, text: str) -> NoReturn:
        raise Violation(kind, text, self.trace)

    def terminal(self, origin: int) -> bool:
        return origin in self.accepted or origin in self.dead or origin in self.skipped

    def _held(self) -> dict[int, int]:
        """Origins to the redrives of their newest copy that a restore would find and honour."""
        held: dict[int, int] = {}
        committed, fence = self.committed_retry, self.committed_retry.fence
        for at in range(committed.frontier, len(self.retry)):
            copy = self.retry[at]
            if copy is None or committed.covers(at) or copy.origin == SPILL_ORIGIN:
                continue
            if fence is None or copy.writer == REDRIVE or fence.admits(at, copy.writer):
                held[copy.what] = max(held.get(copy.what, 0), copy.redrives)
        return held

    def safe(self, origin: int) -> bool:
        """Whether retention may delete it."""
        return self.source[origin] is None or self.terminal(origin) or self.committed_source.covers(origin)

    def check_commit(self) -> None:
        """What is committed as finished is finished, or goes on from the retry partition."""
        held = self._held()
        for origin, record in enumerate(self.source):
            if record is None or self.terminal(origin) or origin in held:
                continue
            if self.committed_source.covers(origin):
                self.fail("LOSS", f"the commit covers {origin}: neither terminal nor in a copy")
        for origin, redrives in self.redriven:
            if origin in self.accepted or origin in self.skipped or held.get(origin, 0) > redrives:
                continue
            if not any(o == origin and r > redrives for o, r in self.letters):
                self.fail("LOSS", f"{origin} was redriven from gen {redrives}: no outcome and no copy")
        for at, copy in enumerate(self.retry):
            unreadable = copy is not None and copy.attempt < 0
            if unreadable and self.committed_retry.covers(at) and at not in self.buried:
                self.fail("LOSS", f"unreadable retry {at} is covered, but has no dead letter")

    def settle(self, finished: Finished, whole: bool) -> None:
        """What was finished before a commit that was stored may not be done again by a later owner."""
        source, retry = self.committed_source, self.committed_retry
        for origin, (redrives, at) in finished.items():
            stored = whole or (source.covers(origin) and (at is None or retry.covers(at)))
            if stored and self.settled.get(origin, (-1, 0))[0] < redrives:
                self.settled[origin] = (redrives, self.serial)

    def check_again(self, owner: Owner, origin: int, redrives: int, what: str) -> None:
        """Nothing may be done again that is known to be finished."""
        settled = self.settled.get(origin)
        if settled and settled[0] >= redrives and owner.born > settled[1]:
            self.fail(
                "DUP", f"{origin} gen {redrives} {what} by {owner.writer}, but settled before it started"
            )
        finished = owner.finished.get(origin)
        if finished and finished[0] >= redrives:
            self.fail("DUP", f"{origin} gen {redrives} {what} by {owner.writer}, which had finished it")

    def check_start(
        self, owner: Owner, origin: int, redrives: int, attempts: int, covered: int | None
    ) -> None:
        """A send may start now.

        Args:
            owner: Who sends.
            origin: Which notification.
            redrives: Its generation.
            attempts: Counted attempts that the owner knows of.
            covered: The origin that a commit must cover first; None when none must.
        """
        if owner.born == self.serial:
            if covered is not None and not self.committed_source.covers(covered):
                self.fail("EARLY", f"{origin} sent from its copy before a commit covered it")
            if attempts < self.attempts.get((origin, redrives), 0):
                self.fail("ATTEMPTS", f"{origin} sent with {attempts} attempts, there were more")
        self.check_again(owner, origin, redrives, "sent")

    def copied(self, owner: Owner, origin: int, redrives: int, attempts: int) -> None:
        """The owner learns that the broker has a copy."""
        if owner.born == self.serial:
            self.attempts[origin, redrives] = attempts

    def check_cause(self, origin: int, said: tuple[str, int], decided: tuple[str, int]) -> None:
        """A dead letter says the reason, and the attempts, with which it was decided to give up."""
        if said != decided:
            self.fail("CAUSE", f"the dead letter of {origin} says {said}, not {decided}")

    def skip(self, origin: int) -> None:
        """Superseded: a newer one of the same user, with the same collapse key, was produced and is not dead."""
        self.log("{} is superseded", origin)
        record = self.source[origin]
        assert record is not None
        self.skipped.add(origin)
        for later in range(origin + 1, len(self.source)):
            other = self.source[later]
            if other is not None and (other.user, other.collapse) == (record.user, record.collapse):
                return
        self.fail("SKIPPED", f"{origin} is superseded by nothing")

    def accept(self, origin: int) -> None:
        """The provider accepted it."""
        self.log("provider accepts {}", origin)
        if origin in self.strangers:
            self.accepted.add(origin)
        elif origin not in self.accepted:
            record = self.source[origin]
            assert record is not None
            for earlier in range(origin):
                other = self.source[earlier]
                if other is not None and other.user == record.user and not self.terminal(earlier):
                    self.fail("ORDER", f"{origin} accepted before {earlier} was terminal")
            self.accepted.add(origin)
