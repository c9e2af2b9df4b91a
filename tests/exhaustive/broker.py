"""All states of what is not an owner: the logs, the commits that are stored or on their way, and what the promises have
seen so far.

`Broker` is the model's `World` without its scheduler; its promises are the model's. A state is a tuple, from which it
is set up and to which it is written.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, NoReturn, cast

import attrs

from kafka_notify._fetch.channels import Channels
from tests.exhaustive.choices import Choices, Chosen
from tests.exhaustive.owners import MOST, Asked, Call
from tests.exhaustive.scenario import Scenario
from tests.model.promises import REDRIVE, Copy, Promises, Violation
from tests.model.world import Request

Kept = tuple[Any, ...]


@attrs.frozen
class Now:
    """What a state says, for the search."""

    kept: Kept
    retry: tuple[Copy, ...]
    stored: tuple[tuple[int, str], tuple[int, str]]
    requests: tuple[Asked, ...]
    paused: bool
    expired: bool
    serial: int
    redrivable: tuple[tuple[int, int], ...]
    done: bool
    """Whether all is committed."""
    waits: bool
    """Whether the next tick makes something due."""


class _Member:
    """The owner of a request: notes what it is told."""

    marks = True
    channels = Channels(frozenset())

    def __init__(self, born: int) -> None:
        self.born, self.writer = born, f"w{born}"
        self.told: bool | None = None
        """None when it learns that it is over."""

    def fenced(self) -> None:
        self.told = None

    def committed(self, request: Request, stored: bool) -> None:
        self.told = stored


class Broker(Chosen):
    """One state at a time: `load`, let something happen, `save`."""

    def __init__(self, scenario: Scenario) -> None:
        Promises.__init__(self)
        self.answer_by(Choices(0))
        self.features = scenario.kinds
        self.paused = self.added = self.expired = False
        self.source = scenario.source()
        self.asked: tuple[Asked, ...] = ()

    def fail(self, kind: str, text: str) -> NoReturn:
        raise Violation(kind, text, [])

    def load(self, kept: Kept) -> None:
        """Set up a state."""
        (retry, source, held, accepted, dead, skipped, letters, redrivable, redriven, settled, attempts,
         self.asked, self.paused, self.expired, self.serial) = kept  # fmt: skip
        self.retry = list(retry)
        self.stored_source.frontier, self.stored_source.metadata = source
        self.stored_retry.frontier, self.stored_retry.metadata = held
        self.committed_source, self.committed_retry = self.stored_source.get(), self.stored_retry.get()
        self.accepted, self.dead, self.skipped = set(accepted), set(dead), set(skipped)
        self.letters = list(letters)
        self.redrivable, self.redriven = set(redrivable), set(redriven)
        self.settled, self.attempts = dict(settled), dict(attempts)

    def save(self) -> Kept:
        """Write the state."""
        source, held = self.stored_source, self.stored_retry
        return (
            tuple(self.retry), (source.frontier, source.metadata), (held.frontier, held.metadata),
            *(tuple(sorted(some)) for some in (self.accepted, self.dead, self.skipped)),
            *(tuple(sorted(set(some))) for some in (self.letters, self.redrivable, self.redriven)),
            tuple(sorted(self.settled.items())), tuple(sorted(self.attempts.items())),
            self.asked, self.paused, self.expired, self.serial,
        )  # fmt: skip

    # -- what owners do -------------------------------------------------------------------------------

    def write(self, copy: Copy) -> int:
        """Append it. Its due time is 0 when it is due, else 1."""
        self.retry.append(copy)
        return len(self.retry) - 1

    def ask(self, asked: Asked) -> None:
        """A commit is on its way."""
        self.asked = tuple(sorted((*self.asked, asked), key=lambda one: one.born))

    def call(self, calls: tuple[Call, ...]) -> None:
        """Make the calls of an owner, and check what may hold no more."""
        for name, *args in calls:
            getattr(self, name)(*args)

    # -- what happens by itself -----------------------------------------------------------------------

    def answer(self, asked: Asked) -> bool | None:
        """A commit arrives. Return what its owner is told: whether it was stored; None when it is over."""
        self.asked = tuple(one for one in self.asked if one is not asked)
        member = _Member(asked.born)
        self.requests = [Request(cast(Any, member), asked.source, asked.retry, dict(asked.finished))]
        self.owner = cast(Any, member if asked.born == self.serial else None)
        self.deliver()
        return member.told

    def assign(self, kept: frozenset[int]) -> None:
        """Another owner is assigned; the requests of owners that are gone are gone."""
        self.serial += 1
        self.asked = tuple(one for one in self.asked if one.born in kept)

    def forget_requests(self, born: int) -> None:
        """An owner has left the group."""
        self.asked = tuple(one for one in self.asked if one.born != born)

    def redrive_one(self, letter: tuple[int, int]) -> None:
        """The operator redrives a dead letter."""
        self.redriven.add(letter)
        self.redrivable.discard(letter)
        origin, redrives = letter
        self.write(Copy(origin, redrives + 1, 0, 0, REDRIVE))

    def tick(self, expires: bool) -> None:
        """Time passes, until the next retry is due or, besides, until what can expire has."""
        self.expired |= expires
        self.retry = [copy and attrs.evolve(copy, due=0) for copy in self.retry]

    def toggle(self) -> None:
        """Somebody pauses, or resumes."""
        self.paused = not self.paused


class Brokers:
    """The table of all states that were met, each with a number."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.known: list[Now] = []
        self.steps = 0
        self._numbers: dict[Kept, int] = {}
        self._after: dict[Hashable, int] = {}
        self._after_calls: dict[int, int] = {}
        self._answers: dict[Hashable, tuple[tuple[int, bool | None, int], ...]] = {}
        self._broker = Broker(scenario)

    def first(self) -> int:
        """Nothing has happened."""
        return self._number(Broker(self.scenario).save())

    def _number(self, kept: Kept) -> int:
        number = self._numbers.get(kept)
        if number is None:
            number = self._numbers[kept] = len(self.known)
            self.known.append(self._now(kept))
        return number

    def _now(self, kept: Kept) -> Now:
        (retry, source, held, *_, redrivable, _, _, _, asked, paused, expired, serial) = kept
        committed = source[0] == len(self.scenario.users) and held[0] == len(retry)
        return Now(
            kept, retry, (source, held), asked, paused, expired, serial, redrivable,
            committed and not asked, any(copy.due for copy in retry),
        )  # fmt: skip

    def after(self, number: int, *calls: Call) -> int:
        """The state after these calls.

        Raises:
            Violation: One of them breaks a promise.
        """
        found = self._after.get((number, calls))
        if found is None:
            broker = self._broker
            broker.load(self.known[number].kept)
            broker.call(calls)
            self.steps += 1
            found = self._after[number, calls] = self._number(broker.save())
        return found

    def after_calls(self, number: int, which: int, calls: list[tuple[Call, ...]]) -> int:
        """The state after the calls of this number in the table.

        Raises:
            Violation: One of them breaks a promise.
        """
        if not which:
            return number
        asked = number << 32 | which
        found = self._after_calls.get(asked)
        if found is None:
            found = self._after_calls[asked] = self.after(number, *calls[which])
        return found

    def answers(self, number: int, asked: Asked) -> tuple[tuple[int, bool | None, int], ...]:
        """All that may become of a commit: the state after it, what its owner is told, and the faults in it.

        Raises:
            Violation: One of them breaks a promise.
        """
        found = self._answers.get((number, asked.born))
        if found is None:
            ends: dict[tuple[int, bool | None], int] = {}
            for state, told, cost in self._deliver(number, asked):
                ends[state, told] = min(cost, ends.get((state, told), cost))
            found = self._answers[number, asked.born] = tuple((*end, cost) for end, cost in ends.items())
        return found

    def _deliver(self, number: int, asked: Asked) -> Iterator[tuple[int, bool | None, int]]:
        broker, now = self._broker, self.known[number]
        choices = Choices(MOST)
        broker.answer_by(choices)
        while True:
            choices.begin()
            broker.load(now.kept)
            told = broker.answer(asked)
            self.steps += 1
            yield self._number(broker.save()), told, choices.cost
            if not choices.next():
                return


def lost(now: Now, scenario: Scenario) -> list[int]:
    """Notifications that are neither accepted, nor dead, nor skipped."""
    accepted, dead, skipped = now.kept[3:6]
    return [at for at in range(len(scenario.users)) if at not in accepted + dead + skipped]
