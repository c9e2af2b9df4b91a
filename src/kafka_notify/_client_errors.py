"""What librdkafka's clients of this process last said: their calls answer `_TRANSPORT` whatever went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from kafka_notify._rights import is_missing_right, is_refusal, told, why_not
from kafka_notify.errors import NotifyError

_VAGUE: Final = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})
_FIRST_SLICE: Final = 1.0

_last: tuple[float, KafkaError] | None = None


def noted(their_error_cb: Callable[[KafkaError], object] | None) -> Callable[[KafkaError], None]:
    """An `error_cb` that remembers what it is given, and calls another one."""

    def note(error: KafkaError) -> None:
        global _last
        now = time.monotonic()
        if _last is None or now - _last[0] > 1 or error.code() not in _VAGUE:
            _last = now, error
        if their_error_cb is not None:
            their_error_cb(error)

    return note


def last(since: float) -> KafkaError | None:
    """The last error since `since`, in monotonic seconds."""
    return _last[1] if _last is not None and _last[0] >= since else None


def why_not_written(topic: str, failure: str, since: float) -> str:
    """Why a record was not acknowledged, for people.

    Args:
        topic: Where it was to be written.
        failure: What its report says. Without any right to write the producer gets no id, and what is queued is only
            said to be purged.
        since: Monotonic seconds when it was opened.
    """
    cause = last(since)
    return why_not(cause.name(), "Write", f"topic {topic}") if cause and is_missing_right(cause) else failure


def unanswered(error: KafkaError, since: float) -> str:
    """Why no broker answered, for people."""
    cause = last(since)
    if cause is not None and is_refusal(cause):
        return told(cause, "", "")
    named = error if cause is None or (cause.code() in _VAGUE and error.code() in _VAGUE) else cause
    return f"{named.name()}: {named.str()}; check bootstrap.servers, the network and the credentials"


def metadata(client: Any, seconds: float, topic: str | None = None, *, serve: bool = True) -> Any:
    """What `list_topics` answers. Refused credentials are told as soon as the client knows of them.

    Args:
        client: A consumer, a producer or an AdminClient.
        seconds: To wait at most.
        topic: The one to describe; all by default.
        serve: Whether to serve the client's callbacks: no, where another thread does that.

    Raises:
        NotifyError: No broker answered, or they refuse.
    """
    begin = time.monotonic()
    wait = _FIRST_SLICE
    while True:
        left = begin + seconds - time.monotonic()
        try:
            return client.list_topics(topic=topic, timeout=max(0.1, min(wait, left)))
        except KafkaException as e:
            error: KafkaError = e.args[0]
            if serve:
                client.poll(0)
            cause = last(begin)
            refused = cause is not None and is_refusal(cause)
            if refused or left <= wait or error.code() not in _VAGUE:
                why = unanswered(error, begin)
                said = why if refused else f"no broker answered within {seconds:.3g} s: {why}"
                raise NotifyError(said) from None
        wait *= 2
