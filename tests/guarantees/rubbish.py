"""What user code may return and raise, though it should not: each costs its notification an attempt, no more."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import inspect
import sys
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, NoReturn

from kafka_notify import (
    Defer,
    DeliveryError,
    PermanentError,
    Receipt,
    Skip,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify.outcome import Dead, Outcome, Retry, SendContext, Sent, Skipped

if sys.version_info < (3, 11):

    class BaseExceptionGroup(BaseException):
        """Newer Pythons have one."""


async def of_a_future(error: BaseException) -> None:
    """What user code awaited failed so."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_exception, error)
    await future


async def of_a_task(error: BaseException) -> None:
    """A task that user code began failed so: asyncio ends the loop for SystemExit and KeyboardInterrupt."""

    async def fail() -> None:
        raise error

    await asyncio.create_task(fail())


async def cancels_itself() -> Receipt:
    """Cancels its own task, and is accepted before that comes out."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return Receipt("p")


class Uninitialised(TransientError):
    """Forgot `super().__init__`."""

    def __init__(self) -> None:
        pass


class Lying(TransientError):
    """A code that cannot be read."""

    @property
    def code(self) -> str:
        raise RuntimeError("no code")

    @code.setter
    def code(self, value: str) -> None:
        pass


class Secretive(Exception):
    """Says nothing about itself."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """A dataclass that nobody may change, not even its traceback."""

    status: int = 500


class OddReceipt(Receipt):
    """A receipt whose fields cannot be read."""

    def __init__(self) -> None:
        pass


class Odd:
    """Cannot be compared, printed, or asked whether it is true."""

    def __bool__(self) -> bool:
        raise RuntimeError("neither")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("incomparable")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Text(str):
    """Text that cannot be encoded."""

    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        raise RuntimeError("no bytes")


class BadAwaitable:
    """An awaitable that yields what no event loop knows."""

    def __await__(self) -> Generator[Any, None, None]:
        yield 5


def throw(error: BaseException) -> Callable[[], NoReturn]:
    def call() -> NoReturn:
        raise error

    return call


def changed(error: DeliveryError, **fields: Any) -> DeliveryError:
    """An error whose attributes somebody set."""
    for name, value in fields.items():
        setattr(error, name, value)
    return error


SENDS: Final[dict[str, Callable[[], Any]]] = {
    "provider=5": lambda: throw(TransientError("x", provider=5))(),  # type: ignore[arg-type]
    "provider=[]": lambda: throw(UnknownOutcomeError("x", provider=[1]))(),  # type: ignore[arg-type]
    "provider=Text": lambda: throw(TransientError("x", provider=Text("p")))(),
    "retry_after=1e306": lambda: throw(TransientError("x", retry_after=1e306))(),
    "retry_after=inf": lambda: throw(TransientError("x", retry_after=float("inf")))(),
    "retry_after=-3": lambda: throw(TransientError("x", retry_after=-3))(),
    "retry_after set to text": lambda: throw(changed(TransientError("x"), retry_after="soon"))(),
    "retry_after set to 10**400": lambda: throw(changed(TransientError("x"), retry_after=10**400))(),
    "code set to None": lambda: throw(changed(TransientError("x"), code=None))(),
    "code=Text": lambda: throw(TransientError(Text("x")))(),
    "no super().__init__": lambda: throw(Uninitialised())(),
    "property that raises": lambda: throw(Lying("x"))(),
    "nothing can be read": lambda: throw(Secretive())(),
    "frozen dataclass": lambda: throw(Frozen())(),
    "BaseExceptionGroup": lambda: throw(BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError()]))(),
    "sys.exit": lambda: sys.exit(3),
    "KeyboardInterrupt": lambda: throw(KeyboardInterrupt())(),
    "GeneratorExit": lambda: throw(GeneratorExit())(),
    "StopIteration": lambda: throw(StopIteration(3))(),
    "StopAsyncIteration": lambda: throw(StopAsyncIteration())(),
    "CancelledError": lambda: throw(asyncio.CancelledError())(),
    "BaseException": lambda: throw(BaseException("x"))(),
    "returns None": lambda: None,
    "returns 5": lambda: 5,
    "returns what cannot be read": Odd,
    "returns a class": lambda: Receipt,
    "returns a receipt in a list": lambda: [Receipt("p")],
    "awaitable that yields rubbish": BadAwaitable,
    "a future fails with GeneratorExit": lambda: of_a_future(GeneratorExit()),
    "a future fails with SystemExit": lambda: of_a_future(SystemExit()),
    "a future fails with CancelledError": lambda: of_a_future(asyncio.CancelledError()),
    "a task raises SystemExit": lambda: of_a_task(SystemExit()),
    "a task raises KeyboardInterrupt": lambda: of_a_task(KeyboardInterrupt()),
}
"""What `send` does; each counts as an attempt."""

ACCEPTED: Final[dict[str, Callable[[], Any]]] = {
    "receipt that cannot be read": OddReceipt,
    "provider=5": lambda: Receipt(5),  # type: ignore[arg-type]
    "provider=[]": lambda: Receipt([], {}),  # type: ignore[arg-type]
    "provider=Text": lambda: Receipt(Text("p"), Text("m")),
    "cancels itself": cancels_itself,
}
"""Receipts with odd fields: accepted is accepted."""

VERDICTS: Final[dict[str, Callable[[], Any]]] = {
    "None": lambda: None,
    "Skip(None)": lambda: Skip(None),  # type: ignore[arg-type]
    "Skip([])": lambda: Skip([]),  # type: ignore[arg-type]
    'Defer("tomorrow")': lambda: Defer("tomorrow", "x"),  # type: ignore[arg-type]
    "Defer(naive)": lambda: Defer(dt.datetime(2030, 1, 1), "x"),  # noqa: DTZ001
    "Defer(until, 5)": lambda: Defer(dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=1), 5),  # type: ignore[arg-type]
    "Defer(9999)": lambda: Defer(dt.datetime.max.replace(tzinfo=dt.timezone.utc), "x"),
    "sys.exit": lambda: sys.exit(3),
}
"""What `should_send` answers; each counts as an attempt."""

OUTCOMES: Final[dict[str, Callable[[], Any]]] = {
    "None": lambda: None,
    "Retry(nan)": lambda: Retry(float("nan"), True),
    'Retry("x")': lambda: Retry("x", True),  # type: ignore[arg-type]
    "Retry(1e306)": lambda: Retry(1e306, True),
    "Retry(0, None)": lambda: Retry(0, None),  # type: ignore[arg-type]
    'Retry(error="text")': lambda: Retry(0, False, "text"),  # type: ignore[arg-type]
    "Retry(error=ValueError)": lambda: Retry(0, False, ValueError()),  # type: ignore[arg-type]
    "Sent(None)": lambda: Sent(None),  # type: ignore[arg-type]
    'Dead(error="text")': lambda: Dead("permanent", "text"),  # type: ignore[arg-type]
    "Dead(5)": lambda: Dead(5),  # type: ignore[arg-type]
    "Skipped(None)": lambda: Skipped(None),  # type: ignore[arg-type]
    "a class": lambda: Sent,
    "GeneratorExit": lambda: throw(GeneratorExit())(),
    "BaseExceptionGroup": lambda: throw(BaseExceptionGroup("g", [SystemExit()]))(),
}
"""What a middleware returns instead of the outcome; each counts as an attempt."""

CLASSIFIED: Final[dict[str, Callable[[], Any]]] = {
    "5": lambda: 5,
    "what cannot be read": Odd,
    "a class": lambda: PermanentError,
    "uninitialised": Uninitialised,
    "sys.exit": lambda: sys.exit(3),
    "provider=5": lambda: changed(TransientError("x"), provider=5),
}
"""What `classify` answers; each counts as an attempt."""

EVERYTHING: Final[dict[str, tuple[str, Callable[[], Any]]]] = {
    f"{name}: {case}": (name, make)
    for name, cases in (
        ("send", SENDS), ("accepted", ACCEPTED), ("verdict", VERDICTS), ("outcome", OUTCOMES), ("classify", CLASSIFIED),
    )
    for case, make in cases.items()
}  # fmt: skip


async def answered(make: Callable[[], Any]) -> Any:
    """What `make` gives, awaited if it can be."""
    made = make()
    return await made if inspect.isawaitable(made) else made


async def meddling(
    context: SendContext, call_next: Callable[[SendContext], Awaitable[Outcome]], /
) -> Outcome:
    """Middleware that answers itself where it is told to."""
    where, make = EVERYTHING.get(context.notification.data["rubbish"], ("", Receipt.mro))
    if where == "outcome" and context.attempt.number == 1:
        answer: Any = make()
        return answer  # type: ignore[no-any-return]
    return await call_next(context)
