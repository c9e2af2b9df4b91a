"""Everything at once, at random: a run that only its seed decides, as far as the machine allows."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import attrs
from confluent_kafka import KafkaException

from kafka_notify import Notification
from kafka_notify.testing import LocalKafka
from kafka_notify.testing._judgement import guarantees_of
from kafka_notify.testing.attempt_log import Disturbed, Started
from kafka_notify.testing.guarantees import (
    DuplicatesBounded,
    Isolation,
    Liveness,
    Memory,
    OneAtATime,
)
from kafka_notify.testing.history import Header
from tests.guarantees.deployment import QUICK_RETRY
from tests.guarantees.fleet import Fleet
from tests.guarantees.memory import MEGABYTE
from tests.guarantees.production import DESTINATIONS, Mix, Traffic
from tests.guarantees.provider import Switchboard

WORKERS: Final = 3
LAG_LIMIT: Final = 120.0
"""Seconds from the end of all trouble until nothing may lag: a session time-out or two, the last retries, and
a loaded machine."""
SPEC: Final[dict[str, Any]] = {
    "consumer": "Production",
    "consumer_config": {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 500},
    "attributes": {"send_timeout": 2.0},
    "drain_timeout": 3.0,
}
HEADER: Final = Header(QUICK_RETRY.max_attempts, handover=4.0, settle=5.0)
"""By what a run is judged. A hand-over: the drain, and what it takes to begin."""
SHORT: Final = Mix(hot=1_500, campaign=300, resumed=15)
"""For a run of less than a minute."""
Protocol = Literal["classic", "consumer"]


def variant(seed: int, protocol: Protocol | None = None) -> dict[str, Any]:
    """Settings of the workers of a run, drawn from its seed: senders, memory, patience. Without a protocol, even seeds
    have the classic one, and odd ones the other."""
    rng = random.Random(seed)
    consumer = rng.choice(["Production", "ProductionSync"])
    spec = {
        "consumer": consumer,
        "samples": True,
        # plain sends cannot be cancelled: with no patience for them a hand-over overlaps with them
        "drain_timeout": rng.choice([0.1, 3.0]) if consumer == "Production" else 3.0,
        "payload_budget": rng.choice([2_000, None]),
    }
    if (protocol or ("classic", "consumer")[seed % 2]) == "consumer":
        spec["consumer_config"] = {"group.protocol": "consumer"}
    return {**SPEC, **spec}


@attrs.frozen
class Report:
    """What was done in a run, and what came of it."""

    seed: int
    faults: Counter[str]
    notifications: int
    attempts: int
    duplicates: int
    """Acceptances beyond the first of each notification."""
    exposed: int
    """Their bound: acceptances that a fault hit before their commit, or that the worker could not learn of."""
    overlaps: int
    """Sends that overlapped with one of the worker that took over, of those that the checkers tolerate."""
    caught_up: float | None
    """Seconds from the end of all trouble until everything was terminal and committed; None if it never was."""
    longest_wait: float
    """Seconds that an untroubled user waited at most while senders were free."""
    waits: int
    """How many such waits were judged."""
    memory: tuple[int, int]
    """Resident bytes of a worker at their highest, compared with what its budgets allowed then; and those."""
    wrongly_held: float
    """Seconds that lanes were held although the provider worked and something was due."""
    violations: tuple[str, ...]

    def __str__(self) -> str:
        faults = ", ".join(f"{count} x {what}" for what, count in sorted(self.faults.items()))
        lag = f"lag 0 after {self.caught_up:.1f} s" if self.caught_up is not None else "LAG"
        return (
            f"{sum(self.faults.values())} faults ({faults}); {self.notifications} notifications, {self.attempts} "
            f"attempts, {self.duplicates} duplicates of at most {self.exposed}, {self.overlaps} overlaps with workers "
            f"that were replaced; longest wait of an untroubled user {self.longest_wait:.2f} s of {self.waits} judged, "
            f"memory {self.memory[0] / MEGABYTE:.0f} MB of {self.memory[1] / MEGABYTE:.0f} MB, held with a healthy "
            f"provider {self.wrongly_held:.1f} s; {lag}; {len(self.violations)} violations"
        )


class Chaos:
    """Does things to workers and brokers while notifications are produced.

    Args:
        fleet: With no workers yet.
        kafka: Its cluster; of one broker only the workers are disturbed.
        seed: Decides what is done.
        mix: What is produced.
    """

    def __init__(self, fleet: Fleet, kafka: LocalKafka, seed: int, mix: Mix = SHORT) -> None:
        self.fleet = fleet
        self.kafka = kafka
        self.rng = random.Random(seed)
        self.seed = seed
        self.mix = mix
        self.provider = Switchboard(fleet.directory, fleet.log)
        self._names = iter(f"w{n}" for n in range(10_000))
        self._paused: set[str] = set()
        self._down: tuple[str, int] | None = None
        self._server_down = ""
        self._never = threading.Event()
        self.done: Counter[str] = Counter()

    def run(self, actions: int, rate: int, *, calm: float = 8.0, history: Path | None = None) -> Report:
        """Disturb so many times while `rate` notifications are produced each second, then let everything end.

        Half-way, all workers are replaced one by one, and at three quarters the provider fails. After the last
        disturbance the traffic goes on for `calm` seconds: without them nobody would be without an excuse for long.
        What happened is written to the file `history`.
        """
        violations: list[str] = []
        caught_up = None
        try:
            for _ in range(WORKERS):
                self._join()
            traffic = Traffic(self.fleet, self.mix, self.seed)
            with self._producing(lambda n: traffic.some(rate // 10, n) if n else traffic.at_once()):
                for n in range(actions):
                    self._never.wait(self.rng.uniform(0.3, 2.0))
                    if n == actions // 2:
                        self._rolling_restart()
                    elif n == 3 * actions // 4:
                        self._provider_fails()
                        self.done["provider down"] += 1
                    self._act()
                self._end_trouble()
                self._never.wait(calm)
            since = time.monotonic()
            with self._producing(traffic.steady):
                self.fleet.until_all_terminal(LAG_LIMIT)
            self.fleet.until_all_terminal(LAG_LIMIT)
            self.fleet.until_caught_up()
            caught_up = time.monotonic() - since
            if caught_up > LAG_LIMIT:
                violations.append(f"lag 0 only after {caught_up:.0f} s, {LAG_LIMIT:g} s are allowed")
            self.fleet.end()
        except AssertionError as e:
            violations.append(str(e))
            self.fleet.look()
        finally:
            self._mend()
        if history is not None:
            self.fleet.save_history(history, HEADER)
        held = self.fleet.judge(guarantees_of(HEADER))
        duplicates, waits = held.checker(DuplicatesBounded), held.checker(Isolation).waits()
        return Report(
            seed=self.seed,
            faults=self.done,
            notifications=len(self.fleet.produced),
            attempts=len(self.fleet.all(Started)),
            duplicates=duplicates.duplicates,
            exposed=duplicates.exposed,
            overlaps=held.checker(OneAtATime).tolerated,
            caught_up=caught_up,
            longest_wait=waits[0].seconds if waits else 0.0,
            waits=len(waits),
            memory=held.checker(Memory).peak,
            wrongly_held=held.checker(Liveness).wrongly_held,
            violations=(*violations, *held.violations()),
        )

    def _end_trouble(self) -> None:
        for name in tuple(self._paused):
            self._resume(name)
        self._mend()
        if self._server_down:
            self._server_works()
        while len(self.fleet.running) < WORKERS:
            self._join()

    @contextmanager
    def _producing(self, some: Callable[[int], Iterable[Notification[Any]]]) -> Iterator[None]:
        """Produce what `some` makes of each number, ten times a second."""
        over = threading.Event()
        failures: list[BaseException] = []

        def produce() -> None:
            try:
                for n in itertools.count():
                    if over.is_set():
                        return
                    self.fleet.produce(some(n))
                    over.wait(0.1)
            except BaseException as e:
                failures.append(e)

        thread = threading.Thread(target=produce, name="traffic")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if failures:
            raise failures[0]

    def _act(self) -> None:
        able = [name for name in self.fleet.running if name not in self._paused]
        choices: list[tuple[str, Callable[[], object]]] = []
        if len(able) > 1:
            victim = self.rng.choice(able)
            choices += [("worker killed", lambda: self._kill(victim))] * 3
            choices += [("worker stopped", lambda: self.fleet.stop(victim))]
            choices += [("worker frozen", lambda: self._pause(victim))] * 2
            choices += [("churn", self._churn)]
        if self._paused:
            sleeper = self.rng.choice(sorted(self._paused))
            choices += [("worker thawed", lambda: self._resume(sleeper))] * 3
        if len(self.fleet.running) < WORKERS + 1:
            choices += [("worker joined", self._join)] * 3
        choices += [("provider down", self._provider_fails)]
        if self._server_down:
            choices += [("server back", self._server_works)]
        else:
            choices += [("server down", self._server_fails)]
        if len(self.kafka.brokers) >= 3:
            if self._down is not None:
                choices += [("broker back", self._mend)] * 3
            else:
                broker = self.rng.choice(self.kafka.brokers)
                choices += [("broker killed", lambda: self._break("killed", broker))]
                choices += [("broker frozen", lambda: self._break("frozen", broker))]
                choices += [("coordinator killed", lambda: self._break("killed", self._coordinator()))]
                choices += [("controller killed", lambda: self._break("killed", self._controller()))]
                choices += [("retry topic refuses writes", lambda: self._refuse_copies(broker))]
                choices += [("leaders moved", self.fleet.elect_leaders)]
        what, act = self.rng.choice(choices)
        try:
            if act() == 0:
                what = f"{what} (none had to)"
        except KafkaException as e:  # of an administrative request, while a broker is away
            what = f"{what}: refused ({e.args[0].name()})"
        self.done[what] += 1

    # -- workers --------------------------------------------------------------------------------------

    def _join(self) -> str:
        name = next(self._names)
        self.fleet.start(name)
        return name

    def _kill(self, name: str) -> None:
        self.fleet.kill(name)
        self._join()

    def _pause(self, name: str) -> None:
        self.fleet.pause(name)
        self._paused.add(name)

    def _resume(self, name: str) -> None:
        self._paused.discard(name)
        self.fleet.resume(name)

    def _churn(self) -> None:
        """One worker comes and one goes, each second."""
        for _ in range(4):
            comes = self._join()
            self._never.wait(1.0)
            self.fleet.stop(next(n for n in self.fleet.running if n not in self._paused and n != comes))

    def _rolling_restart(self) -> None:
        for name in self.fleet.running:
            if name not in self._paused:
                self.fleet.stop(name)
                self._join()
        self.done["rolling restart"] += 1

    # -- the provider ---------------------------------------------------------------------------------

    def _provider_fails(self) -> None:
        self.provider.fail(self.rng.choice(["down", "refuse", "slow_down"]))
        self._never.wait(self.rng.uniform(2.0, 4.0))
        self.provider.work()

    def _server_fails(self) -> None:
        self._server_down = self.rng.choice(DESTINATIONS)
        self.provider.fail("down", self._server_down)

    def _server_works(self) -> None:
        self.provider.work(self._server_down)
        self._server_down = ""

    # -- brokers --------------------------------------------------------------------------------------

    def _coordinator(self) -> int:
        return self.fleet.coordinator()

    def _controller(self) -> int:
        """The leader of the controllers, as they themselves wrote down."""
        found = [
            json.loads(path.read_text())
            for path in self.kafka.data_dir.glob("broker-*/log/__cluster_metadata-0/quorum-state")
        ]
        return int(max(found, key=lambda state: (state["leaderId"] >= 0, state["leaderEpoch"]))["leaderId"])

    def _refuse_copies(self, broker: int) -> None:
        self.fleet.alter_topic(self.fleet.retry_topic, "min.insync.replicas", 3)
        self._break("killed", broker)

    def _break(self, how: str, broker: int) -> None:
        self.fleet.log.write(Disturbed("", "broker"))
        self._down = (how, broker)
        if how == "killed":
            self.kafka.kill(broker)
        else:
            self.kafka.pause(broker)

    def _mend(self) -> None:
        if self._down is None:
            return
        how, broker = self._down
        self._down = None
        if how == "killed":
            self.kafka.start(broker)
        else:
            self.kafka.resume(broker)
        self.fleet.log.write(Disturbed("", "broker back"))
        for attempt in range(10):
            try:
                self.fleet.alter_topic(self.fleet.retry_topic, "min.insync.replicas", 2)
                return
            except KafkaException:  # the controllers elect a leader
                if attempt == 9:
                    raise
                self._never.wait(1.0)
