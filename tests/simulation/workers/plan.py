"""A world as a value, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

import attrs

PARTITIONS: Final = 3
SESSION: Final = 10.0
"""Seconds of a session of the classic protocol; brokers have 45 s for the other one."""


@attrs.frozen
class Produce:
    """A notification is produced."""

    at: float
    user: str


@attrs.frozen
class Fault:
    """Something is done to the world."""

    at: float
    kind: str
    who: int = 0
    """The number of a worker, or of a partition."""
    seconds: float = 0.0
    code: str = ""


@attrs.frozen
class Plan:
    """A world.

    Args:
        seed: The seed of all that happens in it.
        protocol: The group protocol.
        workers: How many there are.
        plain: True for a plain sender, on threads.
        latency: Mean seconds of a call of the provider.
        request: Mean seconds of a request to the brokers; `write` likewise of a record that is produced.
        stalls: The share of client calls at which a thread stands still.
        transient: The share of sends that fail; likewise of the other outcomes.
        failing: Users whose every send fails.
        produced: The notifications.
        faults: What is done.
    """

    seed: int
    protocol: str
    workers: int
    plain: bool
    latency: float
    request: float
    write: float
    stalls: float
    transient: float
    unknown: float
    permanent: float
    hang: float
    failing: frozenset[str]
    produced: tuple[Produce, ...]
    faults: tuple[Fault, ...]

    @property
    def session(self) -> float:
        """Seconds after which the group gives up a silent member."""
        return SESSION if self.protocol == "classic" else 45.0

    @property
    def steps_clocks(self) -> bool:
        """True if wall clocks of workers jump, so that due times say nothing."""
        return any(fault.kind == "clock" for fault in self.faults)


KINDS: Final[Mapping[str, float]] = {
    "kill": 3, "restart": 3, "freeze": 3, "cut": 2, "expel": 2, "join": 1, "brokers": 1, "leader": 2,
    "coordinator": 2, "commit refused": 2, "commit not answered": 2, "write refused": 3, "not acknowledged": 3,
    "provider down": 2, "throttled": 1, "clock": 1,
}  # fmt: skip
"""What may be done, with its weight."""
COMMIT_ERRORS: Final = (
    "COORDINATOR_NOT_AVAILABLE",
    "REBALANCE_IN_PROGRESS",
    "_TIMED_OUT",
    "ILLEGAL_GENERATION",
)


def draw(seed: int, *, notifications: int = 60, seconds: float = 20.0) -> Plan:
    """Draw a world.

    Args:
        seed: The seed.
        notifications: About how many are produced.
        seconds: How long they are produced and things are done to the world.
    """
    rng = random.Random(f"plan {seed}")
    users = [f"u{n}" for n in range(rng.choice([3, 8, 20]))]
    count = rng.randrange(notifications // 2, notifications * 3 // 2)
    produced = sorted(
        (Produce(rng.uniform(0, seconds), rng.choice(users)) for _ in range(count)), key=lambda p: p.at
    )
    workers = rng.choice([2, 2, 3])
    few = rng.sample(sorted(KINDS), rng.randrange(2, 7))  # few kinds, often: they meet
    faults = sorted(
        (_fault(rng, rng.choices(few, [KINDS[kind] for kind in few])[0], workers, seconds)
         for _ in range(rng.randrange(2, 12))),
        key=lambda fault: fault.at,
    )  # fmt: skip
    return Plan(
        seed=seed,
        protocol=rng.choice(["classic", "consumer"]),
        workers=workers,
        plain=rng.random() < 0.2,
        latency=rng.choice([0.005, 0.05, 0.4]),
        request=rng.choice([0.0, 0.003, 0.03]),
        write=rng.choice([0.002, 0.02, 0.2]),
        stalls=rng.choice([0.0, 0.002, 0.02]),
        transient=rng.choice([0.0, 0.05, 0.3]),
        unknown=rng.choice([0.0, 0.0, 0.05]),
        permanent=rng.choice([0.0, 0.02]),
        hang=rng.choice([0.0, 0.0, 0.02]),
        failing=frozenset(rng.sample(users, rng.choice([0, 0, 1]))),
        produced=tuple(produced),
        faults=tuple(faults),
    )


def _fault(rng: random.Random, kind: str, workers: int, seconds: float) -> Fault:
    at, length = rng.uniform(0.5, seconds), rng.choice([0.2, 2.0, 6.0, 20.0])
    who = rng.randrange(PARTITIONS if kind == "leader" else workers)
    code = rng.choice(COMMIT_ERRORS) if kind == "commit refused" else ""
    if kind == "clock":
        length = rng.choice([-120.0, -5.0, 5.0, 120.0])
    return Fault(round(at, 3), kind, who, round(length * rng.uniform(0.5, 1.5), 3), code)


def hour(seed: int) -> Plan:
    """An hour of three workers and 10,000 notifications, with an adversity every five minutes."""
    plan = draw(seed)
    rng = random.Random(f"hour {seed}")
    produced = sorted(
        (Produce(rng.uniform(0, 3_600), f"u{rng.randrange(1_000)}") for _ in range(10_000)),
        key=lambda p: p.at,
    )
    faults = tuple(
        attrs.evolve(_fault(rng, rng.choice(["kill", "restart", "freeze", "write refused"]), 3, 10), at=at)
        for at in range(150, 3_600, 300)
    )
    return attrs.evolve(
        plan, protocol="classic", workers=3, plain=False, stalls=0.0, request=0.003, write=0.002, latency=0.05,
        transient=0.05, hang=0.0, produced=tuple(produced), faults=faults,
    )  # fmt: skip
