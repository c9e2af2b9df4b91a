"""What a worker takes while everything fails, and when it finds a mountain of waiting retries.

`python -m tests.guarantees.memory` measures both at full length and prints a report.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from kafka_notify.testing import LocalKafka
from kafka_notify.testing.attempt_log import Copied, Disturbed, Owned, Started, now_ms
from kafka_notify.testing.guarantees import CaughtUp, Guarantees, NothingLost
from tests.guarantees.fleet import Fleet

MEGABYTE = 1_000_000
FAILING = {"max_attempts": 10_000, "first": 2.0, "factor": 1.0, "cap": 2.0}


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
    fleet.verify(Guarantees(c for c in everything.checkers if not isinstance(c, (NothingLost, CaughtUp))))
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
        "retry": {"max_attempts": 3, "first": delay, "cap": delay, "jitter": 0},
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


def _chunks(count: int, size: int) -> Iterator[range]:
    for begin in range(0, count, size):
        yield range(begin, min(begin + size, count))


def _pid(fleet: Fleet, name: str) -> int:
    return fleet._processes[name].pid


def main() -> int:
    """Measure both, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long all sends fail")
    parser.add_argument("--users", type=int, default=1_000, help="for how many users; two notifications each")
    parser.add_argument("--backlog", type=int, default=100_000, help="waiting retries at the restart")
    parser.add_argument("--delay", type=float, default=150.0, help="seconds until those are due")
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
