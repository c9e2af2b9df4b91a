"""Destinations are held, limited and waited for alone."""

from __future__ import annotations

import random

import pytest

from kafka_notify import CircuitBreaker
from kafka_notify._decision.destinations import (
    FAILURES,
    FIRST_WAIT,
    MOST,
    SWEEP,
    Circuits,
    Destination,
    Destinations,
)
from kafka_notify._decision.evidence import Kind, Try

NOW = 1_000.0
DEFAULT = CircuitBreaker()


def made(*, share: float | None = None, named: bool = True, concurrency: int = 100) -> Circuits[str]:
    """Those of a worker that has just started."""
    destinations: Destinations[str] = Destinations(DEFAULT, concurrency, share, named=named)
    return Circuits(DEFAULT, NOW, concurrency, destinations)


def of(circuits: Circuits[str], name: str = "a") -> Destination[str]:
    """A destination."""
    assert circuits.destinations is not None
    return circuits.destinations.get(name)


def fail(
    circuits: Circuits[str], name: str, who: str = "u", kind: Kind = Kind.FAILURE, asked: float | None = None
) -> Destination[str]:
    """A first send to a destination failed."""
    known = of(circuits, name)
    circuits.failed(Try(who, NOW), kind, "http.503", NOW, asked=asked, of=known)
    return known


def room(circuits: Circuits[str], name: str, now: float = NOW) -> int:
    """How many sends to it may start."""
    assert circuits.destinations is not None
    return circuits.destinations.room(of(circuits, name), now)


@pytest.mark.parametrize("kind", [Kind.FAILURE, Kind.ACCOUNT, Kind.THROTTLE])
def test_one_holds_nobody_else(kind: Kind) -> None:
    """Whatever one destination answers, the lane and the others go on."""
    circuits = made()
    for n in range(50):
        fail(circuits, "bad", f"u{n}", kind, 900.0 if kind is Kind.THROTTLE else None)

    assert room(circuits, "bad") == 0
    assert room(circuits, "good") == 25
    assert not circuits.lane.held
    assert circuits.lane.score <= 1


def test_all_of_them_failing_is_an_outage_of_the_lane() -> None:
    """Each is one user for the lane."""
    circuits = made()
    for n in range(12):
        assert not circuits.lane.held
        fail(circuits, f"host{n}")

    assert circuits.lane.held


def test_channels_do_not_hold_the_lane() -> None:
    """A consumer of three channels: each one's provider fails alone, with the lane's own numbers."""
    circuits = made(named=False)
    for n in range(11):
        fail(circuits, "sms", f"u{n}")
    assert room(circuits, "sms") > 0
    for name in ("sms", "push", "email"):
        for n in range(12):
            fail(circuits, name, f"v{n}")

    assert [room(circuits, name) for name in ("sms", "push", "email", "fax")] == [0, 0, 0, 100]
    assert not circuits.lane.held


def test_a_share_of_the_concurrency() -> None:
    """A destination that does not answer leaves senders for the others."""
    circuits = made()
    destinations = circuits.destinations
    assert destinations is not None
    known = of(circuits)
    while destinations.room(known, NOW) > 0:
        destinations.start(known, NOW)

    assert known.busy == 25
    assert room(circuits, "b") == 25
    assert [made(share=s, concurrency=8).destinations.room(Destination("a", 0), NOW) for s in (0.01, 0.5, 1.0)] == [  # type: ignore[union-attr]
        1, 4, 8,
    ]  # fmt: skip


def test_what_never_failed_waits_in_front() -> None:
    """Then the others in rotation, one for each place; what does not wait any more takes none."""
    circuits = made(concurrency=8)
    destinations, known = circuits.destinations, of(circuits)
    assert destinations is not None
    known.busy = 2
    for item in ("old", "gone"):
        destinations.put_aside(known, item, tried=True, waits=bool)
    for item in ("lost", "x", "x", "y"):
        destinations.put_aside(known, item, tried=False, waits=bool)
    started: list[str] = []

    def set_off(item: str) -> bool:
        if item in ("gone", "lost"):
            return False
        started.append(item)
        return True

    destinations.release(known, NOW, set_off)
    assert started == []
    for _ in range(3):
        known.busy = 1
        destinations.release(known, NOW, set_off)

    assert started == ["x", "y", "old"]
    known.busy = 0
    destinations.release(known, NOW, set_off)
    destinations.forget(known)
    assert not destinations.known


def test_the_first_probes_of_one_that_is_named_follow_each_other_quickly() -> None:
    """Each user who always fails costs the others a wait: short ones first. A lane's begin at a second."""
    circuits = made()
    destinations = circuits.destinations
    assert destinations is not None
    known, now, at = of(circuits), NOW, []
    for n in range(FAILURES):
        fail(circuits, "a", f"u{n}")
    for n in range(6):
        assert known.circuit is not None
        now = known.circuit.until
        at.append(now - NOW)
        token = destinations.start(known, now)
        destinations.failed(known, Try(f"p{n}", now, token), Kind.FAILURE, "http.503", now, None)
        known.busy -= 1

    assert at == [0.25, 0.5, 1.0, 2.0, 3.5, 5.0]


def test_a_held_one_is_probed_by_what_waits() -> None:
    """One at a time, when its circuit says so; the time is known. It is what came last: users who always fail are those
    that have waited for long."""
    circuits = made()
    destinations = circuits.destinations
    assert destinations is not None
    known = of(circuits)
    for n in range(FAILURES):
        fail(circuits, "a", f"u{n}")
    for n in range(10):
        destinations.put_aside(known, f"w{n}", tried=False, waits=bool)
    assert destinations.ask_again(known, NOW) == NOW + FIRST_WAIT
    started: list[str] = []

    def set_off(item: str) -> bool:
        started.append(item)
        return True

    destinations.release(known, NOW + FIRST_WAIT - 0.1, set_off)
    destinations.release(known, NOW + FIRST_WAIT, set_off)

    assert started == ["w9"]
    token = destinations.start(known, NOW + 1)
    assert token
    assert destinations.room(known, NOW + 1) == 0
    assert destinations.held == [known.circuit]
    known.busy -= 1
    for n in range(2):
        circuits.accepted(Try(f"p{n}", NOW + 1), NOW + 1, known, token)
    assert not known.held
    assert destinations.held == []
    destinations.release(known, NOW + 1, set_off)
    assert started[1] == "w0"


def test_one_in_memory_is_the_next_probe() -> None:
    """Of several the newest; whatever came later and has to be read again waits for its turn."""
    circuits = made()
    destinations = circuits.destinations
    assert destinations is not None
    known, now, started = of(circuits), NOW, list[str]()
    for n in range(FAILURES):
        fail(circuits, "a", f"u{n}")
    for item in ("m1", "m2", "gone", "copy"):
        destinations.put_aside(known, item, tried=False, waits=bool)
        if item != "copy":
            destinations.reserve.keep(known, 0, item, 1, now)

    def set_off(item: str) -> bool:
        started.append(item)
        return item != "gone"

    for _ in range(3):
        now += 10.0
        destinations.release(known, now, set_off)
    assert started == ["gone", "m2", "m1", "copy"]
    assert not destinations.reserve
    destinations.put_aside(known, "last", tried=False, waits=bool)
    destinations.reserve.keep(known, 0, "last", 1, now)
    destinations.sweep(lambda _: False)
    assert not destinations.reserve


def test_circuits_are_bounded() -> None:
    """The oldest one is dropped, and what waits for it is let go."""
    circuits = made()
    destinations = circuits.destinations
    assert destinations is not None
    dropped = []
    for n in range(3 * MOST):
        known = of(circuits, f"host{n}")
        _, lost = circuits.failed(Try("u", NOW), Kind.ACCOUNT, "http.403", NOW, of=known)
        dropped += [lost] if lost is not None else []
        destinations.forget(known)

    assert len(destinations.held) == MOST
    assert len(dropped) == 2 * MOST
    assert all(lost.circuit is None for lost in dropped)


def test_healthy_ones_are_not_kept() -> None:
    """Memory follows what is under way, waits or fails."""
    circuits = made()
    destinations = circuits.destinations
    assert destinations is not None
    for n in range(10_000):
        known = of(circuits, f"host{n}")
        destinations.start(known, NOW)
        known.busy -= 1
        known.accepted += 1
        circuits.accepted(Try("u", NOW), NOW, known)
        destinations.forget(known)

    assert not destinations.known


def test_what_does_not_wait_any_more_is_forgotten() -> None:
    """Expired or handed over: as many as wait are kept, and a thousand."""
    circuits = made()
    destinations, known = circuits.destinations, of(circuits)
    assert destinations is not None
    for n in range(50_000):
        destinations.put_aside(known, f"w{n}", tried=n % 2 == 0, waits=lambda _: False)
        assert len(known.fresh) + len(known.tried) <= SWEEP + 1
    destinations.sweep(lambda _: False)

    assert not destinations.known


def test_long_names_are_one() -> None:
    """A bound on what a name takes."""
    circuits = made()
    assert of(circuits, "x" * 300) is of(circuits, "x" * 400)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_waits_for_ever(seed: int) -> None:
    """Whatever sends end how: each item that was put aside is set off in the end, and places are not lost."""
    rng = random.Random(seed)
    circuits = made(concurrency=20)
    destinations = circuits.destinations
    assert destinations is not None
    now, waiting, ready = NOW, 0, [f"n{n}" for n in range(300)]
    running: list[tuple[str, Destination[str], int, float]] = []

    def set_off(item: str) -> bool:
        ready.append(item)
        return True

    steps = 0
    while ready or running or any(known.fresh or known.tried for known in destinations.known.values()):
        steps += 1
        assert steps < 50_000
        broken = steps < 3_000
        if ready and len(running) < 20:
            item = ready.pop(0)
            known = destinations.get(f"host{hash(item) % 4}")
            if destinations.room(known, now) > 0:
                running.append((item, known, destinations.start(known, now), now))
            else:
                destinations.put_aside(known, item, tried=rng.random() < 0.5, waits=bool)
                waiting += 1
        elif running:
            item, known, token, started = running.pop(rng.randrange(len(running)))
            known.busy -= 1
            now += 0.01
            sent = Try(item, started)
            if broken and rng.random() < 0.7:
                kind = rng.choice([Kind.FAILURE, Kind.FAILURE, Kind.ACCOUNT, Kind.THROTTLE])
                circuits.failed(sent, kind, "x", now, of=known, of_token=token)
                ready.append(item)
            else:
                known.accepted += 1
                circuits.accepted(sent, now, known, token)
            destinations.release(known, now, set_off)
            destinations.forget(known)
        else:
            now = min(destinations.ask_again(known, now) for known in destinations.waiting())
            assert now < float("inf")
            for known in destinations.waiting():
                destinations.release(known, now, set_off)

    assert waiting
    assert not any(known.busy for known in destinations.known.values())
