"""A worker's circuits in simulated worlds: goals for users and operators, and bugs that miss them.

`KAFKA_NOTIFY_TEST_WORLDS=20` runs all worlds with so many seeds; `make soak` begins with that.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from kafka_notify._decision import circuit
from kafka_notify._decision.circuit import Circuit
from kafka_notify._decision.evidence import Try, Verdict
from kafka_notify._decision.shares import HOPELESS
from tests.simulation.run import Simulation, missed
from tests.simulation.worlds import WORLDS

SEEDS = int(os.environ.get("KAFKA_NOTIFY_TEST_WORLDS", "0"))
FEW = (
    "bad20",
    "campaign20",
    "twice10",
    "outage600",
    "hook403",
    "hook429",
    "retries-once",
    "crash-bad",
    "crash-untold",
    "throttle0",
)


@pytest.mark.parametrize("name", WORLDS if SEEDS else FEW)
def test_goals(name: str) -> None:
    """Each goal holds for every seed."""
    runs = [Simulation(WORLDS[name], seed).run() for seed in range(SEEDS or 1)]
    assert missed(WORLDS[name].goals, runs) == []


def test_a_run_depends_on_its_seed_alone() -> None:
    """Twice the same, and another one with another seed."""
    world = WORLDS["herd"]
    first, second, other = (Simulation(world, seed).run() for seed in (3, 3, 4))
    assert first == second != other


# -- a bug in each rule ------------------------------------------------------------------------------


def retries_weigh_one(patch: pytest.MonkeyPatch) -> None:
    learn = Circuit._learn

    def broken(self: Circuit, failed: bool, again: bool, attempts: int, now: float) -> float:
        learn(self, failed, again, attempts, now)
        return 1.0

    patch.setattr(Circuit, "_learn", broken)


def old_ones_as_probes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Simulation, "probes_prefer_fresh", False)


def probes_from_the_front(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Simulation, "probes_from_both_ends", False)


def an_outage_teaches(patch: pytest.MonkeyPatch) -> None:
    learn = Circuit._learn

    def broken(self: Circuit, failed: bool, again: bool, attempts: int, now: float) -> float:
        weight = learn(self, failed, again, attempts, now)
        if self._shares.retries[attempts] < HOPELESS:
            self._shares.hopeless.add(attempts)
        return weight

    patch.setattr(Circuit, "_learn", broken)


def score_without_limit(patch: pytest.MonkeyPatch) -> None:
    failed = Circuit.failed

    def broken(self: Circuit, *args: object, **options: object) -> object:
        before = self.score
        verdict = failed(self, *args, **options)  # type: ignore[arg-type]
        if self.held:
            self.score = max(self.score, before + 1)
        return verdict

    patch.setattr(Circuit, "failed", broken)


def no_wait(patch: pytest.MonkeyPatch) -> None:
    start = Circuit.start

    def broken(self: Circuit, now: float) -> int:
        token = start(self, now)
        self.until = min(self.until, now)
        return token

    patch.setattr(Circuit, "start", broken)


def nothing_counts_when_held(patch: pytest.MonkeyPatch) -> None:
    verdict = Circuit._verdict

    def broken(self: Circuit, sent: Try, now: float, *, probe: bool) -> Verdict:
        said = verdict(self, sent, now, probe=probe)
        return said._replace(counted=False) if self.held else said

    patch.setattr(Circuit, "_verdict", broken)


def probes_count_in_an_outage(patch: pytest.MonkeyPatch) -> None:
    verdict = Circuit._verdict

    def broken(self: Circuit, sent: Try, now: float, *, probe: bool) -> Verdict:
        return verdict(self, sent, now, probe=probe)._replace(counted=True)

    patch.setattr(Circuit, "_verdict", broken)


def believes_every_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(circuit, "DOUBT", 0.0)


def no_ramp(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(circuit, "RAMP", 10**9)


BUGS: dict[Callable[[pytest.MonkeyPatch], None], tuple[str, ...]] = {
    retries_weigh_one: ("bad50", "campaign50", "herd", "twice10", "retries-bad15"),
    old_ones_as_probes: ("crash-bad",),
    probes_from_the_front: ("crash-untold",),
    an_outage_teaches: ("retries-last",),
    score_without_limit: ("outage600",),
    no_wait: ("throttle0", "account600"),
    nothing_counts_when_held: ("retries-once", "retries-bad-patience"),
    probes_count_in_an_outage: ("outage600", "retries-outage"),
    believes_every_refusal: ("own403",),
    no_ramp: ("fragile",),
}


@pytest.mark.search
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_misses_a_goal(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the rule some world is not what it should be."""
    bug(monkeypatch)
    assert any(
        missed(WORLDS[name].goals, [Simulation(WORLDS[name], seed).run()])
        for name in BUGS[bug]
        for seed in (0, 1)
    )
