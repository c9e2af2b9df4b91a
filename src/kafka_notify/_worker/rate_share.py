"""The share of a rate limit that belongs to what a worker owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sized

from kafka_notify._send.pace import Pace
from kafka_notify.errors import NotifyError

log = logging.getLogger("kafka_notify.worker")


class RateShare:
    """Keeps the share of one worker up to date.

    Args:
        pace: The rate limit; None when the consumer has none.
        owned: The partitions of this worker.
        count: Asks how many the source topic has, whoever owns them; blocks.
    """

    def __init__(self, pace: Pace | None, owned: Sized, count: Callable[[], int]) -> None:
        self.limited = pace is not None
        self._pace = pace
        self._owned = owned
        self._count = count
        self._partitions = 0

    def learn(self, partitions: int) -> None:
        """The source topic has so many partitions."""
        self._partitions = partitions

    def update(self) -> None:
        """What this worker owns has changed."""
        if self._pace is not None:
            self._pace.set_share(len(self._owned), self._partitions)

    async def count_again(self) -> None:
        """The topic may have more partitions since the last rebalance."""
        partitions = self._partitions
        try:
            partitions = await asyncio.to_thread(self._count)
        except NotifyError as e:
            log.warning("the share of the rate limit rests on %d partitions: %s", partitions, e)
        self.learn(partitions)
        self.update()
