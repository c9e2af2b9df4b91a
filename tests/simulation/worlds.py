"""Loads, providers and goals: what a worker meets, and what its users and operators may see at most.

Each goal holds for every seed. `python -m tests.simulation` prints the figures.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

import attrs

INF: Final = float("inf")


class Answer(Enum):
    """What a call of the provider ends with."""

    OK = "ok"
    FAIL = "fail"
    """A 5xx, a refused connection, a time-out."""
    ACCOUNT = "account"
    """401, 402 or 403."""
    THROTTLE = "throttle"
    """429 of the sender."""


class Phase(NamedTuple):
    """From `start` to `end`, a share of all calls (or of those to one destination) ends as `kind`."""

    start: float
    end: float
    share: float = 1.0
    kind: Answer = Answer.FAIL
    slow: float = 1.0
    """Factor of the latency."""
    hang: float = 0.0
    """Seconds until a failing call ends."""
    retry_after: float | None = None
    dest: int | None = None


@attrs.frozen
class World:
    """Load, provider and goals."""

    goals: str = ""
    phases: tuple[Phase, ...] = ()
    bad: float = 0.0
    """Share of users whose calls always fail."""
    transient: float = 0.0
    """Share of calls that fail by chance."""
    twice: float = 0.0
    """Share of notifications whose first two counted attempts fail, and whose third is accepted."""
    seconds: float = 120.0
    """Notifications arrive until then."""
    drain: float = 120.0
    """The run goes on for so long afterwards."""
    rate: float = 30.0
    users: int = 600
    concurrency: int = 50
    latency: float = 0.05
    waits: tuple[float, ...] = (2.0, 8.0, 32.0)
    dests: int = 0
    named: bool = True
    """Whether the consumer names the destinations."""
    waiting: int = 0
    """Retries with one or two counted attempts, due at 0 s, as after a crash."""
    waiting_bad: float = 0.0
    """Share of them that always fail."""
    waiting_last: bool = False
    """Every other one has one attempt left."""
    waiting_once: bool = False
    """All of them have one counted attempt, fail once more, and are accepted at the third."""
    waiting_untold: bool = False
    """Nobody knows of them that they failed: no copy could be written."""
    capacity: float = 0.0
    """Calls per second above which the provider answers 429 without Retry-After."""
    fragile: int = 0
    """For 60 s after the last phase, calls fail while more are under way than this."""
    burst: int = 0
    """Notifications that arrive together at 30 s."""
    patience: float = 3600.0


CALM = "served>=100 p99<=0.1 holds<=0 bad_dead>=99 bad_p50<=45"
UP = "served>=100 dead<=0 "
DOWN = UP + "burnt<=20 opened<=2 reopened<=2 holds<=1 "
ONCE = 10**9
ACCOUNT, THROTTLE = Answer.ACCOUNT, Answer.THROTTLE

WORLDS: Final[dict[str, World]] = {
    "healthy": World(CALM),
    "bad1": World(CALM, bad=0.01, seconds=240),
    "bad10": World(CALM, bad=0.1, seconds=240),
    "bad20": World(CALM, bad=0.2, seconds=240),
    "bad35": World(CALM.replace("<=0.1", "<=0.2"), bad=0.35, rate=100, users=1_000, latency=0.1, concurrency=100),
    "bad50": World("served>=100 p99<=5 holds<=3 bad_dead>=95 bad_p50<=60", bad=0.5, seconds=240),
    "bad75": World("served>=100 p99<=80 holds<=12 bad_dead>=95 bad_p50<=60", bad=0.75, seconds=240),
    "bad90": World("served>=100 p99<=120 holds<=10 bad_dead>=90 bad_p50<=90", bad=0.9, seconds=240),
    "bad100": World("bad_dead<=0 holds<=1", bad=1.0),
    "bad20-slow": World(
        CALM.replace("45", "700"), bad=0.2, waits=(30, 120, 480), seconds=600, drain=900, rate=10
    ),
    "campaign10": World(CALM, bad=0.1, rate=300, seconds=30, drain=90, users=ONCE),
    "campaign20": World(CALM, bad=0.2, rate=300, seconds=30, drain=90, users=ONCE),
    "campaign50": World("served>=100 p99<=10 holds<=12", bad=0.5, seconds=240, users=ONCE),
    "transient10": World("served>=99.7 holds<=0 dead<=4", transient=0.1),
    "transient20": World("served>=99.5 holds<=0 dead<=16", transient=0.2),
    "transient30": World("served>=98 holds<=1 dead<=60", transient=0.3),
    "herd": World("served>=99.7 holds<=2 p99<=15 bad_dead>=95", transient=0.1, waiting=300, waiting_bad=0.5),
    "twice10": World(
        "served>=100 holds<=0 p99<=6 dead<=0", twice=0.1, waits=(0.5, 2, 8), rate=100, users=ONCE, concurrency=100
    ),
    "burst": World("served>=99.7 holds<=0 p99<=12", transient=0.1, burst=600),
    "outage10": World(DOWN + "calls<=35", (Phase(30, 40),)),
    "outage600": World(DOWN + "calls<=430", (Phase(30, 630),), rate=10, seconds=660, drain=240),
    "outage3600": World(
        DOWN.replace("<=20 opened<=2", "<=30 opened<=6") + "calls<=2450",
        (Phase(30, 3630),), rate=3, users=2000, seconds=3660, drain=600,
    ),
    "outage-bad10": World(
        UP + "burnt<=20 opened<=2 reopened<=4 bad_dead>=90",
        (Phase(30, 630),), bad=0.1, rate=10, seconds=900, drain=60,
    ),
    "outage-twice": World(UP + "burnt<=40 opened<=2 reopened<=2 holds<=3", (Phase(30, 90), Phase(95, 155))),
    "hang600": World(
        UP + "burnt<=20 opened<=14 reopened<=14 calls<=430",
        (Phase(30, 630, hang=10),), rate=10, seconds=660, drain=240,
    ),
    "quiet600": World(
        "served>=99.7 dead<=1 burnt<=20 opened<=15 reopened<=4", (Phase(60, 660),), transient=0.05, rate=1, seconds=720
    ),
    "partial30": World("served>=98 dead<=60", (Phase(30, 150, 0.3),), seconds=180, drain=240),
    "partial60": World(
        "served>=99.9 dead<=2 p99<=150 calls<=9000", (Phase(30, 150, 0.6),), seconds=180, drain=240
    ),
    "partial90": World(UP + "p99<=150 calls<=3600", (Phase(30, 150, 0.9),), seconds=180, drain=240),
    "brownout": World(
        UP + "burnt<=20 reopened<=14",
        (Phase(30, 90, 0.0, slow=10), Phase(90, 150, hang=10.0)), seconds=180, drain=240,
    ),
    "fragile": World(UP + "holds<=15", (Phase(30, 90),), fragile=15, seconds=180, drain=240),
    "account600": World(
        UP + "burnt<=0 holds<=1 reopened<=33 calls<=30",
        (Phase(30, 630, kind=ACCOUNT),), rate=10, seconds=660, drain=240,
    ),
    "throttle0": World(
        UP + "burnt<=0 calls<=15 reopened<=31", (Phase(30, 90, kind=THROTTLE, retry_after=0.0),)
    ),
    "throttle-past": World(
        UP + "burnt<=0 calls<=15 reopened<=31", (Phase(30, 90, kind=THROTTLE, retry_after=-9.0),)
    ),
    "throttle-none": World(UP + "burnt<=0 calls<=15 reopened<=31", (Phase(30, 90, kind=THROTTLE),)),
    "throttle900": World(
        UP + "burnt<=0 calls<=8 reopened<=3",
        (Phase(30, 930, kind=THROTTLE, retry_after=900.0),), rate=5, seconds=960, drain=240,
    ),
    "capacity": World(UP + "p99<=90", capacity=25),
    "own403": World(
        "served>=100 p99<=2 holds<=2", (Phase(20, INF, kind=ACCOUNT, dest=3),), dests=20, named=False
    ),
    "hook403": World(CALM + " sick<=20", (Phase(20, INF, kind=ACCOUNT, dest=3),), dests=20),
    "hook429": World(CALM + " sick<=220", (Phase(20, 80, kind=THROTTLE, retry_after=60.0, dest=3),), dests=20),
    "hook503": World(CALM + " sick<=160", (Phase(20, INF, dest=3),), dests=20),
    "hook-hang": World(CALM + " sick<=160", (Phase(20, INF, hang=10.0, dest=3),), dests=20),
    "retries-outage": World(UP + "reopened<=3", (Phase(0, 600),), rate=0, waiting=200, seconds=0, drain=900),
    "retries-last": World(
        "dead<=60 reopened<=3", (Phase(0, 600),), rate=0, waiting=200, waiting_last=True, seconds=0, drain=900
    ),
    "retries-once": World(
        UP + "p50<=40 p99<=60 holds<=2", rate=0, waiting=232, waiting_once=True, seconds=0, drain=900
    ),
    "retries-bad": World("bad_dead>=100", rate=0, waiting=200, waiting_bad=1.0, seconds=0, drain=9000),
    "retries-bad-patience": World(
        "bad_dead>=100 bad_p50<=400", rate=0, waiting=60, waiting_bad=1.0, seconds=0, drain=900, patience=120
    ),
    "retries-bad15": World(
        "bad_dead>=100 bad_p50<=60", rate=0, waiting=15, waiting_bad=1.0, seconds=0, drain=900
    ),
    "crash-untold": World(
        UP + "p99<=12 holds<=20", rate=10, waiting=200, waiting_bad=1.0, waiting_untold=True, seconds=240
    ),
    "crash-bad": World(
        UP + "p99<=5 bad_dead>=95 bad_p50<=180", rate=1, waiting=200, waiting_bad=1.0, seconds=240
    ),
}  # fmt: skip
