"""What follows an outcome: every rule as a row, and the order of the rules."""

from __future__ import annotations

import attrs
import pytest

from kafka_notify import (
    Consumer,
    DeliveryError,
    InvalidRecipientError,
    Notification,
    PermanentError,
    ProviderUnavailableError,
    Receipt,
    RetryPolicy,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify._base.retention import DAY_MS, MAX_WAIT_MS
from kafka_notify._decision.what_follows import (
    Decision,
    Finish,
    GiveUp,
    Kept,
    Rules,
    Ruling,
    TryAgain,
    WaitForCodec,
    decide,
    undecodable_now,
)
from kafka_notify._send.attempt import outcome_of
from kafka_notify.outcome import Dead, Outcome, Retry, Sent, Skipped
from kafka_notify.policy import UnknownOutcome, deferred
from kafka_notify.testing import deliver
from kafka_notify.wire import History

NOW = 1_800_000_000_000
HOUR = 3_600_000
RULES = Rules(max_attempts=4, max_wait_ms=None, unknown="retry")
BUSY = TransientError("http.503")
UNKNOWN = UnknownOutcomeError("timeout", provider="acme")
THROTTLED = ThrottledError("http.429")
RECIPIENT = ThrottledError("http.429", scope="recipient")
GONE = ProviderUnavailableError("http.401")
LATER = deferred("night")


Before = tuple[History, int | None]


def before(
    attempts: int = 0,
    expires: int | None = None,
    first_failed: int | None = None,
    since: int | None = None,
    code: str | None = None,
) -> Before:
    """What was known of a notification, and when it expires."""
    return History(attempts, 0, first_failed, since, error_code=code), expires


FRESH = before()


def said(decision: Decision) -> tuple[object, ...]:
    """A decision in short: seconds until the next attempt and attempts made, or why there is none."""
    if isinstance(decision, TryAgain):
        return "retry", (decision.due - NOW) / 1000, decision.history.attempts, decision.outcome.counted
    if isinstance(decision, GiveUp):
        return "dead", decision.reason, decision.history.attempts
    return "assumed" if decision.assumed else "finished", decision.outcome


def failed(error: DeliveryError | None, after: float = 2.0, *, counted: bool = True) -> Retry:
    return Retry(after, counted, error)


@pytest.mark.parametrize(
    ("outcome", "history", "follows"),
    [
        # what is finished
        (Sent(Receipt("p")), FRESH, ("finished", Sent(Receipt("p")))),
        (Skipped("quiet"), FRESH, ("finished", Skipped("quiet"))),
        # what is dead: an attempt that failed counts, what died without one does not
        (Dead("permanent", PermanentError("http.400")), FRESH, ("dead", "permanent", 1)),
        (Dead("invalid_recipient", InvalidRecipientError("x")), before(2, None), ("dead", "invalid_recipient", 3)),
        (Dead("throttle_timeout"), before(2, None), ("dead", "throttle_timeout", 2)),
        (Dead("as a middleware says"), FRESH, ("dead", "permanent", 0)),
        # the maximum of attempts
        (failed(BUSY), FRESH, ("retry", 2.0, 1, True)),
        (failed(BUSY), before(2, None), ("retry", 2.0, 3, True)),
        (failed(BUSY), before(3, None), ("dead", "max_attempts", 4)),
        (failed(BUSY, counted=False), before(3, None), ("retry", 2.0, 3, False)),
        (failed(None), FRESH, ("retry", 2.0, 1, True)),
        # what is not counted waits for a second at least, and longer the older its first failure is
        (failed(RECIPIENT, 0.0, counted=False), FRESH, ("retry", 1.0, 0, False)),
        (failed(RECIPIENT, -5.0, counted=False), before(0, None, NOW - 20_000), ("retry", 10.0, 0, False)),
        (failed(RECIPIENT, 11.0, counted=False), FRESH, ("retry", 11.0, 0, False)),
        # the expiry: at once when no attempt can start before it
        (failed(BUSY), before(0, NOW + 2_001), ("retry", 2.0, 1, True)),
        (failed(BUSY), before(0, NOW + 2_000), ("dead", "expired", 1)),
        (failed(RECIPIENT, 2.0, counted=False), before(1, NOW + 2_000), ("dead", "expired", 1)),
        (failed(GONE, 2.0, counted=False), before(0, NOW + 2_000), ("dead", "expired", 0)),
        (failed(BUSY), before(3, NOW + 2_000), ("dead", "max_attempts", 4)),
    ],
)  # fmt: skip
def test_what_follows(outcome: Outcome, history: Before, follows: tuple[object, ...]) -> None:
    """Without a circuit's ruling, in a topic that keeps everything."""
    assert said(decide(outcome, *history, RULES, NOW)) == follows


@pytest.mark.parametrize(
    ("policy", "error", "follows"),
    [
        ("retry", UNKNOWN, ("retry", 2.0, 1, True)),
        ("dead_letter", UNKNOWN, ("dead", "unknown_outcome", 1)),
        ("assume_sent", UNKNOWN, ("assumed", Sent(Receipt("acme")))),
        ("assume_sent", UnknownOutcomeError("no_receipt"), ("retry", 2.0, 1, True)),
        ("assume_sent", UnknownOutcomeError("middleware.invalid_outcome"), ("retry", 2.0, 1, True)),
        ("dead_letter", BUSY, ("retry", 2.0, 1, True)),
        ("assume_sent", BUSY, ("retry", 2.0, 1, True)),
    ],
)
def test_an_unknown_outcome(
    policy: UnknownOutcome, error: DeliveryError, follows: tuple[object, ...]
) -> None:
    """The team decides; of a bug in its own code nothing is assumed."""
    rules = attrs.evolve(RULES, unknown=policy)
    assert said(decide(failed(error), *FRESH, rules, NOW)) == follows


def test_an_unknown_outcome_of_the_last_attempt() -> None:
    """What the team wants of it comes before the maximum."""
    last = before(3, None)
    assert said(decide(failed(UNKNOWN), *last, RULES, NOW)) == ("dead", "max_attempts", 4)
    rules = attrs.evolve(RULES, unknown="dead_letter")
    assert said(decide(failed(UNKNOWN), *last, rules, NOW)) == ("dead", "unknown_outcome", 4)


@pytest.mark.parametrize(
    ("outcome", "ruling", "follows"),
    [
        # a failure: the longer of both waits; the circuit may say that it does not count
        (failed(BUSY), Ruling(True, 0.0, claim=False), ("retry", 2.0, 1, True)),
        (failed(BUSY), Ruling(True, 9.0, claim=False, spread=0.5), ("retry", 9.0, 1, True)),
        (failed(BUSY), Ruling(False, 9.0, claim=False, spread=0.5), ("retry", 9.5, 0, False)),
        # a middleware says that it does not count
        (failed(BUSY, 0.0, counted=False), Ruling(True, 0.0, claim=False, spread=0.5), ("retry", 1.5, 0, False)),
        # a claim: as long as the circuit says, unless it was disbelieved and counts
        (failed(GONE, 99.0, counted=False), Ruling(False, 5.0, claim=True, spread=1.0), ("retry", 6.0, 0, False)),
        (failed(GONE, 99.0, counted=False), Ruling(True, 0.0, claim=True, backoff=8.0), ("retry", 8.0, 1, True)),
        (failed(THROTTLED, 99.0, counted=False), Ruling(True, 9.0, claim=True, backoff=8.0), ("retry", 9.0, 1, True)),
        # nothing changes for what is dead
        (Dead("permanent", BUSY), Ruling(False, 9.0, claim=False), ("dead", "permanent", 1)),
    ],
)  # fmt: skip
def test_what_the_circuits_rule(outcome: Outcome, ruling: Ruling, follows: tuple[object, ...]) -> None:
    """Whether it counts, and how long it waits."""
    assert said(decide(outcome, *FRESH, RULES, NOW, None, ruling)) == follows


def test_a_ruling_comes_before_the_maximum_and_the_expiry() -> None:
    """An outage kills nothing by its attempts, and its wait decides whether the next one comes before the expiry."""
    held = Ruling(False, 60.0, claim=False)
    assert said(decide(failed(BUSY), *before(3, None), RULES, NOW, None, held)) == ("retry", 60.0, 3, False)
    assert said(decide(failed(BUSY), *before(3, NOW + 60_000), RULES, NOW, None, held)) == (
        "dead",
        "expired",
        3,
    )
    disbelieved = Ruling(True, 0.0, claim=True, backoff=8.0)
    assert said(decide(failed(GONE, counted=False), *before(3, None), RULES, NOW, None, disbelieved)) == (
        "dead",
        "max_attempts",
        4,
    )


@pytest.mark.parametrize(
    ("outcome", "kept", "follows"),
    [
        (failed(LATER, 10.0, counted=False), Kept(9_000, False), ("dead", "wait_too_long", 0)),
        (failed(LATER, 9.0, counted=False), Kept(9_000, False), ("retry", 9.0, 0, False)),
        (failed(LATER, 10.0, counted=False), Kept(9_000, True), ("retry", 10.0, 0, False)),
        (failed(LATER, 10.0, counted=False), Kept(None, False), ("retry", 10.0, 0, False)),
        (failed(BUSY, 10.0), Kept(9_000, False), ("dead", "wait_too_long", 1)),
        # the provider asked, not for this one
        (failed(THROTTLED, 10.0, counted=False), Kept(9_000, False), ("retry", 9.0, 0, False)),
        (failed(RECIPIENT, 10.0, counted=False), Kept(9_000, False), ("dead", "wait_too_long", 0)),
    ],
)
def test_how_long_the_topic_keeps_it(outcome: Outcome, kept: Kept, follows: tuple[object, ...]) -> None:
    """A wait that its topic may not outlast is refused when it is asked for."""
    assert said(decide(outcome, *FRESH, RULES, NOW, kept)) == follows


def test_retention_of_a_topic() -> None:
    """Until it is known nine days count, and nobody can tell when half of that is over."""
    assert Kept() == Kept(8 * DAY_MS, False)
    assert Kept.by(9 * DAY_MS) == Kept(8 * DAY_MS, True)
    assert Kept.by(DAY_MS) == Kept(DAY_MS * 3 // 4, False)
    assert Kept.by(-1) == Kept(None, True)


@pytest.mark.parametrize("error", [THROTTLED, RECIPIENT, LATER])
def test_since_when_it_waits(error: DeliveryError) -> None:
    """From the first throttle, or deferral, in a row; anything else ends the row."""
    answer = failed(error, 60.0, counted=False)
    same, other = error.code, "http.429" if error is LATER else "deferred.quiet"
    for history, since in (
        (FRESH, NOW),
        (before(1, None, NOW - HOUR, None, "http.503"), NOW),
        (before(1, None, NOW - HOUR, NOW - HOUR, same), NOW - HOUR),
        (before(1, None, NOW - HOUR, NOW - HOUR, other), NOW),
    ):
        decision = decide(answer, *history, RULES, NOW)
        assert isinstance(decision, TryAgain)
        first = history[0].first_failed_ms
        assert decision.history.waiting_since_ms == since
        assert decision.history.first_failed_ms == (NOW if first is None else first)
    ended = decide(failed(BUSY), *before(1, None, NOW - HOUR, NOW - HOUR, same), RULES, NOW)
    assert isinstance(ended, TryAgain)
    assert ended.history.waiting_since_ms is None


@pytest.mark.parametrize(
    ("error", "waited", "expires", "max_wait", "dies"),
    [
        (THROTTLED, 24 * HOUR, None, None, False),
        (THROTTLED, 24 * HOUR + 1, None, None, True),
        (RECIPIENT, 25 * HOUR, None, None, True),
        (THROTTLED, 25 * HOUR, NOW + HOUR, None, False),
        (LATER, 900 * HOUR, None, None, False),
        (LATER, 11 * HOUR, None, 10 * HOUR, True),
        (THROTTLED, 11 * HOUR, NOW + HOUR, 10 * HOUR, True),
        (THROTTLED, 9 * HOUR, None, 10 * HOUR, False),
        (GONE, 900 * HOUR, None, HOUR, False),
        (BUSY, 900 * HOUR, None, HOUR, False),
    ],
)
def test_how_long_it_may_be_throttled(
    error: DeliveryError, waited: int, expires: int | None, max_wait: int | None, dies: bool
) -> None:
    """The policy bounds throttles and deferrals; without it a day bounds throttles of what never expires."""
    history = before(0, expires, NOW - waited, NOW - waited, error.code)
    rules = attrs.evolve(RULES, max_wait_ms=max_wait)
    decision = decide(failed(error, 60.0, counted=False), *history, rules, NOW)
    assert said(decision)[:2] == (("dead", "throttle_timeout") if dies else ("retry", 60.0))


@pytest.mark.parametrize("error", [THROTTLED, GONE])
def test_nothing_expires_in_a_wait_of_which_nobody_knows_the_end(error: DeliveryError) -> None:
    """Without a lane there is no circuit that says how long the provider is left alone."""
    history, answer = before(0, NOW + 1_000), failed(error, 2.0, counted=False)
    alone = attrs.evolve(RULES, in_lane=False)
    assert said(decide(answer, *history, RULES, NOW)) == ("dead", "expired", 0)
    assert said(decide(answer, *history, alone, NOW)) == ("retry", 2.0, 0, False)
    assert said(decide(failed(BUSY), *history, alone, NOW)) == ("dead", "expired", 1)


def test_what_is_told_of_an_attempt() -> None:
    """A decision keeps the outcome that events name: an attempt that was the last one was to be tried again."""
    last = decide(failed(BUSY), *before(3, None), RULES, NOW)
    assert isinstance(last, GiveUp)
    assert (last.outcome, last.history.error_code) == (failed(BUSY), BUSY.code)
    dead = decide(Dead("permanent", BUSY), *FRESH, RULES, NOW)
    assert dead.outcome == Dead("permanent", BUSY)
    assert decide(Sent(Receipt("p")), *FRESH, RULES, NOW) == Finish(Sent(Receipt("p")))


@pytest.mark.parametrize(
    ("first_failed", "expires", "follows"),
    [
        (None, None, (NOW + 1_000, NOW)),
        (NOW - 10_000, None, (NOW + 10_000, NOW - 10_000)),
        (NOW - HOUR, None, (NOW + 60_000, NOW - HOUR)),
        (NOW - MAX_WAIT_MS, None, (NOW + 60_000, NOW - MAX_WAIT_MS)),
        (NOW - MAX_WAIT_MS - 1, None, "undecodable"),
        (None, NOW, "expired"),
        (NOW - MAX_WAIT_MS - 1, NOW, "expired"),
        (None, NOW + 1, (NOW + 1_000, NOW)),
    ],
)
def test_a_codec_that_cannot_decode_it_now(
    first_failed: int | None, expires: int | None, follows: tuple[int, int] | str
) -> None:
    """It waits for as long as it has waited so far, from a second to a minute, and for a day at most."""
    found = undecodable_now(*before(2, expires, first_failed), "avro.schema", NOW)
    if isinstance(found, WaitForCodec):
        assert (found.due, found.history.first_failed_ms) == follows
        assert (found.history.attempts, found.history.error_code) == (2, "avro.schema")
    else:
        assert found == follows


# -- a worker and `deliver` answer alike


RETRY = RetryPolicy(4, initial_delay=2, multiplier=4, jitter=0)
ERRORS = [
    BUSY,
    TransientError("http.503", retry_after=9),
    UNKNOWN,
    RECIPIENT,
    ThrottledError("http.429", retry_after=0, scope="recipient"),
    PermanentError("http.400"),
    InvalidRecipientError("smtp.550"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{type(e).__name__} {e.code}")
@pytest.mark.parametrize("attempt", [1, 4])
@pytest.mark.parametrize("unknown", ["retry", "dead_letter", "assume_sent"])
async def test_deliver_answers_as_a_worker(
    error: DeliveryError, attempt: int, unknown: UnknownOutcome
) -> None:
    """Of everything that no circuit has a say in."""

    class Failing(Consumer):
        retry = RETRY
        unknown_outcome = unknown

        async def send(self, notification: object, attempt: object) -> Receipt:
            raise error

    answer = outcome_of(error, attempt, RETRY, lambda e: None, lambda wrong: None)
    rules = Rules.of(RETRY, unknown)
    worker = decide(answer, *before(attempt - 1, None), rules, NOW)
    here = await deliver(
        Failing(), Notification(user_id="u", category="otp", channel="sms", data={}), attempt=attempt
    )

    assert here == (Dead(worker.reason, error) if isinstance(worker, GiveUp) else worker.outcome)
