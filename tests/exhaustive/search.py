"""Breadth first through all states of the world: the first broken promise has one of the shortest traces to it."""

from __future__ import annotations

import gc
import itertools
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from tests.exhaustive.broker import Brokers, Now, lost
from tests.exhaustive.owners import FENCED, GONE, LET_GO, REVOKE, TIME, TOLD, Act, Call, Owners
from tests.exhaustive.scenario import EXPIRY, Scenario
from tests.exhaustive.table import shown
from tests.model.promises import Violation

_BITS: Final = 26
_MASK: Final = (1 << _BITS) - 1
_FAULTS: Final = 15

State = int
"""Numbers of the broker's state, the owner and the one before it, and the faults left: equal when all of it is."""


def pack(broker: int, owner: int, zombie: int, left: int) -> State:
    """The state of the world."""
    return ((broker << _BITS | owner) << _BITS | zombie) << 4 | left


def unpack(state: State) -> tuple[int, int, int, int]:
    """Its parts."""
    return state >> (2 * _BITS + 4), state >> (_BITS + 4) & _MASK, state >> 4 & _MASK, state & _FAULTS


@attrs.frozen
class Step:
    """Something that happens."""

    who: int | str
    """0 for the owner, 1 for the one before, -1 for nobody; in a trace, the name."""
    what: str
    calls: tuple[Call, ...]
    after: State
    shown: tuple[str, str, str] = ("", "", "")
    """The retry log and the commits after it."""


@attrs.frozen
class Broken:
    """A promise is broken."""

    kind: str
    text: str
    steps: tuple[Step, ...]
    """The shortest way to it; the last step breaks it."""
    states: int
    """Visited until then."""


@attrs.frozen
class Report:
    """What a search has found."""

    scenario: Scenario
    states: int
    transitions: int
    depth: int
    """Steps from the start within which every state was visited."""
    exhausted: bool
    """Whether there are no others."""
    owners: int
    brokers: int
    """Different states of an owner, and of everything else."""
    runs: int
    """Steps of the shipped classes that were run; the others are the same step of the same owner."""
    ends: int
    """States in which nothing more happens without a fault."""
    cpu: float
    """Seconds."""
    broken: Broken | None = None


class Worlds:
    """The states of the world of one scenario, and what follows each."""

    def __init__(self, scenario: Scenario) -> None:
        assert scenario.faults <= _FAULTS
        self.scenario = scenario
        self.owners = Owners(scenario)
        self.brokers = Brokers(scenario)
        self.ends = 0
        """States that were looked at in which nothing more happens without a fault."""

    def first(self) -> State:
        """The first owner was assigned, and nothing else has happened."""
        broker = self.brokers.after(self.brokers.first(), ("assign", frozenset()))
        owner = self.owners.first(1, paused=False, expired=False)
        return pack(broker, owner, GONE, self.scenario.faults)

    def after(self, state: State, note: Callable[[Step], None] | None = None) -> list[State]:
        """What may follow.

        Args:
            state: The state.
            note: Told of each step.

        Raises:
            Violation: Something that may follow breaks a promise, or nothing follows and something waits.
        """
        broker, owner, zombie, left = unpack(state)
        now = self.brokers.known[broker]
        found: list[State] = []
        tell = self._tell = _Tell(found, note)
        after, calls = self.brokers.after_calls, self.owners.calls
        for who, number in ((0, owner), (1, zombie)) if zombie else ((0, owner),):
            for act in self.owners.acts_of(number):
                is_there, told = self.told(act, now)
                if not is_there:
                    continue
                tell.does(who, act.name)
                for end in self.owners.step(number, act, told, left):
                    if end.cost <= left:
                        tell.calls = calls[end.calls]
                        next_broker = after(broker, end.calls, calls)
                        if who:
                            tell(next_broker, owner, end.owner, left - end.cost, calls[end.calls])
                        else:
                            tell(next_broker, end.owner, zombie, left - end.cost, calls[end.calls])
        for asked in now.requests:
            self._answer(tell, state, now, asked.born == now.serial, asked)
        self._hand_over(tell, state, now)
        self._time(tell, state, now, expires=False)
        if left:
            self._disturb(tell, state, now)
        elif now.paused:
            tell.does(-1, "somebody resumes")
            tell(self.brokers.after(broker, ("toggle",)), owner, zombie, left)
        if not any(next & _FAULTS == left for next in found):
            tell.does(-1, "nothing more happens")
            self._check_end(now, owner)
            self.ends += 1
        return found

    @staticmethod
    def told(act: Act, now: Now) -> tuple[bool, Any]:
        """What an owner is told that does this; False when there is nothing to be told."""
        needs = act.needs
        if needs == "nothing":
            return True, None
        if needs == "copy":
            return (True, now.retry[act.at]) if act.at < len(now.retry) else (False, None)
        if needs == "end":
            return True, len(now.retry)
        return True, now.paused if needs == "paused" else now.stored

    def _answer(self, tell: _Tell, state: State, now: Now, is_owner: bool, asked: Any) -> None:
        broker, owner, zombie, left = unpack(state)
        tell.does(int(not is_owner), "its commit arrives")
        for next_broker, told, cost in self.brokers.answers(broker, asked):
            if cost > left:
                continue
            if is_owner:
                for end in self.owners.step(owner, TOLD, (asked.source, asked.retry, told), left):
                    tell(next_broker, end.owner, zombie, left - cost)
            else:
                assert told is None
                for end in self.owners.step(zombie, FENCED, None, left):
                    tell(next_broker, owner, end.owner, left - cost)

    def _hand_over(self, tell: _Tell, state: State, now: Now) -> None:
        broker, owner, zombie, left = unpack(state)
        owners, kinds = self.owners, self.scenario.kinds
        its = owners.known[owner]
        assert its is not None
        closing = its.closing
        if closing:
            tell.does(0, "lets go; the next one is assigned")
            (end,) = owners.step(owner, LET_GO, None, left)
            rest = end.owner or zombie
            self._assign(tell, broker, now, rest if rest == zombie else GONE, rest, left)
        if not left or now.serial > self.scenario.takeovers:
            return
        if "crash" in kinds:
            tell.does(0, "crashes; the next one is assigned")
            self._assign(tell, broker, now, zombie, zombie, left - 1)
        if "zombies" in kinds:
            tell.does(0, "loses the partition unawares; the next one is assigned")
            self._assign(tell, broker, now, owner, owner, left - 1)
        if "drain" in kinds and its.works and not closing:
            tell.does(0, REVOKE.name)
            for end in owners.step(owner, REVOKE, None, left):
                tell(broker, end.owner, zombie, left - 1)

    def _assign(self, tell: _Tell, broker: int, now: Now, in_group: int, zombie: int, left: int) -> None:
        its = self.owners.known[in_group]
        kept = frozenset(() if its is None else (its.born,))
        next_broker = self.brokers.after(broker, ("assign", kept))
        owner = self.owners.first(now.serial + 1, paused=now.paused, expired=now.expired)
        tell(next_broker, owner, zombie, left)

    def _time(self, tell: _Tell, state: State, now: Now, *, expires: bool) -> None:
        broker, owner, zombie, left = unpack(state)
        tell.does(-1, "time passes" if not expires else "time passes, the even ones expire")
        step = EXPIRY if expires else 1
        later, later_zombie = self._later(owner, step), self._later(zombie, step)
        next_broker = broker
        if now.waits or expires:
            next_broker = self.brokers.after(broker, ("tick", expires))
        if (next_broker, later, later_zombie) != (broker, owner, zombie):
            tell(next_broker, later, later_zombie, left - expires)

    def _later(self, number: int, step: int) -> int:
        if number == GONE:
            return GONE
        for end in self.owners.step(number, TIME, step, 0):
            return end.owner
        return number

    def _disturb(self, tell: _Tell, state: State, now: Now) -> None:
        broker, owner, zombie, left = unpack(state)
        kinds = self.scenario.kinds
        if "expiry" in kinds and not now.expired:
            self._time(tell, state, now, expires=True)
        if "pause" in kinds:
            tell.does(-1, "somebody resumes" if now.paused else "somebody pauses the odd ones")
            cost = int(not now.paused)
            tell(self.brokers.after(broker, ("toggle",)), owner, zombie, left - cost)
        if "redrive" in kinds:
            for letter in now.redrivable:
                tell.does(-1, f"the operator redrives {letter[0]}")
                tell(self.brokers.after(broker, ("redrive_one", letter)), owner, zombie, left - 1)

    def _check_end(self, now: Now, owner: int) -> None:
        its = self.owners.known[owner]
        if not (now.done and its is not None and its.works):
            described = self.owners.take_up(owner).describe()
            raise Violation("STUCK", f"nothing more happens, and something waits: {described}", [])
        if gone := lost(now, self.scenario):
            raise Violation("LOSS", f"{gone} never became terminal", [])

    def explain(self, state: State, to: State) -> Step:
        """The step from a state to one that may follow."""
        steps: list[Step] = []
        self.after(state, steps.append)
        step = next(step for step in steps if step.after == to)
        return attrs.evolve(
            step, who=self._who(state, step.who), shown=shown(self.brokers.known[unpack(to)[0]])
        )

    def explain_break(self, state: State) -> Step:
        """The step from a state that breaks a promise."""
        before = shown(self.brokers.known[unpack(state)[0]])
        who, what = self._tell.doing
        return Step(self._who(state, who), what, self._tell.calls, state, before)

    def _who(self, state: State, which: int | str) -> str:
        """The writer's name of the owner, or of the one before."""
        _, owner, zombie, _ = unpack(state)
        known = None if which == -1 else self.owners.known[zombie if which else owner]
        return "" if known is None else f"w{known.born}"


class _Tell:
    """Takes what follows a state."""

    def __init__(self, found: list[State], note: Callable[[Step], None] | None) -> None:
        self._found = found
        self._note = note
        self.doing: tuple[int, str] = (-1, "")
        self.calls: tuple[Call, ...] = ()

    def does(self, who: int, what: str) -> None:
        """What follows from here on is this."""
        self.doing, self.calls = (who, what), ()

    def __call__(self, broker: int, owner: int, zombie: int, left: int, calls: tuple[Call, ...] = ()) -> None:
        state = ((broker << _BITS | owner) << _BITS | zombie) << 4 | left
        self._found.append(state)
        if self._note is not None:
            self._note(Step(self.doing[0], self.doing[1], calls, state))


def search(scenario: Scenario, most: int, *, told: Callable[[str], None] | None = None) -> Report:
    """Visit the states of a scenario, nearest first, until there are no more or `most` were visited."""
    worlds = Worlds(scenario)
    began = time.process_time()
    first = worlds.first()
    order, parents = [first], array("Q", [0])
    seen = {first}
    depth, transitions, at = 0, 0, 0
    broken = None
    level = 1  # end of the states of this depth
    after = worlds.after
    try:
        while at < len(order) and len(order) < most:
            if at == level:
                depth, level = depth + 1, len(order)
                gc.freeze()  # what the tables keep is not garbage: do not look at it again and again
                if told is not None:
                    told(f"depth {depth}: {len(order):,} states, {time.process_time() - began:.0f} s")
            state = order[at]
            following = after(state)
            transitions += len(following)
            for next in following:
                if next not in seen:
                    seen.add(next)
                    order.append(next)
                    parents.append(at)
            at += 1
    except Violation as e:
        last = worlds.explain_break(order[at])
        broken = Broken(e.kind, e.text, (*_path(worlds, order, parents, at), last), len(order))
    finally:
        gc.unfreeze()
    return Report(
        scenario, len(order), transitions, depth, at == len(order), len(worlds.owners.known) - 1,
        len(worlds.brokers.known), worlds.owners.runs, worlds.ends, time.process_time() - began, broken,
    )  # fmt: skip


def _path(worlds: Worlds, order: list[State], parents: array[int], at: int) -> Iterator[Step]:
    way = [at]
    while way[-1]:
        way.append(parents[way[-1]])
    way.reverse()
    for one, other in itertools.pairwise(way):
        yield worlds.explain(order[one], order[other])
