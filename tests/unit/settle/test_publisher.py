"""What is written of a notification that was not sent, and what follows once the broker has it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from kafka_notify import Notification, TransientError, events
from kafka_notify._decision.what_follows import TryAgain
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._settle.copies import Copy, CopyWriter
from kafka_notify._settle.publisher import CopyPublisher
from kafka_notify._wire.dead_letter import DeadLetter
from kafka_notify._wire.fields import MAX_USER_ID_BYTES
from kafka_notify.outcome import Retry
from kafka_notify.wire import Headers, History, read_dead_letter, read_retry
from tests.unit.settle.publishing import NOW, publishing

HEADERS: Headers = [("notif-category", b"news"), ("notif-channel", b"sms"), ("team", b"x")]
FAILURE = TransientError("http.503", provider="acme")


class Record:
    """A record as the broker gives it."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes:
        return b'{"a": 1}'

    def headers(self) -> Headers:
        return list(HEADERS)

    def timestamp(self) -> tuple[int, int]:
        return 1, NOW


class Partition:
    """What a copy asks of an assignment."""

    def __init__(self) -> None:
        self.number, self.topic_id, self.writer = 2, "", "w"
        self.alive, self.outstanding = True, 0
        self.lives: list[RetryRecord] = []
        self.finished: list[bool] = []

    def copying(self, entry: Entry) -> None:
        entry.busy = Busy.COPYING

    def dead_lettering(self, entry: Entry) -> None:
        entry.busy = Busy.DEAD_LETTERING

    def copied(self, entry: Entry, held: RetryRecord, now: int) -> None:
        self.lives.append(held)

    def finish(self, entry: Entry, *, accepted: bool, now: int) -> None:
        self.finished.append(accepted)


class World:
    """A publisher whose writer keeps what it is given: the test says what the broker does."""

    def __init__(self, *, hook: bool = False, key: bytes = b"u") -> None:
        self.written: list[Copy] = []
        self.events: list[events.Event] = []
        self.letters: list[DeadLetter] = []
        self.tasks: list[Coroutine[Any, Any, None]] = []
        self.partition = Partition()
        self.lane = UserQueue(cast(Any, self.partition), b"u")
        self.entry = Entry(self.lane, 7, cast(Any, Record(key)), list(HEADERS), 100)
        self.note: Notification[Any] = Notification(
            user_id="u", category="news", channel="sms", data={"a": 1}
        )
        context = publishing(on_event=self.events.append)
        writer = cast(CopyWriter, self)
        self.publisher = CopyPublisher(context, writer, self.told if hook else None, self.tasks.append)

    def write(self, copy: Copy) -> None:
        self.written.append(copy)

    async def told(self, letter: DeadLetter) -> None:
        self.letters.append(letter)
        assert self.partition.finished == []
        if letter.error_code == "raises":
            raise RuntimeError

    def retried(self) -> Copy:
        """The copy of a failed attempt."""
        history = History().waiting(FAILURE, NOW, None, counted=True)
        decision = TryAgain(Retry(2.0, True, FAILURE), history, NOW + 2_000)
        self.publisher.try_again(self.entry, self.note, decision)
        return self.written[-1]

    def dead(self, code: str | None = None) -> Copy:
        """Its dead letter."""
        self.publisher.dead_letter(self.entry, "permanent", self.note, code=code)
        return self.written[-1]


def test_a_retry_lives_in_its_copy_once_the_broker_has_it() -> None:
    """Not before: the source record stays open, and a hand-over waits for the answer."""
    world = World()
    copy = world.retried()
    state = read_retry(copy.headers, "source", 2)
    assert state is not None
    assert (copy.topic, copy.partition, copy.value) == ("retry", 2, b'{"a": 1}')
    assert (state.origin.offset, state.due_ms) == (7, NOW + 2_000)
    assert (state.history.attempts, state.history.error_code) == (1, "http.503")
    assert (world.partition.outstanding, world.partition.lives, world.events) == (1, [], [])

    copy.acknowledged(33)
    [held] = world.partition.lives
    assert (held.at, held.history, world.partition.outstanding) == (33, state.history, 0)
    assert held.history.provider == "acme"
    [told] = world.events
    assert isinstance(told, events.RetryScheduled)


def test_a_try_that_failed_may_have_been_written() -> None:
    """Its orphan has to be read before a send."""
    world = World()
    copy = world.retried()
    copy.failed()
    copy.acknowledged(34)

    assert world.partition.lives[0].tainted


def test_a_retry_that_no_topic_takes_is_dead_lettered() -> None:
    """The letter says what the copy would have said; the copy ends."""
    world = World()
    assert not world.retried().too_large()
    letter = world.written[-1]
    state = read_dead_letter(letter.headers)
    assert state is not None
    assert (letter.topic, state.reason, state.history.error_code, state.history.attempts) == (
        "dlq",
        "permanent",
        "record_too_large",
        1,
    )
    assert world.partition.outstanding == 1

    letter.acknowledged(1)
    assert (world.partition.outstanding, world.partition.finished) == (0, [False])


def test_a_carried_copy_does_not_give_way() -> None:
    """It fitted before: it is written again until somebody raises the limit that was lowered."""
    world = World()
    world.entry.retry = RetryRecord(5, NOW, None, "id", NOW)
    world.publisher.carry(world.entry)

    assert (world.retried().gives_way, world.written[0].gives_way) == (True, False)


@pytest.mark.parametrize("made", ["retried", "dead"])
def test_nothing_follows_for_an_assignment_that_has_ended(made: str) -> None:
    """Whoever has the partition now does it again."""
    world = World()
    copy = getattr(world, made)()
    assert copy.wanted()
    world.partition.alive = False
    assert not copy.wanted()
    assert not copy.too_large()
    copy.acknowledged(1)

    assert (world.partition.lives, world.partition.finished, len(world.written)) == ([], [], 1)


def kept(copy: Copy) -> tuple[bytes | None, bytes | None, bool]:
    """Its key, its value, and whether it has the record's own headers."""
    return copy.key, copy.value, ("team", b"x") in copy.headers


def test_a_dead_letter_becomes_smaller() -> None:
    """Without its value first, then without the record's own headers; what fits everywhere is the last form."""
    world = World()
    letter = world.dead()
    assert kept(letter) == (b"u", b'{"a": 1}', True)
    assert letter.too_large()
    assert kept(letter) == (b"u", None, True)
    assert letter.too_large()
    assert kept(letter) == (b"u", None, False)
    state = read_dead_letter(letter.headers)
    assert state is not None
    assert state.history.error_code == "record_too_large"
    assert world.partition.outstanding == 1


def test_a_key_that_is_no_user_id_is_left_out_in_the_end() -> None:
    """It may be of any length."""
    world = World(key=bytes(MAX_USER_ID_BYTES + 1))
    letter = world.dead()
    letter.too_large()
    assert letter.key
    letter.too_large()
    assert letter.key is None


def test_a_dead_letter_goes_where_its_key_belongs() -> None:
    """The dead-letter topic may have fewer partitions than the source: no number is copied from there."""
    letter = World().dead()

    assert (letter.topic, letter.partition, letter.key) == ("dlq", -1, b"u")


def test_a_dead_letter_is_told_and_finishes_its_entry() -> None:
    """Once the broker has it."""
    world = World()
    letter = world.dead()
    assert (world.events, world.partition.finished, world.entry.busy) == ([], [], Busy.DEAD_LETTERING)
    letter.acknowledged(9)

    assert [type(event) for event in world.events] == [events.DeadLettered]
    assert (world.partition.finished, world.partition.outstanding) == ([False], 0)


@pytest.mark.parametrize("code", [None, "raises"])
async def test_the_hook_is_told_before_the_entry_is_finished(code: str | None) -> None:
    """At least once: a crash in between tells it again. Whatever it does, the entry is finished."""
    world = World(hook=True)
    world.dead(code).acknowledged(9)
    assert world.partition.finished == []
    [result] = await asyncio.gather(*world.tasks, return_exceptions=True)

    assert isinstance(result, RuntimeError) is (code == "raises")
    assert [(letter.offset, letter.reason) for letter in world.letters] == [(9, "permanent")]
    assert (world.partition.finished, world.partition.outstanding) == ([False], 0)


def test_what_is_abandoned_keeps_nothing_alive() -> None:
    """librdkafka may have it for long."""
    world = World()
    copy: Any = world.retried()
    copy.abandon()

    assert (copy.key, copy.value, copy.headers) == (None, None, [])
    assert not any(hasattr(copy, name) for name in ("entry", "held", "notification"))
