"""No interleaving of a few notifications, owners and faults breaks a promise; and those that break one are found."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from kafka_notify._settle.records import PartitionCopy
from kafka_notify._worker import pair_assertions
from tests.exhaustive.__main__ import line
from tests.exhaustive.choices import Choices
from tests.exhaustive.freeze import LEFT_OUT, TIMES, Frame, Shape
from tests.exhaustive.owners import TIME, TOLD, Desk, Unstarted, perform, start
from tests.exhaustive.scenario import START, Scenario, orders
from tests.exhaustive.search import Worlds, search
from tests.exhaustive.table import render
from tests.model import test_seeded_bugs as bugs
from tests.model.owner import Owner

pytestmark = pytest.mark.search


@pytest.fixture(autouse=True)
def without_pair_assertions() -> Iterator[None]:
    """They would see most seeded bugs first; the search looks at the promises, in every state."""
    pair_assertions.unbind()
    yield
    pair_assertions.bind()


WORLDS = {
    Scenario("a", 1): 100_000,
    Scenario("aa", 0): 100_000,
    Scenario("ab", 0): 100_000,
    Scenario("ab", 1): 1_000_000,
}
"""States that are visited, at most. All but the last world have fewer."""


@pytest.mark.timeout(1800)  # a minute of one processor, which others may need, too
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_every_state_keeps_the_promises(world: Scenario) -> None:
    """In no state that can be reached is a promise broken, and what ends has nothing left that waits."""
    report = search(world, WORLDS[world])

    print(line(report))
    if report.broken is not None:
        pytest.fail(render(report), pytrace=False)
    assert report.exhausted or report.states >= 1_000_000


def small(users: str, faults: int, kinds: str = "", attempts: int = 2, collapse: bool = False) -> Scenario:
    """A world with a few kinds of faults."""
    return Scenario(users, faults, frozenset(kinds.split()), attempts=attempts, collapse=collapse)


CAUGHT: dict[type, tuple[str, Scenario]] = {
    bugs.HighestPolled: ("LOSS", small("a", 0)),
    bugs.CompleteBeforeAcknowledgement: ("LOSS", small("a", 0)),
    bugs.NoRestore: ("LOSS", small("a", 1, "crash")),
    bugs.NoDedupe: ("ATTEMPTS", small("a", 1, "crash")),
    bugs.CopyForgetsAttempts: ("ATTEMPTS", small("a", 0, attempts=3)),
    bugs.RestoreForgetsAttempts: ("ATTEMPTS", small("a", 1, "crash")),
    bugs.DeadLetterForgetsAttempt: ("CAUSE", small("a", 0)),
    bugs.Overtake: ("ORDER", small("aa", 0)),
    bugs.NoCoverage: ("EARLY", small("a", 0)),
    bugs.NotAwaitedFence: ("EARLY", small("a", 1, "crash")),
    bugs.ExpiryBeforeCoverage: ("DUP", small("a", 2, "crash expiry")),
    bugs.SkipBeforeCoverage: ("DUP", small("aa", 1, "crash", collapse=True)),
    bugs.TrustZombie: ("LOSS", small("a", 1, "zombies")),
    bugs.NoOrphans: ("STUCK", small("a", 1, "timeouts")),
    bugs.CopyForgetsOrphan: ("DUP", small("a", 2, "crash timeouts")),
    bugs.NoRedriveGenerations: ("DUP", small("a", 2, "crash redrive")),
    bugs.Overlap: ("OVERLAP", small("aa", 1, "redrive")),
    bugs.ForgetsRedriven: ("LOSS", small("a", 2, "redrive timeouts")),
    bugs.NoResume: ("STUCK", small("ab", 1, "pause")),
    bugs.OvertakesPaused: ("EARLY", small("aaa", 1, "pause")),
}
"""Bugs of the model that a small world shows, and the promise that the shortest way to them breaks."""


@pytest.mark.parametrize("bug", CAUGHT, ids=lambda bug: str(bug.__name__))
def test_bugs_are_found(bug: type) -> None:
    """A defect that somebody planted is found in a small world, in which nothing is found without it."""
    kind, world = CAUGHT[bug]
    report = search(attrs.evolve(world, new_owner=bugs.new_owner(bug)), 20_000)

    assert report.broken is not None, line(report)
    print(
        f"{bug.__name__}: {report.broken.kind} in {len(report.broken.steps)} steps, {report.broken.states:,} states"
    )
    assert report.broken.kind == kind, render(report)
    assert search(world, report.states).broken is None


def test_trace_is_a_table() -> None:
    """A person can read what led to it."""
    report = search(Scenario("a", 0, new_owner=bugs.HighestPolled), 1_000)

    assert render(report).splitlines() == [
        "LOSS: the commit covers 0: neither terminal nor in a copy",
        "(a, 0 faults: 5 steps, after 8 states)",
        "",
        "step  who  what                       sent or written    retry log  committed: source  retry",
        "----  ---  -------------------------  -----------------  ---------  -----------------  -----",
        "1     w1   fetches the commit                                       0                  0",
        "2     w1   looks up the ends, starts                                0                  0",
        "3     w1   reads the source                                         0                  0",
        "4     w1   asks for a commit          source 1, retry 0             0                  0",
        "5     w1   its commit arrives                                       0                  0",
    ]


def test_users_are_alike() -> None:
    """An order of notifications is looked at once, whatever the users' names are."""
    assert orders(3) == ["aaa", "aab", "aba", "abb"]
    assert [len(orders(n)) for n in (1, 2, 4)] == [1, 2, 8]


def test_nothing_goes_on_for_ever() -> None:
    """No state is met again on the way from it, so every history ends: then nothing waits."""
    worlds = Worlds(Scenario("a", 1))
    first = worlds.first()
    following = {first: worlds.after(first)}
    todo = [first]
    while todo:
        for state in following[todo.pop()]:
            if state not in following:
                following[state] = worlds.after(state)
                todo.append(state)
    before = Counter(state for states in following.values() for state in set(states))
    todo, passed = [first], 0
    assert before[first] == 0
    while todo:
        passed += 1
        for state in set(following[todo.pop()]):
            before[state] -= 1
            if not before[state]:
                todo.append(state)
    assert passed == len(following)


class Dice(Choices):
    """Answers by chance."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(3)
        self._rng = rng

    def choose(self, n: int) -> int:
        return self._rng.randrange(n)


class Walk:
    """Owners that live through a random history, beside the table in which each of their steps is looked up."""

    def __init__(self, seed: int, worlds: Worlds) -> None:
        self.rng = random.Random(seed)
        self.worlds = worlds
        self.owners, self.brokers = self.worlds.owners, self.worlds.brokers
        self.desk = Desk(self.worlds.scenario)
        self.broker = self.brokers.first()
        self.serial = 0
        self.steps = 0

    def live(self) -> None:
        """From its assignment until it dies."""
        self.serial += 1
        self.broker = self.brokers.after(self.broker, ("assign", frozenset()))
        now = self.brokers.known[self.broker]
        self.desk.answer_by(Dice(self.rng))
        owner = start(self.worlds.scenario, self.desk, Unstarted(self.serial, START, now.paused, now.stored))
        number = self.owners.first(self.serial, paused=now.paused, expired=False)
        (fetched,) = self.owners.step(number, self.owners.acts_of(number)[0], now.stored, 0)
        (started,) = self.owners.step(fetched.owner, self.owners.acts_of(fetched.owner)[0], len(now.retry), 0)
        number = started.owner
        perform(owner, self.desk, self.owners.acts_of(fetched.owner)[0], len(now.retry))
        frame = Frame(owner)
        assert frame.freeze()[0] == self.owners.key_of(number)
        for _ in range(self.rng.randrange(60)):
            number = self.step(owner, frame, number)
        frame.check_wiring()

    def step(self, owner: Owner, frame: Frame, number: int) -> int:
        """Something happens to both; return what the table says it is now."""
        now = self.brokers.known[self.broker]
        act, told = self.rng.choice(self._possible(number))
        broker = self.broker
        if act is TOLD:
            asked, choices = now.requests[0], self.rng.choice(self.brokers.answers(broker, now.requests[0]))
            broker, stored, _ = choices
            told = asked.source, asked.retry, stored
        self.desk.answer_by(Dice(self.rng))
        happened = perform(owner, self.desk, act, told)
        calls = tuple(self.desk.calls)
        found = frame.freeze()[0]
        ends = {
            (self.owners.key_of(end.owner), self.owners.calls[end.calls]): end.owner
            for end in self.owners.step(number, act, told, 3)
        }
        self.steps += 1
        if (not happened or not calls) and found == self.owners.key_of(number):
            return number
        assert (found, calls) in ends, act
        self.broker = (
            self.brokers.after(broker, *calls)
            if act is not TIME
            else self.brokers.after(broker, ("tick", False))
        )
        return ends[found, calls]

    def _possible(self, number: int) -> list[tuple[Any, Any]]:
        now = self.brokers.known[self.broker]
        found = []
        for act in self.owners.acts_of(number):
            is_there, told = self.worlds.told(act, now)
            if is_there:
                found.append((act, told))
        return [*found, (TIME, 1), *([(TOLD, None)] if now.requests else [])]


@pytest.mark.parametrize("users", ["aab", "aba"])
def test_steps_are_those_of_owners_that_live(users: str) -> None:
    """A step that is looked up is what the shipped classes do in an owner that was never put aside, nor taken for
    another one."""
    steps, worlds = 0, Worlds(Scenario(users, 3))
    for seed in range(60):
        walk = Walk(seed, worlds)
        for _ in range(4):
            walk.live()
        steps += walk.steps
    assert steps > 3_000
    print(f"{steps} steps")


def test_what_is_left_out_exists() -> None:
    """An exception names an attribute of its class: one that was renamed is an attribute like any other."""
    scenario = Scenario("a", 0)
    owner = start(scenario, Desk(scenario), Unstarted(1, START, paused=False))
    for table in (LEFT_OUT, TIMES):
        for cls, names in table.items():
            classes = (cls, *cls.__subclasses__(), *PartitionCopy.__subclasses__())
            known = {name for one in classes for name in Shape(one).names}
            assert names <= (vars(owner).keys() if cls is Owner else known), cls


def test_a_state_is_what_was_put_aside() -> None:
    """Whatever an owner does after it was taken up, the state that was put aside stays as it was."""
    worlds = Worlds(Scenario("aab", 2))
    rng, state = random.Random(1), worlds.first()
    for _ in range(2_000):
        state = rng.choice(worlds.after(state) or [worlds.first()])
    owners, frame = worlds.owners, worlds.owners.frame
    assert isinstance(frame, Frame)
    for number in range(1, len(owners.known), 7):
        for act in owners.acts_of(number):
            if act.needs == "nothing":
                owners.step(number, act, None, 3)
        if owners.take_up(number) is frame.owner:
            assert frame.freeze()[0] == owners.key_of(number)
