"""The circuit holds a lane while its provider fails, and says which failures count."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest

from kafka_notify import (
    CircuitBreaker,
    ConfigError,
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    TransientError,
    UnknownOutcomeError,
)
from kafka_notify._decision.circuit import DAY, DISTRUST, DOUBT, PROBES, QUIET, RAMP, USERS, Circuit
from kafka_notify._decision.evidence import Kind, Try, Verdict, kind_of, least_wait
from kafka_notify._decision.shares import HOPELESS, STALE
from kafka_notify.policy import deferred

FAILURE, ACCOUNT, THROTTLE, CODEC = Kind.FAILURE, Kind.ACCOUNT, Kind.THROTTLE, Kind.CODEC
NOW = 1_000.0


DEFAULT = CircuitBreaker()


def circuit(breaker: CircuitBreaker | None = DEFAULT, concurrency: int = 100) -> Circuit:
    """One of a worker that has just started."""
    return Circuit(breaker, NOW, concurrency)


def fail(
    of: Circuit, who: object, now: float = NOW, kind: Kind = FAILURE, *, asked: float | None = None,
    accepted: int = 0, **sent: object,
) -> Verdict:  # fmt: skip
    """A send that started just now failed."""
    made = Try(who, **{"started": now, **sent})  # type: ignore[arg-type]
    return of.failed(made, kind, "http.503", now, asked=asked, accepted=accepted)


def accept(of: Circuit, who: object = "good", now: float = NOW, **sent: object) -> bool:
    """A send that started just now was accepted."""
    return of.accepted(Try(who, **{"started": now, **sent}), now)  # type: ignore[arg-type]


def held(kind: Kind = FAILURE, **options: object) -> Circuit:
    """One that is held."""
    of = circuit(**options)  # type: ignore[arg-type]
    if kind is FAILURE:
        for n in range(12):
            fail(of, n)
    else:
        fail(of, "first", kind=kind)
    assert of.held
    return of


def probe(of: Circuit, now: float) -> int:
    """The token of a probe that may start."""
    assert of.room(now, 0) > 0
    return of.start(now)


# -- what holds it -----------------------------------------------------------------------------------


def test_first_sends_of_many_users_hold_it() -> None:
    """Twelve users who fail for the first time, and nobody accepted."""
    of = circuit()
    states = []
    for n in range(12):
        fail(of, n)
        states.append(of.held)

    assert states == [False] * 11 + [True]
    assert of.room(NOW, 0) == 0


def test_one_user_never_holds_it() -> None:
    """However often one user fails, whether or not others are accepted in between."""
    alone, among = circuit(), circuit()
    for n in range(1_000):
        fail(alone, "u", NOW + n, tried=n > 0)
        fail(among, "u", NOW + n, tried=n > 0)
        accept(among, n, NOW + n)

    assert not alone.held
    assert not among.held


def test_users_who_always_fail_do_not_hold_it() -> None:
    """Half of all users fail at every send and every retry: the retries weigh less and less."""
    of = circuit()
    for n in range(5_000):
        fail(of, f"bad{n % 200}", NOW + n, attempts=n % 4, tried=n % 4 > 0)
        accept(of, f"good{n}", NOW + n)

    assert not of.held
    assert of.score <= 3


def test_a_herd_of_retries_that_never_succeed_does_not_hold_it() -> None:
    """Once it is known that retries fail, hundreds that come due together say nothing."""
    of = circuit()
    for n in range(300):
        fail(of, n, NOW + n, attempts=1, tried=True)
        accept(of, f"good{n}", NOW + n)
    for n in range(300):
        fail(of, f"late{n}", NOW + 300, attempts=1, tried=True)

    assert not of.held


def test_retries_hold_it_when_nothing_is_known() -> None:
    """After a crash only retries wait: they count for less than first sends, but all of them failing holds the lane."""
    of = circuit()
    n = 0
    while not of.held:
        fail(of, n, attempts=1, tried=True)
        n += 1

    assert n == 41


def test_half_the_score_is_enough_when_nothing_gets_through() -> None:
    """On a quiet lane six users are enough after one and a half seconds without an accepted send."""
    of = circuit()
    for n in range(5):
        fail(of, n, NOW + n)
    assert not of.held
    fail(of, "sixth", NOW + QUIET + 3)

    assert of.held


def test_an_outage_does_not_teach_that_retries_are_hopeless() -> None:
    """While nothing is accepted the shares stay as they are."""
    of = held()
    before = of.retry_shares
    for n in range(500):
        fail(of, f"r{n}", NOW + n, attempts=1, tried=True, token=of.start(NOW + n))

    assert of.retry_shares == before


def test_accepted_sends_need_not_be_told() -> None:
    """While nothing is wrong only the number of accepted sends is needed, and failures among many are forgiven."""
    of, told = circuit(), circuit()
    for n in range(200):
        fail(of, n, NOW + n, accepted=100 * n)
        assert not of.gated
        for k in range(100):
            accept(told, f"good{n}.{k}", NOW + n)
        fail(told, n, NOW + n + 1, accepted=100 * (n + 1))

    fail(of, 200, NOW + 200, accepted=100 * 200)
    assert of.score == told.score
    assert of._shares.failed == pytest.approx(told._shares.failed, rel=0.01)
    accept(of, "good", NOW + 201)
    assert not of.gated
    assert of.score == 0


def test_users_are_bounded() -> None:
    """The oldest one is forgotten."""
    of = circuit()
    for n in range(3 * USERS):
        fail(of, n)

    assert len(of.failing) == USERS


def test_without_a_breaker_failures_hold_nothing() -> None:
    """Every failure counts, but what the provider says holds."""
    of = circuit(None)
    assert all(fail(of, n) == Verdict(True, 0.0) for n in range(100))
    assert not of.held
    assert not fail(of, "u", kind=ACCOUNT).counted
    assert of.held


# -- while it is held --------------------------------------------------------------------------------


def test_one_probe_after_the_first_wait_then_one_at_a_time() -> None:
    """Also when earlier ones hang, up to five of them."""
    of = held()
    starts = []
    for tenth in range(300):
        now = NOW + tenth / 10
        while of.room(now, 0) > 0:
            of.start(now)
            starts.append(round(now - NOW, 1))

    assert starts[0] == 1.0
    assert len(starts) == PROBES
    assert all(1.0 <= later - before <= 1.6 for before, later in itertools.pairwise(starts))


def test_a_recovery_releases_it_step_by_step() -> None:
    """Accepted probes follow each other without a wait, more and more at once; then sends are ramped up."""
    of = held(concurrency=100)
    now = NOW + 1
    rooms: list[int] = []
    tokens = [probe(of, now)]
    while of.held:
        accept(of, len(rooms), now, token=tokens.pop())
        rooms.append(of.room(now, 0))
        while of.held and of.room(now, 0) > 0:
            tokens.append(of.start(now))

    assert rooms == [2, 2, 2, RAMP]
    assert of.gated
    for n in range(20_000):
        accept(of, n, now)
    assert of.room(now, 0) == 100
    assert not of.gated
    assert of.score == 0


def test_probes_that_fail_after_an_answer_wait_again() -> None:
    """When nothing was accepted for a while the lane is not answering any more."""
    of = held()
    accept(of, "a", NOW + 1, token=probe(of, NOW + 1))
    assert of.room(NOW + 1, 0) == 2
    for n in range(3):
        fail(of, f"f{n}", NOW + 1.1, token=of.start(NOW + 1.1))

    assert of.held
    assert of.room(NOW + 60, 0) == 1


def test_what_started_before_says_nothing() -> None:
    """A hundred sends were under way when the lane was held: neither their failures nor their successes count."""
    of = held()
    score = of.score
    for n in range(50):
        assert not fail(of, f"x{n}", NOW + 0.5, started=NOW - 1).counted
        accept(of, f"y{n}", NOW + 0.5, started=NOW - 1)

    assert (of.held, of.score, of.until) == (True, score, NOW + 1)


def test_a_probe_of_an_earlier_hold_changes_no_place() -> None:
    """Its place was another hold's."""
    of = held()
    old = probe(of, NOW + 1)
    for n in range(4):
        accept(of, n, NOW + 1 + n / 10, token=of.start(NOW + 1))
    assert not of.held
    for n in range(12):
        fail(of, f"again{n}", NOW + 2)
    of.give_up(old)

    assert of.held
    assert of.room(NOW + 4, 0) == 1


def test_a_probe_that_was_not_sent_frees_its_place() -> None:
    """When what was let through had expired, the next one is the probe: thousands of them cost no time."""
    of = held()
    for _ in range(1_000):
        of.give_up(probe(of, NOW + 1))
    of.give_up(probe(of, NOW + 1), asked=True)

    assert of.room(NOW + 1, 0) == 0


def test_there_is_always_a_next_probe() -> None:
    """Either at a time, or after an outcome."""
    of = held()
    assert of.ask_again(NOW) == NOW + 1
    tokens = [probe(of, NOW + 1)]
    assert of.ask_again(NOW + 1) == of.until > NOW + 1
    accept(of, "a", NOW + 1.1, token=tokens.pop())
    assert of.room(NOW + 1.1, 0) > 0


# -- what the provider says --------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "waits"), [(FAILURE, 1.5), (CODEC, 1.5), (ACCOUNT, 30.0), (THROTTLE, 30.0)])
def test_each_cause_has_its_longest_wait(kind: Kind, waits: float) -> None:
    """A refused account is not asked every second, a failing provider is."""
    of = held(kind)
    now = NOW
    for n in range(12):
        now = of.until
        fail(of, f"p{n}", now, kind, token=probe(of, now))

    assert of.until - now == waits


@pytest.mark.parametrize("kind", [ACCOUNT, THROTTLE])
def test_a_probe_that_fails_otherwise_ends_the_long_waits(kind: Kind) -> None:
    """The provider throttles and refuses nobody any more: it is asked as often as one that fails, until a probe is
    accepted, or refused again."""
    of = held(kind)
    now = NOW
    for n in range(6):
        now = of.until
        fail(of, f"t{n}", now, kind, token=probe(of, now))
    assert of.until - now == 30.0

    now = of.until
    waits = []
    for n in range(6):
        fail(of, f"f{n}", now, token=probe(of, now))
        waits.append(of.until - now)
        now = of.until
    assert waits == [1.0, 1.0, 1.5, 1.5, 1.5, 1.5]

    for n in range(3):
        fail(of, f"again{n}", now, kind, token=probe(of, now))
        waits.append(of.until - now)
        now = of.until
    assert waits[-1] > 1.5


@pytest.mark.parametrize("asked", [0.0, -9.0, None, 0.5])
def test_a_throttle_always_waits(asked: float | None) -> None:
    """`Retry-After: 0`, or a date in the past, is a second at least, and longer while it repeats."""
    of = circuit()
    now, waits = NOW, []
    for n in range(6):
        fail(of, n, now, THROTTLE, asked=asked, token=of.start(now))
        waits.append(of.until - now)
        now = of.until

    assert waits == [1, 2, 4, 8, 16, 30]


@pytest.mark.parametrize("kind", [THROTTLE, ACCOUNT])
def test_a_late_claim_waits_too(kind: Kind) -> None:
    """One that was under way when the lane was held is not due at once because the wait for a probe is over."""
    of = held(kind)

    assert fail(of, "late", of.until + 5, kind, asked=0.0, started=NOW - 1).wait >= 1.0


def test_keeps_the_longest_wait_that_was_asked_for() -> None:
    """A later, shorter Retry-After does not cut an earlier one short; answers of sends under way do not either."""
    of = circuit()
    fail(of, "a", kind=THROTTLE, asked=900.0)
    fail(of, "b", NOW + 1, THROTTLE, asked=2.0)
    for n in range(50):  # they were under way: some before the throttled one, some since
        accept(of, f"c{n}", NOW + 1 + n / 100, started=NOW + n / 100 - 0.25)

    assert of.held
    assert of.until == NOW + 900
    assert of.room(NOW + 899, 0) == 0
    fail(of, "d", NOW + 1, THROTTLE, asked=1_000.0, started=NOW - 1)
    assert of.until == NOW + 1_001


def test_a_throttle_of_years_is_probed() -> None:
    """A date where seconds belong does not hold a lane for years."""
    of = circuit()
    fail(of, "a", kind=THROTTLE, asked=1.7e9)

    assert of.room(NOW + 3_600, 0) == 1


@pytest.mark.parametrize("kind", [ACCOUNT, CODEC])
def test_a_refusal_that_was_not_the_accounts(kind: Kind) -> None:
    """When others are accepted within seconds it is the notification's own; for ten minutes nothing is held for it."""
    of = held(kind)
    assert accept(of, "other", NOW + 0.1, started=NOW)
    for n in range(3):
        accept(of, n, NOW + 0.2, token=probe(of, NOW + 0.2))
    assert not of.held

    assert fail(of, "first", NOW + 1, kind) == Verdict(True, 0.0)
    assert not of.held
    assert not fail(of, "first", NOW + DISTRUST + 1, kind).counted
    assert of.held


def test_a_refusal_of_the_account_is_believed() -> None:
    """What was sent before it says nothing, and neither does an answer after the doubt."""
    of = held(ACCOUNT)
    assert not accept(of, "before", NOW + 0.1, started=NOW - 0.1)
    assert not accept(of, "later", NOW + DOUBT + 1, started=NOW + 1)
    fail(of, "again", NOW + DOUBT + 2, ACCOUNT, token=of.start(NOW + DOUBT + 2))

    assert of.cause == "account"
    assert of.held


@pytest.mark.parametrize(("kind", "asked"), [(ACCOUNT, None), (THROTTLE, 900.0)])
def test_among_answered_probes_a_claim_is_its_notifications_own(kind: Kind, asked: float | None) -> None:
    """It takes back one answer; nobody else waits for it."""
    of = held()
    accept(of, "a", NOW + 1, token=probe(of, NOW + 1))
    verdict = fail(of, "refused", NOW + 1.1, kind, asked=asked, token=of.start(NOW + 1.1))

    assert not verdict.counted
    assert verdict.wait >= (asked or 1.0)
    assert of.room(NOW + 1.1, 0) > 0
    assert of.ask_again(NOW + 1.1) < NOW + 30


# -- what counts -------------------------------------------------------------------------------------


def test_the_failures_of_an_outage_do_not_count() -> None:
    """The twelve that open it count, save the last one; neither probes that never failed nor what was under way do."""
    of = circuit()
    counted = sum(fail(of, n, NOW + n / 100).counted for n in range(100))
    for n in range(2_400):
        now = max(of.until, NOW + 2)
        counted += fail(of, f"p{n}", now, token=probe(of, now)).counted

    assert counted == 11


def test_in_an_outage_retries_do_not_count_either() -> None:
    """First sends that fail as probes say that it is the provider."""
    of = held()
    for n in range(100):
        now = of.until
        fail(of, f"new{n}", now, token=probe(of, now))
        now = of.until
        assert not fail(of, f"old{n}", now, attempts=1, tried=True, age=10.0, token=probe(of, now)).counted


def test_alone_each_failed_probe_counts() -> None:
    """When all that waits failed before, an outage cannot be told: one attempt per probe, but not the last
    one, which is kept for `patience`."""
    of = held()
    now = NOW + STALE
    assert fail(of, "u", now, attempts=1, tried=True, token=probe(of, now)).counted
    now = of.until
    assert not fail(of, "v", now, attempts=3, tried=True, last=True, age=3_599, token=probe(of, now)).counted
    now = of.until
    assert fail(of, "w", now, attempts=3, tried=True, last=True, age=3_600, token=probe(of, now)).counted
    now = of.until
    assert not fail(of, "x", now, attempts=1, tried=True, age=9_999, started=NOW - 1).counted


def test_what_was_never_counted_is_safe_for_a_day() -> None:
    """It failed for the first time in the outage."""
    of = held()
    now = NOW + STALE
    assert not fail(of, "u", now, tried=True, age=DAY - 1, token=probe(of, now)).counted
    now = of.until
    assert fail(of, "u", now, tried=True, age=DAY, token=probe(of, now)).counted


def test_retries_of_a_hopeless_kind_count_even_then() -> None:
    """Where second retries are never accepted, a hold does not keep them."""
    of = circuit()
    n = 0
    while of.retry_shares[2] >= HOPELESS:
        n += 1
        fail(of, n, NOW + n, attempts=2, tried=True)
        accept(of, f"good{n}", NOW + n)
    for user in range(12):
        fail(of, f"x{user}", NOW + n)
    assert of.held
    assert fail(of, "u", NOW + n + 1, attempts=2, tried=True, last=True, token=of.start(NOW + n + 1)).counted
    assert not fail(of, "v", NOW + n + 1, attempts=1, tried=True, token=of.start(NOW + n + 1)).counted


def test_failures_do_not_count_while_half_of_all_sends_fail() -> None:
    """A provider that refuses 60 % of all calls holds nothing, but uses up no attempts; it is said so."""
    of = circuit()
    rng = random.Random(1)
    verdicts = []
    for n in range(2_000):
        now = NOW + n / 30
        if rng.random() < 0.6:
            verdict = fail(of, n, now, age=8.0)
            verdicts.append(verdict)
            assert verdict.counted or of.held or verdict.wait >= 4.0
        else:
            accept(of, n, now)

    late = verdicts[500:]
    assert sum(v.counted for v in late) < len(late) / 4
    assert of.uncounted(NOW + 2_000 / 30)
    assert not of.uncounted(NOW + 2_000 / 30 + 2 * STALE)


def test_uncounted_waits_grow() -> None:
    """Whatever was asked for, nothing that is not counted becomes a hot loop: at most one call a second for a user, and
    two a minute after a minute."""
    calls = [0.0]
    while calls[-1] < 600:
        asked = random.Random(len(calls)).choice([0.0, -5.0, 0.01])
        calls.append(calls[-1] + least_wait(asked, calls[-1]))

    assert all(later - before >= 1.0 for before, later in itertools.pairwise(calls))
    assert len(calls) < 32
    assert least_wait(900.0, 0.0) == 900.0
    assert least_wait(0.0, 1e9) == 30.0


def test_what_says_what() -> None:
    """Only the provider's trouble is evidence."""
    assert {
        kind_of(error): None
        for error in (TransientError("http.503"), UnknownOutcomeError("timeout"))
    } == {FAILURE: None}  # fmt: skip
    cases: Iterable[tuple[DeliveryError | None, Kind]] = (
        (ProviderUnavailableError("http.401"), ACCOUNT),
        (ThrottledError("http.429"), THROTTLE),
        (ThrottledError("http.429", scope="sender"), THROTTLE),
        (ThrottledError("http.429", scope="recipient"), Kind.ANSWER),
        (PermanentError("http.400"), Kind.ANSWER),
        (InvalidRecipientError("http.410"), Kind.ANSWER),
        (TransientError("unhandled.KeyError"), Kind.NOTHING),
        (TransientError("destination.KeyError"), Kind.NOTHING),
        (UnknownOutcomeError("no_receipt"), Kind.NOTHING),
        (deferred("quiet_hours"), Kind.NOTHING),
        (None, Kind.NOTHING),
    )
    for error, kind in cases:
        assert kind_of(error) is kind


# -- whatever happens --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_in_any_order(seed: int) -> None:
    """Whatever sends end how and when: the score stays within bounds, places of probes are neither lost nor invented, a
    held lane always has a next probe, and what failed ends."""
    rng = random.Random(seed)
    of = circuit(concurrency=20)
    now = NOW
    running: list[tuple[str, float, int]] = []
    attempts: dict[str, int] = {}
    since: dict[str, float] = {}
    bad = rng.random()
    for _ in range(3_000):
        now += rng.choice([0.0, 0.01, 0.3, 2.0])
        if rng.random() < 0.001:
            now += rng.choice([100.0, 5_000.0])
        if of.room(now, len(running)) > 0 and rng.random() < 0.6:
            who = f"u{rng.randrange(60)}"
            running.append((who, now, of.start(now)))
        elif running:
            who, started, token = running.pop(rng.randrange(len(running)))
            made, first = attempts.get(who, 0), since.get(who)
            sent = Try(who, started, token, made, first is not None, now - first if first else 0.0, made == 3)
            what = rng.random()
            if what < 0.05:
                of.give_up(token, asked=rng.random() < 0.5)
            elif what < bad:
                kind = rng.choice([FAILURE] * 20 + [ACCOUNT, THROTTLE, CODEC])
                verdict = of.failed(sent, kind, "x", now, asked=rng.choice([None, 0.0, 3.0]))
                assert verdict.wait >= 0
                since.setdefault(who, now)
                attempts[who] = made + verdict.counted
            else:
                of.accepted(sent, now)
            if attempts.get(who, 0) >= 4 or what >= bad:
                attempts.pop(who, None)
                since.pop(who, None)
        assert 0 <= of.score <= 12
        assert 0 <= of._running <= max(PROBES, len(running))
        assert len(of.failing) <= 60
        if of.held and not running:
            at = of.ask_again(now)
            assert of.room(now, 0) > 0 or at < float("inf")
            assert of.room(max(now, of.until), 0) > 0
        elif not of.held:
            assert of.room(now, 0) >= RAMP
            assert of.gated or of._limit == of._concurrency


@pytest.mark.parametrize("seed", range(5))
def test_everything_ends(seed: int) -> None:
    """Notifications that always fail, and nothing else: each is dead-lettered, at most one attempt per probe, within
    `patience` and the time that the probes take."""
    rng = random.Random(seed)
    of = circuit(CircuitBreaker(patience=600.0))
    waiting = [(NOW, f"u{n}", 1 + rng.randrange(3)) for n in range(100)]
    now, probes, counted = NOW, 0, 0
    while waiting and now < NOW + 600 + 100 * 3 * 1.5 + 200:
        waiting.sort()
        due, who, made = waiting[0]
        now = max(now, due, of.until if of.held else now)
        waiting.pop(0)
        token = of.start(now) if of.room(now, 0) > 0 else 0
        verdict = fail(of, who, now, attempts=made, tried=True, age=now - NOW, last=made == 3, token=token)
        probes += token != 0
        counted += token != 0 and verdict.counted
        if made + verdict.counted < 4:
            waiting.append((now + max(verdict.wait, 2.0), who, made + verdict.counted))

    assert not waiting
    assert counted <= probes


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures": 1}, {"failures": True}, {"accepted": 0}, {"accepted": 13}, {"accepted": True}, {"initial_wait": 0},
        {"initial_wait": 9, "max_wait": 3}, {"account_wait": 0.5}, {"patience": -1},
    ],
)  # fmt: skip
def test_refuses_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    """A breaker that one user could open, or that never probes, is refused."""
    with pytest.raises(ConfigError, match="CircuitBreaker"):
        CircuitBreaker(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("old", "new"), [("share", "accepted=3"), ("probes", "failures / accepted")])
def test_removed_settings_name_their_replacement(old: str, new: str) -> None:
    """Who upgrades is told what to write."""
    with pytest.raises(ConfigError, match=f"CircuitBreaker.{old} was removed.*{new}"):
        CircuitBreaker(**{old: 5})
    with pytest.raises(TypeError, match="shares"):
        CircuitBreaker(shares=5)
