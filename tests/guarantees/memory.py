"""What a worker takes while everything fails, when it finds a mountain of waiting retries, and when partitions with
large payloads come and go during an outage.

`python -m tests.guarantees.memory` measures all of it at full length and prints a report; `make soak
ARGS="--handovers 50"` the last one alone.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import attrs

from kafka_notify._partition.entry import Entry
from kafka_notify._partition.partition import Partition
from kafka_notify._worker.engine import Engine
from kafka_notify.testing import LocalKafka
from kafka_notify.testing.attempt_log import Copied, Disturbed, Owned, Started, now_ms
from kafka_notify.testing.guarantees import CaughtUp, Guarantees, NothingLost
from tests.guarantees.fleet import QUICK, Fleet

MEGABYTE = 1_000_000
FAILING = {"max_attempts": 10_000, "initial_delay": 2.0, "multiplier": 1.0, "max_delay": 2.0}


@attrs.frozen
class Sample:
    """A process at one moment, as Linux sees it."""

    seconds: float
    """Since the first one."""
    rss: int
    """Bytes; also `peak`, the most there ever was."""
    peak: int
    threads: int
    files: int


def look(pid: int, began: float) -> Sample:
    """How a process is now."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )

    def size(name: str) -> int:
        return int(status[name].split()[0]) * 1024

    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Sample(time.monotonic() - began, size("VmRSS"), size("VmHWM"), int(status["Threads"]), files)


@attrs.frozen
class Soak:
    """A worker whose provider failed every send."""

    samples: Sequence[Sample]
    sends: int
    waiting: int
    owned: Counter[int]
    """How often it began to work on each partition."""
    fenced: int

    @property
    def third(self) -> Sample:
        """After one third of the run: the table of waiting retries is complete by then."""
        return self.samples[len(self.samples) // 3]

    @property
    def last(self) -> Sample:
        """At the end."""
        return self.samples[-1]

    @property
    def slope(self) -> float:
        """Bytes per minute, by least squares over the last two thirds."""
        points = [(s.seconds / 60, s.rss) for s in self.samples[len(self.samples) // 3 :]]
        mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
        spread = sum((x - mean_x) ** 2 for x, _ in points)
        slope: float = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
        return slope

    def __str__(self) -> str:
        third, last = self.third, self.last
        return (
            f"all sends fail for {last.seconds:.0f} s, {self.waiting:,} notifications wait: {self.sends:,} sends; "
            f"RSS {third.rss / MEGABYTE:.1f} MB after a third, {last.rss / MEGABYTE:.1f} MB in the end, "
            f"{self.slope / MEGABYTE:+.2f} MB/min, peak {last.peak / MEGABYTE:.1f} MB; "
            f"threads {third.threads} and {last.threads}; open files {third.files} and {last.files}; "
            f"starts by partition {dict(self.owned)}, fenced {self.fenced}"
        )


def soak(fleet: Fleet, *, seconds: float, count: int, users: int) -> Soak:
    """Let every send fail, each to be tried again two seconds later, and watch the worker.

    Args:
        fleet: Without workers yet.
        seconds: How long, from when all of them have failed or were parked.
        count: Notifications.
        users: Of how many.
    """
    fleet.start("a", attributes={"retry": FAILING, "concurrency": 500, "breaker": None})
    fleet.until_owned("a")
    sent = fleet.produce(
        fleet.notification(f"u{n % users}", plan=["transient"], seconds=0) for n in range(count)
    )
    ends = dict(Counter(record.partition for record in sent))
    fleet.until(
        lambda: all(n in fleet.committed() and fleet.committed()[n].source == end for n, end in ends.items()),
        "retry copy of everything",
    )
    pid, began, samples = _pid(fleet, "a"), time.monotonic(), list[Sample]()

    def watch() -> bool:
        if not samples or time.monotonic() - began > samples[-1].seconds + 0.5:
            samples.append(look(pid, began))
        return samples[-1].seconds >= seconds

    fleet.until(watch, "end of the time", seconds + 60)
    fleet.stop("a")
    fleet.end()
    everything = Guarantees.all(max_attempts=int(FAILING["max_attempts"]))
    fleet.verify(everything.without(NothingLost, CaughtUp))
    return Soak(
        samples,
        len(fleet.all(Started)),
        count,
        Counter(line.partition for line in fleet.all(Owned)),
        sum(line.how == "fenced" for line in fleet.all(Disturbed)),
    )


@attrs.frozen
class Backlog:
    """A worker that was started where many retries wait."""

    waiting: int
    filled: float
    """Seconds in which the one before it made them wait."""
    first_send: float
    """Seconds from the start of the process to its first send, of a notification that did not wait."""
    delivered: float
    """Seconds from the start of the process until all of them were delivered; most of it is their delay."""
    before: Sample
    """Of the worker before."""
    after: Sample
    owned: Counter[int]
    """How often it began to work on each partition."""

    def __str__(self) -> str:
        return (
            f"{self.waiting:,} waiting retries (made in {self.filled:.0f} s, peak {self.before.peak / MEGABYTE:.0f} "
            f"MB) and a restart: first send after {self.first_send:.2f} s, all delivered after {self.delivered:.0f} s, "
            f"peak {self.after.peak / MEGABYTE:.0f} MB; starts by partition {dict(self.owned)}"
        )


def backlog(fleet: Fleet, *, count: int, delay: float, overdue: bool = False) -> Backlog:
    """Make so many notifications wait, kill the worker, start another one, and see everything delivered.

    Args:
        fleet: Without workers yet.
        count: Notifications, each of another user.
        delay: Seconds until they are due: longer than it takes to make all of them wait.
        overdue: Start the other one when all of them are due.
    """
    settings = {
        "retry": {"max_attempts": 3, "initial_delay": delay, "max_delay": delay, "jitter": 0},
        "concurrency": 1_000,
        "breaker": None,  # every first attempt fails
    }
    patience = 120 + 4 * delay
    fleet.start("a", attributes=settings)
    fleet.until_owned("a")
    began = time.monotonic()
    ends: Counter[int] = Counter()
    for chunk in _chunks(count, 5_000):
        plan = ["transient", "ok"]
        sent = fleet.produce(fleet.notification(f"u{n}", plan=plan, seconds=0) for n in chunk)
        ends.update(record.partition for record in sent)
    fleet.until(
        lambda: all(n in fleet.committed() and fleet.committed()[n].source == end for n, end in ends.items()),
        "retry copy of everything",
        patience,
    )
    filled = time.monotonic() - began
    before = look(_pid(fleet, "a"), began)
    fleet.kill("a")
    if overdue:
        last = max(copy.due for copy in fleet.all(Copied))
        fleet.until(lambda: now_ms() > last, "time when they are due", 2 * delay)
    [fresh] = fleet.produce([fleet.notification("fresh")])
    position, started_at, began = len(fleet.lines), now_ms(), time.monotonic()
    fleet.start("b", attributes=settings)
    fleet.until(lambda: fresh.id in fleet.terminal, "send of what did not wait", patience)
    fleet.until_all_terminal(patience)
    delivered = time.monotonic() - began
    after = look(_pid(fleet, "b"), began)
    fleet.finish(patience)
    lines = fleet.lines[position:]
    fleet.verify(Guarantees.all(max_attempts=3))
    return Backlog(
        count,
        filled,
        (next(line.at for line in lines if isinstance(line, Started)) - started_at) / 1000,
        delivered,
        before,
        after,
        Counter(line.partition for line in lines if isinstance(line, Owned)),
    )


SMALL: Final = {"waiting": 8 * 2**20, "loading": 4 * 2**20, "buffered": 16 * 2**20, "transit": 8 * 2**20}
"""Budgets that a test can fill."""
LITTLE: Final = {
    "budgets": SMALL,
    "consumer_config": {**QUICK, "queued.max.messages.kbytes": 4_096, "fetch.max.bytes": 1_048_576},
    "producer_config": {"queue.buffering.max.kbytes": 4_096},
}
"""Settings of workers for `handovers`."""
CLIENT: Final = 13 * 2**20
"""Bytes of the client with these: its prefetch and one fetch beyond it, and the queue of copies, twice."""


@attrs.frozen
class Handovers:
    """A worker that lost partitions again and again and got them back, during an outage, with large payloads."""

    base: Sample
    """Before there was anything to do."""
    samples: Sequence[Sample]
    handovers: int
    payloads: int
    """Bytes of everything that was produced."""

    @property
    def peak(self) -> int:
        """The most resident bytes in any sample."""
        return max(sample.rss for sample in self.samples)

    @property
    def allowed(self) -> int:
        """Bytes of the process without work, and of all budgets."""
        return self.base.rss + sum(SMALL.values()) + CLIENT

    def highest(self, first: float, last: float) -> int:
        """The most resident bytes in a part of the run, whose ends are given as shares of it."""
        count = len(self.samples)
        return max(sample.rss for sample in self.samples[int(first * count) : max(int(last * count), 1)])

    def __str__(self) -> str:
        thirds = [self.highest(n / 3, (n + 1) / 3) / MEGABYTE for n in range(3)]
        return (
            f"{self.handovers} hand-overs during an outage, {self.payloads / MEGABYTE:.0f} MB of payloads: RSS "
            f"{self.base.rss / MEGABYTE:.0f} MB before, highest of each third {thirds[0]:.0f}, {thirds[1]:.0f}, "
            f"{thirds[2]:.0f} MB, {self.allowed / MEGABYTE:.0f} MB by the budgets"
        )


def handovers(fleet: Fleet, *, count: int, times: int, size: int = 100_000) -> Handovers:
    """Make retries with large payloads wait through an outage, and let another worker come and go meanwhile.

    Args:
        fleet: Without workers yet, with the settings `LITTLE`.
        count: Notifications, each of another user: half of them wait for their retry, and are due before it ends.
        times: How often the other worker comes and goes.
        size: Bytes of a payload.
    """
    gate = fleet.directory / "open"
    settings = {
        "retry": {"max_attempts": 20, "initial_delay": 2.0, "multiplier": 1.0, "max_delay": 2.0},
        "concurrency": 50,
        "breaker": None,  # half of all first attempts fail; what is away holds the lane all the same
    }
    # "Webhooks" without a server named: the outage holds the lane, not a channel alone
    fleet.start("a", consumer="Webhooks", attributes=settings)
    fleet.until_owned("a")
    began, pid = time.monotonic(), _pid(fleet, "a")
    base, samples = look(pid, began), list[Sample]()

    def watch() -> bool:
        if not samples or time.monotonic() - began > samples[-1].seconds + 0.2:
            samples.append(look(pid, began))
        return True

    pad = "x" * size
    for chunk in _chunks(count, 100):
        fleet.produce(
            fleet.notification(
                f"u{n}",
                plan=["transient" if n % 2 else "ok", "away"],
                seconds=0,
                gate=str(gate),
                gate_from=2,
                pad=pad,
            )
            for n in chunk
        )
        watch()
    for _ in range(times):
        fleet.start("b", consumer="Webhooks", attributes=settings)
        fleet.until(lambda: watch() and fleet.owned("b"), "partition for b")
        fleet.stop("b")
        seen = len(fleet.all(Owned))
        fleet.until(lambda seen=seen: watch() and len(fleet.all(Owned)) > seen, "partitions back at a")  # type: ignore[misc]
    gate.touch()
    ids = {p.id for p in fleet.produced}
    fleet.until(lambda: watch() and ids <= fleet.terminal, "end of all notifications", 120)
    fleet.until_caught_up()
    watch()
    fleet.end()
    fleet.verify(Guarantees.all(max_attempts=20))
    return Handovers(base, samples, times, count * size)


def long_handovers(kafka: LocalKafka, times: int) -> Handovers:
    """`handovers` with as many payloads as so many of them take."""
    with (
        tempfile.TemporaryDirectory() as directory,
        Fleet(kafka.bootstrap_servers, Path(directory), partitions=4, **LITTLE) as fleet,
    ):
        return handovers(fleet, count=1_000 + 200 * times, times=times)


def given_away(engine: Engine) -> list[Entry]:
    """Notifications of this worker that are in memory although their assignment has ended. What other workers of this
    process left behind does not count."""
    return [
        o
        for o in gc.get_objects()
        if type(o) is Entry
        and isinstance(partition := o.partition, Partition)
        and not partition.alive
        and partition.effects is engine.effects
    ]


def holders(entries: list[Entry]) -> str:
    """Who refers to the first of them, and who to those: for a person who looks for a leak."""
    found: list[object] = [*entries[:1]]
    lines = [f"{len(entries)} are left, such as {[(e.partition.number, e.origin, e.busy) for e in found]}"]  # type: ignore[attr-defined]
    for depth in range(3):
        found = [r for r in gc.get_referrers(*found) if r is not found and r is not entries]
        lines += [f"{'  ' * depth}{_named(each)}" for each in found[:20]]
    return "\n".join(lines)


def _named(o: object) -> str:
    if isinstance(o, FrameType):
        return f"frame of {o.f_code.co_name}:{o.f_lineno}"
    return f"{type(o).__qualname__} {repr(o)[:100]}" if callable(o) else type(o).__qualname__


def _chunks(count: int, size: int) -> Iterator[range]:
    for begin in range(0, count, size):
        yield range(begin, min(begin + size, count))


def _pid(fleet: Fleet, name: str) -> int:
    return fleet._processes[name].pid


def main() -> int:
    """Measure all of it, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long all sends fail")
    parser.add_argument("--users", type=int, default=1_000, help="for how many users; two notifications each")
    parser.add_argument("--backlog", type=int, default=100_000, help="waiting retries at the restart")
    parser.add_argument("--delay", type=float, default=150.0, help="seconds until those are due")
    parser.add_argument(
        "--handovers", type=int, default=10, help="hand-overs during an outage, of 100 kB payloads"
    )
    options = parser.parse_args()
    with LocalKafka() as kafka:
        with (
            tempfile.TemporaryDirectory() as directory,
            Fleet(kafka.bootstrap_servers, Path(directory)) as fleet,
        ):
            seconds = options.minutes * 60
            sys.stdout.write(
                f"{soak(fleet, seconds=seconds, count=2 * options.users, users=options.users)}\n"
            )
            sys.stdout.flush()
        with (
            tempfile.TemporaryDirectory() as directory,
            Fleet(kafka.bootstrap_servers, Path(directory)) as fleet,
        ):
            sys.stdout.write(f"{backlog(fleet, count=options.backlog, delay=options.delay)}\n")
            sys.stdout.flush()
        sys.stdout.write(f"{long_handovers(kafka, options.handovers)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
