"""The last error of this process's librdkafka clients, whose calls fail with `_TRANSPORT` whatever the cause."""

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


class Noted:
    """An `error_cb` that remembers each error, and calls another `error_cb`.

    Args:
        theirs: The other callback.
        config: The client's properties.
    """

    __slots__ = ("_config", "theirs")

    def __init__(
        self,
        theirs: Callable[[KafkaError], object] | None,
        config: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.theirs = theirs
        self._config = config

    def __call__(self, error: KafkaError) -> None:
        """Remember an error."""
        global _last
        now = time.monotonic()
        if _last is None or now - _last[0] > 1 or not _vague(error):
            _last = now, error
        _tls.note(error, self._config)
        if self.theirs is not None:
            self.theirs(error)


def _vague(error: KafkaError) -> bool:
    return error.code() in _VAGUE and not _tls.named(error)


def last(since: float) -> KafkaError | None:
    """The last error at or after `since`, in monotonic seconds; None if there was none."""
    return _last[1] if _last is not None and _last[0] >= since else None


def why_not_written(topic: str, failure: str, since: float) -> str:
    """The reason why a record was not acknowledged, for people.

    Args:
        topic: The record's topic.
        failure: The text of its delivery report. A producer without any right to write gets no producer ID, and its
            reports only say that the queue was purged.
        since: When the producer was opened, in monotonic seconds.
    """
    cause = last(since)
    return why_not(cause.name(), "Write", f"topic {topic}") if cause and is_missing_right(cause) else failure


def unanswered(error: KafkaError, since: float) -> str:
    """The reason why no broker answered, for people."""
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
    """The refusal that the last client error since `since` stands for; empty if that was not a refusal."""
    cause = last(since)
    return told(cause, "", "") if cause is not None and _tells(cause) else _tls.expects_none(since)


def metadata(
    client: Any,
    seconds: float,
    topic: str | None = None,
    *,
    serve: bool = True,
    monotonic: Callable[[], float] = time.monotonic,
) -> Any:
    """Return the answer of `list_topics`. Refused credentials are raised as soon as the client knows of them.

    Args:
        client: A consumer, a producer or an AdminClient.
        seconds: The longest wait.
        topic: The topic to describe; by default all topics.
        serve: Serve the client's callbacks; False where another thread does that.
        monotonic: Returns seconds.

    Raises:
        NotifyError: No broker answered, or the brokers refuse the client.
    """
    begin = monotonic()
    wait = _FIRST_SLICE
    while True:
        left = begin + seconds - monotonic()
        try:
            return client.list_topics(topic=topic, timeout=max(0.1, min(wait, left)))
        except KafkaException as e:
            error: KafkaError = e.args[0]
            if serve:
                client.poll(0)
            _tls.await_looks(begin)
            cause = last(begin)
            # a listener that seems to be one without TLS may just be restarting: wait another slice
            sure = cause is not None and (is_refusal(cause) or (_tells(cause) and wait > _FIRST_SLICE))
            if sure or _tls.expects_none(begin) or left <= wait or error.code() not in _VAGUE:
                why = unanswered(error, begin)
                said = (
                    why
                    if sure
                    else f"no broker answered within {min(seconds, monotonic() - begin):.3g} s: {why}"
                )
                raise NotifyError(said) from None
        wait *= 2
