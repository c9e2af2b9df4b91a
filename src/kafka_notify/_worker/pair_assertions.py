"""Assertions at both ends of each hand-over inside a worker: fetch → partition → ready queue → send → settle → commit.

They run in tests and soaks, with `KAFKA_NOTIFY_DEBUG=1`. `bind` replaces the methods that hand over, once and for the
whole process, by ones that check first and after. Without it nothing here is called, and the methods are as written.
Numbers are those of the invariants in docs/design.md.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain, islice
from typing import Any, Final
from weakref import WeakKeyDictionary

from confluent_kafka import Consumer, Message

from kafka_notify._fetch.committer import Committer
from kafka_notify._fetch.exchange import CommitRequest, CommitResult
from kafka_notify._fetch.partition_feed import PartitionFeed
from kafka_notify._partition.commit_metadata import Committed
from kafka_notify._partition.entry import Busy, Entry
from kafka_notify._partition.partition import Partition
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._send.delivery import Delivery
from kafka_notify._send.ready import Ready
from kafka_notify._send.slots import Slot
from kafka_notify.errors import NotifyError

MOST: Final = 100
"""Entries of a partition that are compared with each commit, users' heads and waiting retries each: the oldest, which
are next to the frontier. All of them would take half of a slow processor, ten times a second."""


class InvariantBroken(NotifyError, AssertionError):
    """An invariant does not hold: a defect of this library. The text has its number, the hand-over, and offsets."""


def broken(number: int, where: str, partition: object, offset: object, what: str) -> InvariantBroken:
    """Return the error, whose text is one sentence."""
    return InvariantBroken(f"I{number} broken at {where}: partition {partition}, offset {offset}: {what}")


# -- fetch → partition ----------------------------------------------------------------------------------


def source_record(method: Callable[..., None]) -> Callable[..., None]:
    """The fetch thread's end: a record goes to the partition that it came from."""

    def checked(
        self: PartitionFeed, partition: Partition, message: Message, headers: Any, size: int, now: int
    ) -> None:
        if message.error() is None and message.partition() != partition.number:
            what = f"the record is of partition {message.partition()}"
            raise broken(4, "fetch → partition", partition.number, message.offset(), what)
        method(self, partition, message, headers, size, now)

    return checked


def on_source(method: Callable[..., None]) -> Callable[..., None]:
    """The partition's end: what was read is finished, or an entry holds it."""

    def checked(self: Partition, offset: int, key: Any, *rest: Any) -> None:
        method(self, offset, key, *rest)
        queue = self.queues.get(key)
        held = (queue is not None and queue.find(offset) is not None) or offset in self.pending
        if self.alive and not held and not self.source.is_done(offset):
            raise broken(4, "fetch → partition", self.number, offset, "it was read, and no entry holds it")

    return checked


# -- partition → ready queue → send ---------------------------------------------------------------------


def add(method: Callable[..., None]) -> Callable[..., None]:
    """The partition's end: what is queued may start."""

    def checked(self: Ready, entry: Entry) -> None:
        _may_start(entry, "partition → ready queue")
        method(self, entry)

    return checked


def run(method: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The sender's end: what was queued is still to be sent, and no other send of its user is under way."""

    async def checked(self: Delivery, slot: Slot, entry: Entry) -> None:
        partition, queue = entry.queue.partition, entry.queue
        if partition.alive and not partition.closing:
            _may_start(entry, "ready queue → send")
            other = next((s.entry for s in self._slots.running if s.entry and s.entry.queue is queue), None)
            if other is not None:
                what = f"offset {other.origin} of the same user is being sent"
                raise broken(6, "ready queue → send", partition.number, entry.origin, what)
        await method(self, slot, entry)

    return checked


def _may_start(entry: Entry, where: str) -> None:
    partition, queue, retry = entry.queue.partition, entry.queue, entry.retry
    if not isinstance(partition, Partition):
        return  # a test's stand-in
    place = partition.number, entry.origin
    if not partition.active or not partition.alive:
        raise broken(8, where, *place, "its assignment has not begun, or has ended")
    if queue.find(entry.origin) is not entry:
        raise broken(6, where, *place, "it has ended before, or another entry has its place")
    if entry.busy is not Busy.SENDING:
        raise broken(6, where, *place, f"it is {entry.busy.name}, not SENDING")
    if retry is not None and not retry.foreign:
        origin, source = retry.origin_of(entry), partition.source
        if source.position <= origin or not source.confirmed.covers(origin):
            raise broken(7, where, *place, "its origin is not reached, or no confirmed commit covers it")


# -- send → settle --------------------------------------------------------------------------------------


def finish(method: Callable[..., None]) -> Callable[..., None]:
    """An entry ends once, and its offset is finished then."""

    def checked(self: Partition, entry: Entry, *, accepted: bool, now: int) -> None:
        retry = entry.retry
        _settles_once(self, entry, "send → settle")
        if entry.busy not in (Busy.SENDING, Busy.DEAD_LETTERING):
            raise broken(
                6, "send → settle", self.number, entry.origin, f"it ends while it is {entry.busy.name}"
            )
        method(self, entry, accepted=accepted, now=now)
        if self.alive and not (
            self.source.is_done(entry.origin) if retry is None else self.retry.is_done(retry.at)
        ):
            raise broken(
                1, "send → settle", self.number, entry.origin, "it has ended, and its offset is open"
            )

    return checked


def copied(method: Callable[..., None]) -> Callable[..., None]:
    """A copy replaces the record that it was made of, which is finished then, and forgets no attempt."""

    def checked(self: Partition, entry: Entry, retry: RetryRecord, now: int) -> None:
        old = entry.retry
        _settles_once(self, entry, "settle → partition")
        if entry.busy is not Busy.COPYING:
            raise broken(
                6, "settle → partition", self.number, entry.origin, f"copied while {entry.busy.name}"
            )
        if old is not None and retry.history.attempts < old.history.attempts:
            what = f"a copy with {retry.history.attempts} attempts replaces one with {old.history.attempts}"
            raise broken(13, "settle → partition", self.number, entry.origin, what)
        method(self, entry, retry, now)
        if self.alive and not (
            self.source.is_done(entry.origin) if old is None else self.retry.is_done(old.at)
        ):
            raise broken(1, "settle → partition", self.number, entry.origin, "it was copied, and is open")

    return checked


def _settles_once(partition: Partition, entry: Entry, where: str) -> None:
    if not partition.alive:
        return
    if entry.queue.find(entry.origin) is not entry:
        raise broken(6, where, partition.number, entry.origin, "it has ended before")
    if entry.retry is None and partition.source.is_done(entry.origin):
        raise broken(1, where, partition.number, entry.origin, "its offset was finished while it was open")


# -- settle → commit ------------------------------------------------------------------------------------


def snapshot(
    method: Callable[..., tuple[Committed, Committed]],
) -> Callable[..., tuple[Committed, Committed]]:
    """The event loop's end: what is to be committed covers nothing that is open."""

    def checked(self: Partition) -> tuple[Committed, Committed]:
        source, retry = method(self)
        for entry in _open(self):
            held = entry.retry
            if held is None and source.covers(entry.origin):
                raise broken(
                    2, "settle → commit", self.number, entry.origin, "it is open, and would be committed"
                )
            if held is not None and retry.covers(held.at) and held.at not in self.own.acknowledged:
                what = f"its copy at retry offset {held.at} is open, and would be committed"
                raise broken(2, "settle → commit", self.number, entry.origin, what)
        return source, retry

    return checked


def _open(partition: Partition) -> Iterator[Entry]:
    # an own copy that was not read yet may be covered: retention removed it, and its offset was passed over
    heads = (queue.head for queue in islice(partition.queues.values(), MOST) if queue.head is not None)
    return chain(heads, islice(partition.pending.values(), MOST))


def commit(method: Callable[..., CommitResult]) -> Callable[..., CommitResult]:
    """The fetch thread's end: within an epoch, what was committed stays committed."""
    last: WeakKeyDictionary[Committer, dict[int, tuple[int, tuple[int, ...]]]] = WeakKeyDictionary()

    def checked(self: Committer, consumer: Consumer, request: CommitRequest) -> CommitResult:
        known = last.setdefault(self, {})
        for number, pair in request.pairs.items():
            frontiers = tuple(half.frontier for half in pair)
            epoch, before = known.get(number, (0, (0, 0)))
            current = (
                epoch == request.epochs[number] == self._member.started.get(number)
            )  # else it is not sent
            if current and any(new < old for new, old in zip(frontiers, before, strict=True)):
                what = f"the commit would go back from {before} to {frontiers}"
                raise broken(3, "commit → broker", number, min(frontiers), what)
        result = method(self, consumer, request)
        for number in result.confirmed:
            known[number] = request.epochs[number], tuple(half.frontier for half in request.pairs[number])
        return result

    return checked


# -- binding --------------------------------------------------------------------------------------------

PAIRS: Final[tuple[tuple[type[Any], str, Callable[..., Any]], ...]] = (
    (PartitionFeed, "source_record", source_record),
    (Partition, "on_source", on_source),
    (Ready, "add", add),
    (Delivery, "run", run),
    (Partition, "finish", finish),
    (Partition, "copied", copied),
    (Partition, "snapshot", snapshot),
    (Committer, "commit", commit),
)
"""The methods that hand over, and what checks each."""
_bound: dict[tuple[type[Any], str], Any] = {}


def bind() -> None:
    """Check each hand-over of this process from now on. Objects made before keep what they have looked up."""
    if _bound:
        return
    for owner, name, checked in PAIRS:
        method = getattr(owner, name)
        _bound[owner, name] = owner.__dict__.get(name)
        setattr(owner, name, functools.wraps(method)(checked(method)))


def unbind() -> None:
    """Put the methods back: for tests that plant what these assertions would see first."""
    for (owner, name), own in _bound.items():
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
    _bound.clear()
