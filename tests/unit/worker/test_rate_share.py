"""The share of a rate limit that belongs to what a worker owns."""

from __future__ import annotations

from typing import Any, cast

from kafka_notify import NotifyError
from kafka_notify._worker.rate_share import RateShare


class Shares:
    """Stands for a pace."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def set_share(self, owned: int, partitions: int) -> None:
        self.told.append((owned, partitions))


async def test_it_follows_what_is_owned_and_what_there_is() -> None:
    """A topic that has grown makes the share smaller."""
    shares, owned = Shares(), {0: "a", 1: "b"}
    rate = RateShare(cast(Any, shares), owned, lambda: 6)
    rate.learn(4)
    rate.update()
    del owned[1]
    rate.update()
    await rate.count_again()

    assert shares.told == [(2, 4), (1, 4), (1, 6)]


async def test_brokers_that_do_not_answer_change_nothing() -> None:
    """The share rests on what was known."""
    shares = Shares()

    def count() -> int:
        raise NotifyError("no broker")

    rate = RateShare(cast(Any, shares), {0: "a"}, count)
    rate.learn(4)
    await rate.count_again()

    assert shares.told == [(1, 4)]


async def test_without_a_limit_nobody_is_asked() -> None:
    """There is nothing to share."""
    rate = RateShare(None, {}, lambda: 1)
    rate.update()

    assert not rate.limited
