"""Hand-over of partitions: running sends end within the drain timeout, then the last commit is made up."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from kafka_notify._decision.context import Context
from kafka_notify._fetch.exchange import CommitRequest
from kafka_notify._fetch.intake import Intake
from kafka_notify._partition.partition import Partition
from kafka_notify._send.slots import Slots
from kafka_notify._worker.calls import Calls
from kafka_notify._worker.life import Life

log = logging.getLogger("kafka_notify.worker")

SPILL_GRACE: Final = 2.0
"""Seconds at most that a hand-over waits for a spill after the sends have used up its time."""


class HandOver:
    """Drains partitions of one worker.

    Args:
        context: The worker's context.
        owned: The worker's partitions, by number.
        intake: Stops reading the partitions that are handed over.
        slots: The sends under way.
        calls: Runs the drain on the event loop.
        life: The worker's state: after a failure nothing is drained or committed.
        timeout: Seconds for running sends.
    """

    def __init__(
        self,
        context: Context,
        owned: Mapping[int, Partition],
        intake: Intake,
        slots: Slots,
        calls: Calls,
        life: Life,
        timeout: float,
    ) -> None:
        self.timeout = timeout
        """Seconds that running sends get from the start of a hand-over on."""
        self._clock = context.clock
        self._wait = context.runtime.wait
        self._owned = owned
        self._intake = intake
        self._slots = slots
        self._calls = calls
        self._life = life
        self._aborted = False
        """True after a second signal: nothing is drained."""

    def hurry(self, seconds: float) -> None:
        """Set the seconds that running sends get from the start of a hand-over on, also of one under way.

        From any thread.
        """
        self.timeout = seconds
        if not seconds:
            self._aborted = True

    def drain(self, numbers: frozenset[int]) -> CommitRequest:
        """Let the running sends of these partitions end, and return the commit of them. Blocks the fetch thread."""
        if self._life.error is not None:
            return CommitRequest({}, {})
        answer: concurrent.futures.Future[CommitRequest] = concurrent.futures.Future()

        async def drain() -> None:
            try:
                answer.set_result(await self._drain(numbers))
            except BaseException as e:
                answer.set_result(CommitRequest({}, {}))
                self._calls.fail(e)

        self._calls.post(lambda: self._calls.spawn(drain()))
        if self._wait(answer, self.timeout + 5):
            return answer.result()
        log.error("the event loop did not answer a hand-over in time: a send blocks it; nothing is committed")
        return CommitRequest({}, {})

    def _over(self, until: float) -> bool:
        """Return True once nothing is waited for any more."""
        return self._aborted or self._life.error is not None or self._clock.monotonic() >= until

    async def _drain(self, numbers: frozenset[int]) -> CommitRequest:
        """Start no send, wait for the running ones within the timeout, and return the commit."""
        partitions = [self._owned[n] for n in numbers if n in self._owned]
        for partition in partitions:
            partition.closing = True
        self._intake.publish_wanted()
        began = self._clock.monotonic()
        # the timeout is read in each round: `hurry` may shorten it
        while any(p.outstanding for p in partitions) and not self._over(began + self.timeout):  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # a few looks per hand-over cost less than a signal per send
        if any(p.outstanding for p in partitions):
            self._slots.cancel(lambda p: p in partitions)
            await asyncio.sleep(0)
        if self._life.error is not None:
            return CommitRequest({}, {})
        await self._spill_last(partitions, began)
        partitions = [p for p in partitions if p.alive and (p.active or p.restored)]
        return CommitRequest(
            {p.number: p.snapshot() for p in partitions}, {p.number: p.epoch for p in partitions}
        )

    async def _spill_last(self, partitions: Sequence[Partition], began: float) -> None:
        """Write spills of the finished offsets that do not fit into the commit's metadata, for the next owner."""
        partitions = [p for p in partitions if p.alive and p.active]
        for partition in partitions:
            partition.snapshot()
        until = max(began + self.timeout, self._clock.monotonic() + min(SPILL_GRACE, self.timeout))
        while any(p.spilling for p in partitions) and not self._over(until):
            await asyncio.sleep(0.005)
            for partition in partitions:
                if partition.alive and not partition.spilling:
                    partition.snapshot()  # a spill that was under way already may not hold all
