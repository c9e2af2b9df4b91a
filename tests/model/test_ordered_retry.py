"""The ordered-retry protocol keeps its promises in random hostile worlds.

`KAFKA_NOTIFY_TEST_MODEL_SEEDS` says how many worlds are tried (the features alone get a tenth each); `make soak`
begins with 4000.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.model.owner import Owner
from tests.model.promises import Violation
from tests.model.world import FEATURES, World, limits, run

pytestmark = pytest.mark.search
SEEDS = int(os.environ.get("KAFKA_NOTIFY_TEST_MODEL_SEEDS", "500"))


def _try(seeds: int, features: frozenset[str] | None) -> None:
    for seed in range(seeds):
        try:
            run(seed, Owner, features)
        except Violation as e:
            pytest.fail(f"seed {seed}: {e}", pytrace=False)


@pytest.mark.invariant(n=1)
def test_every_adversity_at_once() -> None:
    """With all adversities together nothing is lost, reordered, early, sent again, or stuck."""
    _try(SEEDS, FEATURES)


@pytest.mark.invariant(n=2)
def test_any_adversities() -> None:
    """The same with any subset of them: some hide what others would show."""
    _try(SEEDS, None)


@pytest.mark.parametrize("feature", ["crashes", *sorted(FEATURES)])
@pytest.mark.invariant(n=6)
def test_one_adversity(feature: str) -> None:
    """The same with one of them, and crashes."""
    _try(SEEDS // 10, frozenset({feature}) & FEATURES)


class OrderedRetry(RuleBasedStateMachine):
    """The same world, driven by hypothesis: what fails is shrunk."""

    world: World | None = None

    @initialize(features=st.frozensets(st.sampled_from(sorted(FEATURES))), data=st.data())
    def start(self, features: frozenset[str], data: st.DataObject) -> None:
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(limits(features))
        self.world = World(_choose(data), features, Owner)

    def _let(self, data: st.DataObject, happen: Callable[[World], object]) -> None:
        world, self.world = self.world, None  # a world that broke is not settled
        assert world is not None
        world.now += 1
        world.choose = _choose(data)
        happen(world)
        self.world = world

    @rule(data=st.data(), steps=st.integers(1, 6))
    def the_owner_works(self, data: st.DataObject, steps: int) -> None:
        for _ in range(steps):
            self._let(data, lambda world: world.act(world.owner))

    @rule(data=st.data())
    def somebody_produces(self, data: st.DataObject) -> None:
        self._let(data, World.produce)

    @precondition(lambda self: self.world and self.world.requests)
    @rule(data=st.data())
    def a_commit_arrives(self, data: st.DataObject) -> None:
        self._let(data, World.deliver)

    @rule(data=st.data())
    def the_owner_changes(self, data: st.DataObject) -> None:
        self._let(data, World.take_over)

    @precondition(lambda self: self.world and self.world.zombies)
    @rule(data=st.data(), steps=st.integers(1, 6))
    def a_zombie_works(self, data: st.DataObject, steps: int) -> None:
        for _ in range(steps):
            self._let(data, lambda world: world.act(world.zombies[world.choose(len(world.zombies))]))

    @precondition(lambda self: self.world and self.world.redrivable)
    @rule(data=st.data())
    def an_operator_redrives(self, data: st.DataObject) -> None:
        self._let(data, World.redrive)

    @rule(data=st.data())
    def the_log_decays(self, data: st.DataObject) -> None:
        self._let(data, World.decay)

    def teardown(self) -> None:
        try:
            if self.world is not None:
                rng = random.Random(0)
                self.world.choose = lambda n: int(rng.random() * n)
                self.world.settle_down()
        finally:
            self.stack.close()


def _choose(data: st.DataObject) -> Callable[[int], int]:
    return lambda n: data.draw(st.integers(0, n - 1)) if n > 1 else 0


OrderedRetry.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=80,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestOrderedRetry = OrderedRetry.TestCase
