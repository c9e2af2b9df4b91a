"""Owners that are put aside and taken up again, and what tells two of them apart.

An owner has *parts*: itself, its partition, and everything that both are made of when they are made. They refer to each
other for ever. What comes and goes, entries and queues, copies and tables, is what a state *holds*. All states of an
owner are states of one `Frame`, whose parts take on one state after the other.

Parts and what they hold are read attribute by attribute, whatever these are, so an attribute that is added later is
kept and compared without a word here. The exceptions are in `LEFT_OUT`, each with its reason.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from functools import partial
from operator import attrgetter
from types import FunctionType, MethodType
from typing import Any, Final

import attrs

from kafka_notify._decision.context import Context
from kafka_notify._partition.carrying import Carrying
from kafka_notify._partition.commit_metadata import Committed, Fence
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.wide import LongWaits, RetryHalf
from kafka_notify._settle.copies import Copy as Written
from kafka_notify._settle.dead_letters import Form
from kafka_notify._wire.history import History
from kafka_notify.wire import DeadLetterState, Origin
from tests.model.owner import Owner
from tests.model.promises import Bytes, Copy
from tests.model.world import World

VALUES: Final = frozenset(
    (bool, bytes, float, int, str, type(None), type, Busy, Committed, Fence, History, Origin, FunctionType)
)
"""Types of values that nothing changes, and that compare by what they are."""
SHARED: Final = frozenset((Bytes, Copy, DeadLetterState, Form, MethodType))
"""Nothing changes these either. They are compared in another way, or belong to a part."""
LEFT_OUT: Final[dict[type, frozenset[str]]] = {
    # `said` is of wide halves, and halves are narrow here; `skew` is the time, which is kept beside: see `ago`
    Owner: frozenset(("said", "skew", "world")),
    # the same for each entry of an origin
    Entry: frozenset(("_headers", "size")),
    # of wide halves
    RetryHalf: frozenset(("_fetched", "_looked", "_ready")),
    # read where retention ends, which it does not here
    RetryRecord: frozenset(("written",)),
    Carrying: frozenset(("_ordered_at", "_recall_at", "_sparse_since")),
    # statistics
    LongWaits: frozenset(("carried", "spill_failures", "spills")),
    # made of `entry` and `retry`, which are compared; `failures` counts for the backoff alone
    Written: frozenset(
        ("_context", "_forms", "_hook", "_instead", "_spawn", "failures", "headers", "key", "value")
    ),
}
"""Attributes by which two states are not told apart. Those of parts are not kept either."""
TIMES: Final[dict[type, frozenset[str]]] = {
    RetryRecord: frozenset(("due", "expires")),
    UserQueue: frozenset(("timer",)),
}
"""Times, which are only ever compared with the present: see `ago`."""
TABLES: Final = (list, deque, dict, OrderedDict, Counter, set, bytearray)
STRANGE: Final[tuple[type, ...]] = (World, Context, FunctionType, MethodType, partial)
"""What a part refers to and what holds no state."""

Fields = Callable[[Any], tuple[Any, ...]]


def ago(time: int | None, now: int) -> int | None:
    """What a time is worth at `now`: 3 when it is over, 1 when the next tick reaches it, else 2. So two owners that do
    the same an hour apart are the same owner."""
    if not time:
        return time
    return 3 if time <= now else min(time - now, 2)


# -- attributes ----------------------------------------------------------------------------------------


class Shape:
    """The attributes of a class with slots."""

    def __init__(self, cls: type) -> None:
        slots = [name for base in reversed(cls.__mro__) for name in _slots(base)]
        self.names = tuple(name for name in slots if name not in ("__dict__", "__weakref__"))
        self.left_out = _of(LEFT_OUT, cls)
        self.times = _of(TIMES, cls)
        self.compared = tuple(name for name in self.names if name not in self.left_out)
        self.all_of = getter(self.names)
        self.compared_of = getter(self.compared)


def _of(table: dict[type, frozenset[str]], cls: type) -> frozenset[str]:
    return frozenset[str]().union(*(names for base, names in table.items() if issubclass(cls, base)))


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def getter(names: tuple[str, ...]) -> Fields:
    """Reads these attributes, all at once."""
    if len(names) == 1:
        only = attrgetter(names[0])
        return lambda value: (only(value),)
    return attrgetter(*names) if names else lambda value: ()


_SHAPES: Final[dict[type, Shape]] = {}


def shape(cls: type) -> Shape:
    """The attributes of a class, which are looked up once."""
    found = _SHAPES.get(cls)
    if found is None:
        found = _SHAPES[cls] = Shape(cls)
    return found


def names_of(part: Any) -> tuple[str, ...]:
    """The attributes of an object."""
    return (*shape(part.__class__).names, *getattr(part, "__dict__", ()))


# -- parts ---------------------------------------------------------------------------------------------


@attrs.frozen
class Frozen:
    """A state of an owner that was put aside."""

    now: int
    waits: bool
    """Whether there is a time that has not come."""
    values: tuple[Any, ...]
    tables: tuple[Any, ...]


class Frame:
    """The parts of an owner, which was just started.

    Args:
        owner: It holds nothing yet.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.parts: list[Any] = []
        self.tables: list[Any] = []
        """Each once, however many parts refer to it."""
        self._values: list[tuple[Any, tuple[str, ...], Fields]] = []
        self._where: list[tuple[Any, str, int]] = []
        """The attributes of parts that refer to a table."""
        self._wiring: list[tuple[Any, Fields, tuple[Any, ...]]] = []
        self._counts: list[tuple[Any, str]] = []
        """Counters of arrivals, which grow for ever."""
        self._known: dict[int, Any] = {}
        self._look_at(owner)
        self._known |= {id(part): part for part in self.parts}
        self._bags = frozenset(at for _, name, at in self._where if name in ("flight", "timers"))
        """What the scheduler takes anything from."""
        self._numbers = {which: number for number, which in enumerate(self._known)}

    def _look_at(self, part: Any) -> None:
        self.parts.append(part)
        left_out = _of(LEFT_OUT, part.__class__)
        values, wired = [], []
        for name in names_of(part):
            if name in left_out:
                continue
            value = getattr(part, name)
            kind = value.__class__
            if kind in TABLES:
                at = next((i for i, table in enumerate(self.tables) if table is value), len(self.tables))
                self.tables[at:] = [value] if at == len(self.tables) else self.tables[at:]
                self._where.append((part, name, at))
            elif kind in VALUES or kind is tuple:
                values.append(name)
            elif kind is itertools.count:
                self._counts.append((part, name))
            else:
                wired.append(name)
                if isinstance(value, STRANGE):
                    self._known[id(value)] = value
                elif not any(value is known for known in self.parts):
                    self._look_at(value)
        if values:
            self._values.append((part, tuple(values), getter(tuple(values))))
        if wired:
            read = getter(tuple(wired))
            self._wiring.append((part, read, read(part)))

    def check_wiring(self) -> None:
        """Parts refer to each other as they did when they were made, and tables that were shared are."""
        for part, read, was in self._wiring:
            assert all(one is other for one, other in zip(read(part), was, strict=True)), part
        for part, _, read in self._values:  # what is not a value would have to be copied
            assert all(one.__class__ in VALUES or one.__class__ is tuple for one in read(part)), part
        shared = Counter(at for _, _, at in self._where)
        for part, name, at in self._where:
            assert shared[at] == 1 or getattr(part, name) is self.tables[at], (part, name)

    def freeze(self) -> tuple[Hashable, Frozen]:
        """Put the present state aside, and say what tells it apart. What the owner holds goes with it: it does nothing
        more until `thaw`."""
        owner = self.owner
        p = owner.partition
        assert not p.half.is_wide, "see LEFT_OUT"
        p.source.advance()  # as every look around does: how far they are behind matters for windows alone
        p.retry.advance()
        for heap in (p.waiting.unreached, p.waiting.tainted, p.waiting.beyond):
            if heap:  # the numbers only say which came first
                heap[:] = [
                    (offset, i, queue)
                    for i, (offset, _, queue) in enumerate(sorted(heap, key=lambda one: one[:2]))
                ]
        tables = list(self.tables)
        for part, name, at in self._where:
            tables[at] = getattr(part, name)
        values = tuple(itertools.chain.from_iterable([read(part) for part, _, read in self._values]))
        found, waits = self._key(values, tables)
        held = tuple([table.copy() if table else None for table in tables])
        return found, Frozen(owner.now, waits, values, held)

    def thaw(self, frozen: Frozen) -> Owner:
        """The owner, in that state."""
        at = 0
        values = frozen.values
        put = object.__setattr__
        for part, names, _ in self._values:
            for name in names:
                put(part, name, values[at])
                at += 1
        known = self._known.copy()
        for table, held in zip(self.tables, frozen.tables, strict=True):
            if table:
                table.clear()
            if held:
                _fill(table, held, known)
        for part, name, index in self._where:
            put(part, name, self.tables[index])
        for part, name in self._counts:
            put(part, name, itertools.count(len(self._known) << 10))
        self.owner.skew = frozen.now
        self.owner.said.clear()
        return self.owner

    def _key(self, values: tuple[Any, ...], tables: list[Any]) -> tuple[Hashable, bool]:
        owner = self.owner
        now = owner.now
        walk = _Walk(now, self._numbers)
        for at, table in enumerate(tables):
            if not table:
                walk.out.append(0)
            elif at not in self._bags:
                walk.take(table)
        flight, timers = owner.flight, owner.timers
        if len(flight) > 1:
            flight.sort(key=lambda item: walk.peek(item))
        if len(timers) > 1:
            timers.sort(key=lambda item: walk.peek((ago(item[0], now), item[1])))
        walk.out.append(len(flight))
        for item in flight:
            walk.take(item)
        for since, queue in timers:
            walk.time(since)
            walk.take(queue)
        return (values, tuple(walk.out)), walk.waits


# -- what is held --------------------------------------------------------------------------------------


def _fill(table: Any, held: Any, known: dict[int, Any]) -> None:
    """Fill an empty table with copies of what another holds."""
    kind = held.__class__
    if kind is bytearray:
        table[:] = held
    elif kind is set:
        table.update(held)
    elif kind in (list, deque):
        for part in held:
            table.append(part if part.__class__ in VALUES else _clone(part, known))
    else:
        for key, part in held.items():
            name = key if key.__class__ in VALUES else _clone(key, known)
            table[name] = part if part.__class__ in VALUES else _clone(part, known)


def _clone(value: Any, known: dict[int, Any]) -> Any:
    kind = value.__class__
    if kind in VALUES or kind in SHARED:
        return value
    found = known.get(id(value))
    if found is not None:
        return found
    if kind is tuple:
        return tuple([part if part.__class__ in VALUES else _clone(part, known) for part in value])
    if kind is partial:
        args = [
            part if part.__class__ in VALUES else known.get(id(part)) or _clone(part, known)
            for part in value.args
        ]
        return partial(value.func, *args)
    if kind in TABLES:
        made = known[id(value)] = kind()
        _fill(made, value, known)
        return made
    made = known[id(value)] = object.__new__(kind)
    its = shape(kind)
    for name, part in zip(its.names, its.all_of(value)):  # noqa: B905 - both have all of the names
        if part.__class__ not in VALUES:
            other = known.get(id(part))
            part = _clone(part, known) if other is None else other
        setattr(made, name, part)
    return made


class _Walk:
    """Writes what it meets as a row of values; what it has met before, as its number."""

    def __init__(self, now: int, met: dict[int, int]) -> None:
        self.now = now
        self.waits = False
        """Whether a time was met that has not come."""
        self.out: list[Any] = []
        self._met = met.copy()

    def time(self, time: int | None) -> None:
        """Write a time."""
        worth = ago(time, self.now)
        self.waits = self.waits or worth in (1, 2)
        self.out.append(worth)

    def peek(self, value: Any) -> str:
        """A row for the order alone: what it meets stays unmet."""
        met, out = self._met, self.out
        self._met, self.out = met.copy(), []
        self.take(value)
        row = repr(self.out)
        self._met, self.out = met, out
        return row

    def take(self, value: Any) -> None:
        """Write a value, and whatever it reaches."""
        kind, out = value.__class__, self.out
        if kind in VALUES:
            out.append(value)
            return
        write = _WRITE.get(kind)
        if write is not None:
            write(self, value)
            return
        number = self._met.get(id(value))
        if number is not None:
            out.append(-1 - number)
            return
        self._met[id(value)] = len(self._met)
        out.append(kind)
        its = shape(kind)
        if its.times:
            for name, part in zip(its.compared, its.compared_of(value), strict=True):
                if name in its.times:
                    self.time(part)
                else:
                    self.take(part)
        else:
            met = self._met
            for part in its.compared_of(value):
                if part.__class__ in VALUES:
                    out.append(part)
                elif (number := met.get(id(part))) is not None:
                    out.append(-1 - number)
                else:
                    self.take(part)

    def _row(self, value: Any) -> None:
        self.out.append(len(value))
        for part in value:
            self.take(part)

    def _table(self, value: Any) -> None:
        self.out.append(len(value))
        for name, part in value.items():
            self.take(name)
            self.take(part)

    def _set(self, value: Any) -> None:
        self.out.append(tuple(sorted(value)))

    def _bytes(self, value: bytearray) -> None:
        self.out.append(bytes(value))

    def _partial(self, value: partial[Any]) -> None:
        self.take(value.func)
        self._row(value.args)

    def _method(self, value: MethodType) -> None:
        self.out.append(value.__func__.__qualname__)
        self.take(value.__self__)

    def _record(self, value: Bytes) -> None:
        self.out.append(value.value())

    def _copy(self, value: Copy) -> None:
        """On its way back from the broker: its times are those of its entry."""
        self.out.append((value.origin, value.redrives, value.attempt, value.writer))

    def _letter(self, value: DeadLetterState) -> None:
        self.out.append((value.history, value.reason))


_WRITE: Final[dict[type, Callable[[_Walk, Any], None]]] = {
    list: _Walk._row,
    deque: _Walk._row,
    tuple: _Walk._row,
    dict: _Walk._table,
    OrderedDict: _Walk._table,
    Counter: _Walk._table,
    set: _Walk._set,
    bytearray: _Walk._bytes,
    partial: _Walk._partial,
    MethodType: _Walk._method,
    Bytes: _Walk._record,
    Copy: _Walk._copy,
    DeadLetterState: _Walk._letter,
}
