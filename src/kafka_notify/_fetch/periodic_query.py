"""Queries that are put to the cluster from time to time, by a thread that must not wait for the answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from confluent_kafka import KafkaError, KafkaException

from kafka_notify._base.runtime import SYSTEM
from kafka_notify._kafka.rights import is_refusal, told

log = logging.getLogger("kafka_notify.fetch")

_unanswered: list[tuple[object, Mapping[Any, Future[Any]]]] = []
"""Clients with their open queries: each query ends by its `request_timeout` at the latest."""
_lock = threading.Lock()


def keep_until_answered(client: object, asked: Mapping[Any, Future[Any]]) -> None:
    """Keep a client alive until it has answered, even when the code that asked has ended.

    Answers arrive on a thread of librdkafka, and Python's garbage collector may run there. A client that is destroyed
    by its own thread ends the process (docs/upstream/client-destroyed-by-its-thread.md).
    """
    let_answered_go()
    with _lock:
        _unanswered.append((client, asked))


def let_answered_go() -> None:
    """Drop the clients that have answered. Call it from Python's threads alone, never from librdkafka's."""
    with _lock:
        kept = [(client, asked) for client, asked in _unanswered if not _is_answered(asked)]
        gone, _unanswered[:] = _unanswered[:], kept
    del gone  # after the lock is released: a client may be destroyed here


def _is_answered(asked: Mapping[Any, Future[Any]]) -> bool:
    return all(future.done() for future in asked.values())


K = TypeVar("K", bound=Hashable)


class PeriodicQuery(Generic[K]):
    """Repeats one query; never blocks.

    Args:
        client: The AdminClient that is asked.
        ask: Sends the query by the client; returns the future of each thing that is asked about.
        what: What is described, for the log.
        right: The right that the query needs, and the kind of resource: `DescribeConfigs topic`.
        every: Seconds between an answer and the next query.
        first: Seconds until the first query.
        monotonic: Returns seconds.
    """

    def __init__(
        self,
        client: Any,
        ask: Callable[[Any], Mapping[K, Future[Any]]],
        what: str,
        right: str,
        *,
        every: float,
        first: float,
        monotonic: Callable[[], float] = SYSTEM.monotonic,
    ) -> None:
        self._client = client
        self._ask = ask
        self._what = what
        self._right = right
        self._every = every
        self._monotonic = monotonic
        self._next = monotonic() + first
        self._asked: Mapping[K, Future[Any]] | None = None
        self.refused: int | None = None
        """Code of the last answer if that was an error. Each error is logged once."""

    def answer(self) -> dict[K, Any] | None:
        """A new answer, returned once; None while there is none, and after an error. Call it often."""
        if self._asked is None:
            if self._monotonic() >= self._next:
                self._asked = self._ask(self._client)
                keep_until_answered(self._client, self._asked)
            return None
        if not _is_answered(self._asked):
            return None
        asked, self._asked = self._asked, None
        self._next = self._monotonic() + self._every
        answer: dict[K, Any] = {}
        for name, future in asked.items():
            try:
                answer[name] = future.result()
            except KafkaException as e:
                self._tell(name, e.args[0])
                return None
        self.refused = None
        return answer

    def _tell(self, name: K, error: KafkaError) -> None:
        if error.code() == self.refused:
            return
        self.refused = error.code()
        operation, kind = self._right.split()
        on = f"{kind} {name[0] if isinstance(name, tuple) else name}"
        why = told(error, operation, on) if is_refusal(error) else error.name()
        log.warning("%s cannot be described: %s", self._what, why)
