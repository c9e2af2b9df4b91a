"""Reports about a worker: its counts, what it holds in memory, and its health. From any thread, at any time.

A report reads state that the event loop goes on changing: each look is one step of the interpreter, so nothing is
locked.
"""

from __future__ import annotations

import threading
from typing import Final

import attrs

from kafka_notify._fetch import backpressure
from kafka_notify._fetch.flow import TRANSIT_BYTES
from kafka_notify._fetch.loop import FetchLoop
from kafka_notify._settle.copies import CopyWriter
from kafka_notify._worker.engine import Engine
from kafka_notify._worker.life import State
from kafka_notify._worker.stats import TABLE_ENTRY_BYTES, WorkerStats
from kafka_notify.errors import NotifyError

HALF_ASSIGNED_LIMIT: Final = 60.0
UNASSIGNED_LIMIT: Final = 60.0
"""Seconds without an answer of the group, which also answers a member that is given no partition."""
STUCK_SHARE: Final = 0.1
BLOCKED_LIMIT: Final = 60.0
"""Seconds of a blocked event loop, or with so many hanging sends that no other may start, after which the worker does
not count as alive: only a restart helps."""


def failure(error: BaseException) -> str:
    """The reason why a worker stopped, as a sentence for `health`."""
    why = f": {error}" if isinstance(error, NotifyError) else ""
    return f"it stopped on {type(error).__name__}{why}"


@attrs.frozen
class Sample:
    """Facts for the test kit alone."""

    limited: bool
    """True while sends wait for a rate limit."""
    given_away: int
    """Queued attempts of partitions that have ended."""
    destinations: list[str]
    """Names of held destinations, which may be personal."""
    budgets: dict[str, list[int]]
    """Bytes in use, and their limit, by budget."""


class Report:
    """Reads the parts of one worker.

    Args:
        engine: The worker's state.
        fetch: The worker's fetch thread.
        writer: Writes the worker's copies.
        thread: Runs the event loop.
        memory_limit: `WorkerStats.memory_limit`.
        topics: Names of source, retry and dead-letter topic.
    """

    def __init__(
        self,
        engine: Engine,
        fetch: FetchLoop,
        writer: CopyWriter,
        thread: threading.Thread,
        memory_limit: int,
        topics: tuple[str, str, str],
    ) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._sends = engine.sends
        self._fetch = fetch
        self._writer = writer
        self._thread = thread
        self._memory_limit = memory_limit
        self._topics = topics

    # -- what it did and holds ------------------------------------------------------------------------

    def stats(self) -> WorkerStats:
        """The worker's counts and contents now."""
        engine, sends, guard = self._engine, self._sends, self._sends.guard
        counts, budget = sends.counts, engine.budget
        partitions = tuple(engine.partitions.values())
        long_waits, windows = engine.long_waits, [p.window for p in partitions]
        waiting = sum(len(p.pending) for p in partitions)
        return WorkerStats(
            sent=counts.sent,
            retried=counts.retried,
            dead=counts.dead,
            expired=counts.expired,
            skipped=counts.skipped,
            passed_over=counts.passed_over,
            parked=counts.parked,
            unknown=counts.unknown,
            in_flight=sends.slots.in_flight(),
            buffered=engine.intake.buffered,
            waiting_retries=waiting,
            carried_window=long_waits.carried["window"],
            carried_retention=long_waits.carried["retention"],
            carried_sparse=long_waits.carried["sparse"],
            spills=long_waits.spills,
            spill_failures=long_waits.spill_failures,
            wide_partitions=sum(window > 0 for window in windows),
            longest_window=max(windows, default=0),
            stuck=sends.slots.stuck(),
            circuit_open=guard.lane.held,
            destinations_held=len(guard.destinations_held()),
            circuit_score=guard.lane.score,
            probes=guard.probes.made,
            probes_failed=guard.probes.failed,
            retry_shares=guard.lane.retry_shares,
            partitions=tuple(sorted(p.number for p in partitions if p.active)),
            paused=engine.paused.active(),
            buffered_bytes=engine.intake.buffered_bytes + self._fetch.flow.transit_bytes,
            waiting_bytes=max(budget.used - budget.loaded, 0),
            loading_bytes=budget.loaded,
            table_bytes=TABLE_ENTRY_BYTES * waiting,
            memory_limit=self._memory_limit,
        )

    def oldest_age(self) -> float | None:
        """Seconds since the oldest open notification was created."""
        # The loop changes these meanwhile: each `tuple` copies in one step of the interpreter.
        oldest = min(
            (
                created
                for partition in tuple(self._engine.partitions.values())
                for queue in tuple(partition.queues.values())
                if (head := queue.head) is not None
                and (created := head.created) > 0  # a record may come without a time
            ),
            default=None,
        )
        return None if oldest is None else max(0.0, (self._clock.now() - oldest) / 1000)

    def sample(self) -> Sample:
        """Facts for the test kit."""
        stats, budget = self.stats(), self._engine.budget
        return Sample(
            limited=self._sends.pace is not None and bool(self._sends.ready),
            given_away=self._sends.ready.given_away(),
            destinations=self._sends.guard.names_held(),
            budgets={
                "buffered": [stats.buffered_bytes, backpressure.BUFFER_BYTES + TRANSIT_BYTES],
                "waiting": [stats.waiting_bytes, budget.limit],
                "loading": [stats.loading_bytes, budget.loads],
            },
        )

    # -- health ---------------------------------------------------------------------------------------

    def acknowledge(self) -> None:
        """Clear the alarms: a person has seen them."""
        self._engine.losses.alarms.acknowledge()

    def lives(self) -> bool:
        """Return False when only a restart helps."""
        engine = self._engine
        runs = engine.error is None and self._thread.is_alive() and self._fetch.alive()
        hangs = (
            engine.all_stuck_since is not None
            and self._clock.boottime() - engine.all_stuck_since > BLOCKED_LIMIT
        )
        return runs and not hangs and self._clock.boottime() - engine.ticked_at < BLOCKED_LIMIT

    def notes(self) -> tuple[str, ...]:
        """Sentences about what others have to look after."""
        return tuple(self._sends.guard.notes())

    def problems(self) -> tuple[str, ...]:
        """Sentences about what is wrong, worst first."""
        engine = self._engine
        if engine.error is not None:
            return (failure(engine.error),)
        return (
            *self._of_threads(),
            *engine.refusals.sentences(),
            *self._of_the_group(),
            *engine.losses.alarms.sentences(),
            *self._of_writes(),
            *self._of_sends(),
            *self._half_assigned(),
        )

    def _of_threads(self) -> list[str]:
        engine, found = self._engine, list[str]()
        if engine.life.state is State.STOPPING:
            found.append(State.STOPPING.value)
        elif not self._thread.is_alive() or not self._fetch.alive():
            found.append("one of its threads has ended")
        halted = sorted(dict(engine.assignments.halted).items())
        found += [f"{self._topics[0]}[{n}] is halted: {reason}" for n, reason in halted]
        quiet = self._clock.boottime() - engine.ticked_at
        if quiet > 10:
            found.append(f"its event loop is blocked for {quiet:.0f} s: an async send must not block")
        return found

    def _of_the_group(self) -> list[str]:
        since = self._fetch.unassigned_since
        if since is None or (outside := self._clock.boottime() - since) <= UNASSIGNED_LIMIT:
            return []
        return [
            f"it has not joined the group {self._engine.group} for {outside:.0f} s: are the brokers reachable, and may "
            "it Read the group? Members that hand over, or hang, delay a join too"
        ]

    def _of_writes(self) -> list[str]:
        commits, writer, found = self._engine.commits, self._writer, list[str]()
        if self._engine.partitions and commits.error is not None:
            found.append(f"commits fail: {commits.error}")
        if (late := commits.late()) > 0:
            found.append(f"no commit was confirmed for {late:.0f} s: sends wait")
        if writer.failing:
            found.append(
                f"{writer.failing} copies to {self._topics[1]} or {self._topics[2]} are not acknowledged"
                + (f": {writer.why}" if writer.why else "")
            )
        return found

    def _of_sends(self) -> list[str]:
        sends, slots, found = self._sends, self._sends.slots, list[str]()
        if not slots.allowed():
            found.append(
                f"{slots.stuck()} sends hang, twice as many as may run at once: nothing is sent until one of "
                "them returns, or the process is restarted"
            )
        elif (stuck := slots.stuck()) >= max(1, slots.concurrency * STUCK_SHARE):
            found.append(f"{stuck} sends outlived their deadline and still run")
        if strays := slots.strays():
            found.append(
                f"{strays} async sends ignored their cancellation at a hand-over and still run beside the next owner's"
            )
        return [*found, *sends.decoder.unread.problems(), *sends.guard.problems()]

    def _half_assigned(self) -> list[str]:
        longest = self._clock.boottime() - HALF_ASSIGNED_LIMIT
        halves = [n for n, since in self._fetch.half_assigned().items() if since < longest]
        if not halves:
            return []
        return [
            f"partitions {sorted(halves)} are assigned for {self._topics[0]} or {self._topics[1]} alone: "
            "do both topics have the same number of partitions?"
        ]
