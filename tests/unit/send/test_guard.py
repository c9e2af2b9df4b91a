"""What becomes of circuits' decisions: outcomes, what waits, and events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from kafka_notify import (
    CircuitBreaker,
    Notification,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    events,
)
from kafka_notify._base import codes
from kafka_notify._decision.circuit import DAY
from kafka_notify._decision.destinations import FAILURES, Circuits, Destinations
from kafka_notify._decision.put_aside import FAR
from kafka_notify._decision.reserve import EACH, LONGEST
from kafka_notify._decision.what_follows import Rules, decide
from kafka_notify._partition.entry import Busy
from kafka_notify._send.admission import OVERDUE
from kafka_notify._send.guard import Guard
from kafka_notify._send.place import Place, Senders
from kafka_notify.outcome import Dead, Outcome, Retry
from kafka_notify.wire import History

DEFAULT = CircuitBreaker()


class Thing:
    """One like an entry or a lane."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


class Partition:
    """What a guard asks of one."""

    def __init__(self) -> None:
        self.alive, self.closing, self.number = True, False, 0
        self.source = SimpleNamespace(position=0)
        self.stepped: list[Any] = []

    def pause(self, entry: Any, now: int) -> None:
        entry.queue.paused, entry.busy = entry, Busy.NO if entry.retry else Busy.COPYING

    def unpause(self, lane: Any, now: int) -> None:
        lane.paused = None
        self.stepped.append(lane)


class World:
    """A guard, and what it did."""

    def __init__(
        self, destination: Callable[[Notification[Any]], str | None] | None = None, *, channels: bool = False,
        concurrency: int = 8, max_wait: float | None = None,
    ) -> None:  # fmt: skip
        destinations: Destinations[Any] | None = None
        if destination is not None or channels:
            destinations = Destinations(DEFAULT, concurrency, None, named=destination is not None)
        self.now = 1_000.0
        self.clock = SimpleNamespace(monotonic=lambda: self.now, now=lambda: int(self.now * 1000))
        self.partition = Partition()
        self.ready: list[Any] = []
        self.copies: list[Any] = []
        self.told: list[events.Event] = []
        self.places: list[Place] = []
        self.kicks = self.throttles = self.chosen = 0
        context: Any = SimpleNamespace(
            retry=SimpleNamespace(max_attempts=4, max_wait=max_wait), concurrency=concurrency,
            loop=asyncio.get_running_loop(), clock=self.clock, on_event=self.told.append,
        )  # fmt: skip
        publisher: Any = SimpleNamespace(pause=lambda entry, n, code: self.copies.append((entry, code)))
        ready: Any = SimpleNamespace(add=self.ready.append, choose_probe=self.choose_probe, row=1)
        circuits = Circuits(DEFAULT, self.now, concurrency, destinations)
        senders = Senders(self.places, lambda: 0, lambda n: 10.0 * n, self.throttle, self.kick)
        self.guard = Guard(context, circuits, destination, publisher, ready, senders)

    def choose_probe(self) -> None:
        self.chosen += 1

    def throttle(self) -> None:
        self.throttles += 1

    def kick(self) -> None:
        self.kicks += 1

    def judge(
        self, place: Place, entry: Any, made: Notification[Any], answer: Outcome
    ) -> tuple[Outcome, bool]:
        """What becomes of a notification that was not sent, and whether the provider was asked."""
        ruling, asked = self.guard.not_sent(place, entry, made, answer, self.now)
        rules = Rules(99, None, "retry")
        follows = decide(answer, entry.history, None, rules, self.clock.now(), None, ruling)
        return follows.outcome, asked

    def entry(self, user: str = "u", *, held: bool = False, channel: str = "sms", attempt: int = 0) -> Any:
        lane = Thing(partition=self.partition, paused=None)
        return Thing(
            queue=lane, partition=self.partition, key=user.encode(), busy=Busy.SENDING,
            retry=SimpleNamespace() if held else None, created=0,
            history=History(attempt, first_failed_ms=self.clock.now() if attempt else None),
            origin=0, size=100,
            headers=[("notif-channel", channel.encode())],
        )  # fmt: skip

    def send(
        self, answer: Outcome | None, user: str = "u", channel: str = "sms", **data: Any
    ) -> tuple[bool | Outcome, Outcome | None]:
        """One send, if it may start: what `admit` said, and what becomes of it."""
        entry, place = self.entry(user, channel=channel), Place()
        made = note(channel, **data)
        admitted = self.guard.admit(place, entry, made)
        if admitted is not True:
            return admitted, None
        outcome = answer
        if answer is None:
            self.guard.sent(place, entry, made, self.now)
        else:
            outcome, _ = self.judge(place, entry, made, answer)
        self.guard.leave(place)
        return True, outcome


def note(channel: str = "sms", **data: Any) -> Notification[Any]:
    """A notification without expiry."""
    return Notification(user_id="u", category="otp", channel=channel, data=data)


def failure(code: str = "http.503") -> Retry:
    return Retry(2.0, True, TransientError(code))


async def test_whoever_is_known_to_fail_is_no_probe_while_others_wait() -> None:
    """Also with a notification of theirs that was never tried."""
    world = World(destination=lambda n: "one")
    for n in range(FAILURES):
        world.send(failure(), f"bad{n}")
    world.send(failure(), "good")
    world.send(failure(), "bad0")
    destinations = world.guard._destinations
    assert destinations is not None
    (of,) = destinations.known.values()

    assert [entry.key for entry in of.fresh] == [b"good"]
    assert [entry.key for entry in of.tried] == [b"bad0"]


async def test_the_sends_of_a_channel_are_counted_while_it_is_held() -> None:
    """Those that were under way when it was held are known, and every place is given back."""
    world = World(channels=True)
    others = [Place() for _ in range(3)]
    for place, channel in zip(others, ("sms", "sms", "push"), strict=True):
        place.entry = world.entry(channel=channel)
        world.places.append(place)
    destinations = world.guard._destinations
    assert destinations is not None
    world.send(failure())
    assert [place.of for place in others] == [None, None, None]
    assert not world.guard.asks
    for n in range(DEFAULT.failures - 1):
        world.send(failure(), f"u{n}")
    (known,) = destinations.known.values()
    assert world.guard.asks
    assert (known.name, known.busy) == ("sms", 2)
    assert [place.of for place in others] == [known, known, None]
    for place in others:
        world.guard.leave(place)
    for n in range(20):
        world.send(failure(), f"u{n}")

    assert known.busy == 0
    assert [type(event) for event in world.told] == [events.DestinationHeld]
    assert world.send(None, channel="push") == (True, None)
    assert world.guard.problems()[0].startswith("1 channels unavailable, longest: http.503, held for 0 s")


async def test_accepted_sends_of_a_channel_count_although_no_circuit_is_told() -> None:
    """The next failure takes them off the channel's score, and no other channel's."""
    world = World(channels=True)
    for n in range(6):
        world.send(failure(), f"u{n}")
        world.send(failure(), f"u{n}", channel="push")
    for n in range(2):
        world.send(None, f"v{n}")
    destinations = world.guard._destinations
    assert destinations is not None
    for channel in ("sms", "push"):
        world.send(failure(), "w", channel=channel)
    scores = {name: known.circuit.score for name, known in destinations.known.items() if known.circuit}

    assert scores == {"sms": 1.0, "push": 7.0}


async def test_a_channel_that_works_again_asks_nobody() -> None:
    """Once as many may be sent to it as ever, its sends are not counted any more."""
    world = World(channels=True)
    for n in range(DEFAULT.failures):
        world.send(failure(), f"u{n}")
    waiting = world.entry("w")
    assert world.guard.admit(Place(), waiting, note()) is False
    n = 0
    while world.guard.asks:
        world.now += 1.0
        n += 1
        world.send(None, f"v{n}")
    place = Place()

    assert world.guard.admit(place, world.entry("x"), note()) is True
    assert place.of is None
    assert world.ready == [waiting]


async def test_what_waits_for_a_held_destination_is_one_copy() -> None:
    """Those that live in the source are copied once, but for the last few that never failed, and the others not at all;
    each is set off when it may be probed, those in memory first."""
    world = World(lambda n: n.data["host"])
    for n in range(FAILURES):
        world.send(failure(), f"u{n}", host="bad")
    first, tried = world.entry("a"), world.entry("b", held=True, attempt=1)
    last = [world.entry(f"c{n}") for n in range(EACH)]
    parked = world.entry("d", held=True)
    for entry in (first, *last, parked, tried):
        assert world.guard.admit(Place(), entry, note(host="bad")) is False

    assert world.copies == [(first, codes.DESTINATION_HELD)]
    assert all(entry.queue.paused is entry for entry in (first, parked, tried))
    assert all(entry.queue.paused is None for entry in last)
    assert world.send(None, host="good") == (True, None)
    seen: list[Any] = []
    for _ in range(EACH + 3):
        world.now += 1.6
        world.guard._look()
        seen += [*world.ready, *world.partition.stepped]
        world.ready.clear()
        world.partition.stepped.clear()
    assert seen == [*reversed(last), parked.queue, first.queue, tried.queue]
    assert world.guard.problems() == []
    assert world.guard.notes()[0].startswith("1 destinations unavailable")


async def test_what_is_kept_for_probes_pins_no_frontier_for_long() -> None:
    """It is copied after a minute, and sooner when much was read of its partition since; never one that failed before,
    whose user does, or that has much behind it already."""
    world = World(lambda n: n.data["host"])
    for n in range(FAILURES):
        world.send(failure(), f"u{n}", host="bad")
    bad, first, second = world.entry("u0"), world.entry("a"), world.entry("b")
    second.origin = 10
    for entry in (bad, first):
        assert world.guard.admit(Place(), entry, note(host="bad")) is False
    assert world.copies == [(bad, codes.DESTINATION_HELD)]
    world.partition.source.position = FAR + 5
    assert world.guard.admit(Place(), second, note(host="bad")) is False
    late = world.entry("late")
    assert world.guard.admit(Place(), late, note(host="bad")) is False
    assert world.copies[1:] == [(late, codes.DESTINATION_HELD)]
    world.guard._destinations.known["bad"].circuit.until = world.now + 600  # type: ignore[union-attr]
    world.guard._look()
    assert world.copies[2:] == [(first, codes.DESTINATION_HELD)]
    world.now += LONGEST
    world.guard._look()
    assert world.copies[3:] == [(second, codes.DESTINATION_HELD)]
    assert not world.guard._destinations.reserve  # type: ignore[union-attr]


async def test_a_destination_with_something_in_memory_is_looked_at_soon() -> None:
    """However long it is held: what is kept has to be copied in time."""
    world = World(lambda n: n.data["host"])
    throttled = Retry(10.0, False, ThrottledError("http.429", retry_after=900, scope="provider"))
    world.send(throttled, "u", host="bad")
    for n in range(2):
        world.guard.admit(Place(), world.entry(f"w{n}"), note(host="bad"))
    for _ in range(3):
        assert world.guard._recheck.at <= world.now + 1.0
        world.now += 1.0
        world.guard._look()
    world.partition.alive = False
    world.guard.drop_closed()
    assert not world.guard._destinations.reserve  # type: ignore[union-attr]
    world.now += 1.0
    world.guard._look()
    assert world.copies == []


async def test_what_waits_for_a_share_stays_in_memory() -> None:
    """As many as may be sent at once; beyond they are copied, and all are when the destination is held."""
    world = World(lambda n: n.data["host"], concurrency=8)
    running = [Place() for _ in range(2)]
    for place in running:
        assert world.guard.admit(place, world.entry(), note(host="a")) is True
    waiting = [world.entry(f"w{n}") for n in range(10)]
    for entry in waiting:
        assert world.guard.admit(Place(), entry, note(host="a")) is False
    assert [entry for entry, _ in world.copies] == waiting[8:]
    world.guard.leave(running[0])
    assert world.ready == waiting[:1]
    world.partition.alive = False
    world.guard.drop_closed()
    world.guard.leave(running[1])

    assert world.ready == waiting[:1]
    assert world.guard._destinations is not None
    assert not world.guard._destinations.known


async def test_those_in_memory_are_copied_when_it_is_held() -> None:
    """They would pin the frontier for as long. The last few that never failed are its next probes."""
    world = World(lambda n: n.data["host"], concurrency=8)
    running = [Place() for _ in range(2)]
    for place in running:
        place.entry = world.entry()
        assert world.guard.admit(place, world.entry(), note(host="a")) is True
    waiting = [world.entry(f"w{n}") for n in range(EACH + 2)]
    for entry in waiting:
        assert world.guard.admit(Place(), entry, note(host="a")) is False
    failing = world.entry("x", attempt=1)
    assert world.guard.admit(Place(), failing, note(host="a")) is False
    assert world.copies == []
    refused = Retry(1.0, False, ProviderUnavailableError("http.403"))
    outcome, asked = world.judge(running[0], world.entry(), note(host="a"), refused)

    assert asked
    assert isinstance(outcome, Retry)
    assert not outcome.counted
    assert world.copies == [(entry, codes.DESTINATION_HELD) for entry in (failing, *waiting[:2])]


@pytest.mark.parametrize("wrong", [KeyError("x"), 5, ["host"]])
async def test_a_destination_that_cannot_be_named_is_an_attempt(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Like a bug in `should_send`: counted, logged without its text."""

    def destination(notification: Notification[Any]) -> str | None:
        if isinstance(wrong, Exception):
            raise wrong
        return wrong  # type: ignore[no-any-return]

    world = World(destination)
    admitted, _ = world.send(None)

    assert isinstance(admitted, Retry)
    assert (admitted.counted, admitted.after) == (True, 10.0)
    assert admitted.error is not None
    assert admitted.error.code in ("destination.KeyError", "destination.TypeError")
    assert "destination() raised" in caplog.text


async def test_a_destination_held_for_a_day_keeps_nothing_older() -> None:
    """What has no expiry and is as old is dead-lettered, a hundred at each look."""
    world = World(lambda n: n.data["host"])
    for n in range(10):
        world.send(failure(), f"u{n}", host="bad")
    entries = [world.entry(f"w{n}") for n in range(150)]
    for entry in entries:
        world.guard.admit(Place(), entry, note(host="bad"))
    world.now += DAY + 10
    world.guard._look()
    assert len(world.partition.stepped) + len(world.ready) >= OVERDUE
    for n in range(10):  # probes fail again
        world.send(failure(), f"v{n}", host="bad")

    assert world.guard.admit(Place(), world.entry("old"), note(host="bad")) == Dead("throttle_timeout")


@pytest.mark.parametrize("max_wait", [3_600.0, 2 * DAY])
async def test_the_policy_says_how_long_a_throttled_destination_is_waited_for(max_wait: float) -> None:
    """With and without an expiry: neither ends before `max_wait`, and both end after it."""
    world = World(lambda n: n.data["host"], max_wait=max_wait)
    throttled = Retry(10.0, False, ThrottledError("http.429", retry_after=3 * DAY, scope="provider"))
    for n in range(20):
        world.send(throttled, f"u{n}", host="bad")
    (circuit,) = world.guard.destinations_held()
    assert circuit.cause == "throttle"
    later = datetime.now(timezone.utc) + timedelta(days=30)
    expiring = Notification(
        user_id="u", category="otp", channel="sms", data={"host": "bad"}, expires_at=later
    )
    began = circuit.since
    for after, ends in ((max_wait - 60, False), (max_wait + 60, True)):
        world.now = began + after
        for n in range(20):  # probes fail again
            world.send(throttled, f"v{n}", host="bad")
        for made in (note(host="bad"), expiring):
            old, new = world.entry("old"), world.entry("new")
            old.created, new.created = int((began - 1) * 1000), int(world.now * 1000) - 1
            assert world.guard.admit(Place(), old, made) == (Dead("throttle_timeout") if ends else False)
            assert world.guard.admit(Place(), new, made) is False


async def test_the_policy_does_not_bound_an_outage() -> None:
    """A destination that is held for failures: `max_wait` is of throttles, and a short one ends nothing."""
    world = World(lambda n: n.data["host"], max_wait=60)
    for n in range(10):
        world.send(failure(), f"u{n}", host="bad")
    world.now += 3_600
    for n in range(10):
        world.send(failure(), f"v{n}", host="bad")
    assert world.guard.admit(Place(), world.entry("old"), note(host="bad")) is False


async def test_waits_that_are_asked_for_have_a_floor() -> None:
    """A recipient's `Retry-After: 0`; what the provider was not asked for at all; what a middleware says."""
    world = World()
    for error in (ThrottledError("http.429", retry_after=0, scope="recipient"), None):
        outcome, asked = world.judge(Place(), world.entry(), note(), Retry(0.0, False, error))
        assert isinstance(outcome, Retry)
        assert outcome.after == 1.0
        assert asked is (error is not None)


async def test_a_throttle_slows_the_rate_limit_down_once() -> None:
    """Of a hundred sends under way that are throttled, one is news."""
    world = World()
    for n in range(100):
        answer = Retry(5.0, False, ThrottledError("http.429", retry_after=3))
        world.guard.not_sent(Place(), world.entry(f"u{n}"), note(), answer, world.now)

    assert world.throttles == 1
    assert world.told == [events.LaneHeld("http.429", 3.0, "throttle")]


async def test_a_refusal_among_accepted_ones_counts() -> None:
    """It is disbelieved, said so, and then waits as the retry policy says."""
    world = World()
    refused = Retry(1.0, False, ProviderUnavailableError("http.403"))
    world.guard.not_sent(Place(), world.entry(), note(), refused, world.now)
    for n in range(4):
        world.guard.sent(Place(), world.entry(f"v{n}"), note(), world.now)
    outcome, _ = world.judge(Place(), world.entry(), note(), refused)

    assert outcome == Retry(10.0, True, refused.error)
    kinds = [events.LaneHeld, events.RefusalDisbelieved, events.LaneResumed]
    assert [type(event) for event in world.told] == kinds


async def test_a_permanent_error_is_an_answer() -> None:
    """The provider works: it ends a hold like an accepted send."""
    world = World()
    for n in range(12):
        world.guard.not_sent(Place(), world.entry(f"u{n}"), note(), failure(), world.now)
    assert world.guard.lane.held
    world.now += 1
    for n in range(4):
        place = Place()
        assert world.guard.start(place, 0)
        dead = Dead("permanent", PermanentError("http.400"))
        assert world.judge(place, world.entry(f"p{n}"), note(), dead) == (dead, True)

    assert not world.guard.lane.held
    assert (world.guard.probes.made, world.guard.probes.failed) == (4, 0)


async def test_each_probe_is_chosen_by_those_that_failed_in_a_row() -> None:
    """They are counted until one is answered; a hold begins with one."""
    world = World()
    for n in range(12):
        world.guard.not_sent(Place(), world.entry(f"u{n}"), note(), failure(), world.now)
    ready = world.guard._ready
    assert (ready.row, world.chosen) == (1, 0)
    for n in range(2):
        world.now += 2
        place = Place()
        assert world.guard.start(place, 0)
        world.guard.not_sent(place, world.entry(f"p{n}"), note(), failure(), world.now)
    assert (ready.row, world.chosen) == (3, 2)
    rows = []
    for n in range(4):
        world.now += 2
        place = Place()
        assert world.guard.start(place, 0)
        world.guard.sent(place, world.entry(f"q{n}"), note(), world.now)
        rows.append(ready.row)
    assert rows == [0, 0, 0, 1]
    assert not world.guard.lane.held
    assert world.guard.start(Place(), 0)
    assert world.chosen == 6


async def test_a_codec_that_is_unavailable_holds_the_lane() -> None:
    """It is told once."""
    world = World()
    for n in range(3):
        assert world.guard.codec_unavailable(Place(), world.entry(f"u{n}"))

    assert world.told == [events.LaneHeld("codec_unavailable", 1.0, "codec")]
