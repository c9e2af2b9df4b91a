"""Sends that do not happen, and what they may not cost: real `Sends`, no Kafka."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import threading
from typing import Any, cast

import pytest
from confluent_kafka import TopicPartition

from kafka_notify import (
    Attempt,
    CircuitBreaker,
    Consumer,
    Notification,
    RateLimit,
    Receipt,
    Skip,
    TransientError,
    events,
)
from kafka_notify._base.clock import Clock
from kafka_notify._fetch.committer import MAX_COMMIT, parts
from kafka_notify._send import remember
from kafka_notify._send.pace import SharedPace
from kafka_notify._wire.send_key import SendKey
from kafka_notify.codec import CodecContext, JsonCodec
from kafka_notify.errors import CodecUnavailableError
from kafka_notify.limits import Grant, Quota, SeenInMemory, SeenStore
from kafka_notify.wire import encode, read_retry
from tests.unit.send.sends_alone import Alone, Record


class Accepting(Consumer):
    """Accepts everything that its `failing` does not name."""

    def __init__(self, *failing: str) -> None:
        self.failing = set(failing)
        self.sent: list[str] = []

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        if notification.data["name"] in self.failing:
            raise TransientError("busy", retry_after=3_600)
        self.sent.append(notification.data["name"])
        return Receipt("p")


def note(name: str, user: str = "", **fields: Any) -> Notification[Any]:
    return Notification(user_id=user or name, category="otp", channel="sms", data={"name": name}, **fields)


def expired(name: str, user: str = "", **fields: Any) -> Notification[Any]:
    then = dt.datetime.now(dt.timezone.utc) - dt.timedelta(hours=1)
    return note(name, user, created_at=then, expires_at=then + dt.timedelta(minutes=1), **fields)


def undecodable(notification: Notification[Any]) -> Record:
    key, _, headers = encode(notification, JsonCodec(), "source", None)
    return Record(key, b"no JSON", headers)


def skipped(alone: Alone) -> list[str]:
    return [event.reason for event in alone.events if isinstance(event, events.NotificationSkipped)]


# -- a shared rate limit ---------------------------------------------------------------------------------


class Counting:
    """A limiter that grants ten calls in all."""

    def __init__(self) -> None:
        self.left = 10

    async def take(self, wanted: int, quota: Quota) -> Grant:
        calls = min(wanted, self.left)
        self.left -= calls
        return Grant(calls, 3_600.0)

    async def close(self) -> None:
        """Nothing to close."""


def shared(consumer: Consumer, limiter: Any, clock: Clock) -> Alone:
    """A worker under a shared limit, which goes by a clock of its own."""
    limit = RateLimit(1_000, shared=limiter)
    quota, loop = limit.quota("l", ""), asyncio.get_running_loop()
    return Alone(consumer, pace=lambda _, kick: SharedPace(limiter, quota, limit, 1.0, loop, clock, kick))


async def test_what_reaches_no_provider_costs_no_call_of_a_shared_limit() -> None:
    """Four hundred that have expired use up none of the ten calls that are left. Time stands still, so that no grant
    grows old."""
    consumer, limiter = Accepting(), Counting()
    alone = shared(consumer, limiter, Clock(monotonic=lambda: 5.0))
    for n in range(400):
        alone.put(expired(f"old {n}"))
    for n in range(10):
        alone.put(note(f"new {n}"))
    await alone.until(lambda: len(consumer.sent) == 10)
    assert alone.sends.counts.expired == 400
    await alone.close()


@pytest.mark.parametrize(
    "grant",
    [None, Grant(None, 1), Grant(3, float("nan")), Grant("x", 1), Grant(10**9, "soon")],  # type: ignore[arg-type]
)
async def test_a_limiter_that_says_nonsense_is_away(grant: Any) -> None:
    """The worker uses its static share, and goes on."""

    class Nonsense(Counting):
        async def take(self, wanted: int, quota: Quota) -> Grant:
            return grant  # type: ignore[no-any-return]

    consumer = Accepting()
    alone = shared(consumer, Nonsense(), Clock())
    assert alone.sends.pace is not None
    alone.sends.pace.set_share(1, 1)
    alone.put(note("a"))
    await alone.until(lambda: consumer.sent == ["a"])
    assert alone.failed == []
    await alone.close()


# -- collapse keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", ["expired", "undecodable"])
@pytest.mark.parametrize("waits", [True, False])
async def test_what_will_not_be_sent_supersedes_nobody(later: str, waits: bool) -> None:
    """An older one is sent, or goes on waiting for its retry, when the newer one has expired or cannot be decoded."""
    consumer = Accepting("old") if waits else Accepting()
    alone = Alone(consumer)
    if waits:
        alone.put(note("old", "u", collapse_key="k"))
        await alone.until(lambda: alone.sends.counts.retried == 1 and alone.partition.open == 0)
    else:
        alone.put(note("first", "u"))
        alone.put(note("old", "u", collapse_key="k"))
    new = expired("new", "u", collapse_key="k") if later == "expired" else note("new", "u", collapse_key="k")
    if later == "expired":
        alone.put(new)
    else:
        alone.put_record(undecodable(new))
    alone.put(note("other"))
    await alone.until(lambda: "other" in consumer.sent)
    if waits:
        # nothing tells that it goes on waiting; a better one still supersedes it, which tells that it was there
        alone.put(note("good", "u", collapse_key="k"))
        await alone.until(lambda: "good" in consumer.sent)
        assert skipped(alone) == ["superseded"]
        assert consumer.sent == ["other", "good"]
    else:
        await alone.until(lambda: "old" in consumer.sent)
        assert skipped(alone) == []
    await alone.until(lambda: alone.sends.counts.expired + alone.sends.counts.dead == 1)
    await alone.close()


# -- remembered ids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["seen", "add", "both"])
async def test_a_store_that_hangs_neither_repeats_nor_delays_for_long(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted is accepted, also when the deadline passes while the store is told; then the store is left alone."""

    class Hanging:
        async def seen(self, id: str) -> bool:
            calls.append("seen")
            if what != "add":
                await asyncio.Event().wait()
            return False

        async def add(self, id: str) -> None:
            calls.append("add")
            if what != "seen":
                await asyncio.Event().wait()

    monkeypatch.setattr(remember, "PATIENCE", 0.05)
    calls: list[str] = []
    consumer = Accepting()
    consumer.dedupe = cast(SeenStore, Hanging())
    alone = Alone(consumer, send_timeout=0.02 if what == "add" else 30.0)
    for name in ("a", "b"):
        alone.put(note(name, "u"))
    await alone.until(lambda: alone.sends.counts.sent == 2)
    assert consumer.sent == ["a", "b"]
    assert alone.sends.counts.unknown == 0
    assert calls.count("seen") == (2 if what == "add" else 1)
    await alone.close()


async def test_an_id_alone_does_not_make_two_users_notifications_one() -> None:
    """A producer that gives another user's notification the same id neither has that one skipped nor gets its key; the
    same id of the same user is skipped."""
    keys: list[str] = []

    class Once(Accepting):
        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            keys.append(attempt.idempotency_key)
            return await super().send(notification, attempt)

    consumer = Once()
    consumer.dedupe = SeenInMemory()
    alone = Alone(consumer)
    alone.put(note("first", "eve", id="same"))
    await alone.until(lambda: len(consumer.sent) == 1)
    alone.put(note("second", "ada", id="same"))
    alone.put(note("again", "ada", id="same"))
    alone.put(note("last", "ada", id="other"))
    await alone.until(lambda: len(consumer.sent) == 3)
    assert consumer.sent == ["first", "second", "last"]
    assert len(set(keys)) == 3
    assert keys[1] == str(SendKey("group", "ada", "same"))
    await alone.close()


# -- a codec whose service is away -----------------------------------------------------------------------


class Registry(JsonCodec):
    """A codec that cannot decode now what `unknown` names."""

    def __init__(self, *unknown: str) -> None:
        self.unknown = set(unknown)
        self.asked: list[str] = []

    def decode(self, value: bytes, context: CodecContext, /) -> Any:
        data = super().decode(value, context)
        self.asked.append(data["name"])
        if data["name"] in self.unknown or "all" in self.unknown:
            raise CodecUnavailableError("the registry is away")
        return data


async def test_a_record_that_alone_cannot_be_decoded_holds_nobody() -> None:
    """It waits in the retry topic, its user's later ones behind it, and no attempt is counted; others are sent."""
    consumer, codec = Accepting(), Registry("odd")
    alone = Alone(consumer, codec=codec)
    alone.put(note("odd", "u"))
    alone.put(note("behind", "u"))
    for n in range(5):
        alone.put(note(f"n{n}"))
    await alone.until(lambda: len(consumer.sent) == 5)
    assert not alone.sends.guard.lane.held
    await alone.until(lambda: len(alone.written) == 2)
    state = read_retry(alone.written[0][1], "source", 0)
    assert state is not None
    assert (state.history.attempts, state.history.error_code) == (0, "codec_unavailable")

    codec.unknown.clear()
    await alone.until(lambda: len(consumer.sent) == 7)
    assert consumer.sent[-2:] == ["odd", "behind"]
    await alone.close()


async def test_a_codec_that_decodes_nothing_holds_the_lane_and_its_probes_rotate() -> None:
    """When those of three users in a row cannot be decoded, the lane waits; each probe is another record."""
    consumer, codec = Accepting(), Registry("all")
    consumer.breaker = CircuitBreaker(initial_wait=0.02, max_wait=0.02)
    alone = Alone(consumer, codec=codec)
    for n in range(12):
        alone.put(note(f"n{n}"))
    await alone.until(lambda: alone.sends.guard.lane.held)
    assert len(codec.asked) == 3
    await alone.until(lambda: len(set(codec.asked)) >= 6)
    assert len(alone.written) < 12  # what waits stays where it is
    codec.unknown.clear()
    await alone.until(lambda: len(consumer.sent) == 12)
    assert alone.sends.counts.dead == 0
    await alone.close()


# -- one commit request ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, 4_095])
@pytest.mark.parametrize("pairs", [1, 30, 400])
def test_a_commit_is_split_between_pairs(size: int, pairs: int) -> None:
    """No request is too large for the brokers, and both halves of a pair travel together."""
    topics = ("source", "retry")
    offsets = [TopicPartition(topic, n, 1, "x" * size) for n in range(pairs) for topic in topics]
    made = list(parts(offsets))
    assert [tp for part in made for tp in part] == offsets
    for part in made:
        assert sum(len(tp.metadata or "") for tp in part) <= MAX_COMMIT
        assert [tp.topic for tp in part] == list(topics) * (len(part) // 2)
    assert len(made) == 1 or size == 4_095


# -- sends that hang -------------------------------------------------------------------------------------


async def test_hanging_threads_are_bounded_and_the_worker_says_so() -> None:
    """When twice as many sends hang as may run at once nothing more starts; it goes on once they return."""

    class Hanging(Consumer):
        concurrency = 2
        breaker = None

        def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            begun.append(notification.user_id)
            release.wait()
            return Receipt("p")

    begun: list[str] = []
    release = threading.Event()
    alone = Alone(Hanging(), send_timeout=0.2)
    sends, slots = alone.sends, alone.sends.slots
    for n in range(10):
        alone.put(note(f"u{n}"))
    await alone.until(lambda: slots.stuck() == 4 and not slots.in_flight())
    for _ in range(20):
        alone.turn()
        await asyncio.sleep(0)
    assert slots.allowed() == 0
    assert len(begun) == len(set(begun)) == alone.threads._threads == 4

    release.set()
    await alone.until(lambda: sends.counts.sent == 10)
    assert (slots.stuck(), slots.allowed()) == (0, 2)
    await alone.close()


class Raises(JsonCodec):
    """A codec that fails as it is told."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def decode(self, value: bytes, context: CodecContext, /) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError(), SystemExit(), CodecUnavailableError("")], ids=lambda e: type(e).__name__
)
async def test_nothing_is_written_while_an_exception_is_handled(error: BaseException) -> None:
    """A client that refuses a record keeps the exception that is being handled for ever, with the frames in its
    traceback, and so the notification: what cannot be decoded is settled after that."""
    alone = Alone(Accepting(), codec=Raises(error))
    alone.put(note("n"))
    await alone.until(lambda: alone.written)
    assert alone.handled == [None]


class Skipping(Accepting):
    """Wants none of it."""

    def should_send(self, notification: Notification[Any]) -> Skip:
        return Skip("unwanted")


async def test_what_is_skipped_makes_room() -> None:
    """As what is sent does: else a partition reads on with the next tick only."""
    alone = Alone(Skipping())
    for n in range(5):
        alone.put(note(f"n{n}"))
    await alone.until(lambda: alone.sends.counts.skipped == 5)
    assert alone.room == [alone.partition] * 5
    await alone.close()


class Broken(Accepting):
    """Has a bug, in the sender or in a hook."""

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        if notification.data["name"] == "bug":
            raise KeyError("+49 170 1234567")
        return await super().send(notification, attempt)

    def on_sent(self, notification: Notification[Any], receipt: Receipt) -> None:
        raise LookupError("someone@example.com")


async def test_a_bug_is_logged_by_class_and_frames(caplog: pytest.LogCaptureFixture) -> None:
    """File, line and function of a sender's or hook's exception, once however often it fails; never what it says."""
    alone = Alone(Broken())
    for n in range(20):
        alone.put(note("bug", f"u{n}"))
    alone.put(note("fine"))
    await alone.until(lambda: alone.sends.counts.dead == 20 and alone.sends.counts.sent == 1)
    await alone.until(lambda: "LookupError" in caplog.text)  # the hook runs after the send was counted
    (sender,) = [text for text in caplog.messages if "KeyError" in text]
    (hook,) = [text for text in caplog.messages if "LookupError" in text]
    assert f"{__file__}:" in sender
    assert " in send" in sender
    assert hook.startswith("on_sent raised LookupError at ")
    assert " in on_sent" in hook
    assert "1234567" not in caplog.text
    assert "example.com" not in caplog.text
    await alone.close()


class HangingHook(Accepting):
    """A plain `on_sent` that hangs until it is let go; sends of "slow" last for ever, and can be cancelled."""

    concurrency = 1  # one task makes all sends

    def __init__(self) -> None:
        super().__init__()
        self.hook_ends = threading.Event()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        if notification.data["name"] == "slow":
            await asyncio.Event().wait()
        return await super().send(notification, attempt)

    def on_sent(self, notification: Notification[Any], receipt: Receipt) -> None:
        if notification.data["name"] == "first":
            self.hook_ends.wait()


async def test_a_hook_that_hangs_is_not_taken_for_a_send() -> None:
    """A later send of the same task that outlives its deadline has ended: its user goes on while the hook hangs.
    Once the hook returns, nothing is kept of it."""
    consumer = HangingHook()
    alone = Alone(consumer, send_timeout=0.5, max_attempts=1)
    try:
        alone.put(note("first", "a"))
        await alone.until(lambda: alone.sends.counts.sent == 1 and alone.partition.open == 0)
        alone.put(note("slow", "b"))
        await alone.until(lambda: alone.sends.counts.unknown == 1)
        alone.put(note("next", "b"))
        await alone.until(lambda: "next" in consumer.sent)
        assert alone.sends.slots.stuck() == 1
    finally:
        consumer.hook_ends.set()
    await alone.until(lambda: alone.sends.slots.stuck() == 0)
    assert not alone.threads._given_up
    await alone.close()


class Cancelled(Accepting):
    """Sends of "slow" outlive their deadline and end with their cancellation, those of "stubborn" swallow it, and those
    of "own" cancel the task they run in. Notes how often that is asked to end at the start of each send."""

    concurrency = 1  # one task makes all sends

    def __init__(self) -> None:
        super().__init__()
        self.tasks: set[asyncio.Task[Any] | None] = set()
        self.cancelling: list[int] = []
        self.ended: list[str] = []

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        task: Any = asyncio.current_task()
        self.tasks.add(task)
        self.cancelling.append(getattr(task, "cancelling", int)())  # new in Python 3.11
        name = notification.data["name"]
        if name == "own":
            task.cancel()
        elif name != "next":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.ended.append(name)
                if name == "slow":
                    raise
        if name == "next":
            await asyncio.sleep(0)
        return await super().send(notification, attempt)


NEEDS_UNCANCEL = pytest.mark.skipif(sys.version_info < (3, 11), reason="before, a task cannot know of it")


@pytest.mark.parametrize("name", ["slow", "stubborn", pytest.param("own", marks=NEEDS_UNCANCEL)])
async def test_a_cancelled_send_leaves_no_cancellation_behind(name: str) -> None:
    """Whatever a sender made of it, the next send of the same task is not asked to end, and none of its waits does:
    `asyncio.timeout` would take the one for the other."""
    consumer = Cancelled()
    alone = Alone(consumer, send_timeout=0.5 if name != "own" else 30.0, max_attempts=1)
    alone.put(note(name))
    alone.put(note("next"))
    await alone.until(lambda: "next" in consumer.sent)
    await alone.until(lambda: alone.partition.open == 0)
    assert consumer.cancelling == [0, 0]
    assert consumer.ended == [] if name == "own" else [name]
    assert len(consumer.tasks) == 1
    assert alone.sends.counts.sent == (1 if name == "slow" else 2)
    assert not alone.failed
    await alone.close()


async def test_a_send_that_a_hand_over_interrupts_is_no_attempt() -> None:
    """Its notification stays as it was, for the partition's next owner: nothing is written or finished."""
    started, ended = asyncio.Event(), asyncio.Event()

    class Slow(Accepting):
        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return await super().send(notification, attempt)

    alone = Alone(Slow(), max_attempts=1)
    try:
        alone.put(note("slow"))
        await alone.until(started.is_set)
        alone.partition.closing = True
        alone.sends.slots.cancel(lambda p: p is alone.partition)
        await alone.until(lambda: ended.is_set() and not alone.partition.outstanding)
        counts = alone.sends.counts
        assert (counts.sent, counts.retried, counts.dead, counts.unknown) == (0, 0, 0, 0)
        assert alone.written == []
        assert alone.partition.snapshot()[0].frontier == 0
    finally:
        await alone.close()
