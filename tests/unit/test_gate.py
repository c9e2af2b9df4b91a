"""The gate holds a lane while its provider is away."""

from __future__ import annotations

from kafka_notify._send.gate import MAX_WAIT, Gate


def test_lets_everything_pass_while_open() -> None:
    """Nothing waits at an open gate."""
    gate = Gate()

    assert all(gate.try_pass(now) for now in (0.0, 0.0, 1.0))


def test_lets_one_probe_pass_after_its_wait() -> None:
    """A shut gate lets nothing pass before its time, and then exactly one probe."""
    gate = Gate()
    gate.close(100.0, 5.0, "http.503")

    assert [gate.try_pass(now) for now in (100.0, 104.9, 105.0, 105.0, 200.0)] == [
        False,
        False,
        True,
        False,
        False,
    ]


def test_opens_when_the_provider_answers() -> None:
    """After the probe was answered everything passes, and the next outage starts with a short wait again."""
    gate = Gate()
    gate.close(0.0, None, "http.503")
    assert gate.try_pass(1.0)
    gate.open()

    assert gate.try_pass(1.0)
    assert gate.try_pass(1.0)
    assert gate.close(2.0, None, "http.503") == 3.0


def test_failed_probes_wait_longer_up_to_a_minute() -> None:
    """Each probe that fails doubles the wait, up to 60 seconds."""
    gate, now, waits = Gate(), 0.0, []
    for _ in range(9):
        until = gate.close(now, None, "http.503")
        waits.append(until - now)
        assert gate.try_pass(until)
        now = until

    assert waits == [1, 2, 4, 8, 16, 32, MAX_WAIT, MAX_WAIT, MAX_WAIT]


def test_failures_of_sends_already_under_way_do_not_prolong_the_wait() -> None:
    """A hundred sends that were in flight when the provider went away count as one failure."""
    gate = Gate()
    for moment in range(100):
        gate.close(moment / 1000, None, "http.503")

    assert gate.until < 1.2


def test_keeps_the_longest_wait_that_was_asked_for() -> None:
    """A later, shorter Retry-After does not cut an earlier one short."""
    gate = Gate()
    gate.close(0.0, 30.0, "http.429")
    gate.close(1.0, 2.0, "http.429")

    assert gate.until == 30.0


def test_a_probe_that_never_started_frees_its_place() -> None:
    """When the entry that was let through needed no send, the next one is the probe."""
    gate = Gate()
    gate.close(0.0, 1.0, "http.503")
    assert gate.try_pass(1.0)
    gate.give_up_probe()

    assert gate.try_pass(1.0)
