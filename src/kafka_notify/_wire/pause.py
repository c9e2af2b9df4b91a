"""Pauses: one pause as a value and as a record of the control topic, and all pauses as a worker sees them. Pure."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from typing import Any, Final, Literal, cast, get_args

import attrs

from kafka_notify._base.names import DEFAULT_CONSUMER, is_name
from kafka_notify._base.text import printable
from kafka_notify._base.units import from_millis, to_millis

PauseKind = Literal["category", "channel", "consumer"]
MAX_RECORD: Final = 16_384
"""Bytes of a record's value; a larger record is not a pause."""


@attrs.frozen
class Pause:
    """A category, channel or consumer that no worker sends until it is resumed; its notifications wait in Kafka."""

    kind: PauseKind
    name: str
    """Name of the category, channel or consumer; `workers` is the unnamed consumer."""
    lane: str | None
    """The only lane that is paused; None for all lanes."""
    at: dt.datetime
    """The time of the pause."""
    until: dt.datetime | None = None
    """The time when the pause ends by itself; None when only `resume` ends it."""
    reason: str = ""
    by: str = ""

    @property
    def what(self) -> str:
        """The kind, name and lane, such as `channel sms` or `channel sms on low_priority`."""
        return f"{self.kind} {self.name}" + (f" on {self.lane}" if self.lane else "")

    def over(self, now_ms: int) -> bool:
        """Return whether the pause has ended by itself at epoch ms `now_ms`."""
        return self.until is not None and to_millis(self.until) <= now_ms


# -- as a record -----------------------------------------------------------------------------------


def pause_key(kind: PauseKind, name: str, lane: str | None) -> bytes:
    """The key of a pause's record: a later record of the same key replaces the pause, one without a value ends it."""
    return "/".join([kind, name, *([lane] if lane else [])]).encode()


def pause_value(pause: Pause) -> bytes:
    """The value of a pause's record."""
    until = None if pause.until is None else to_millis(pause.until)
    value = {"at": to_millis(pause.at), "until": until, "reason": pause.reason, "by": pause.by}
    return json.dumps(value).encode()


def read_pause(key: bytes, value: bytes) -> Pause | None:
    """The pause of a record of the control topic; None if this version does not understand the record.

    Anyone who may write to the topic chooses the bytes, so this function never raises, and its texts are safe to show.
    Unknown fields come from a newer version and are ignored.
    """
    if len(value) > MAX_RECORD:
        return None
    try:
        words = key.decode().split("/")
        if len(words) not in (2, 3) or words[0] not in get_args(PauseKind) or not all(map(is_name, words)):
            return None
        got: Any = json.loads(value)
        at, until = got["at"], got.get("until")
        return Pause(
            cast(PauseKind, words[0]),
            words[1],
            words[2] if len(words) == 3 else None,
            from_millis(int(at)),
            None if until is None else from_millis(int(until)),
            printable(str(got.get("reason") or "")),
            printable(str(got.get("by") or "")),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


# -- as a worker sees it ---------------------------------------------------------------------------


class Paused:
    """Which of one worker's notifications are paused. The caller supplies the time.

    Args:
        lane: The worker's lane.
        consumer: Name of the worker's consumer; "" is the unnamed one.
        channels: The channels that the worker sends; empty for every channel.
    """

    def __init__(self, lane: str, consumer: str, channels: Iterable[str] = ()) -> None:
        self.whole: Pause | None = None
        """The pause of all the worker's work, if any: the worker then reads nothing and writes no copies."""
        self.parts = False
        """True if some categories or channels are paused, so that `holds` must be asked."""
        self._lane = lane
        self._consumer = consumer or DEFAULT_CONSUMER
        self._own_channels = frozenset(channels)
        self._known: dict[bytes, Pause] = {}
        self._categories: frozenset[str] = frozenset()
        self._channels: frozenset[str] = frozenset()

    def learn(self, key: bytes, value: bytes | None) -> bool:
        """Take in a record of the control topic.

        Returns:
            False if this version does not understand the record; nothing changes then.
        """
        pause = None if value is None else read_pause(key, value)
        if value is not None and pause is None:
            return False
        self._known.pop(key, None)
        if pause is not None and self._concerns(pause):
            self._known[key] = pause
        return True

    def _concerns(self, pause: Pause) -> bool:
        if pause.lane not in (None, self._lane):
            return False
        return pause.kind != "consumer" or pause.name == self._consumer

    def apply(self, now_ms: int) -> bool:
        """Update `whole`, `parts` and `holds`. Call it after `learn` and at intervals, as pauses end by themselves.

        Returns:
            True if any of them changed.
        """
        before = (self.whole, self._categories, self._channels)
        for key in [key for key, pause in self._known.items() if pause.over(now_ms)]:
            del self._known[key]
        by_kind: dict[str, dict[str, Pause]] = {"category": {}, "channel": {}, "consumer": {}}
        for pause in self._known.values():
            by_kind[pause.kind][pause.name] = pause
        channels = by_kind["channel"]
        self.whole = by_kind["consumer"].get(self._consumer)
        if self.whole is None and self._own_channels and self._own_channels <= channels.keys():
            # every channel of the worker is paused: it need not read what it would put back
            self.whole = channels[min(self._own_channels)]
        self._categories, self._channels = frozenset(by_kind["category"]), frozenset(channels)
        self.parts = bool(self._categories or self._channels)
        return before != (self.whole, self._categories, self._channels)

    def holds(self, category: str, channel: str) -> bool:
        """Return whether a notification of this category and channel is paused."""
        return channel in self._channels or category in self._categories

    def active(self) -> tuple[Pause, ...]:
        """The pauses that concern this worker."""
        return tuple(sorted(self._known.values(), key=lambda pause: pause.what))
