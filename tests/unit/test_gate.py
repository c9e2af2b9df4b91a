"""The gate holds a lane while its provider is away; the breaker decides when failures are the provider's."""

from __future__ import annotations

import pytest

from kafka_notify import CircuitBreaker, ConfigError, PermanentError, TransientError, UnknownOutcomeError
from kafka_notify._send.gate import QUIET, Failures, Gate, providers_trouble


def shut(breaker: CircuitBreaker | None = None, *, now: float = 0.0, wait: float | None = None) -> Gate:
    """A gate that was just shut."""
    gate = Gate(breaker or CircuitBreaker(probes=1))
    gate.close(now, wait, "http.503")
    return gate


def test_lets_one_probe_pass_after_its_wait() -> None:
    """A shut gate lets nothing pass before its time, and then exactly one probe."""
    gate = shut(now=100.0, wait=5.0)

    assert [bool(gate.pass_probe(now)) for now in (100.0, 104.9, 105.0, 105.0, 200.0)] == [
        False,
        False,
        True,
        False,
        False,
    ]


def test_opens_step_by_step_when_the_provider_answers() -> None:
    """Each answered probe lets one more run at once, until the gate opens."""
    gate = shut(CircuitBreaker(probes=3))
    running = [gate.pass_probe(1.0)]
    steps = []
    while gate.shut:
        gate.answered(running.pop())
        while gate.shut and (probe := gate.pass_probe(1.0)):
            running.append(probe)
        steps.append(len(running))

    assert steps == [2, 3, 2]


def test_a_failure_among_answers_is_the_notifications_own() -> None:
    """Probes that fail while others are answered take back an answer and nobody waits longer: a provider that answers
    most of them opens the gate, although never five in a row."""
    gate = shut(CircuitBreaker(probes=5))
    opened = False
    for answered in (True, True, False, True, True, False, True, True, False, True, True):
        probe = gate.pass_probe(1.0)
        assert probe
        if answered:
            opened = gate.answered(probe)
        else:
            assert gate.failed(probe)

    assert opened
    assert not gate.shut


def test_a_failure_after_as_many_answers_shuts_it_again() -> None:
    """When as many fail as are answered the next failure is the provider's again, and the wait begins anew."""
    gate = shut(CircuitBreaker(probes=5))
    gate.close(1.0, None, "http.503", gate.pass_probe(1.0))
    gate.answered(gate.pass_probe(3.0))

    assert [gate.failed(gate.pass_probe(3.0)), gate.failed(gate.pass_probe(3.0))] == [True, False]

    gate.close(3.0, None, "http.503", gate.round)
    assert gate.until == 4.0


def test_the_next_outage_starts_with_a_short_wait_again() -> None:
    """What an earlier outage took does not prolong the next one."""
    gate = shut()
    for now in (1.0, 3.0):
        gate.close(now, None, "http.503", gate.pass_probe(now))
    gate.answered(gate.pass_probe(10.0))
    gate.close(20.0, None, "http.503")

    assert gate.until == 21.0


def test_failed_probes_wait_longer_up_to_the_limit() -> None:
    """Each probe that fails doubles the wait, up to `max_wait`."""
    gate, waits = shut(CircuitBreaker(first_wait=1, max_wait=30)), [1.0]
    for _ in range(7):
        now = gate.until
        gate.close(now, None, "http.503", gate.pass_probe(now))
        waits.append(gate.until - now)

    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_failures_of_sends_already_under_way_do_not_prolong_the_wait() -> None:
    """A hundred sends that were in flight when the provider went away count as one failure."""
    gate = Gate(CircuitBreaker())
    news = [gate.close(moment / 1000, None, "http.503") for moment in range(100)]

    assert (news.count(True), gate.until) == (1, 1.0)


def test_answers_of_sends_already_under_way_do_not_open_it() -> None:
    """A send that began before the provider asked to wait says nothing about now."""
    gate = shut(wait=30.0)
    gate.answered(0)

    assert gate.shut
    assert not gate.pass_probe(29.9)


def test_keeps_the_longest_wait_that_was_asked_for() -> None:
    """A later, shorter Retry-After does not cut an earlier one short."""
    gate = shut(wait=30.0)
    gate.close(1.0, 2.0, "http.429")

    assert gate.until == 30.0


def test_a_probe_that_said_nothing_frees_its_place() -> None:
    """When the entry that was let through needed no send, the next one is the probe."""
    gate = shut()
    gate.give_up(gate.pass_probe(1.0))

    assert gate.pass_probe(1.0)


def test_a_probe_of_an_earlier_round_changes_nothing() -> None:
    """Of two probes under way the first one fails: what the other meets is old news."""
    gate = shut(CircuitBreaker(probes=2))
    gate.answered(gate.pass_probe(1.0))
    first, second = gate.pass_probe(1.0), gate.pass_probe(1.0)
    gate.close(1.0, None, "http.503", first)
    until = gate.until
    gate.answered(second)
    gate.give_up(second)
    gate.close(1.5, None, "http.503", second)

    assert gate.shut
    assert gate.until == until
    assert gate.room(until) == 1


def test_one_users_failures_never_open_it() -> None:
    """However often one user fails, he is one user; so are a few who share a bad night with others' successes."""
    failures = Failures(CircuitBreaker(failures=20))

    assert not any(failures.add("u", 0, now) for now in range(1_000))
    assert not any(failures.add(f"u{n % 5}", n * 3, float(n)) for n in range(1_000))


def test_opens_when_many_users_fail_at_once() -> None:
    """Twenty users in a row are enough, and no time is lost."""
    failures = Failures(CircuitBreaker(failures=20))

    assert [failures.add(n, 0, 0.0) for n in range(20)] == [False] * 19 + [True]


def test_few_are_enough_when_nothing_gets_through() -> None:
    """On a quiet lane five users are enough once nothing was accepted for five seconds."""
    failures = Failures(CircuitBreaker(failures=20))

    assert [failures.add(n, 0, n * QUIET / 4) for n in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize(("accepted", "opens"), [(10, True), (20, True), (21, False), (1_000, False)])
def test_the_share_decides(accepted: int, opens: bool) -> None:
    """Twenty failures among more than twenty successes are no outage."""
    failures = Failures(CircuitBreaker(failures=20, share=0.5))
    last = [failures.add(n, accepted * n // 19, 0.0) for n in range(20)][-1]

    assert last is opens


def test_only_the_providers_trouble_counts() -> None:
    """Refusals, bugs and deferrals say nothing about the provider."""
    assert providers_trouble(TransientError("http.503"))
    assert providers_trouble(UnknownOutcomeError("timeout"))
    assert not any(
        providers_trouble(error)
        for error in (
            PermanentError("http.400"),
            TransientError("unhandled.KeyError"),
            TransientError("deferred.quiet_hours"),
            UnknownOutcomeError("no_receipt"),
            None,
        )
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures": 1}, {"failures": True}, {"share": 0}, {"share": 1.1}, {"probes": 0}, {"first_wait": 0},
        {"first_wait": 9, "max_wait": 3},
    ],
)  # fmt: skip
def test_refuses_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    """A breaker that one user could open, or that never probes, is refused."""
    with pytest.raises(ConfigError, match="CircuitBreaker"):
        CircuitBreaker(**wrong)  # type: ignore[arg-type]
