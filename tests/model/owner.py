"""The simplest correct engine around a `Partition`: what reads, sends and commits for one assignment. The records that
it writes, and what follows their acknowledgement, are the worker's own: see `CopyPublisher`.

Everything under way is an item in `flight`; the world decides when, in which order and how each one ends.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import Any, Final, cast

import attrs

from kafka_notify._decision.context import Context
from kafka_notify._decision.what_follows import TryAgain
from kafka_notify._fetch.channels import Channels
from kafka_notify._partition import commit_metadata, spill, wide
from kafka_notify._partition.budget import PayloadBudget
from kafka_notify._partition.commit_metadata import Committed, Fence
from kafka_notify._partition.entry import Entry, UserQueue
from kafka_notify._partition.epoch import Epoch, Half
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.strangers import place
from kafka_notify._partition.wide import LongWaits, Spill
from kafka_notify._settle.copies import Copy as Written
from kafka_notify._settle.dead_letters import DeadLetterCopy
from kafka_notify._settle.publisher import CopyPublisher
from kafka_notify._settle.records import RetryCopy, SpillCopy
from kafka_notify._wire.undecoded import collapse_of
from kafka_notify.policy import RetryPolicy
from kafka_notify.wire import (
    SPILL_ORIGIN,
    DlqReason,
    Headers,
    History,
    Origin,
    RetryState,
    read_dead_letter,
    read_retry,
)
from tests.model.promises import Bytes, Copy, Finished, Record
from tests.model.world import ADDED, RETENTION, TOPIC, USERS, Request, World

SOURCE: Final = "source"
Step = Callable[[], None]
_BUDGET: Final = 700  # of about 200 bytes each


class OldPartition(Partition):
    """What the version before wide halves does."""

    def snapshot(self) -> tuple[Committed, Committed]:
        self.half.last_end = -1  # or it would carry until it is narrow
        source, _ = super().snapshot()
        frontier = self.retry.frontier
        before = self.writers.before if self.restore_end > frontier + commit_metadata.WINDOW else None
        fence = Fence(self.restore_end, self.writer, before)
        return source, Committed(frontier, self.retry.gaps(commit_metadata.WINDOW), fence)


@attrs.frozen
class Surroundings(Context):
    """The context of an owner, whose notifications are known by their origin."""

    owner: Owner = attrs.field(kw_only=True)

    def facts(
        self, headers: Headers, partition: int, origin: int, timestamp: int
    ) -> tuple[str, int, int | None, str]:
        """As the record says, which a worker reads from its headers."""
        record = self.owner._record(origin)
        return f"id{origin}", origin, record.expires, collapse_of(record.headers)


class Clock:
    """The owner's clock."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def now(self) -> int:
        """Its epoch milliseconds."""
        return self._owner.now


class Owner:
    """One assignment; also `Effects`, and the writer of a `CopyPublisher`."""

    partition_class: type[Partition] = Partition
    marks = True
    """Whether it marks the topic ids while the retry half is wide."""
    carries_aged = True

    def __init__(self, world: World) -> None:
        self.world = world
        world.serial += 1
        self.born = world.serial
        self.writer = f"w{self.born}"
        self.skew = (0, -6, 6)[world.choose(3)] if "skew" in world.features else 0
        self.slow = ("", "source", "retry", "start")[world.choose(4)]
        """What takes its time: reading one of the two, or the start."""
        self.topic_id = (TOPIC, "")[world.choose(2)] if "strangers" in world.features else ""
        self.channels = Channels(self._channels(world))
        self.paused = world.paused
        """What it knows: before its first send what there was at the assignment, later changes with a tick."""
        self.old = "mixed" in world.features and not world.calm and world.choose(4) == 3
        """Whether it is of the version before wide halves."""
        self.wide = "wide" in world.features and world.choose(8) > 0
        self.halted = False
        """It must not go on: an old one that has met a wide half, or its group sends more than it does."""
        self.said: list[tuple[Committed, Finished]] = []
        """Each retry half that was asked for, and what it says is finished."""
        self.spilled: dict[int, Finished] = {}
        """What each spill says is finished, by its checksum."""
        self.unsaid: dict[int, int] = {}
        """Last offsets of what was sent beyond the window and has ended, in no half that can be said, by origin."""
        self.alive = True
        """False once the engine has let the partition go: what is still under way changes nothing in it."""
        self.flight: list[tuple[str, Step]] = []
        self.timers: list[tuple[int, UserQueue]] = []
        self.running: dict[str, Entry] = {}
        """Sends that the provider is working on, by user."""
        self.finished: Finished = {}
        self.counted: dict[tuple[int, int], int] = {}
        """Attempts that this owner has seen fail, by origin and redrives."""
        self.decided: dict[tuple[int, int], tuple[str, int]] = {}
        """Why it has given up, and after how many attempts, by origin and redrives."""
        self.committing = False
        self.stored: tuple[Committed, Committed] | None = None
        """The last commit that it knows to be stored."""
        self.fetched: tuple[Committed, Committed] | None = None
        self.retry_end: int | None = None
        self._partition: Partition | None = None
        self.budget = PayloadBudget(_BUDGET if "budget" in world.features else 1_000_000)
        self.publisher = CopyPublisher(self._surroundings(), cast(Any, self), None, cast(Any, None))
        world.log("owner {} assigned", self.writer)

    def _surroundings(self) -> Context:
        unused: Any = None
        return Surroundings(
            loop=unused, clock=cast(Any, Clock(self)), source=SOURCE, retry_topic="retry", dead_letter_topic="dlq",
            group="group", categories={}, codec=unused, retry=RetryPolicy(), send_timeout=1.0, concurrency=1,
            unknown="retry", on_event=None, owner=self,
        )  # fmt: skip

    @staticmethod
    def _channels(world: World) -> frozenset[str]:
        """Of one of two versions; in the end only of the newer one."""
        if "channels" not in world.features:
            return frozenset()
        return frozenset({"", ADDED}) if world.calm or world.choose(2) else frozenset({""})

    @property
    def now(self) -> int:
        return self.world.now + self.skew

    @property
    def partition(self) -> Partition:
        assert self._partition is not None
        return self._partition

    @property
    def idle(self) -> bool:
        """Whether it works, and has nothing to do."""
        return self.works and not self.flight

    @property
    def works(self) -> bool:
        """Whether its fence holds."""
        return self._partition is not None and self._partition.active

    @property
    def is_narrow(self) -> bool:
        """Whether the version before could go on where it is."""
        return self.works and not self.partition.window

    def under_way(self) -> set[int]:
        """Retry offsets of what is being sent, copied, or waits for that."""
        p = self.partition
        entries = [*(e for e in p.pending.values() if e.busy), *p.redrives.waiting.values()]
        return {e.retry.at for e in entries if e.retry is not None}

    def describe(self) -> str:
        if self._partition is None:
            return f"{self.writer} not started"
        p = self._partition
        waits = {
            e.origin: (e.retry and e.retry.at, e.busy.name)
            for lane in p.queues.values()
            for e in lane.entries
        }
        return f"{self.writer} active={p.active} {waits} flight={[name for name, _ in self.flight]}"

    # -- start: committed offsets, then the ends, then the restore, then the fence ----------------------

    def steps(self) -> list[Step]:
        """What may happen next; the kindest first."""
        if not self.alive or self.halted:
            return [partial(self._land, i) for i in range(len(self.flight))]
        if self._is_slow("start") and self._partition is None:
            return []
        if self.fetched is None:
            return [self._fetch]
        if self.retry_end is None:
            return [self._look_up_retry_end]
        if self._partition is None:
            return [self._start]
        p, world = self._partition, self.world
        steps: list[Step] = [partial(self._land, i) for i in range(len(self.flight))]
        if p.retry.position < len(world.retry) and not (p.restored and self._is_slow("retry")):
            steps.append(self._read_retry)
        if p.restored:
            room = self._has_room()
            if (
                p.source.position < len(world.source)
                and p.wants_source(room=room)
                and not self._is_slow("source")
            ):
                steps.append(self._read_source)
            if not self.committing:
                steps.append(self._commit)
        steps += [partial(self._fire, i) for i, (at, _) in enumerate(self.timers) if at <= self.now]
        if p.active:
            steps.append(self._tick)
        return steps

    def _is_slow(self, what: str) -> bool:
        return self.slow == what and self.world.chance(85)

    def _has_room(self) -> bool:
        return "room" not in self.world.features or len(self.flight) < 3

    def _land(self, index: int) -> None:
        self.flight.pop(index)[1]()

    def _fetch(self) -> None:
        world = self.world
        source, retry = world.fetch(world.stored_source), world.fetch(world.stored_retry)
        if self.old:
            self.halted = source.marked or retry.marked
            retry = Committed(retry.frontier, b"" if retry.wide else retry.gaps, retry.fence)
        elif retry.wide and retry.wide.spill and world.happens("unread", 50):
            return  # it cannot be read now: try again, do not start
        else:
            retry = self._with_spill(retry)
        self.fetched = source, retry

    def _with_spill(self, retry: Committed) -> Committed:
        return self.world.with_spill(retry)

    def _look_up_retry_end(self) -> None:
        self.retry_end = len(self.world.retry)

    def _start(self) -> None:
        assert self.fetched is not None
        assert self.retry_end is not None
        if self.passes_over(self.fetched[0]):
            self.world.log("{} halts: it would pass over a channel of its group", self.writer)
            self.halted = True
            return
        self._partition = (OldPartition if self.old else self.partition_class)(
            Epoch(0, self.writer, topic_id=self.topic_id),
            # its end is looked up after the retry's: no copy lies past it
            Half(self.fetched[0], self.world.low, len(self.world.source)),
            Half(self.fetched[1], self.world.retry_low, self.retry_end),
            effects=self,
            budget=self.budget,
            long_waits=LongWaits(
                self.wide and not self.old,
                RETENTION if "ages" in self.world.features and self.carries_aged and not self.old else None,
            ),
        )

    def passes_over(self, committed: Committed) -> bool:
        """Whether the writer of a commit sends what this one does not."""
        return bool(self.channels.missing(committed.channels, {"", ADDED}))

    # -- reading --------------------------------------------------------------------------------------

    def _read_retry(self) -> None:
        p, log = self.partition, self.world.retry
        at = next((i for i in range(p.retry.position, len(log)) if log[i] is not None), None)
        if at is None:
            p.on_retry_end(len(log))
            return
        copy = log[at]
        assert copy is not None
        if p.reads_own(at):
            return
        if copy.attempt < 0:
            p.on_retry(at, "?", None, Bytes(b"?", b"?"), None, lambda: ("", 0, None, ""), self.now)
            return
        if copy.origin == SPILL_ORIGIN and not self.old:
            p.on_spill(at)
            return
        if copy.origin == SPILL_ORIGIN:
            self._read_unknown(at, copy)
            return
        record = self._record(copy.what)
        origin = Origin(SOURCE, 0, copy.origin, copy.topic or None)
        state = RetryState(origin, History(copy.attempt, copy.redrives), copy.due, copy.writer)
        facts = (copy.id, copy.origin, record.expires, collapse_of(record.headers))
        value = b"value%d" % copy.what
        seen = Bytes(record.key, value, copy.time)
        p.on_retry(at, record.user, state, seen, record.headers, lambda: facts, self.now)

    def _read_unknown(self, at: int, copy: Copy) -> None:
        """An old owner meets a spill, which looks like another writer's copy."""
        p = self.partition
        fence = p.writers.before
        p.retry.observe(at)
        restored = at < p.restore_end and not p.retry.is_done(at)
        if restored and (fence is None or fence.admits(at, copy.writer)) and not self.world.lossy:
            self.world.fail("JUNK", f"{self.writer} takes the spill at {at} for a notification")
        p.retry.complete(at)

    def _read_source(self) -> None:
        p, log, world = self.partition, self.world.source, self.world
        start = max(p.source.position, world.low)
        at = next((i for i in range(start, len(log)) if log[i] is not None), None)
        if at is None:
            p.on_source_end(len(log))
            return
        record = self._record(at)
        if record.channel and record.channel not in self.channels.sent:
            p.pass_over(at)
            return
        value = b"value%d" % at
        seen, identity = Bytes(record.key, value), (f"id{at}", at)
        p.on_source(at, record.user, seen, record.headers, 1, lambda: identity, self.now)

    @staticmethod
    def _what(entry: Entry) -> int:
        """Which notification an entry is of: its origin, or the place of one from a topic before."""
        held = entry.retry
        if held is None or not held.id:
            return entry.origin
        origin = held.origin_of(entry)
        return place(origin, held.id, held.created) if held.id.startswith("old") else origin

    def identity(self, entry: Entry, /) -> tuple[str, int]:
        return f"id{entry.origin}", entry.origin

    def _record(self, origin: int) -> Record:
        if origin in self.world.strangers:
            return self.world.strangers[origin][0]
        record = self.world.source[origin]
        assert record is not None
        return record

    def _fire(self, index: int) -> None:
        lane = self.timers.pop(index)[1]
        lane.timer = 0
        self.partition.step(lane, self.now)

    def _tick(self) -> None:
        if self.world.happens("skew", 10):
            self.skew = -self.skew
        p, world = self.partition, self.world
        for entry in p.pending.values():
            held = entry.retry
            copy = world.retry[held.at] if held else None
            if held and copy and not entry.busy and world.now - copy.time > RETENTION * 3 // 4:
                world.attended[held.at] += 1
        for entry in p.carry(self.now):
            assert entry.retry is not None
            self.publisher.carry(entry)
        for entry in self.partition.pending.values():
            if not entry.busy:
                self.partition.rest(entry)  # it was read again to be sent, or carried, and was not
        if self.world.happens("pause", 20):
            self.world.paused = not self.world.paused
        if self.paused != self.world.paused:
            self.paused = self.world.paused
            self.partition.resume()
        if self.world.happens("crowds", 30):
            self.partition.makes_room = not self.partition.makes_room
        if self.partition.makes_room:
            self.partition.park_more(self.now)
            self.check_room_is_made()
        self.partition.step_blocked(self.now)

    # -- Effects --------------------------------------------------------------------------------------

    def send(self, entry: Entry, /) -> None:
        self.flight.append(("send", partial(self._send, entry)))

    def park(self, entry: Entry, /) -> None:
        self.publisher.park(entry, will_be_sent=lambda entry, now: True)

    def load(self, entry: Entry, /, *, to_copy: bool = False) -> None:
        self.flight.append(("load to copy" if to_copy else "load", partial(self._load, entry)))

    def recall(self, partition: Partition, entries: Container[Entry], /) -> list[Entry]:
        def is_of(what: str, step: Step) -> bool:
            return what in ("send", "load") and isinstance(step, partial) and step.args[0] in entries

        found = [step.args[0] for what, step in self.flight if is_of(what, step)]  # type: ignore[attr-defined]
        self.flight = [(what, step) for what, step in self.flight if not is_of(what, step)]
        return found

    def dead_letter(self, entry: Entry, /) -> None:
        self.publisher.dead_letter(entry, "undecodable")

    def wake(self, lane: UserQueue, at: int, /) -> None:
        self.timers.append((at, lane))

    def spill(self, partition: Partition, spill: Spill, /) -> None:
        self.spilled[spill.checksum] = dict(self.finished)
        self.publisher.spill(partition, spill, partition.long_waits)

    # -- sends ----------------------------------------------------------------------------------------

    def _send(self, entry: Entry) -> None:
        world, held, what = self.world, entry.retry, self._what(entry)
        record = self._record(what)
        if not self.alive:
            return
        if self.partition.closing or world.happens("release", 10):
            self.partition.release(entry, self.now)
            return
        self._check_payload(entry)
        redrives = entry.history.redrives
        if record.expires is not None and record.expires <= self.now:
            self.decided[what, redrives] = "expired", entry.history.attempts
            self.publisher.dead_letter(entry, "expired")
            return
        if self.partition.superseded(entry, self.now):
            world.check_again(self, what, redrives, "skipped")
            world.skip(what)
            self._finish(entry, accepted=False)
            return
        if held and held.due > self.now and ("skew" in world.features or held.collapse):
            self.partition.release(entry, self.now)  # the clock was set back since it was queued
            return
        if self.paused and what % 2:
            self.partition.pause(entry, self.now)
            if held is None:
                self.publisher.pause(entry, None)
            return
        if held and held.due > self.now:
            world.fail("EARLY", f"{entry.origin} sent at {self.now}, due {held.due}")
        if record.user in self.running:
            world.fail("OVERLAP", f"{what} sent during {self.running[record.user].origin}")
        covered = held.origin_of(entry) if held and not held.foreign else None
        world.check_start(self, what, redrives, entry.history.attempts, covered)
        world.log(
            "{} sends {} gen {} attempt {}", self.writer, entry.origin, redrives, entry.history.attempts + 1
        )
        self.running[record.user] = entry
        self.flight.append(("answer", partial(self._answer, entry)))

    def _answer(self, entry: Entry) -> None:
        world, lane = self.world, entry.queue
        origin = self._what(entry)
        user = self._record(origin).user
        accepted, counted = True, True
        if world.chance(50):
            accepted = world.happens("unknown", 20)
            counted = not world.happens("throttle", 30)
        if world.happens("hang", 10) and self.alive:
            lane.stuck = True  # the send outlived its deadline: an unknown outcome, and it still runs
            self.flight.append(("return", partial(self._return, lane, user, origin)))
        else:
            del self.running[user]
            if accepted:
                world.accept(origin)
                if not (world.happens("unknown", 20)):
                    self._finish(entry, accepted=True)
                    return
        if not self.alive:
            return
        attempt = entry.history.attempts + counted
        if counted:
            what = origin, entry.history.redrives
            self.counted[what] = self.counted.get(what, entry.history.attempts) + 1
        wait = world.backoff()
        if attempt >= world.max_attempts:
            self._give_up(entry, "max_attempts", attempt)
        elif world.chance(15):
            self._give_up(entry, "permanent", attempt)
        else:
            self._try_again(entry, attempt, self.now + wait)

    def _give_up(self, entry: Entry, reason: DlqReason, attempt: int) -> None:
        self.decided[self._what(entry), entry.history.redrives] = reason, attempt
        history = attrs.evolve(entry.history, attempts=attempt)
        self.publisher.dead_letter(entry, reason, history=history)

    def _try_again(self, entry: Entry, attempt: int, due: int) -> None:
        history = attrs.evolve(entry.history, attempts=attempt)
        self.publisher.try_again(entry, cast(Any, None), TryAgain(cast(Any, None), history, due))

    def _return(self, lane: UserQueue, user: str, origin: int) -> None:
        del self.running[user]
        if self.world.chance(50):
            self.world.accept(origin)
        if self.alive:
            self.partition.unstick(lane, self.now)

    def _finish(self, entry: Entry, *, accepted: bool) -> None:
        if self.alive:
            self._note_end(entry)
            self.partition.finish(entry, accepted=accepted, now=self.now)

    def _note_end(self, entry: Entry) -> None:
        held, what = entry.retry, self._what(entry)
        self.finished[what] = (held.history.redrives, held.at) if held else (0, None)
        for known in (self.counted, self.decided):
            known.pop((what, entry.history.redrives), None)
        far = held is not None and held.last >= self.partition.retry.frontier + commit_metadata.WINDOW
        if held is not None and (far or self.partition.window):
            self.unsaid[entry.origin] = held.last
            # what was under way when it became wide does not count
            if len(self.unsaid) > wide.ROOM + USERS:
                self.world.fail("BOUND", f"{self.unsaid} have ended, and no half can say so")

    # -- copies, dead letters and spills: as `CopyWriter` ------------------------------------------------

    def write(self, written: Written) -> None:
        """Write a record until it is acknowledged. It is on its way, and may fail any number of times."""
        kinds: dict[type[Written], tuple[str, Callable[[Any], None]]] = {
            SpillCopy: ("spill", self._spill),
            DeadLetterCopy: ("letter", self._dead_letter),
        }
        what, produce = kinds.get(type(written), ("copy", self._produce))
        self.flight.append((what, partial(produce, written)))

    def _failed(self, written: Written) -> None:
        """It was refused, or the answer was lost."""
        if self.alive:
            written.failed()
            self.write(written)

    def _read_back(self, written: Written) -> Copy:
        """What somebody reads who reads the record."""
        state = read_retry(written.headers, SOURCE, 0)
        assert state is not None
        headers = dict(written.headers)
        is_old = headers.get("notif-id", b"").startswith(b"old")
        origin, history = state.origin, state.history
        return Copy(
            origin.offset, history.redrives, history.attempts, state.due_ms, state.writer,
            spill=written.value if state.is_spill else None, old=is_old, topic=origin.topic_id or "",
        )  # fmt: skip

    def _produce(self, written: RetryCopy) -> None:
        world, copy = self.world, self._read_back(written)
        self._check_payload(written.entry)
        if world.happens("timeouts", 30):
            if world.choose(2):
                world.write(copy)
            world.log("{} is told that its copy of {} failed", self.writer, written.entry.origin)
            self._failed(written)
            return
        self.flight.append(("copied", partial(self._copied, written, copy, world.write(copy))))

    def _copied(self, written: RetryCopy, copy: Copy, at: int) -> None:
        if not self.alive:
            return
        counted = self.counted.get((copy.what, copy.redrives), 0)
        self.world.copied(self, copy.what, copy.redrives, max(copy.attempt, counted))
        written.acknowledged(at)

    def _dead_letter(self, written: DeadLetterCopy) -> None:
        entry, state = written._entry, read_dead_letter(written.headers)
        world, held = self.world, entry.retry
        assert state is not None
        self._check_payload(entry)
        is_notification = held is None or bool(held.id)
        failed = world.happens("timeouts", 20)
        if not failed or world.choose(2):
            if held is not None and not held.id:
                copy = world.retry[held.at]
                if copy and copy.spill is not None:
                    world.fail("JUNK", f"{self.writer} dead-letters the spill at {held.at}")
                world.buried.add(held.at)
            else:
                redrives, what = state.history.redrives, self._what(entry)
                said = state.reason, state.history.attempts
                world.check_cause(what, said, self.decided[what, redrives])
                world.check_again(self, what, redrives, "dead-lettered")
                world.letter(what, redrives, state.reason == "expired")
        if failed:
            self._failed(written)
        elif self.alive:
            if is_notification:
                self._note_end(entry)
            written.acknowledged(-1)

    def _spill(self, written: SpillCopy) -> None:
        world, copy = self.world, self._read_spill(written)
        if world.happens("refused", 40):
            if world.choose(2):
                world.write(copy)
            world.log("{} is told that its spill failed", self.writer)
            self._failed(written)
            return
        self.flight.append(("spilled", partial(self._spilled, written, world.write(copy))))

    def _read_spill(self, written: SpillCopy) -> Copy:
        return self._read_back(written)

    def _spilled(self, written: SpillCopy, at: int) -> None:
        if self.alive:
            half, spilled = self.partition.half, written._written
            before = half.spill
            written.acknowledged(at)
            if half.spill is not before:
                assert half._ready is not None
                self.said.append((half._ready, self.spilled[spilled.checksum]))
            base, gaps = spill.unpack(spilled.value)
            self._is_said(Committed(base, gaps))

    def _load(self, entry: Entry) -> None:
        if self.alive:
            assert entry.retry is not None
            what = self._what(entry)
            self.partition.loaded(entry, Bytes(self._record(what).key, b"value%d" % what), self.now)

    def _check_payload(self, entry: Entry) -> None:
        unreadable = entry.retry is not None and not entry.retry.id
        expected = b"?" if unreadable else b"value%d" % self._what(entry)
        if self.alive and (
            entry.record is None or entry.value != expected
        ):  # else its bytes were given to Kafka
            self.world.fail("PAYLOAD", f"{entry.origin} carries {entry.value!r}, was {expected!r}")

    # -- commits and hand-over ------------------------------------------------------------------------

    def snapshot(self) -> tuple[Committed, Committed]:
        return self.partition.snapshot()

    def _commit(self) -> None:
        """One in flight: the client repeats requests, and an older one must not land after a newer one."""
        self.committing = True
        source, retry = self.snapshot()
        said = self._what_is_said(retry)
        fresh = {origin: what for origin, what in self.finished.items() if what[1] is None}
        sender = attrs.evolve(source, channels=self.commit_channels())
        self.world.requests.append(Request(self, sender, retry, {**said, **fresh}))

    def commit_channels(self) -> tuple[str, ...]:
        """What its commits say that it sends."""
        return self.channels.digests if self.channels.sent else ()

    def _what_is_said(self, half: Committed) -> Finished:
        """What a retry half must say: an older one what it said before; a spill, what was finished when it was made."""
        for known, finished in self.said:
            if known is half:
                return finished
        finished = dict(self.finished)
        self.said.append((half, finished))
        if half.wide is None:
            self.unsaid.clear()
        else:
            gaps = spill.decode_runs(half.wide.delta)
            self._is_said(self.world.with_spill(Committed(half.frontier, gaps, wide=half.wide)))
        return finished

    def _is_said(self, half: Committed) -> None:
        self.unsaid = {origin: last for origin, last in self.unsaid.items() if not half.covers(last)}

    def committed(self, request: Request, stored: bool) -> None:
        pair = request.source, request.retry
        self.flight.append(("confirmed", partial(self._confirmed, pair, stored)))

    def _confirmed(self, pair: tuple[Committed, Committed], stored: bool) -> None:
        self.committing = False
        if stored and self.alive:
            self.stored = pair
            self.partition.confirmed(pair[0], self.now)

    def fenced(self) -> None:
        """The broker refused a commit: this assignment is over."""
        self.world.log("{} learns that it is over", self.writer)
        self._close()

    def revoke(self) -> None:
        """Hand over: start nothing new, let some of what is under way end, commit, let go."""
        if self._partition is not None and self.partition.active:
            self.world.log("{} drains", self.writer)
            self.partition.closing = True
            for _ in range(self.world.choose(7)):
                if self.flight:
                    self._land(self.world.choose(len(self.flight)))
            if self.committing:
                if any(request.owner is self for request in self.world.requests):
                    self.world.deliver(self)
                self.committing = False
            self._commit()
            self.world.deliver(self)
        self._close()

    def _close(self) -> None:
        self.alive = False
        if self._partition is not None:
            self.check_budget()
            self._partition.close()
            self.check_budget()

    def check_parked(self) -> None:
        """What waits in the source behind a head that waits in the retry topic is parked, now or with an answer."""
        p = self._partition
        if p is None or not p.alive or not p.active or p.closing:
            return
        if p.parking.unparked and not p.own.moving:
            self.world.fail("PINNED", "nothing is on its way that parking would go on with")
        for lane in p.queues.values():
            head = lane.head
            if (
                head is None
                or head.retry is None
                or head.busy
                or lane in p.parking.unparked
                or lane in p.waiting.agenda
            ):
                continue
            left = [entry.origin for entry in lane.entries if entry.retry is None and not entry.busy]
            if left:
                self.world.fail("PINNED", f"{left} stay in the source behind {head.origin}")

    def check_room_is_made(self) -> None:
        """While a busy user keeps others out, what waits behind their head is parked."""
        p = self.partition
        if p.active and not p.closing and not p.own.moving:
            for lane in p.queues.values():
                left = [entry.origin for entry in lane.entries[1:] if entry.retry is None and not entry.busy]
                if left:
                    self.world.fail("CROWD", f"{left} of {lane.key} stay in the source")

    def check_budget(self) -> None:
        """What the partition counts against the worker's budget is what it holds."""
        entries = [entry for lane in self.partition.queues.values() for entry in lane.entries]
        held = sum(entry.retry.size for entry in entries if entry.retry is not None)
        loaded = sum(entry.retry.size for entry in entries if entry.retry is not None and entry.retry.loaded)
        if self.budget.loaded != loaded:
            self.world.fail("BUDGET", f"{self.budget.loaded} bytes counted as read again, {loaded} are")
        unsent = [entry for entry in entries if entry.retry is None]
        counted = (self.budget.used, self.budget.open, self.partition.open_bytes)
        sent = sum(entry.retry is not None and entry.retry.counted for entry in entries)
        carried = sum(entry.retry is not None and entry.retry.carried != "" for entry in entries)
        if self.partition.alive and self.partition.carrying.count != carried:
            self.world.fail("BUDGET", f"{self.partition.carrying.count} counted as carried, {carried} are")
        if self.partition.alive and self.partition.half.under_way != sent:
            self.world.fail("BUDGET", f"{self.partition.half.under_way} counted as sent, {sent} are")
        if counted != (held, len(unsent), sum(entry.size for entry in unsent)):
            self.world.fail("BUDGET", f"{counted} counted, {held} bytes held, {len(unsent)} unsent")
