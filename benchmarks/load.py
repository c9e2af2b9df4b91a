"""The load: notifications of 10,000 users with 100 bytes of JSON, numbered so that a log of sends can be checked."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import attrs
from confluent_kafka import murmur2

from kafka_notify import Category, Lane, Notification, Topology

Mix = Literal["even", "hot", "few", "many"]
"""Distribution of users: 10,000 at random, the same with 20 % of everything for one user, only 30 users, or 100,000."""

PARTITIONS: Final = 30
LOW: Final = "low_priority"
HIGH: Final = "high_priority"


def topology(prefix: str, partitions: int = PARTITIONS) -> Topology:
    """Return a topology with two lanes; `partitions` counts only when the topics are created."""
    return Topology(
        lanes=[
            Lane(HIGH, partitions=partitions, profile="latency"),
            Lane(LOW, partitions=partitions, profile="throughput"),
        ],
        categories=[Category("otp", HIGH, ttl=300, sensitive=True), Category("marketing", LOW)],
        channels=["sms", "email"],
        prefix=prefix,
    )


def user_of(number: int, mix: Mix = "even") -> int:
    """Return the user of notification `number`: random, and the same in every process."""
    draw = zlib.crc32(b"%d" % number)
    if mix == "hot":
        return 0 if draw % 5 == 0 else 1 + draw // 5 % 9_999
    return draw % {"even": 10_000, "few": 30, "many": 100_000}[mix]


def users_in(where: Callable[[int], bool], count: int, name: str, partitions: int = PARTITIONS) -> list[str]:
    """Return `count` users whose partition (of `partitions`) `where` accepts; their names begin with `name`."""
    names = (f"{name}-{number}" for number in itertools.count())
    return list(itertools.islice((n for n in names if where(murmur2(n.encode(), partitions))), count))


class LoopWatch:
    """Measures how long the event loop is blocked."""

    def __init__(self) -> None:
        self.silent = 0.0
        """The longest block, in seconds."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch the running loop."""
        self._task = asyncio.create_task(self._look())

    def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.silent = max(self.silent, time.perf_counter() - before - 0.005)


def marketing(number: int, mix: Mix = "even") -> Notification[Any]:
    """Create notification `number` of a backlog; its id is as long as a UUID."""
    return Notification(
        user_id=f"user-{user_of(number, mix):06d}",
        category="marketing",
        channel="email",
        recipient="someone@example.com",
        id=id_of(number),
        data=payload(number),
    )


def id_of(number: int) -> str:
    """Return an id as long and as hard to compress as a UUID."""
    return f"{number:08d}-{_noise(number)[:27]}"


def number_of(id: str) -> int:
    """Return the number in an id."""
    return int(id[:8])


def payload(number: int) -> dict[str, Any]:
    """Return data of 100 bytes as JSON, half of which does not compress."""
    return {"number": number, "template": "basket", "token": _noise(number)[:50]}


def _noise(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


FAILED: Final = 1 << 40
"""Added to a number whose attempt failed."""


@attrs.frozen
class Order:
    """Violations of the order per user in a log of sends."""

    sends: int
    violations: int
    """Sends that were neither their user's next notification nor a retry of the previous one."""
    overlaps: int
    """Sends that started while another send of their user was running."""


def check_order(log: Sequence[int], mix: Mix) -> Order:
    """Judge a log in which `n` is the start of a send, `~n` its acceptance and `~(n + FAILED)` its failure."""
    users = [user_of(number, mix) for number in range(1 + max(log, default=-1))]
    expected: dict[int, int] = {}  # user -> the next notification, after all retries of the previous one
    following = [-1] * len(users)
    for number in reversed(range(len(users))):
        following[number] = expected.get(users[number], -1)
        expected[users[number]] = number
    running: set[int] = set()
    sends = violations = overlaps = 0
    for mark in log:
        if mark >= 0:
            user = users[mark]
            sends += 1
            overlaps += user in running
            violations += expected[user] != mark
            running.add(user)
            expected[user] = mark
        elif ~mark < FAILED:
            running.discard(users[~mark])
            expected[users[~mark]] = following[~mark]
        else:
            running.discard(users[~mark - FAILED])
    return Order(sends, violations, overlaps)
