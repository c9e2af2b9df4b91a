"""Simulated worlds keep every promise; equal seeds, equal worlds; and seeded bugs are caught."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import pytest

from tests.simulation.workers.bugs import BUGS, planted
from tests.simulation.workers.plan import KINDS, draw, hour
from tests.simulation.workers.world import Result, replay

pytestmark = pytest.mark.search

SEEDS = 30
MORE = int(os.environ.get("KAFKA_NOTIFY_WORLDS", "1000"))


@functools.cache
def world(seed: int) -> Result:
    return replay(draw(seed))


def again(seed: int) -> str:
    return f"python -m tests.simulation.workers --seed {seed}"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_world_keeps_every_promise(seed: int) -> None:
    found = world(seed).violations
    assert not found, "\n".join([*found[:10], f"replay: {again(seed)}"])


@pytest.mark.soak
def test_a_thousand_worlds_keep_every_promise() -> None:
    broken = {seed: found for seed in range(SEEDS, MORE) if (found := replay(draw(seed)).violations)}
    assert not broken, "\n".join(f"{again(seed)}: {found[0]}" for seed, found in broken.items())


@pytest.mark.soak
def test_an_hour_keeps_every_promise() -> None:
    assert not replay(hour(1)).violations


@pytest.mark.parametrize("seed", [1, 3])
def test_a_seed_decides_everything(seed: int) -> None:
    trace = world(seed).trace
    assert len(trace) > 100
    assert "\n".join(trace) == "\n".join(replay(draw(seed)).trace)


def test_a_seed_is_replayed_in_another_process() -> None:
    """Whatever the order of sets is there."""
    command = [sys.executable, *again(2).split()[1:]]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    there = subprocess.run(command, capture_output=True, check=True, env=environment).stdout.decode()
    assert there.splitlines()[1:] == list(world(2).trace)


def test_worlds_differ_and_do_everything() -> None:
    plans = [draw(seed) for seed in range(SEEDS)]
    assert len({plan.produced for plan in plans}) == SEEDS
    assert {fault.kind for plan in plans for fault in plan.faults} == set(KINDS)
    assert {plan.protocol for plan in plans} == {"classic", "consumer"}
    assert {plan.plain for plan in plans} == {False, True}


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_caught(name: str) -> None:
    bug, checker, first = BUGS[name]
    with planted(bug):
        assert any(
            violation.startswith(f"{checker}:")
            for seed in (first, *range(SEEDS))
            for violation in replay(draw(seed), patience=30).violations
        ), f"no world of the first {SEEDS} shows it to {checker}"
