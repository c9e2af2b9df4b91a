"""The clock notices jumps of the wall clock."""

from __future__ import annotations

import pytest

from kafka_notify._base.clock import SETTLE, Clock


class Times:
    """Wall and monotonic time, set by the test."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.monotonic = 50.0

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def test_time_that_passes_is_no_jump() -> None:
    """Hours that both clocks count leave the clock settled."""
    times = Times()
    clock = times.clock()
    times.pass_by(7_200)

    assert not clock.look()
    assert clock.settled
    assert clock.now() == 1_007_200_000


def test_a_slewed_clock_is_no_jump() -> None:
    """NTP slewing half a millisecond per second is not taken for a jump, however long it lasts."""
    times = Times()
    clock = times.clock()
    for _ in range(20_000):
        times.pass_by(1.0)
        times.wall += 0.0005
        assert not clock.look()

    assert clock.settled


@pytest.mark.invariant(n=20)
def test_nothing_expires_for_a_minute_after_a_jump() -> None:
    """After the wall clock was set an hour ahead the clock is unsettled for a minute, then trusted again."""
    times = Times()
    clock = times.clock()
    times.wall += 3_600

    assert clock.look()
    assert not clock.settled
    times.pass_by(SETTLE)
    assert not clock.look()
    assert clock.settled
