"""The share of a rate limit that belongs to a worker's partitions."""

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
        count: Asks how many partitions the source topic has, whoever owns them; blocks.
    """

    def __init__(self, pace: Pace | None, owned: Sized, count: Callable[[], int]) -> None:
        self.limited = pace is not None
        self._pace = pace
        self._owned = owned
        self._count = count
        self._partitions = 0

    def learn(self, partitions: int) -> None:
        """Set the number of partitions of the source topic."""
        self._partitions = partitions

    def update(self) -> None:
        """Compute the share again: the worker's partitions have changed."""
        if self._pace is not None:
            self._pace.set_share(len(self._owned), self._partitions)

    async def count_again(self) -> None:
        """Ask for the number of partitions, which may have grown since the last rebalance."""
        partitions = self._partitions
        try:
            partitions = await asyncio.to_thread(self._count)
        except NotifyError as e:
            log.warning(
                "the share of the rate limit is still that of %d partitions in all: %s", partitions, e
            )
        self.learn(partitions)
        self.update()
