"""A hostile world for the ordered-retry protocol.

One source partition, its retry partition, the dead-letter topic, what the broker holds committed, one live
owner and those before it that may still be running. A scheduler interleaves their steps; every decision is
`choose(n)`, so that a random generator or hypothesis can drive it, and 0 is always the kindest answer.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final
from unittest import mock

import attrs

from kafka_notify._partition import (
    carrying,
    followers,
    parking,
    scheduler,
    source_offsets,
    spill,
    table,
    waiting,
    wide,
)
from kafka_notify._partition.commit_metadata import Committed, decode_metadata, encode_metadata
from kafka_notify._partition.strangers import OTHER_TOPIC
from tests.model.promises import REDRIVE, Copy, Finished, Promises, Record, Stored
from tests.windows import windows

if TYPE_CHECKING:
    from tests.model.owner import Owner

USERS: Final = 3
RECORDS: Final = 12
TAKEOVERS: Final = 5
GENERATIONS: Final = 2
REDRIVES: Final = 3
MAX_ATTEMPTS: Final = 3

TOPIC, OLD_TOPIC = "present", "old"
"""Ids of the source topic."""

ADDED: Final = "push"
"""The channel that the newer version of the consumer sends besides."""
FEATURES: Final = frozenset(
    """gaps expiry skew throttle unknown hang timeouts partial zombies drain redrive retention metadata windows
    budget unreadable room release crowds pause collapse strangers channels wide refused unread ages mixed
    rollback""".split()
)
ATTENDED: Final = 1 + RECORDS + REDRIVES
"""Ticks after which each old retry must have had its turn: two are looked at in each, and each may be twice, as its
payload is read again before it is copied."""
RETENTION: Final = 240
"""Turns that the retry topic keeps a record for, with the feature `ages`."""


@attrs.frozen
class Request:
    """A commit on its way to the broker."""

    owner: Owner
    source: Committed
    retry: Committed
    finished: Finished
    """What the owner had finished when it asked for the commit."""


class World(Promises):
    """The broker and the scheduler.

    Args:
        choose: Picks one of n: 0 <= choose(n) < n.
        features: Which adversities there are, of `FEATURES`; crashes are always there.
        new_owner: Makes the next owner of the partition.
    """

    max_attempts = MAX_ATTEMPTS

    def __init__(
        self, choose: Callable[[int], int], features: frozenset[str], new_owner: Callable[[World], Owner]
    ) -> None:
        super().__init__()
        self.choose = choose
        self.features = features
        self.new_owner = new_owner
        self.calm = False
        self.paused = False
        """Whether what has an odd origin must not be sent."""
        self.added = False
        """A commit of a worker that sends one channel more was stored: from now on that channel is produced, too."""
        self.users = 1 + choose(USERS)
        self.requests: list[Request] = []
        self.takeovers = 0
        self.zombies: list[Owner] = []
        self.attended: Counter[int] = Counter()
        """How often its owner could have carried a retry that was old."""
        self.rolled_back = False
        self.lossy = False
        """Metadata was lost: an old owner may not know that a record is a spill."""
        self.owner = new_owner(self)

    # -- the scheduler --------------------------------------------------------------------------------

    def chance(self, percent: int) -> bool:
        return not self.calm and self.choose(100) >= 100 - percent

    def happens(self, feature: str, percent: int) -> bool:
        return feature in self.features and self.chance(percent)

    def backoff(self) -> int:
        """How long the next attempt waits."""
        wait = 1 + self.choose(9)
        if self.happens("wide", 40):
            wait = 40 + self.choose(120)
        return wait

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
            self.age()
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
            owner.check_parked()

    def settle_down(self) -> None:
        """End the adversities; everything must come to its end now."""
        self.calm = True
        self.paused = False
        self.zombies.clear()
        rolls_back = "rollback" in self.features
        if rolls_back:
            self._replace(old=False, wide=False)
        for _ in range(6_000):
            if self.owner.halted:
                self._replace(old=False, wide=not rolls_back)
            if (
                rolls_back
                and not self.rolled_back
                and self.owner.is_narrow
                and not self.stored_retry.get().marked
            ):
                self.rolled_back = True
                self._replace(old=True, wide=False)
            if self._finished() and self.rolled_back == rolls_back:
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

    def _replace(self, *, old: bool, wide: bool) -> None:
        """The next version, or the one before, is deployed."""
        self.requests.clear()
        self.owner = self.new_owner(self)
        self.owner.old, self.owner.wide = old, wide
        self.log("{} is deployed: old={} wide={}", self.owner.writer, old, wide)

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
            collapse = "ab"[self.choose(2)] if self.happens("collapse", 60) else ""
            channel = ADDED if self.added and self.choose(2) else ""
            self.source.append(Record(f"u{self.choose(self.users)}", expires, collapse, channel))
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
        elif "retention" in self.features and all(self.safe(o) for o in range(self.low, len(self.source))):
            self.low = len(self.source)
            self.log("retention empties the source up to {}", self.low)

    def age(self) -> None:
        """Retention deletes the oldest retries, but gives an owner the time to see that they are old."""
        owner = self.owner
        if "ages" not in self.features or owner.old or not owner.works:
            return
        under_way = owner.under_way()
        while self.retry_low < len(self.retry):
            at, copy = self.retry_low, self.retry[self.retry_low]
            if copy is not None and copy.attempt >= 0:
                if self.now - copy.time <= RETENTION or at in under_way:
                    break
                if not self.committed_retry.covers(at) and self.attended[at] < ATTENDED:
                    break
            elif copy is not None and not self.committed_retry.covers(at):
                break
            self.log("retention deletes retry {}", at)
            self.retry[at] = None
            self.retry_low += 1
        self.check_commit()

    def redrive(self) -> None:
        """The operator's tool: one letter of each identity, in the consumer's own retry topic."""
        if self.happens("strangers", 50) and len(self.strangers) < REDRIVES:
            copy = Copy(self.choose(RECORDS + 2), 0, 0, 0, "", old=True)
            self.strangers.setdefault(copy.what, (Record(f"u{self.choose(self.users)}", None), copy))
            self.redrivable.add((copy.what, 0))
        letters = sorted(self.redrivable - self.redriven)
        if "redrive" in self.features and letters and self.redrives < REDRIVES:
            origin, redrives = letters[self.choose(len(letters))]
            self.redrives += 1
            self.redriven.add((origin, redrives))
            if origin in self.strangers:
                old = self.strangers[origin][1]
                # the tool sees that the present topic is shorter; else a letter may not say where it died
                beyond = old.origin >= len(self.source)
                topic = OTHER_TOPIC if beyond else ("", OLD_TOPIC)[self.choose(2)]
                self.write(
                    attrs.evolve(old, redrives=redrives + 1, due=self.now, writer=REDRIVE, topic=topic)
                )
                return
            topic = ("", TOPIC)[self.choose(2)]
            self.write(Copy(origin, redrives + 1, 0, self.now, REDRIVE, topic=topic))

    def take_over(self) -> None:
        """The owner crashes, is cut off, or hands over; another one is assigned."""
        if self.takeovers >= TAKEOVERS and not self.owner.halted:
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
        self.attended.clear()
        self.owner = self.new_owner(self)

    # -- the broker -----------------------------------------------------------------------------------

    def write(self, copy: Copy) -> int:
        self.retry.append(attrs.evolve(copy, time=self.now))
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
        marked = request.retry.wide is not None and request.owner.marks
        if "S" in parts:
            self.stored_source.put(request.source, marked)
            self.committed_source = self.stored_source.get()
            self.added |= ADDED in request.owner.channels.sent
        if "R" in parts:
            self.stored_retry.put(request.retry, marked)
            self.committed_retry = self.with_spill(self.stored_retry.get())
        self.log("commit {} of {}: {} {}", parts, request.owner.writer, request.source, request.retry)
        self.check_commit()
        self.settle(request.finished, parts == "SR")
        request.owner.committed(request, parts == "SR" and not self.happens("partial", 10))

    def fetch(self, stored: Stored) -> Committed:
        """The committed state as a new owner sees it."""
        frontier, metadata = stored.frontier, stored.metadata
        if self.happens("metadata", 30) and not self.added:  # channels that are forgotten are lost
            self.log("the metadata cannot be read")
            self.lossy = True
            other = encode_metadata(Committed(frontier, b"0111"), "workers", "elsewhere", 0)
            metadata = ("", metadata[:-1], metadata[:9] + "A" + metadata[10:], other)[self.choose(4)]
            self.settled.clear()  # duplicates are allowed now, losses are not
            self.attempts.clear()
        return decode_metadata(frontier, metadata, *stored.where)

    def with_spill(self, committed: Committed) -> Committed:
        """The committed state with the bits of the spill that it names, as they lie in the log."""
        name = committed.wide.spill if committed.wide else None
        found = self.retry[name.offset] if name and name.offset < len(self.retry) else None
        return committed.with_spill(found.writer if found else "", found.spill if found else None)


@contextlib.contextmanager
def limits(features: frozenset[str]) -> Iterator[None]:
    """So little at once that work is cut into pieces; windows so small that they fill, when the world has one of
    the features for it."""
    with (
        mock.patch.object(table, "DEEP", 1),
        mock.patch.multiple(parking, PARKING=2, PARK_AT_ONCE=1),
        mock.patch.object(waiting, "STEP_AT_ONCE", 2),
        mock.patch.object(scheduler, "STEP_AT_ONCE", 2),
        mock.patch.object(followers, "PIECE", 2),
    ):
        if not features & {"windows", "wide"}:
            yield
            return
        with (
            windows(8),
            mock.patch.object(source_offsets, "READ_WINDOW", 3),
            mock.patch.multiple(
                carrying,
                CARRY_BATCH=2,
                CARRYING=3,
                RECALL_EVERY=9,
                DENSITY=3,
                SLACK=16,
                SPARSE_AFTER=0,
                SPARSE_BATCH=1,
            ),
            mock.patch.object(wide, "ROOM", 3),
            mock.patch.object(spill, "DELTA_CHARS", 5),
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
