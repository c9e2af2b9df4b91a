"""Errors on demand: which call of which client fails, how often or for how long, and with what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
from confluent_kafka import KafkaError

from tests.simulation.kafka.log import Place

CALLS: Final = frozenset(
    """acknowledge commit commit_answer committed consume describe_configs describe_consumer_groups describe_topics
    list_offsets list_topics offsets_for_times poll produce seek watermarks write""".split()
)
"""Names of calls that can fail. Of a record that is produced, `produce` fails in the call itself, `write` before the
broker has written it, and `acknowledge` after that: it is in the log, and the report says that it failed.
Likewise `commit` fails before the group has stored an offset, and `commit_answer` after that."""

OF_RECORDS: Final = frozenset({"acknowledge", "consume", "produce", "write"})
"""Calls that are about one partition, so that a fault without a topic hits each of them."""


def as_error(error: int | KafkaError) -> KafkaError:
    """An error by its code."""
    return error if isinstance(error, KafkaError) else KafkaError(error)


@attrs.define(eq=False)
class Fault:
    """One cause of errors. `end` takes it away."""

    call: str
    error: KafkaError
    times: float
    """Calls that fail still."""
    until: float
    """Virtual seconds when it ends."""
    host: str | None
    """Of the client that it hits; None is every one."""
    topic: str | None
    partition: int | None
    hits: int = 0
    """Calls that have failed by it."""

    def end(self) -> None:
        """No further call fails."""
        self.times = 0


class Faults:
    """What fails.

    Args:
        now: Virtual seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._faults: list[Fault] = []

    def fail(
        self,
        call: str,
        error: int | KafkaError,
        *,
        times: float = 1,
        seconds: float = float("inf"),
        host: str | None = None,
        topic: str | None = None,
        partition: int | None = None,
    ) -> Fault:
        """Have calls fail.

        Args:
            call: One of `CALLS`.
            error: What they fail with, as an error or its code.
            times: How many of them; `float("inf")` is all.
            seconds: For how long.
            host: Of whose client.
            topic: Only what is about this topic. The error of `commit`, `committed` and `offsets_for_times` is then the
                answer for its partitions; without a topic the whole call raises.
            partition: Only what is about this partition of it.
        """
        assert call in CALLS, f"no call has the name {call!r}"
        fault = Fault(call, as_error(error), times, self._now() + seconds, host, topic, partition)
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Nothing fails any more."""
        self._faults.clear()

    def take(self, call: str, host: str, place: Place | None = None) -> KafkaError | None:
        """The error that this call has to fail with, if it has to.

        Args:
            call: One of `CALLS`.
            host: Of the client.
            place: What it is about. None asks for the faults of the call as a whole.
        """
        fault = self._find(call, host, place)
        if fault is None:
            return None
        fault.times -= 1
        fault.hits += 1
        return fault.error

    def has(self, call: str, host: str, place: Place | None = None) -> bool:
        """Whether `take` would have an error."""
        return self._find(call, host, place) is not None

    def _find(self, call: str, host: str, place: Place | None) -> Fault | None:
        if not self._faults:
            return None
        now = self._now()
        self._faults = [fault for fault in self._faults if fault.times > 0 and fault.until > now]
        for fault in self._faults:
            if fault.call != call or fault.host not in (None, host):
                continue
            if place is None:
                if fault.topic is None:
                    return fault
            elif (
                # an error of the whole call is no answer for one of its partitions
                (fault.topic == place[0] or (fault.topic is None and call in OF_RECORDS))
                and fault.partition in (None, place[1])
            ):
                return fault
        return None
