"""What librdkafka's clients of this process last said: their calls answer `_TRANSPORT` whatever went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from kafka_notify._kafka import tls as _tls
from kafka_notify._kafka.rights import is_missing_right, is_refusal, told, why_not
from kafka_notify.errors import NotifyError

_VAGUE: Final = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})
_FIRST_SLICE: Final = 1.0

_last: tuple[float, KafkaError] | None = None


def noted(
    their_error_cb: Callable[[KafkaError], object] | None,
    config: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[[KafkaError], None]:
    """An `error_cb` that remembers what it is given, and calls another one.

    Args:
        their_error_cb: The other one.
        config: The client's.
    """

    def note(error: KafkaError) -> None:
        global _last
        now = time.monotonic()
        if _last is None or now - _last[0] > 1 or not _vague(error):
            _last = now, error
        _tls.note(error, config)
        if their_error_cb is not None:
            their_error_cb(error)

    return note


def _vague(error: KafkaError) -> bool:
    return error.code() in _VAGUE and not _tls.named(error)


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
    if cause is not None and _tells(cause):
        return told(cause, "", "")
    if tls := _tls.expects_none(since):
        return f"{tls} ({error.name()})"
    named = error if cause is None or (_vague(cause) and _vague(error)) else cause
    return f"{named.name()}: {named.str()}; check bootstrap.servers, the network and the credentials"


def _tells(error: KafkaError) -> bool:
    return is_refusal(error) or bool(_tls.named(error))


def refused(since: float) -> str:
    """What the last client error since `since` refuses; empty when it was none, or there was none."""
    cause = last(since)
    return told(cause, "", "") if cause is not None and _tells(cause) else _tls.expects_none(since)


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
            _tls.await_looks(begin)
            cause = last(begin)
            # a listener that only seems to be without TLS may be one that restarts: it is given another slice
            sure = cause is not None and (is_refusal(cause) or (_tells(cause) and wait > _FIRST_SLICE))
            if sure or _tls.expects_none(begin) or left <= wait or error.code() not in _VAGUE:
                why = unanswered(error, begin)
                said = (
                    why
                    if sure
                    else f"no broker answered within {min(seconds, time.monotonic() - begin):.3g} s: {why}"
                )
                raise NotifyError(said) from None
        wait *= 2
