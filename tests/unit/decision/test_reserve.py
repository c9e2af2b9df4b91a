"""What of held destinations stays in memory for probes is bounded."""

from __future__ import annotations

from kafka_notify._decision.reserve import (
    BYTES,
    EACH,
    LONGEST,
    LOOK_AGAIN,
    MOST,
    ON_THE_WAY,
    SOON,
    Reserve,
)


def never(_: object) -> bool:
    return False


def always(_: object) -> bool:
    return True


def test_each_that_comes_pushes_out_the_oldest_of_its_destination() -> None:
    """Others keep theirs; the newest is the next probe."""
    reserve: Reserve[str, str] = Reserve()
    reserve.keep("a", 0, "other", 1, 0.0)
    assert reserve.ask_again(5.0) == 5.0 + LOOK_AGAIN
    for n in range(EACH + 2):
        reserve.keep("b", 0, f"n{n}", 1, float(n))
    reserve.keep("b", 0, f"n{EACH}", 1, 9.0)

    assert reserve.ask_again(5.0) == 5.0 + SOON
    assert reserve.to_copy(never) == [("b", "n0"), ("b", "n1")]
    assert reserve.to_copy(never) == []
    assert reserve.newest("b") == f"n{EACH + 1}"
    assert reserve.newest("a") == "other"
    assert reserve.newest("c") is None
    assert len(reserve) == EACH + 1


def test_few_copies_are_on_their_way() -> None:
    """What was pushed out stays a probe meanwhile, after those that are kept; a partition that takes nothing keeps no
    other back."""
    reserve: Reserve[str, int] = Reserve()
    count = ON_THE_WAY + EACH + 10
    for n in range(count):
        reserve.keep("a", 0, n, 1, 0.0)
    first = [item for _, item in reserve.to_copy(always)]
    assert first == list(range(ON_THE_WAY))
    assert reserve.to_copy(always) == []
    for n in range(EACH + 1):
        reserve.keep("b", 1, count + n, 1, 0.0)
    assert reserve.to_copy(always, 0) == []
    assert reserve.to_copy(always, 1) == [("b", count)]

    probes = []
    while (probe := reserve.newest("a")) is not None:
        probes.append(probe)
        reserve.drop(probe)
        if len(probes) == EACH + 3:
            assert reserve.to_copy(lambda item: item > 1) == [("a", n) for n in (ON_THE_WAY, ON_THE_WAY + 1)]
    assert probes == list(reversed(range(ON_THE_WAY + 2, count)))
    assert len(reserve) == EACH


def test_copies_of_partitions_that_ended_are_forgotten() -> None:
    """Nothing refers to them any more."""
    reserve: Reserve[str, int] = Reserve()
    for n in range(EACH + 3):
        reserve.keep("a", n % 2, n, 1, 0.0)
    assert len(reserve.to_copy(always)) == 3
    reserve.sweep(lambda item: item == 1)
    assert reserve._copying == {1: [1]}


def test_there_is_a_bound_for_all() -> None:
    """Of count and of bytes; what is larger than that alone is not kept."""
    reserve: Reserve[int, int] = Reserve()
    for n in range(2 * MOST):
        reserve.keep(n, n, n, 1, 0.0)
    assert [item for _, item in reserve.to_copy(never)] == list(range(MOST))
    reserve.keep(-1, -1, -1, BYTES - 3, 0.0)
    assert [item for _, item in reserve.to_copy(never)] == list(range(MOST, 2 * MOST - 3))
    reserve.keep(-2, -2, -2, BYTES + 1, 0.0)
    assert [item for _, item in reserve.to_copy(never)] == [*range(2 * MOST - 3, 2 * MOST), -1, -2]
    assert len(reserve) == 0
    assert reserve.ask_again(0.0) == float("inf")
    reserve.keep(-3, -3, -3, BYTES, 0.0)
    assert reserve.to_copy(never) == []


def test_none_is_kept_for_long() -> None:
    """Nor when too much was read since."""
    reserve: Reserve[str, str] = Reserve()
    for n, item in enumerate("xyz"):
        reserve.keep("a", 0, item, 1, float(n))

    reserve.push_out(1.0, lambda item: item == "y")
    assert reserve.newest("a") == "z"
    assert reserve.to_copy(never) == [("a", "y")]
    reserve.push_out(LONGEST, never)
    assert reserve.to_copy(never) == [("a", "x")]
    reserve.drop("z")
    reserve.drop("z")
    assert len(reserve) == 0
