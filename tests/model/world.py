"""A hostile world for the ordered-retry protocol, and what must hold in it after every step.

One source partition, its retry partition, the dead-letter topic, what the broker holds committed, one live
owner and those before it that may still be running. A scheduler interleaves their steps; every decision is
`choose(n)`, so that a random generator or hypothesis can drive it, and 0 is always the kindest answer.

The checks read the logs alone, never the owner's own idea of them:

- ORDER: a notification is first accepted when every earlier one of its user is terminal.
- OVERLAP: an owner has at most one send of a user under way.
- LOSS: what a stored commit covers is terminal, or held in a copy that the next restore will honour.
- EARLY: no attempt before its due time, and none of a copy whose origin the stored commit does not cover.
- DUP: what was finished and durably committed is not sent or dead-lettered again by a later owner.
- ATTEMPTS: an acknowledged copy's attempts are never forgotten.
- PAYLOAD: every hop carries the bytes that were produced.
- STUCK: once the world is calm, everything is finished and committed.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NoReturn
from unittest import mock

import attrs

from kafka_notify._fetch import offsets
from kafka_notify._fetch.offsets import Committed, decode_metadata, encode_metadata
from kafka_notify._lanes import partition

if TYPE_CHECKING:
    from tests.model.owner import Owner

USERS: Final = 3
RECORDS: Final = 12
TAKEOVERS: Final = 5
GENERATIONS: Final = 2
REDRIVES: Final = 3
MAX_ATTEMPTS: Final = 3
REDRIVE: Final = "redrive"
SOURCE, RETRY = ("workers", "source", 0), ("workers", "retry", 0)

FEATURES: Final = frozenset(
    """gaps expiry skew throttle unknown hang timeouts partial zombies drain redrive retention metadata windows
    budget unreadable room release""".split()
)


class Violation(AssertionError):
    """A promise was broken; `kind` is the check that saw it, the text ends with what led to it."""

    def __init__(self, kind: str, text: str, trace: list[tuple[int, str, tuple[object, ...]]]) -> None:
        super().__init__(kind, text)
        self.kind, self.text, self._trace = kind, text, trace

    def __str__(self) -> str:
        lines = [f"[{now:4}] {text.format(*args)}" for now, text, args in self._trace]
        return "\n".join([f"{self.kind}: {self.text}", *lines, f"{self.kind}: {self.text}"])


@attrs.frozen
class Record:
    """A record of the source topic."""

    user: str
    expires: int | None

    @property
    def key(self) -> bytes:
        return self.user.encode()


@attrs.frozen
class Copy:
    """A record of the retry topic; `attempt` is -1 when nobody can read it."""

    origin: int
    redrives: int
    attempt: int
    due: int
    writer: str


@attrs.frozen
class Request:
    """A commit on its way to the broker."""

    owner: Owner
    source: Committed
    retry: Committed
    finished: dict[int, tuple[int, int | None]]
    """What the owner had finished when it asked for the commit."""


@attrs.define
class Stored:
    """What the broker holds of one partition: a number and a text, as Kafka does."""

    where: tuple[str, str, int]
    frontier: int = 0
    metadata: str = ""

    def put(self, committed: Committed) -> None:
        self.frontier = committed.frontier
        self.metadata = encode_metadata(committed, *self.where)

    def get(self) -> Committed:
        return decode_metadata(self.frontier, self.metadata, *self.where)


class World:
    """The topics, the broker and the scheduler.

    Args:
        choose: Picks one of n: 0 <= choose(n) < n.
        features: Which adversities there are, of `FEATURES`; crashes are always there.
        new_owner: Makes the next owner of the partition.
    """

    def __init__(
        self, choose: Callable[[int], int], features: frozenset[str], new_owner: Callable[[World], Owner]
    ) -> None:
        self.choose = choose
        self.features = features
        self.new_owner = new_owner
        self.calm = False
        self.users = 1 + choose(USERS)
        self.now = 100
        self.source: list[Record | None] = []
        """None is an offset that is never delivered: compacted, or a transaction marker."""
        self.low = 0
        """Log start of the source."""
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
        self.stored_source, self.stored_retry = Stored(SOURCE), Stored(RETRY)
        self.committed_source, self.committed_retry = Committed(0), Committed(0)
        self.requests: list[Request] = []
        self.settled: dict[int, tuple[int, int]] = {}
        """Origin to the redrives and the serial at which it was finished and durably committed."""
        self.attempts: dict[tuple[int, int], int] = {}
        """Attempts in acknowledged copies, by origin and redrives."""
        self.serial = 0
        self.takeovers = 0
        self.trace: list[tuple[int, str, tuple[object, ...]]] = []
        self.zombies: list[Owner] = []
        self.owner = new_owner(self)

    # -- the scheduler --------------------------------------------------------------------------------

    def log(self, text: str, *args: object) -> None:
        self.trace.append((self.now, text, args))

    def fail(self, kind: str, text: str) -> NoReturn:
        raise Violation(kind, text, self.trace)

    def chance(self, percent: int) -> bool:
        return not self.calm and self.choose(100) >= 100 - percent

    def happens(self, feature: str, percent: int) -> bool:
        return feature in self.features and self.chance(percent)

    def turn(self) -> None:
        """Let one thing happen."""
        self.now += 1
        dice = 0 if self.calm else self.choose(100)
        if dice >= 98:
            self.take_over()
        elif dice >= 94:
            self.redrive()
        elif dice >= 90:
            self.decay()
        elif dice >= 75:
            self.produce()
        elif self.requests and self.choose(2):
            self.deliver()
        elif dice < 50 or not self.zombies:
            self.act(self.owner)
        else:
            self.act(self.zombies[self.choose(len(self.zombies))])

    def act(self, owner: Owner) -> None:
        steps = owner.steps()
        if steps:
            steps[self.choose(len(steps))]()

    def settle_down(self) -> None:
        """End the adversities; everything must come to its end now."""
        self.calm = True
        self.zombies.clear()
        for _ in range(6_000):
            if self._finished():
                break
            self.turn()
        else:
            owner = self.owner
            self.fail("STUCK", f"{self.committed_source} of {len(self.source)}, {self.committed_retry} of "
                      f"{len(self.retry)}, {owner.describe()}")  # fmt: skip
        self.owner.check_budget()
        for origin, record in enumerate(self.source):
            if record is not None and not self.terminal(origin):
                self.fail("LOSS", f"{origin} never became terminal")

    def _finished(self) -> bool:
        return (
            self.committed_source.frontier == len(self.source)
            and self.committed_retry.frontier == len(self.retry)
            and self.owner.idle
        )

    # -- what happens by itself -----------------------------------------------------------------------

    def produce(self) -> None:
        if len(self.source) < RECORDS:
            expires = self.now + 5 + self.choose(60) if self.happens("expiry", 50) else None
            self.source.append(Record(f"u{self.choose(self.users)}", expires))
            self.log("source {}: {}", len(self.source) - 1, self.source[-1])

    def decay(self) -> None:
        """Compaction, transaction markers, retention, records that nobody can read."""
        kind = self.choose(4)
        if kind == 1 and "gaps" in self.features and len(self.source) < RECORDS:
            self.source += [None] * (1 + self.choose(3))
            self.log("source gap up to {}", len(self.source))
        elif kind == 2 and "gaps" in self.features and len(self.retry) < 100:
            self.retry += [None] * (1 + self.choose(12))
            self.log("retry gap up to {}", len(self.retry))
        elif kind == 3 and "unreadable" in self.features and len(self.retry) < 100:
            self.write(Copy(-1, 0, -1, 0, "somebody"))
        elif "retention" in self.features and all(self._safe(o) for o in range(self.low, len(self.source))):
            self.low = len(self.source)
            self.log("retention empties the source up to {}", self.low)

    def redrive(self) -> None:
        """The operator's tool: one letter of each identity, in the consumer's own retry topic."""
        letters = sorted(self.redrivable - self.redriven)
        if "redrive" in self.features and letters and self.redrives < REDRIVES:
            origin, redrives = letters[self.choose(len(letters))]
            self.redrives += 1
            self.redriven.add((origin, redrives))
            self.write(Copy(origin, redrives + 1, 0, self.now, REDRIVE))

    def take_over(self) -> None:
        """The owner crashes, is cut off, or hands over; another one is assigned."""
        if self.takeovers >= TAKEOVERS:
            return
        self.takeovers += 1
        before, how = self.owner, self.choose(3)
        if how == 2 and "drain" in self.features:
            before.revoke()
            self.zombies.append(before)
        elif how == 1 and "zombies" in self.features:
            self.zombies.append(before)
        self.zombies = [zombie for zombie in self.zombies if not self.chance(20)]
        self.requests = [request for request in self.requests if request.owner in self.zombies]
        self.owner = self.new_owner(self)

    # -- the broker -----------------------------------------------------------------------------------

    def write(self, copy: Copy) -> int:
        self.retry.append(copy)
        self.log("retry {}: {}", len(self.retry) - 1, copy)
        return len(self.retry) - 1

    def letter(self, origin: int, redrives: int, expired: bool) -> None:
        self.dead.add(origin)
        self.letters.append((origin, redrives))
        if not expired and redrives < GENERATIONS:
            self.redrivable.add((origin, redrives))
        self.log("dead letter {} gen {}", origin, redrives)

    def deliver(self, owner: Owner | None = None) -> None:
        """A commit reaches the broker, which knows members, not what they know."""
        at = self.choose(len(self.requests))
        if owner is not None:
            at = next(i for i, request in enumerate(self.requests) if request.owner is owner)
        request = self.requests.pop(at)
        if request.owner is not self.owner:
            request.owner.fenced()
            return
        parts = ("SR", "S", "R", "")[self.choose(4)] if self.happens("partial", 30) else "SR"
        if "S" in parts:
            self.stored_source.put(request.source)
            self.committed_source = self.stored_source.get()
        if "R" in parts:
            self.stored_retry.put(request.retry)
            self.committed_retry = self.stored_retry.get()
        self.log("commit {} of {}: {} {}", parts, request.owner.writer, request.source, request.retry)
        self._check_commit()
        self._settle(request, parts)
        request.owner.committed(request, parts == "SR" and not self.happens("partial", 10))

    def fetch(self, stored: Stored) -> Committed:
        """The committed state as a new owner sees it."""
        frontier, metadata = stored.frontier, stored.metadata
        if self.happens("metadata", 30):
            other = encode_metadata(Committed(frontier, b"0111"), "workers", "elsewhere", 0)
            metadata = ("", metadata[:-1], metadata[:9] + "A" + metadata[10:], other)[self.choose(4)]
            self.settled.clear()  # duplicates are allowed now, losses are not
            self.attempts.clear()
        return decode_metadata(frontier, metadata, *stored.where)

    # -- what must hold -------------------------------------------------------------------------------

    def terminal(self, origin: int) -> bool:
        return origin in self.accepted or origin in self.dead

    def _held(self) -> dict[int, int]:
        """Origins to the redrives of their newest copy that a restore would find and honour."""
        held: dict[int, int] = {}
        committed, fence = self.committed_retry, self.committed_retry.fence
        for at in range(committed.frontier, len(self.retry)):
            copy = self.retry[at]
            if copy is None or committed.covers(at):
                continue
            if fence is None or at < fence.end or copy.writer in (fence.writer, REDRIVE):
                held[copy.origin] = max(held.get(copy.origin, 0), copy.redrives)
        return held

    def _safe(self, origin: int) -> bool:
        return self.source[origin] is None or self.terminal(origin) or self.committed_source.covers(origin)

    def _check_commit(self) -> None:
        held = self._held()
        for origin, record in enumerate(self.source):
            if record is None or self.terminal(origin) or origin in held:
                continue
            if self.committed_source.covers(origin):
                self.fail("LOSS", f"the commit covers {origin}: neither terminal nor in a copy")
        for origin, redrives in self.redriven:
            if origin in self.accepted or held.get(origin, 0) > redrives:
                continue
            if not any(o == origin and r > redrives for o, r in self.letters):
                self.fail("LOSS", f"{origin} was redriven from gen {redrives}: no outcome and no copy")
        for at, copy in enumerate(self.retry):
            if copy is not None and copy.attempt < 0 and at not in self.buried:
                if self.committed_retry.covers(at):
                    self.fail("LOSS", f"unreadable retry {at} is covered, but has no dead letter")

    def _settle(self, request: Request, parts: str) -> None:
        """What was finished before a commit that was stored may not be done again by a later owner."""
        self.serial += 1
        source, retry = self.committed_source, self.committed_retry
        for origin, (redrives, at) in request.finished.items():
            stored = parts == "SR" or (source.covers(origin) and (at is None or retry.covers(at)))
            if stored and self.settled.get(origin, (-1, 0))[0] < redrives:
                self.settled[origin] = (redrives, self.serial)

    def check_again(self, owner: Owner, origin: int, redrives: int, what: str) -> None:
        """Nothing may be done again that is known to be finished."""
        settled = self.settled.get(origin)
        if settled and settled[0] >= redrives and owner.born > settled[1]:
            self.fail("DUP", f"{origin} gen {redrives} {what} by {owner.writer}, but settled before it started")
        finished = owner.finished.get(origin)
        if finished and finished[0] >= redrives:
            self.fail("DUP", f"{origin} gen {redrives} {what} by {owner.writer}, which had finished it")

    def accept(self, origin: int) -> None:
        """The provider accepted it."""
        self.log("provider accepts {}", origin)
        if origin not in self.accepted:
            record = self.source[origin]
            assert record is not None
            for earlier in range(origin):
                other = self.source[earlier]
                if other is not None and other.user == record.user and not self.terminal(earlier):
                    self.fail("ORDER", f"{origin} accepted before {earlier} was terminal")
            self.accepted.add(origin)


@contextlib.contextmanager
def limits(features: frozenset[str]) -> Iterator[None]:
    """Windows so small that they fill, when the world has that feature."""
    if "windows" not in features:
        yield
        return
    with (
        mock.patch.object(offsets, "WINDOW", 8),
        mock.patch.multiple(partition, WINDOW=8, READ_WINDOW=5, CARRY_BATCH=2),
    ):
        yield


def run(seed: int, new_owner: Callable[[World], Owner], features: frozenset[str] | None = None) -> World:
    """One random world from start to end; without `features` with any of them.

    Raises:
        Violation: A promise was broken.
    """
    rng = random.Random(seed)
    if features is None:
        features = frozenset(feature for feature in sorted(FEATURES) if rng.random() < 0.6)
    with limits(features):
        world = World(lambda n: int(rng.random() * n), features, new_owner)
        for _ in range(100 + world.choose(400)):
            world.turn()
        world.settle_down()
    return world
