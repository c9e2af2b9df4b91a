"""Whatever user code returns or raises, what comes out of the validation can be trusted, and sends go on."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast, get_args

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kafka_notify import (
    Attempt,
    ConfigError,
    Consumer,
    Defer,
    DeliveryError,
    Notification,
    PermanentError,
    Receipt,
    RetryPolicy,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify._base.limited_log import MAX_TEXTS, LimitedLog
from kafka_notify._base.units import LONGEST, clamped
from kafka_notify._decision.trusted import check_error, check_outcome, check_receipt
from kafka_notify._send.attempt import FALLBACK_DELAY, AttemptRunner
from kafka_notify._send.threads import SendThreads
from kafka_notify.errors import ThrottleScope, valid_code
from kafka_notify.events import LaneResumed, emitter
from kafka_notify.outcome import Dead, Outcome, Retry, SendContext, Sent, Skipped
from tests.guarantees.rubbish import (
    EVERYTHING,
    Frozen,
    Lying,
    Odd,
    OddReceipt,
    Secretive,
    Text,
    Uninitialised,
    answered,
)
from tests.unit.send.sends_alone import Alone

KINDS: Final = tuple(
    kind
    for kind in (*DeliveryError.__subclasses__(), *PermanentError.__subclasses__(), DeliveryError)
    if kind.__module__ == DeliveryError.__module__  # not those of other tests
)


class Polite(ThrottledError):
    """A team's own, which does nothing odd."""


@attrs.frozen
class Own(Retry):
    """A team's own outcome."""


rubbish = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers(), max_size=2),
    st.decimals(), st.timedeltas(), st.datetimes(), st.sampled_from([10**400, -(10**400), Text("x"), Receipt, Odd()]),
    st.builds(Odd), st.builds(OddReceipt), st.builds(Uninitialised), st.builds(Frozen), st.builds(Secretive),
)  # fmt: skip


@st.composite
def errors(draw: st.DrawFn) -> Any:
    """Errors of all kinds, made and changed with anything."""
    kind: Any = draw(st.sampled_from([*KINDS, Polite, Lying]))
    given: dict[str, Any] = {}
    if issubclass(kind, (TransientError, ThrottledError)):
        given["retry_after"] = draw(rubbish)
    if issubclass(kind, ThrottledError):
        given["scope"] = draw(st.sampled_from(get_args(ThrottleScope)))  # another one is refused: see below
    error = kind(
        draw(st.one_of(rubbish, st.just("http.503"))),
        provider=draw(st.one_of(rubbish, st.just("acme"))),
        detail=draw(rubbish),
        **given,
    )
    for name in draw(st.sets(st.sampled_from(["code", "provider", "retry_after", "scope"]), max_size=2)):
        setattr(error, name, draw(rubbish))
    return error


def test_a_scope_that_is_not_known_is_refused() -> None:
    """A literal of the sender's code: nothing that it computed."""
    with pytest.raises(
        ConfigError, match=r"^ThrottledError\.scope must be 'recipient', 'sender' or 'provider'"
    ):
        ThrottledError("x", scope=cast(Any, "recipients"))


receipts = st.one_of(rubbish, st.builds(Receipt, rubbish, rubbish))
outcomes = st.one_of(
    rubbish,
    st.builds(Sent, receipts),
    st.builds(Skipped, rubbish),
    st.builds(Dead, rubbish, st.one_of(rubbish, errors())),
    st.builds(Retry, rubbish, rubbish, st.one_of(rubbish, errors())),
    st.builds(Own, rubbish, rubbish, st.one_of(rubbish, errors())),
)


def trusted_error(error: Any) -> bool:
    """What everything behind the validation rests on."""
    after = error.retry_after if isinstance(error, (ThrottledError, TransientError)) else None
    return (
        isinstance(error, DeliveryError)
        and type(error.code) is str
        and valid_code(error.code) == error.code
        and (error.provider is None or (type(error.provider) is str and len(error.provider) <= 128))
        and (after is None or (type(after) in (int, float) and 0 <= after <= LONGEST))
        and (not isinstance(error, ThrottledError) or error.scope in get_args(ThrottleScope))
    )


def trusted(outcome: Any) -> bool:
    """The same of an outcome."""
    if type(outcome) is Sent:
        receipt = outcome.receipt
        return isinstance(receipt, Receipt) and type(receipt.provider) is str
    if type(outcome) is Skipped:
        return type(outcome.reason) is str
    error = outcome.error
    if type(outcome) is Dead:
        return type(outcome.reason) is str and (error is None or trusted_error(error))
    return (
        type(outcome) is Retry
        and math.isfinite(outcome.after)
        and 0 <= outcome.after <= LONGEST
        and type(outcome.counted) is bool
        and (error is None or trusted_error(error))
    )


@given(outcomes)
def test_an_outcome_can_be_trusted_or_is_none(outcome: Any) -> None:
    """What passes has the types and ranges that are promised; what does not is told in a sentence."""
    found, wrong = check_outcome(outcome)
    if found is None:
        assert wrong
    else:
        assert trusted(found)
        assert check_outcome(found)[0] is found


@given(errors())
def test_an_error_can_be_trusted(error: Any) -> None:
    """Making one never raises, its kind stands, and its fields have the types and ranges that are promised."""
    found, _ = check_error(error)
    assert trusted_error(found)
    known = next(kind for kind in type(error).__mro__ if kind in KINDS)
    assert isinstance(found, known)
    assert check_error(found)[0] is found


@given(rubbish)
def test_a_receipt_means_accepted(value: Any) -> None:
    """Any receipt is accepted, whatever is in it; anything else is not."""
    found, wrong = check_receipt(value)
    assert (found is not None) == issubclass(type(value), Receipt)
    assert found is None or type(found.provider) is str
    assert found is not None or wrong


@given(rubbish)
def test_a_duration_is_clamped(value: Any) -> None:
    """Anything is seconds in range, or none."""
    seconds = clamped(value)
    assert seconds is None or (type(seconds) is float and 0 <= seconds <= LONGEST)


def test_what_is_well_formed_is_kept_as_it_is() -> None:
    """Objects of user code that say what they should are not copied: middleware and tests know them again."""
    polite = Polite("http.429", retry_after=3, scope="recipient", provider="acme")
    assert check_error(polite) == (polite, "")
    for outcome in (
        Sent(Receipt("p", "m")),
        Retry(3, True, polite),
        Dead("permanent", polite),
        Skipped("x"),
        Retry(0.0, False),
    ):
        assert check_outcome(outcome)[0] is outcome


def test_values_are_never_told() -> None:
    """What is said of rubbish names classes and fields."""
    error = TransientError("x", provider=["+1 555"], retry_after="+1 555")  # type: ignore[arg-type]
    telephone: Any = "+1 555"
    said = [
        check_error(error)[1],
        check_outcome(Dead(telephone, telephone))[1],
        check_outcome(Skipped([telephone]))[1],  # type: ignore[arg-type]
    ]
    assert all(said)
    assert not [text for text in said if "555" in text]


def test_negative_waits_are_none() -> None:
    """A moment that has passed, computed by a sender, is no reason to raise."""
    assert TransientError("x", retry_after=-3).retry_after == 0
    assert ThrottledError("x", retry_after=dt.timedelta(seconds=-3)).retry_after == 0
    assert TransientError("x", retry_after=1e306).retry_after is None


@pytest.mark.parametrize("until", ["tomorrow", 5, None, dt.datetime(2030, 1, 1)])  # noqa: DTZ001
def test_a_defer_needs_an_aware_datetime(until: Any) -> None:
    """The mistake is named where it is made."""
    with pytest.raises(ConfigError, match="aware datetime"):
        Defer(until, "x")


def test_a_repeated_warning_is_written_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The second within a minute is counted, the next after it says so; what is remembered is bounded."""
    now = 0.0
    log = LimitedLog(logging.getLogger("x"), lambda: now)
    for _ in range(3):
        log.warning("odd")
    now = 61.0
    log.warning("odd")
    for n in range(2 * MAX_TEXTS):
        text = f"other {n}"
        log.warning(text)
    assert [record.getMessage() for record in caplog.records][:2] == [
        "odd",
        "odd (and 2 more times in the last 61 s)",
    ]
    assert len(log) == MAX_TEXTS


# -- on an event loop, with everything but Kafka --------------------------------------------------------


class Told(Consumer):
    """Does at the first attempt what a case says, and is accepted at the next."""

    concurrency = 8
    breaker = None

    def __init__(self, cases: list[Callable[[], Any]]) -> None:
        self.cases = cases

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        answer = (
            await answered(self.cases[notification.data["case"]]) if attempt.number == 1 else Receipt("p")
        )
        return answer


class ToldPlain(Told):
    def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:  # type: ignore[override]
        answer: Receipt = self.cases[notification.data["case"]]() if attempt.number == 1 else Receipt("p")
        return answer


async def passing(context: SendContext, call_next: Callable[[SendContext], Awaitable[Outcome]], /) -> Outcome:
    """A middleware that changes nothing."""
    return await call_next(context)


def raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


cases = st.one_of(
    rubbish.map(lambda value: lambda: value),
    errors().map(raiser),
    st.sampled_from(
        [make for where, make in EVERYTHING.values() if where in ("send", "accepted", "outcome")]
    ),
    st.sampled_from([SystemExit, KeyboardInterrupt, GeneratorExit, BaseException, Frozen, Secretive]).map(
        lambda kind: raiser(kind())
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(cases, min_size=1, max_size=20), st.booleans(), st.booleans())
@example(made=[raiser(SystemExit())], plain=False, wrapped=False)
@example(made=[raiser(SystemExit())], plain=True, wrapped=True)
def test_sends_survive_anything(made: list[Callable[[], Any]], plain: bool, wrapped: bool) -> None:
    """Whatever sends return and raise, nothing fails but their own attempts, and another user's is sent."""

    async def main() -> None:
        consumer = (ToldPlain if plain else Told)([*made, lambda: Receipt("p")])
        alone = Alone(consumer, (passing,) if wrapped else ())
        counts, lane = alone.sends.counts, alone.sends.guard.lane
        try:
            for n in range(len(made) + 1):
                alone.put(Notification(user_id=f"u{n}", category="otp", channel="sms", data={"case": n}))
            # a case may say that the provider asks to wait for a year: then the lane is held
            await alone.until(lambda: counts.sent + counts.retried + counts.dead > len(made) or lane.held)
            assert alone.failed == []
            assert counts.sent >= 1 or lane.held
        finally:
            await alone.close()

    run(main())


def run(main: Any) -> None:
    """Run it as a worker's loop does: what a task of user code lets through does not end it."""
    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(main)
        task.add_done_callback(lambda _: loop.stop())
        while not task.done():
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue
        task.result()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def test_an_async_send_that_ignores_its_deadline_is_settled_and_counted() -> None:
    """It is an unknown outcome at once, its user alone waits until it ends, and its place is taken by another."""

    class Stubborn(Consumer):
        concurrency = 1
        breaker = None

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            started.append(notification.user_id)
            if notification.user_id == "stubborn" and attempt.number == 1:
                while not release.is_set():
                    try:
                        await release.wait()
                    except asyncio.CancelledError:
                        continue
            return Receipt("p")

    started: list[str] = []
    release = asyncio.Event()
    alone = Alone(Stubborn(), send_timeout=0.5)
    for user in ("stubborn", "stubborn", "other"):
        alone.put(Notification(user_id=user, category="otp", channel="sms", data={}))
    sends = alone.sends
    grace(sends)
    await alone.until(lambda: sends.counts.sent == 1)
    await alone.until(lambda: sends.counts.retried == 1 and alone.partition.open == 0)
    assert (sends.slots.stuck(), sends.slots.strays()) == (1, 0)
    assert started == ["stubborn", "other"]
    assert alone.partition.outstanding == 0

    release.set()
    await alone.until(lambda: sends.counts.sent == 3)
    assert sends.slots.stuck() == 0
    assert alone.failed == []
    await alone.close()


async def test_an_async_send_that_ignores_a_hand_over_blocks_its_user_here() -> None:
    """It counts as stuck, and should the partition come back, its user waits until it has ended; others do not."""

    class Stubborn(Consumer):
        breaker = None

        async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            started.append(notification.user_id)
            while notification.user_id == "stubborn" and not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return Receipt("p")

    started: list[str] = []
    release = asyncio.Event()
    alone = Alone(Stubborn())
    sends = alone.sends
    grace(sends)
    alone.put(Notification(user_id="stubborn", category="otp", channel="sms", data={}))
    await alone.until(lambda: started)
    alone.lose()
    alone.assign()  # at once, long before it counts as stuck
    for user in ("stubborn", "other"):
        alone.put(Notification(user_id=user, category="otp", channel="sms", data={}))
    await alone.until(lambda: sends.counts.sent == 1)
    await alone.until(lambda: sends.slots.stuck() == 1)
    assert sends.slots.strays() == 1
    assert started == ["stubborn", "other"]

    alone.lose()
    alone.assign()  # and after it
    for user in ("stubborn", "other"):
        alone.put(Notification(user_id=user, category="otp", channel="sms", data={}))
    await alone.until(lambda: sends.counts.sent == 2)
    assert started == ["stubborn", "other", "other"]

    release.set()
    await alone.until(lambda: sends.counts.sent == 3)
    assert started == ["stubborn", "other", "other", "stubborn"]
    assert (sends.slots.stuck(), sends.slots.strays()) == (0, 0)
    await alone.close()


async def test_a_middleware_that_swallows_the_deadline_does_not_free_the_user() -> None:
    """The thread of a plain send still runs, whatever a middleware made of the cancellation."""
    import threading

    class Hanging(Consumer):
        breaker = None

        def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
            started.append(attempt.number)
            if len(started) == 1:
                release.wait()
            return Receipt("p")

    async def swallowing(
        context: SendContext, call_next: Callable[[SendContext], Awaitable[Outcome]], /
    ) -> Outcome:
        try:
            return await call_next(context)
        except asyncio.CancelledError:
            return Retry(0, True, UnknownOutcomeError("mine"))

    started: list[int] = []
    release = threading.Event()
    alone = Alone(Hanging(), (swallowing,), send_timeout=0.5)
    alone.put(Notification(user_id="u", category="otp", channel="sms", data={}))
    await alone.until(lambda: alone.sends.counts.retried == 1)
    await alone.until(lambda: alone.partition.outstanding == 0)
    assert alone.sends.slots.stuck() == 1
    assert started == [1]
    release.set()
    await alone.until(lambda: alone.sends.counts.sent == 1)
    assert started == [1, 2]
    await alone.close()


def grace(sends: Any) -> None:
    """What is cancelled counts as stuck at the next look."""
    sends.slots.grace = 0.02


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError(), Frozen()])
def test_a_listener_that_raises_anything_changes_nothing(error: BaseException) -> None:
    """`on_event` runs on the threads of the worker: what it raises must not end them, and the others are told."""
    told: list[object] = []
    emit = emitter(lambda event: raiser(error)(), told.append)
    assert emit is not None
    emit(LaneResumed(1.0, 1))
    assert told == [LaneResumed(1.0, 1)]


class OddPolicy(RetryPolicy):
    """A team's own, whose `delay` is wrong."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        object.__setattr__(self, "_answer", answer)

    def delay(self, attempts_made: int, retry_after: float | None = None) -> float:
        answer: Any = object.__getattribute__(self, "_answer")
        if isinstance(answer, BaseException):
            raise answer
        return cast(float, answer)


@pytest.mark.parametrize("answer", [KeyError("x"), SystemExit(1), "soon", math.nan, None], ids=repr)
async def test_a_retry_policy_that_cannot_say_its_delay(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A send that failed, and one whose refusal nobody believes, wait a minute; the log says why."""
    threads = SendThreads(1, asyncio.get_running_loop())
    runner = AttemptRunner(Told([]), OddPolicy(answer), (), threads)
    assert runner.backoff(2) == FALLBACK_DELAY
    outcome = runner.failed(TransientError("x.503"), Attempt(1, 4, "key", 1.0, None))
    assert isinstance(outcome, Retry)
    assert outcome.after == FALLBACK_DELAY
    threads.close()
    assert any("OddPolicy.delay" in message and "waits 60 s" in message for message in caplog.messages)
