"""Copies of an owner, and what tells two owners apart.

Both walk over all attributes of whatever an owner reaches, so that an attribute which is added later is copied and
compared without a word here. The exceptions are below, each with the reason why it may be left out.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from functools import partial
from operator import attrgetter
from types import FunctionType, MethodType
from typing import Any, Final

from kafka_notify._decision.context import Context
from kafka_notify._partition.carrying import Carrying
from kafka_notify._partition.commit_metadata import Committed, Fence
from kafka_notify._partition.entry import Busy, Entry, UserQueue
from kafka_notify._partition.retry_reader import RetryReader
from kafka_notify._partition.retry_record import RetryRecord
from kafka_notify._partition.scheduler import Scheduler
from kafka_notify._partition.strangers import Origins
from kafka_notify._partition.waiting import Waiting
from kafka_notify._partition.wide import LongWaits
from kafka_notify._settle.copies import Copy as Written
from kafka_notify._settle.dead_letters import DeadLetterCopy
from kafka_notify._settle.publisher import CopyPublisher
from kafka_notify._settle.records import RetryCopy
from kafka_notify._wire.history import History
from kafka_notify.wire import DeadLetterState, Origin
from tests.model.owner import Clock, Owner
from tests.model.promises import Bytes, Copy, Record
from tests.model.world import World

VALUES: Final = frozenset(
    (bool, bytes, float, int, str, type(None), type, Busy, Committed, Fence, History, Origin, FunctionType)
)
"""Types that nothing changes and that compare by what they are: shared by copies, compared as they are."""
SHARED: Final = frozenset((Bytes, Copy, Record, DeadLetterState))
"""The same, but compared in another way. An owner shares its world, too: see `clone`."""
WIRING: Final[tuple[type, ...]] = (Clock, Context, CopyPublisher, Origins, RetryReader, Scheduler)
"""Classes that keep nothing but what they were given when they were made: `test_wiring_never_changes`."""
LEFT_OUT: Final[dict[type, frozenset[str]]] = {
    # `said` is of wide halves, and halves are narrow here; `skew` is the time: see `TIMES`
    Owner: frozenset(("publisher", "said", "skew", "world")),
    # constant, and read again from the same record
    Entry: frozenset(("_headers", "size")),
    # read by retention alone, which keeps all here
    RetryRecord: frozenset(("written",)),
    Carrying: frozenset(("_ordered_at", "_recall_at", "_sparse_since")),
    LongWaits: frozenset(("carried", "spill_failures", "spills")),
    # made of the entry and of `retry`, which say the same; `failures` counts for the backoff alone
    Written: frozenset(("_context", "_forms", "_hook", "_instead", "_spawn", "failures", "headers", "key", "value")),
}
TIMES: Final[dict[type, frozenset[str]]] = {
    RetryRecord: frozenset(("due", "expires")),
    UserQueue: frozenset(("timer",)),
}
"""Times, which are only ever compared with the present: see `ago`."""

Fields = Callable[[Any], tuple[Any, ...]]


def ago(time: int | None, now: int) -> int | None:
    """What a time is worth at `now`: 0 when it is over, 1 when the next tick reaches it, else 2. So two owners that do
    the same an hour apart are the same owner."""
    if not time:
        return time
    return 3 if time <= now else min(time - now, 2)


class Shape:
    """The attributes of a class."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        slots = [name for base in reversed(cls.__mro__) for name in _slots(base)]
        self.slots = tuple(name for name in slots if name not in ("__dict__", "__weakref__"))
        self.has_dict = hasattr(cls, "__dict__") and any("__dict__" in vars(base) for base in cls.__mro__)
        out = frozenset[str]().union(*(names for base, names in LEFT_OUT.items() if issubclass(cls, base)))
        self.left_out = out
        self.times = frozenset[str]().union(*(names for base, names in TIMES.items() if issubclass(cls, base)))
        self.compared = tuple(name for name in self.slots if name not in out)
        self.all_of = _getter(self.slots)
        self.compared_of = _getter(self.compared)

    def is_wiring(self) -> bool:
        """Whether it keeps no state."""
        return issubclass(self.cls, WIRING)


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _getter(names: tuple[str, ...]) -> Fields:
    if not names:
        return lambda value: ()
    if len(names) == 1:
        get = attrgetter(names[0])
        return lambda value: (get(value),)
    return attrgetter(*names)


_SHAPES: Final[dict[type, Shape]] = {}


def shape(cls: type) -> Shape:
    """The attributes of a class, which are looked up once."""
    found = _SHAPES.get(cls)
    if found is None:
        found = _SHAPES[cls] = Shape(cls)
    return found


# -- copies --------------------------------------------------------------------------------------------


def clone(owner: Owner) -> Owner:
    """An owner in the same state, which shares nothing that changes but its world."""
    copied: Owner = _clone(owner, {id(owner.world): owner.world})
    return copied


def _clone(value: Any, known: dict[int, Any]) -> Any:
    kind = value.__class__
    if kind in VALUES or kind in SHARED:
        return value
    found = known.get(id(value))
    if found is not None:
        return found
    container = _CONTAINERS.get(kind)
    if container is not None:
        return container(value, known)
    its = shape(kind)
    made = known[id(value)] = object.__new__(kind)
    put = object.__setattr__  # some are frozen
    for name, part in zip(its.slots, its.all_of(value), strict=True):
        put(made, name, part if part.__class__ in VALUES else _clone(part, known))
    if its.has_dict:
        into = made.__dict__
        for name, part in value.__dict__.items():
            into[name] = part if part.__class__ in VALUES else _clone(part, known)
    return made


def _clone_list(value: Any, known: dict[int, Any]) -> Any:
    made = known[id(value)] = value.__class__()
    for part in value:
        made.append(part if part.__class__ in VALUES else _clone(part, known))
    return made


def _clone_dict(value: Any, known: dict[int, Any]) -> Any:
    made = known[id(value)] = value.__class__()
    for key, part in value.items():
        name = key if key.__class__ in VALUES else _clone(key, known)
        made[name] = part if part.__class__ in VALUES else _clone(part, known)
    return made


def _clone_tuple(value: tuple[Any, ...], known: dict[int, Any]) -> Any:
    return tuple([part if part.__class__ in VALUES else _clone(part, known) for part in value])


def _clone_set(value: Any, known: dict[int, Any]) -> Any:
    made = known[id(value)] = value.__class__(_clone(part, known) for part in value)
    return made


def _clone_bytes(value: bytearray, known: dict[int, Any]) -> Any:
    made = known[id(value)] = bytearray(value)
    return made


def _clone_partial(value: partial[Any], known: dict[int, Any]) -> Any:
    return partial(_clone(value.func, known), *_clone_tuple(value.args, known))


def _clone_method(value: MethodType, known: dict[int, Any]) -> Any:
    return MethodType(value.__func__, _clone(value.__self__, known))


def _clone_count(value: Any, known: dict[int, Any]) -> Any:
    made = known[id(value)] = itertools.count(int(repr(value)[len("count(") : -1]))
    return made


_CONTAINERS: Final[dict[type, Callable[[Any, dict[int, Any]], Any]]] = {
    list: _clone_list,
    deque: _clone_list,
    dict: _clone_dict,
    OrderedDict: _clone_dict,
    Counter: _clone_dict,
    tuple: _clone_tuple,
    set: _clone_set,
    frozenset: _clone_set,
    bytearray: _clone_bytes,
    partial: _clone_partial,
    MethodType: _clone_method,
    itertools.count: _clone_count,
}


# -- what tells two owners apart -----------------------------------------------------------------------


def key(owner: Owner) -> Hashable:
    """What is equal for two owners exactly when nothing that happens to both can tell them apart. What is under way,
    and the timers, are put in an order of their own, as the scheduler picks any of them."""
    now = owner.now
    walk = _Walk(now)
    flight, timers = owner.flight, owner.timers
    owner.flight, owner.timers = [], []
    walk.take(owner)
    if len(flight) > 1:
        flight.sort(key=lambda item: walk.peek(item))
    if len(timers) > 1:
        timers.sort(key=lambda item: walk.peek((ago(item[0], now), item[1])))
    owner.flight, owner.timers = flight, timers
    for item in flight:
        walk.take(item)
    for at, queue in timers:
        walk.take((ago(at, now), queue))
    return tuple(walk.out)


class _Walk:
    """Writes what it meets as a row of values; what it has met before, as its number."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.out: list[Any] = []
        self._met: dict[int, int] = {}

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
        its = shape(kind)
        if its.is_wiring():
            return
        out.append(kind)
        if its.times:
            for name, part in zip(its.compared, its.compared_of(value), strict=True):
                if name in its.times:
                    out.append(ago(part, self.now))
                else:
                    self.take(part)
        else:
            for part in its.compared_of(value):
                if part.__class__ in VALUES:
                    out.append(part)
                else:
                    self.take(part)
        if its.has_dict:
            for name, part in value.__dict__.items():
                if name not in its.left_out:
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

    def _waiting(self, value: Waiting) -> None:
        """Those that wait for the same offset are in order of arrival; the numbers that say so do not matter."""
        for heap in (value.unreached, value.tainted, value.beyond):
            self._row([(offset, queue) for offset, _, queue in sorted(heap, key=lambda item: item[:2])])
        self._row(value.agenda)
        self._row(value.uncovered)

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
    frozenset: _Walk._set,
    bytearray: _Walk._bytes,
    partial: _Walk._partial,
    MethodType: _Walk._method,
    Waiting: _Walk._waiting,
    Bytes: _Walk._record,
    Copy: _Walk._copy,
    DeadLetterState: _Walk._letter,
}

__all__ = ["World", "ago", "clone", "key", "shape"]
_ = (RetryCopy, DeadLetterCopy)
