"""Everything at once, at random: a run that only its seed decides, as far as the machine allows."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from kafka_notify.testing import LocalKafka
from kafka_notify.testing.attempt_log import Disturbed
from kafka_notify.testing.guarantees import DuplicatesBounded, OneAtATime
from tests.guarantees.fleet import Fleet, checker

WORKERS: Final = 3
SPEC: Final[dict[str, Any]] = {
    "consumer_config": {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 500},
    "attributes": {"send_timeout": 2.0},
    "drain_timeout": 3.0,
}


def variant(seed: int) -> dict[str, Any]:
    """Settings of the workers of a run, drawn from its seed: senders, protocol, memory, patience."""
    rng = random.Random(seed)
    consumer = rng.choice(["AsyncSender", "SyncSender"])
    spec = {
        "consumer": consumer,
        # plain sends cannot be cancelled: with no patience for them a hand-over overlaps with them
        "drain_timeout": rng.choice([0.1, 3.0]) if consumer == "AsyncSender" else 3.0,
        "payload_budget": rng.choice([2_000, None]),
    }
    if rng.random() < 0.4:
        spec["consumer_config"] = {"group.protocol": "consumer"}
    return {**SPEC, **spec}


class Chaos:
    """Does things to workers and brokers while notifications are produced.

    Args:
        fleet: With no workers yet.
        kafka: Its cluster; of one broker only the workers are disturbed.
        seed: Decides what is done.
    """

    def __init__(self, fleet: Fleet, kafka: LocalKafka, seed: int) -> None:
        self.fleet = fleet
        self.kafka = kafka
        self.rng = random.Random(seed)
        self.seed = seed
        self._names = iter(f"w{n}" for n in range(10_000))
        self._paused: set[str] = set()
        self._down: tuple[str, int] | None = None
        self._never = threading.Event()
        self.done: list[str] = []

    def run(self, actions: int, rate: int) -> str:
        """Disturb so many times while `rate` notifications are produced each second, then let everything end.

        Returns:
            What was done and what it cost.

        Raises:
            AssertionError: A guarantee was broken.
        """
        for _ in range(WORKERS):
            self._join()
        with self._traffic(rate):
            for _ in range(actions):
                self._never.wait(self.rng.uniform(0.3, 2.0))
                self._act()
        for name in tuple(self._paused):
            self._resume(name)
        self._mend()
        while len(self.fleet.running) < WORKERS:
            self._join()
        self.fleet.finish(patience=90)
        held = self.fleet.verify()
        return (
            f"{len(self.fleet.produced)} notifications; {', '.join(self.done)}; "
            f"{checker(held, DuplicatesBounded).duplicates} duplicates, "
            f"{checker(held, OneAtATime).tolerated} overlaps with workers that were replaced"
        )

    @contextmanager
    def _traffic(self, rate: int) -> Iterator[None]:
        over = threading.Event()
        failures: list[BaseException] = []

        def produce() -> None:
            try:
                for n in range(1_000_000):
                    if over.is_set():
                        return
                    seed = self.seed * 1_000_003 + n
                    self.fleet.produce(self.fleet.traffic(rate // 10, users=60, seed=seed, seconds=0.1))
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
        if self._paused:
            sleeper = self.rng.choice(sorted(self._paused))
            choices += [("worker thawed", lambda: self._resume(sleeper))] * 3
        if len(self.fleet.running) < WORKERS + 1:
            choices += [("worker joined", self._join)] * 3
        if len(self.kafka.brokers) >= 3:
            if self._down is not None:
                choices += [("broker back", self._mend)] * 3
            else:
                broker = self.rng.choice(self.kafka.brokers)
                choices += [("broker killed", lambda: self._break("killed", broker))]
                choices += [("broker frozen", lambda: self._break("frozen", broker))]
        what, act = self.rng.choice(choices)
        act()
        self.done.append(what)

    def _join(self) -> None:
        self.fleet.start(next(self._names))

    def _kill(self, name: str) -> None:
        self.fleet.kill(name)
        self._join()

    def _pause(self, name: str) -> None:
        self.fleet.pause(name)
        self._paused.add(name)

    def _resume(self, name: str) -> None:
        self._paused.discard(name)
        self.fleet.resume(name)

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
        self.fleet.log.write(Disturbed("", "broker"))
        how, broker = self._down
        self._down = None
        if how == "killed":
            self.kafka.start(broker)
        else:
            self.kafka.resume(broker)
