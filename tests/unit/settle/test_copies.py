"""Copies are written until the broker has them."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from kafka_notify import events
from kafka_notify._kafka.handle import HandleDead, RecordTooLarge
from kafka_notify._settle import copies
from kafka_notify._settle.copies import FITS_EVERYWHERE, Copy, CopyWriter


class Report:
    """What a delivery report carries."""

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def offset(self) -> int | None:
        return self._offset


class Refusal:
    """Stands for a KafkaError."""

    def name(self) -> str:
        return "NOT_ENOUGH_REPLICAS"


class ScriptedHandle:
    """Answers each produce with the next line of a script: an offset, None (no offset), or what goes wrong."""

    def __init__(self, *script: object) -> None:
        self.script = iter(script)
        self.produced = 0

    def produce(
        self,
        topic: str,
        value: Any,
        key: Any,
        headers: Any,
        partition: int = -1,
        timestamp: int = 0,
        on_delivery: Callable[[Any, Any], None] | None = None,
    ) -> None:
        self.produced += 1
        answer = next(self.script)
        if isinstance(answer, Exception):
            raise answer
        assert on_delivery is not None
        if isinstance(answer, Refusal):
            on_delivery(answer, Report(None))
        else:
            on_delivery(None, Report(answer))  # type: ignore[arg-type]


class Told(Copy):
    """A copy that calls what it was given."""

    def __init__(
        self,
        topic: str,
        wanted: Callable[[], bool],
        done: Callable[[int], object],
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(topic, 3, b"u", b"v", [])
        self._wanted, self._done, self._failed = wanted, done, failed

    def wanted(self) -> bool:
        return self._wanted()

    def acknowledged(self, offset: int) -> None:
        self._done(offset)

    def failed(self) -> None:
        self._failed()

    def abandon(self) -> None:
        super().abandon()
        del self._wanted, self._done, self._failed


class Outliving(Told):
    """One whose answer matters also after its assignment has ended."""

    outlives = True


class Large(Told):
    """One that becomes smaller, or ends."""

    gives_way = True

    def __init__(
        self,
        *sizes: int,
        done: Callable[[int], object] = lambda at: None,
        ended: asyncio.Event | None = None,
    ) -> None:
        super().__init__("d", lambda: True, done)
        self._ended = ended or asyncio.Event()
        self._sizes = list(sizes)
        self.value = bytes(self._sizes.pop(0))

    def too_large(self) -> bool:
        if not self._sizes:
            self._ended.set()
            return False
        self.value = bytes(self._sizes.pop(0))
        return True


class Endless(Large):
    """One that does neither."""

    gives_way = False


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "FIRST_BACKOFF", 0.0)


async def written(
    handle: ScriptedHandle,
    *,
    wanted: Callable[[], bool] = lambda: True,
    reopen: Callable[[], ScriptedHandle] | None = None,
    on_event: events.OnEvent | None = None,
) -> tuple[int, int, CopyWriter]:
    """Write one copy; its offset, how often it failed before, and the writer."""
    loop = asyncio.get_running_loop()
    writer = CopyWriter(handle, loop, on_event, reopen=reopen or (lambda: handle))
    done: asyncio.Future[int] = loop.create_future()
    failures = itertools.count()
    failed = 0

    def count() -> None:
        nonlocal failed
        failed = next(failures) + 1

    writer.write(Told("notif.retry.a", wanted, done.set_result, count))
    return await asyncio.wait_for(done, 10), failed, writer


async def test_tells_the_offset_when_acknowledged() -> None:
    """An acknowledged copy is done, once."""
    offset, failed, writer = await written(ScriptedHandle(42))

    assert (offset, failed, writer.failing) == (42, 0, 0)


async def test_writes_again_until_acknowledged() -> None:
    """A refused copy is written again and told as failed each time; nothing counts as done before."""
    seen: list[events.Event] = []

    offset, failed, writer = await written(ScriptedHandle(Refusal(), Refusal(), 7), on_event=seen.append)

    assert (offset, failed, writer.failing) == (7, 2, 0)
    assert [e.failures for e in seen if isinstance(e, events.CopyFailed)] == [1, 2]
    assert all(isinstance(e, events.CopyFailed) and e.reason == "NOT_ENOUGH_REPLICAS" for e in seen)


async def test_an_acknowledgement_without_offset_is_written_again() -> None:
    """Without its offset a copy could not be completed later, so another one is written."""
    offset, failed, _ = await written(ScriptedHandle(None, -1001, 9))

    assert (offset, failed) == (9, 2)


async def test_retention_counts_from_the_write_of_a_copy() -> None:
    """A copy is as old as its write: with another time, retention would remove it before it is due."""
    times: list[int] = []

    class Timed(ScriptedHandle):
        """Notes the times that it is given; 0 is the time of the write."""

        def produce(self, *args: Any, timestamp: int = 0, **named: Any) -> None:
            times.append(timestamp)
            super().produce(*args, **named)

    await written(Timed(Refusal(), 7))

    assert times == [0, 0]


async def test_a_full_queue_is_no_failure() -> None:
    """Back-pressure of the producer only delays a copy."""
    offset, failed, _ = await written(ScriptedHandle(BufferError(), 5))

    assert (offset, failed) == (5, 0)


async def test_a_dead_handle_is_replaced() -> None:
    """After a fatal producer error the copy goes through a new handle."""
    second = ScriptedHandle(11)

    offset, failed, _ = await written(ScriptedHandle(HandleDead("fatal")), reopen=lambda: second)

    assert (offset, failed, second.produced) == (11, 1, 1)


async def test_gives_up_only_when_nobody_wants_it() -> None:
    """When the assignment has ended, a failed copy is not written again and not counted as failing."""
    handle = ScriptedHandle(Refusal(), 1)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(written(handle, wanted=lambda: False), 0.2)

    assert handle.produced == 1


async def test_an_assignment_that_has_ended_keeps_nothing() -> None:
    """What is kept for the answer to a copy goes with the assignment, whether the copy lies in the client's queue or
    waits to be written again; the answer of a dead letter is still awaited, as somebody is told of it."""

    class Payload:
        """Can be watched."""

    class SilentHandle(ScriptedHandle):
        """Answers when it is told to."""

        count = 0

        def produce(
            self, *args: Any, on_delivery: Callable[[Any, Any], None] | None = None, **_: Any
        ) -> None:
            self.count += 1
            assert on_delivery is not None
            reports.append(on_delivery)

    reports: list[Callable[[Any, Any], None]] = []
    alive, done, letter, failure = (
        True,
        list[int](),
        asyncio.get_running_loop().create_future(),
        asyncio.Event(),
    )
    handle = SilentHandle()
    writer = CopyWriter(handle, asyncio.get_running_loop(), None, reopen=lambda: handle)
    payloads = [Payload(), Payload()]
    seen = [weakref.ref(one) for one in payloads]

    def write(payload: Payload) -> None:
        writer.write(Told("r", lambda: alive, lambda at: done.append((payload, at)[1]), failure.set))

    write(payloads[0])
    write(payloads[1])
    writer.write(Outliving("d", lambda: alive, letter.set_result))
    payloads.clear()
    reports[1](Refusal(), Report(None))
    await failure.wait()
    writer.give_up()
    assert [ref() is None for ref in seen] == [False, False]
    alive = False
    writer.give_up()
    assert [ref() is None for ref in seen] == [True, True]
    reports[0](None, Report(1))
    reports[2](None, Report(2))
    assert (await letter, done, handle.count) == (2, [], 3)


async def test_one_that_no_topic_has_to_take_becomes_smaller() -> None:
    """It is asked only for its size, and only beyond what every topic takes; then it is written again at once."""
    handle = ScriptedHandle(RecordTooLarge("large"), RecordTooLarge("large"), 8)
    writer = CopyWriter(handle, asyncio.get_running_loop(), None, reopen=lambda: handle)
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    copy = Large(FITS_EVERYWHERE + 1, FITS_EVERYWHERE - 100, done=done.set_result)

    writer.write(copy)

    assert (await done, handle.produced, len(copy.value or b"")) == (8, 3, FITS_EVERYWHERE - 100)
    assert writer.failing == 0


async def test_one_that_ends_as_too_large_is_not_failing_any_more() -> None:
    """Something else is written instead of it."""
    handle = ScriptedHandle(RecordTooLarge("large"))
    writer = CopyWriter(handle, asyncio.get_running_loop(), None, reopen=lambda: handle)

    ended = asyncio.Event()
    writer.write(Large(FITS_EVERYWHERE + 1, ended=ended))
    assert writer.failing == 1
    await ended.wait()

    assert (writer.failing, handle.produced) == (0, 1)


async def test_one_that_does_not_give_way_is_written_again_as_it_is() -> None:
    """A copy that is carried fitted before: somebody lowered the topic's limit."""
    handle = ScriptedHandle(RecordTooLarge("large"), 4)
    writer = CopyWriter(handle, asyncio.get_running_loop(), None, reopen=lambda: handle)
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    writer.write(Endless(FITS_EVERYWHERE + 1, 1, done=done.set_result))

    assert (await done, handle.produced) == (4, 2)
