"""All states of one owner, and all that it may do in each: the shipped classes run once for each of these steps.

What an owner does depends on its own state and on the little that it is told: a record that it reads, the offset of
what it writes, whether its commit was stored. So a step is run once, on a copy, and looked up whenever the same owner
is told the same again, whatever the rest of the world is like then. What it does to the world is noted as calls of
`Promises` and `World`, which `tests.exhaustive.broker` makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any, Final, NoReturn, cast

import attrs

from kafka_notify._partition.commit_metadata import Committed
from tests.exhaustive.choices import Choices, Chosen
from tests.exhaustive.freeze import Frame, Frozen
from tests.exhaustive.scenario import EXPIRY, START, Scenario
from tests.model.owner import Owner
from tests.model.promises import RETRY, SOURCE, Copy, Finished, Stored, Violation
from tests.model.world import Request

MOST: Final = 3
"""Faults of one step, at most."""
GONE: Final = 0
"""The number of an owner of which nothing is left."""

Call = tuple[Any, ...]
"""A method of the broker by its name, and its arguments."""


@attrs.frozen(cache_hash=True)
class Member:
    """What the world knows of an owner that does something to it."""

    born: int
    writer: str
    ended: tuple[tuple[int, tuple[int, int | None]], ...] = ()

    @property
    def finished(self) -> Finished:
        """What it had finished of what it touches now."""
        return dict(self.ended)


@attrs.frozen(cache_hash=True)
class Asked:
    """A commit on its way."""

    born: int
    source: Committed
    retry: Committed
    finished: tuple[tuple[int, tuple[int, int | None]], ...]


@attrs.frozen
class Outcome:
    """One end of a step."""

    owner: int
    calls: int
    """What it does to the world: its number in `Owners.calls`."""
    cost: int
    """Faults in it."""


@attrs.frozen
class Act:
    """Something that an owner may do next."""

    name: str
    """For people."""
    needs: str
    """What it has to be told: `nothing`, the `end` of the retry log, the `copy` at `at`, what is `stored`, or whether
    sends are `paused`."""
    at: int = -1


class _Log:
    """A retry log of which one record can be seen."""

    def __init__(self, at: int, copy: Copy | None) -> None:
        self._at, self._copy = at, copy

    def __len__(self) -> int:
        return self._at + 1

    def __getitem__(self, at: int) -> Copy | None:
        return self._copy if at == self._at else None


class Desk(Chosen):
    """The world as one owner sees it during one step: it says what the owner is told, and notes what the owner does."""

    def __init__(self, scenario: Scenario) -> None:
        self.answer_by(Choices(0))
        self.features = scenario.kinds
        self.max_attempts = scenario.attempts
        self.now = self.serial = self.low = self.retry_low = self.end = 0
        self.paused = self.added = self.lossy = False
        self.source = scenario.source()
        self.retry = cast(Any, _Log(-1, None))
        self.strangers, self.attended = {}, Counter()
        self.stored_source, self.stored_retry = Stored(SOURCE), Stored(RETRY)
        self.requests = []
        self.calls: list[Call] = []

    def backoff(self) -> int:
        """Until the next tick."""
        return 1

    def fail(self, kind: str, text: str) -> NoReturn:
        raise Violation(kind, text, [])

    def _note(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))

    @staticmethod
    def _member(owner: Owner, origin: int) -> Member:
        ended = owner.finished.get(origin)
        return Member(owner.born, owner.writer, () if ended is None else ((origin, ended),))

    def check_again(self, owner: Owner, origin: int, redrives: int, what: str) -> None:
        self._note("check_again", self._member(owner, origin), origin, redrives, what)

    def check_start(
        self, owner: Owner, origin: int, redrives: int, attempts: int, covered: int | None
    ) -> None:
        self._note("check_start", self._member(owner, origin), origin, redrives, attempts, covered)

    def copied(self, owner: Owner, origin: int, redrives: int, attempts: int) -> None:
        self._note("copied", self._member(owner, origin), origin, redrives, attempts)

    def skip(self, origin: int) -> None:
        self._note("skip", origin)

    def accept(self, origin: int) -> None:
        self._note("accept", origin)

    def letter(self, origin: int, redrives: int, expired: bool) -> None:
        self._note("letter", origin, redrives, expired)

    def write(self, copy: Copy) -> int:
        self._note("write", copy)
        self.end += 1
        return self.end - 1


@attrs.frozen
class Unstarted:
    """An assignment that has no partition yet. It is made anew for each step."""

    serial: int
    now: int
    paused: bool
    fetched: tuple[tuple[int, str], tuple[int, str]] | None = None


@attrs.frozen
class Known:
    """What the search asks about a state of an owner."""

    born: int
    works: bool
    closing: bool
    acts: tuple[Act, ...]
    state: Unstarted | Frozen


class Owners:
    """The table of all states of owners that were met, each with a number from 1 on."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.known: list[Known | None] = [None]
        self.runs = 0
        """Steps that were run: all others were looked up."""
        self._numbers: dict[Hashable, int] = {}
        self._keys: list[Hashable] = [None]
        self._outcomes: dict[Hashable, tuple[int, tuple[Outcome, ...]]] = {}
        self.calls: list[tuple[Call, ...]] = [()]
        self._calls: dict[tuple[Call, ...], int] = {(): 0}
        self._desk = Desk(scenario)
        self.frame: Frame | None = None

    # -- states ---------------------------------------------------------------------------------------

    def first(self, serial: int, *, paused: bool, expired: bool) -> int:
        """A new assignment."""
        return self._unstarted(Unstarted(serial, (EXPIRY if expired else 0) + START, paused))

    def _unstarted(self, state: Unstarted) -> int:
        found = attrs.evolve(state, now=state.now // EXPIRY)
        acts = (_START,) if state.fetched else (_FETCH,)
        return self._number(found, Known(state.serial, False, False, acts, state))

    def _number(self, found: Hashable, known: Known) -> int:
        number = self._numbers.get(found)
        if number is None:
            number = self._numbers[found] = len(self.known)
            self.known.append(known)
            self._keys.append(found)
        return number

    def key_of(self, number: int) -> Hashable:
        """What tells this state apart."""
        return self._keys[number]

    def acts_of(self, number: int) -> tuple[Act, ...]:
        """What an owner in this state may do."""
        known = self.known[number]
        return () if known is None else known.acts

    def _put_aside(self, owner: Owner) -> int:
        if not owner.alive:
            forget_answers(owner)
            if not owner.flight:
                return GONE
        if self.frame is None:
            self.frame = Frame(owner)
        frame = self.frame if owner is self.frame.owner else Frame(owner)
        p = owner.partition
        found, state = frame.freeze()
        number = self._numbers.get(found)
        if number is not None:
            return number
        return self._number(
            found, Known(owner.born, owner.idle, p.closing and p.alive, tuple(acts(owner)), state)
        )

    def take_up(self, number: int) -> Owner:
        """An owner in this state, until the next call."""
        known = self.known[number]
        assert known is not None
        if isinstance(known.state, Frozen):
            assert self.frame is not None
            return self.frame.thaw(known.state)
        return start(self.scenario, self._desk, known.state)

    # -- steps ----------------------------------------------------------------------------------------

    def step(self, number: int, act: Act, told: Any, left: int) -> tuple[Outcome, ...]:
        """All ends of a step with at most so many faults in it.

        Raises:
            Violation: One of them breaks a promise.
        """
        asked = number, act.name, act.at, told
        most, found = self._outcomes.get(asked, (-1, ()))
        if most < min(left, MOST):
            found = self._run(number, act, told, min(left, MOST))
            self._outcomes[asked] = min(left, MOST), found
        return found

    def _run(self, number: int, act: Act, told: Any, most: int) -> tuple[Outcome, ...]:
        known = self.known[number]
        assert known is not None
        if act is TIME and isinstance(known.state, Frozen) and not known.state.waits:
            return ()
        if isinstance(known.state, Unstarted) and act is not _START:
            return self._before_start(number, known.state, act, told)
        desk = self._desk
        choices = Choices(most)
        desk.answer_by(choices)
        found: dict[tuple[int, int], int] = {}
        while True:
            choices.begin()
            owner = self.take_up(number)
            if perform(owner, desk, act, told):
                calls = self._calls.setdefault(tuple(desk.calls), len(self.calls))
                if calls == len(self.calls):
                    self.calls.append(tuple(desk.calls))
                end = self._put_aside(owner), calls
                found[end] = min(choices.cost, found.get(end, choices.cost))
            self.runs += 1
            if not choices.next():
                break
        found.pop((number, 0), None)  # nothing happened
        return tuple(Outcome(owner, calls, cost) for (owner, calls), cost in found.items())

    def _before_start(self, number: int, state: Unstarted, act: Act, told: Any) -> tuple[Outcome, ...]:
        if act is _FETCH:
            next = self._unstarted(attrs.evolve(state, fetched=told))
        elif act is TIME:
            next = self._unstarted(attrs.evolve(state, now=state.now + told))
        else:
            next = GONE
        return () if next == number else (Outcome(next, 0, 0),)


def start(scenario: Scenario, desk: Desk, state: Unstarted) -> Owner:
    """A new owner, which has fetched the commit if it had."""
    desk.serial, desk.paused = state.serial - 1, state.paused
    choices, desk.choose = desk.choose, lambda n: 0
    owner = scenario.new_owner(desk)
    desk.choose = choices
    owner.skew = state.now
    if state.fetched is not None:
        perform(owner, desk, _FETCH, state.fetched)
    return owner


def forget_answers(owner: Owner) -> None:
    """Of an owner that is over, only what it still does to the world is left."""
    owner.flight = [item for item in owner.flight if item[0] in ("answer", "copy", "letter")]
    owner.timers.clear()
    owner.committing = False
    owner.stored = None


# -- what it may do next -------------------------------------------------------------------------------

_FETCH: Final = Act("fetches the commit", "stored")
_START: Final = Act("looks up the ends, starts", "end")
_READ_SOURCE: Final = Act("reads the source", "nothing")
_COMMIT: Final = Act("asks for a commit", "nothing")
_TICK: Final = Act("looks around", "paused")
LET_GO: Final = Act("lets go", "nothing")
REVOKE: Final = Act("is to hand over", "nothing")
FENCED: Final = Act("learns that it is over", "nothing")
TOLD: Final = Act("told", "answer")
TIME: Final = Act("time", "nothing")


def acts(owner: Owner) -> list[Act]:
    """As `Owner.steps`, with what each depends on."""
    if not owner.alive or owner.halted:
        return _landings(owner)
    if owner.fetched is None:
        return [_FETCH]
    if owner._partition is None:
        return [_START]
    p = owner.partition
    found = _landings(owner)
    if p.closing:
        if not owner.committing:
            found.append(_COMMIT)
        return found
    found.append(Act("reads the retry log", "copy", p.retry.position))
    if p.restored:
        if p.source.position < len(owner.world.source) and p.wants_source(room=True):
            found.append(_READ_SOURCE)
        if not owner.committing:
            found.append(_COMMIT)
    found += [Act("wakes up", "nothing", i) for i, (at, _) in enumerate(owner.timers) if at <= owner.now]
    if p.active:
        found.append(_TICK)
    return found


_LANDS: Final = {
    "send": "starts the send of {}",
    "answer": "hears from the provider of {}",
    "copy": "writes the copy of {}",
    "copied": "hears that the copy of {} is written",
    "letter": "writes the dead letter of {}",
    "confirmed": "hears from its commit",
}


def _landings(owner: Owner) -> list[Act]:
    return [
        Act(_LANDS[what].format(_origin(step)), "end" if what == "copy" else "nothing", i)
        for i, (what, step) in enumerate(owner.flight)
    ]


def _origin(step: Any) -> int | None:
    about = step.args[0]
    entry = getattr(about, "entry", getattr(about, "_entry", about))
    return getattr(entry, "origin", None)


# -- doing it ------------------------------------------------------------------------------------------


def perform(owner: Owner, desk: Desk, act: Act, told: Any) -> bool:
    """Let an owner do something. Return False when it was nothing.

    Raises:
        Violation: It breaks a promise, or an exception says so.
    """
    desk.calls, desk.requests = [], []
    desk.retry = cast(Any, _Log(-1, None))
    try:
        happened = _perform(owner, desk, act, told)
        if owner.alive:
            owner.check_parked()
            if owner._partition is not None:
                owner.check_budget()
    except Violation:
        raise
    except Exception as e:
        raise Violation("RAISED", f"{type(e).__name__}: {e}", []) from e
    return happened


def _perform(owner: Owner, desk: Desk, act: Act, told: Any) -> bool:
    name = act.name
    if act is _FETCH:
        (
            (desk.stored_source.frontier, desk.stored_source.metadata),
            (
                desk.stored_retry.frontier,
                desk.stored_retry.metadata,
            ),
        ) = told
        owner._fetch()
    elif act is _START:
        desk.retry = cast(Any, _Log(told - 1, None))
        owner._look_up_retry_end()
        owner._start()
    elif act.needs == "copy":
        due = owner.now + told.due
        desk.retry = cast(Any, _Log(act.at, attrs.evolve(told, due=due)))
        owner._read_retry()
    elif act is _READ_SOURCE:
        owner._read_source()
    elif act is _COMMIT:
        owner._commit()
        return _asks(owner, desk)
    elif act is _TICK:
        desk.paused = told
        owner._tick()
    elif act is LET_GO or act is FENCED:
        owner._close()
    elif act is REVOKE:
        owner.partition.closing = True
    elif act is TIME:
        owner.skew += told
    elif act is TOLD:
        source, retry, stored = told
        owner.committed(Request(owner, source, retry, {}), stored)
    elif name == "wakes up":
        owner._fire(act.at)
    else:
        if told is not None:
            desk.end = told
        _land(owner, desk, act.at)
    return True


def _land(owner: Owner, desk: Desk, at: int) -> None:
    now = owner.now
    owner._land(at)
    desk.calls = [
        (name, attrs.evolve(args[0], due=max(args[0].due - now, 0))) if name == "write" else (name, *args)
        for name, *args in desk.calls
    ]


def _asks(owner: Owner, desk: Desk) -> bool:
    """A worker asks for a commit when something has changed since the last that was stored."""
    (request,) = desk.requests
    if owner.stored == (request.source, request.retry):
        owner.committing = False
        return False
    asked = Asked(owner.born, request.source, request.retry, tuple(sorted(request.finished.items())))
    desk.calls.append(("ask", asked))
    return True
