"""A world: workers, brokers and a provider, what is done to them, and the log of all that happened."""

from __future__ import annotations

import functools
import gc
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

import attrs
from confluent_kafka import KafkaError

from kafka_notify import Category, Lane, Topology, Worker
from kafka_notify._admin.wanted import wanted_topics
from kafka_notify._kafka import open_handles
from kafka_notify._worker.life import Life
from kafka_notify._worker.running import WorkerPlan
from kafka_notify.testing.attempt_log import (
    Accepted,
    DeadLettered,
    Disturbed,
    Ended,
    Line,
    Produced,
    Skipped,
    Started,
)
from kafka_notify.testing.guarantees import Guarantees, Observation, OnTime
from tests.simulation.kafka import StuckError, VirtualLoop, VirtualTime
from tests.simulation.kafka.clients import SERVERS, clients_of
from tests.simulation.kafka.virtual_time import INF
from tests.simulation.workers.broker import Broker
from tests.simulation.workers.plan import PARTITIONS, Fault, Plan
from tests.simulation.workers.provider import MAX_ATTEMPTS, MemoryLog, PlainSender, Provider, Sender

LANE: Final = "lane"
TOPOLOGY: Final = Topology(
    lanes=[Lane(LANE, partitions=PARTITIONS, profile="latency")],
    categories=[Category("news", LANE, ttl=1_000_000)],
    channels=["sms"],
)
DRAIN: Final = 5.0
START_AGAIN: Final = 2.0
"""Seconds until something starts a worker again that has ended."""
PATIENCE: Final = 300.0
"""Virtual seconds: six sessions of the longer kind, as members may be lost one after the other."""


class SimulatedWorker(Worker):
    """A worker on the doubles: the plan of the real one, with other factories."""

    def __init__(self, broker: Broker, sender: Sender, log: MemoryLog, **config: Any) -> None:
        time, host = broker.time, log.worker
        self._host_clients = clients_of(broker, host)
        super().__init__(
            sender,
            SERVERS | config,
            lane=LANE,
            topology=TOPOLOGY,
            drain_timeout=DRAIN,
            on_event=log.on_event,
            loop_factory=lambda: VirtualLoop(time, host),
        )
        self._life = Life(self._host_clients.runtime)

    def _plan(self, consumer: Any) -> WorkerPlan:
        return attrs.evolve(super()._plan(consumer), clients=self._host_clients)


@attrs.define(eq=False)
class Slot:
    """A place in which one worker after the other runs."""

    number: int
    incarnation: int = 0
    host: str = ""
    worker: SimulatedWorker | None = None
    starting: Future[None] | None = None
    ending: Future[None] | None = None
    away: bool = False
    """True while it is frozen or cut off."""


@attrs.frozen
class Result:
    """What came of a world."""

    violations: Sequence[str]
    trace: Sequence[str]
    """All that happened. Equal seeds, equal traces."""
    counts: dict[str, int]
    seconds: float
    """Virtual seconds."""


class World:
    """Runs one plan.

    Args:
        plan: The plan.
        patience: Virtual seconds after the last fault in which everything has to be finished.
    """

    def __init__(self, plan: Plan, patience: float = PATIENCE) -> None:
        self.plan = plan
        self._patience = patience
        self.trace: list[str] = []
        self.lines: list[Observation] = []
        self.time = VirtualTime(plan.seed, stalls=plan.stalls, stall=0.05)
        self.broker = Broker(self.time, TOPOLOGY, (LANE, Sender.name), self._told)
        self.broker.traced = self._traced
        self.provider = Provider(plan, self.time)
        self._random = random.Random(f"world {plan.seed}")
        self._slots = [Slot(n) for n in range(plan.workers)]
        self._open: dict[str, tuple[int, int]] = {}
        self._sending: set[tuple[str, str]] = set()
        """Calls under way, by worker and id: a plain one may outlive its deadline."""
        self._healed = False
        self._do: dict[str, Callable[[Fault], None]] = {
            "kill": self._kill, "restart": self._restart, "freeze": self._freeze, "cut": self._cut,
            "expel": self._expel, "join": self._join, "brokers": self._brokers, "leader": self._leader,
            "coordinator": self._coordinator, "clock": self._clock,
            "provider down": functools.partial(self._failing, "down"),
            "throttled": functools.partial(self._failing, "throttled"),
            "commit refused": functools.partial(self._errors, "commit", None),
            "commit not answered": functools.partial(self._errors, "commit_answer", None),
            "write refused": functools.partial(self._errors, "write", self.broker.retry),
            "not acknowledged": functools.partial(self._errors, "acknowledge", self.broker.retry),
        }  # fmt: skip

    def run(self) -> Result:
        """Run the world to its end, and judge it."""
        plan, time, broker = self.plan, self.time, self.broker
        violations: list[str] = []
        with _alone(plan.seed):
            for name, wanted in wanted_topics(TOPOLOGY, [Sender.name]).items():
                broker.create(name, wanted.partitions)
            broker.latency = plan.write
            broker.delay = self._delay
            for number, produce in enumerate(plan.produced):
                time.at(produce.at, functools.partial(self._produce, f"n{number}", produce.user))
            for fault in plan.faults:
                time.at(fault.at, functools.partial(self._fault, fault))
            for slot in self._slots:
                self._start(slot)
            self._supervise()
            try:
                last = max([p.at for p in plan.produced] + [f.at for f in plan.faults] + [0.0])
                time.sleep(last + 0.1)
                self._heal()
                time.until(lambda: not self._open, self._patience)
                time.until(broker.caught_up, self._patience)
                time.until(lambda: not self._sending, self._patience)
            except StuckError as e:
                violations.append(f"Ends: not finished: {sorted(self._open)[:5]}; {e}")
            seconds = time.now - 1_000
            self._end()
            violations += self._judge()
        counts = {"produced": len(plan.produced), "turns": time.turns}
        for line in self.lines:
            counts[type(line).__name__] = counts.get(type(line).__name__, 0) + 1
        return Result(violations, self.trace, counts, seconds)

    # -- what happens ---------------------------------------------------------------------------------

    def _traced(self, line: str) -> None:
        self.trace.append(f"{self.time.now - 1_000:10.4f}  {line}")

    def _told(self, line: Line) -> None:
        line = attrs.evolve(line, at=int(self.time.wall() * 1000))
        self.lines.append(line)
        values = attrs.asdict(line, filter=lambda a, _: a.name != "at")
        self._traced(" ".join([type(line).__name__, *(f"{k}={v}" for k, v in values.items())]))
        match line:
            case Accepted() | Skipped() | DeadLettered():
                self._open.pop(line.id, None)
            case Started():
                self._sending.add((line.worker, line.id))
            case Ended():
                self._sending.discard((line.worker, line.id))
            case _:
                pass

    def _produce(self, id: str, user: str) -> None:
        place = self._open[id] = self.broker.produce(id, user)
        self._told(Produced(id, user, *place))

    def _delay(self, call: str) -> float:
        mean = self.plan.request
        return min(self._random.expovariate(1 / mean), 1.0) if mean and not self._healed else 0.0

    # -- workers --------------------------------------------------------------------------------------

    def _start(self, slot: Slot) -> None:
        slot.incarnation += 1
        host = slot.host = f"w{slot.number}.{slot.incarnation}"
        log = MemoryLog(host, self.time, self._told)
        sender = (PlainSender if self.plan.plain else Sender)(host, self.provider, log, self.time)
        config: dict[str, Any] = {"group.protocol": "consumer"}
        if self.plan.protocol == "classic":
            config = {"session.timeout.ms": int(self.plan.session * 1000)}
        slot.worker = SimulatedWorker(self.broker, sender, log, **config)
        slot.away, slot.ending = False, None
        slot.starting = self.time.begin(slot.worker.start, host)
        self._traced(f"start {host}")

    def _supervise(self) -> None:
        """Start again what could not start, or has failed; as a process manager does."""
        for slot in self._slots:
            worker, starting = slot.worker, slot.starting
            if worker is None or starting is None or slot.away or slot.ending is not None:
                continue
            if not starting.done():
                continue
            if starting.exception(0) is not None:
                self._traced(f"{slot.host} did not start: {type(starting.exception(0)).__name__}")
                slot.worker = None
                self.time.at(START_AGAIN, functools.partial(self._start, slot))
            elif worker._life.error is not None:
                self._traced(f"{slot.host} failed: {type(worker._life.error).__name__}")
                self._stop(slot)
        self.time.at(1.0, self._supervise)

    def _stop(self, slot: Slot) -> None:
        worker = slot.worker
        if worker is None or slot.away or slot.ending is not None:
            return
        self._told(Disturbed(slot.host, "stopped"))
        slot.ending = self.time.begin(worker.stop, slot.host)
        slot.ending.add_done_callback(lambda _: self._ended(slot))

    def _ended(self, slot: Slot) -> None:
        if slot.host not in self.time.killed:
            slot.worker = None
            if not self.time.over:
                self.time.at(START_AGAIN / 2, functools.partial(self._start, slot))

    def _slot(self, fault: Fault) -> Slot:
        return self._slots[fault.who % len(self._slots)]

    def _kill(self, fault: Fault) -> None:
        slot = self._slot(fault)
        if slot.worker is None:
            return
        self._die(slot)
        self.time.at(fault.seconds, functools.partial(self._start, slot))

    def _die(self, slot: Slot) -> None:
        host = slot.host
        self._told(Disturbed(host, "killed"))
        self._sending = {call for call in self._sending if call[0] != host}
        self.broker.gone.add(host)
        running = None if slot.worker is None else slot.worker._running
        if running is not None:
            running.handle._stop = True  # its thread survives everything that a poll raises
        slot.worker, slot.starting, slot.ending, slot.away = None, None, None, False
        self.time.kill(host)
        self.time.at(self.plan.session, lambda: self.broker.expel(host))

    def _restart(self, fault: Fault) -> None:
        self._stop(self._slot(fault))

    def _join(self, fault: Fault) -> None:
        slot = Slot(len(self._slots))
        self._slots.append(slot)
        self._start(slot)

    def _freeze(self, fault: Fault) -> None:
        slot = self._slot(fault)
        if slot.worker is None or slot.away or slot.ending is not None:
            return
        slot.away, host = True, slot.host
        self._told(Disturbed(host, "paused"))
        self.time.frozen.add(host)
        self._silent(slot, fault.seconds)

        def thaw() -> None:
            if slot.host == host and slot.away:
                slot.away = False
                self._told(Disturbed(host, "resumed"))
                self.time.frozen.discard(host)

        self.time.at(fault.seconds, thaw)

    def _cut(self, fault: Fault) -> None:
        slot = self._slot(fault)
        if slot.worker is None or slot.away or slot.ending is not None:
            return
        slot.away, host = True, slot.host
        self._traced(f"cut off {host}")
        self.broker.cut.add(host)
        self._silent(slot, fault.seconds)

        def join() -> None:
            self._traced(f"connected {host}")
            self.broker.cut.discard(host)
            if slot.host == host:
                slot.away = False

        self.time.at(fault.seconds, join)

    def _silent(self, slot: Slot, seconds: float) -> None:
        """The group gives up a member that it does not hear from."""
        host = slot.host

        def give_up() -> None:
            if host not in self.time.killed:
                self._told(Disturbed(host, "fenced"))
                self.broker.expel(host)

        if seconds > self.plan.session:
            self.time.at(self.plan.session, give_up)

    def _expel(self, fault: Fault) -> None:
        slot = self._slot(fault)
        if slot.worker is not None and slot.host not in self.time.killed:
            self._told(Disturbed(slot.host, "fenced"))
            self.broker.expel(slot.host)

    # -- brokers, network, provider -------------------------------------------------------------------

    def _brokers(self, fault: Fault) -> None:
        seconds = min(fault.seconds, self.plan.session * 0.8)  # heartbeats fail as well
        self._told(Disturbed("", "broker"))
        self.broker.frozen = True
        self.time.at(seconds, self._brokers_back)

    def _brokers_back(self) -> None:
        self.broker.frozen = False
        self._told(Disturbed("", "broker back"))

    def _leader(self, fault: Fault) -> None:
        places = {(topic, fault.who) for topic in (self.broker.source, self.broker.retry)}
        self._told(Disturbed("", "broker"))
        self.broker.leaderless |= places

        def elected() -> None:
            self.broker.leaderless -= places
            self._told(Disturbed("", "broker back"))

        self.time.at(min(fault.seconds, 10.0), elected)

    def _coordinator(self, fault: Fault) -> None:
        self._told(Disturbed("", "broker"))
        seconds = min(fault.seconds, 10.0)
        for call in ("commit", "committed"):
            self.broker.faults.fail(call, KafkaError.NOT_COORDINATOR, times=INF, seconds=seconds)
        self.time.at(seconds, lambda: self._told(Disturbed("", "broker back")))

    def _errors(self, call: str, topic: str | None, fault: Fault) -> None:
        code = getattr(KafkaError, fault.code) if fault.code else KafkaError._TIMED_OUT
        if code == KafkaError.ILLEGAL_GENERATION:
            self._expel(fault)
            return
        topics: dict[str, Any] = {} if topic is None else {"topic": topic}
        seconds = fault.seconds / 4
        if call in ("commit", "write"):  # the next owner knows only what was stored before
            self._told(Disturbed("", "broker"))
            self.time.at(seconds, lambda: self._told(Disturbed("", "broker back")))
        self.broker.faults.fail(call, code, times=INF, seconds=seconds, **topics)

    def _failing(self, how: str, fault: Fault) -> None:
        setattr(self.provider, how, getattr(self.provider, how) + 1)
        self.time.at(fault.seconds, lambda: setattr(self.provider, how, getattr(self.provider, how) - 1))

    def _clock(self, fault: Fault) -> None:
        host = self._slot(fault).host
        self.time.steps[host] = self.time.steps.get(host, 0.0) + fault.seconds

    def _fault(self, fault: Fault) -> None:
        if not self._healed:
            self._traced(f"-- {fault.kind} {fault.who} {fault.seconds:g} s {fault.code}")
            self._do[fault.kind](fault)

    def _heal(self) -> None:
        """No more faults; what is under way ends by itself, or here."""
        self._traced("-- no more faults")
        self._healed = self.provider.healed = True
        self.broker.faults.clear()

    # -- the end --------------------------------------------------------------------------------------

    def _end(self) -> None:
        self.time.over = True
        for slot in self._slots:
            if slot.host:
                self.broker.gone.add(slot.host)
                running = None if slot.worker is None else slot.worker._running
                if running is not None:
                    running.handle._stop = True
                self.time.kill(slot.host)
        self.time.finish()

    def _judge(self) -> Iterator[str]:
        held = Guarantees.all(max_attempts=MAX_ATTEMPTS)
        for seen in (*self.lines, *self.broker.final()):
            held.observe(seen)
        for checker in held.checkers:
            if not (isinstance(checker, OnTime) and self.plan.steps_clocks):
                yield from (f"{type(checker).__name__}: {text}" for text in checker.violations())


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    """Nothing but the seed decides: the generator that jitter comes from is seeded, and no finalizer runs at a time of
    its own. Logs are off: workers are killed at every place."""
    state, disabled, handles = random.getstate(), logging.root.manager.disable, set(open_handles._open)
    random.seed(seed)
    gc.collect()
    gc.disable()
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        for handle in open_handles._open - handles:  # of the dead
            open_handles.unregister(handle)
        logging.disable(disabled)
        gc.collect()
        gc.enable()
        random.setstate(state)


def replay(plan: Plan, patience: float = PATIENCE) -> Result:
    """Run a plan."""
    return World(plan, patience).run()
