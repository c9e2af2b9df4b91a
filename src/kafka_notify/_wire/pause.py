"""What is paused: one pause as a value, as a record of the control topic, and as a worker sees all of them. Pure."""

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
"""Bytes of a record's value: a larger one is no pause."""


@attrs.frozen
class Pause:
    """Something that no worker sends until it is resumed; its notifications wait in Kafka."""

    kind: PauseKind
    name: str
    """Of the category, channel or consumer; `workers` is the consumer without a name."""
    lane: str | None
    """Only on this lane; None on all."""
    at: dt.datetime
    """Since when."""
    until: dt.datetime | None = None
    """When it ends by itself; None when only `resume` ends it."""
    reason: str = ""
    by: str = ""

    @property
    def what(self) -> str:
        """Such as `channel sms`, or `channel sms on low_priority`."""
        return f"{self.kind} {self.name}" + (f" on {self.lane}" if self.lane else "")

    def over(self, now_ms: int) -> bool:
        """Whether it has ended by itself at epoch ms `now_ms`."""
        return self.until is not None and to_millis(self.until) <= now_ms


# -- as a record -----------------------------------------------------------------------------------


def pause_key(kind: PauseKind, name: str, lane: str | None) -> bytes:
    """The key of its record: a later record of the same key replaces it, one without a value ends it."""
    return "/".join([kind, name, *([lane] if lane else [])]).encode()


def pause_value(pause: Pause) -> bytes:
    """The value of its record."""
    until = None if pause.until is None else to_millis(pause.until)
    value = {"at": to_millis(pause.at), "until": until, "reason": pause.reason, "by": pause.by}
    return json.dumps(value).encode()


def read_pause(key: bytes, value: bytes) -> Pause | None:
    """The pause of a record of the control topic; None when it is none that this version understands.

    Whoever may write to the topic chooses its bytes: nothing here raises, and the texts are safe to show. Fields that
    this version does not know are a newer version's, and left out.
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
    """Which of one worker's notifications are paused. The caller brings the time.

    Args:
        lane: The worker's.
        consumer: Name of its consumer; "" is the unnamed one.
        channels: What it sends; empty is every channel.
    """

    def __init__(self, lane: str, consumer: str, channels: Iterable[str] = ()) -> None:
        self.whole: Pause | None = None
        """What pauses all of its work: then it reads nothing and writes no copies."""
        self.parts = False
        """Whether some categories or channels are paused: then `holds` is to be asked."""
        self._lane = lane
        self._consumer = consumer or DEFAULT_CONSUMER
        self._own_channels = frozenset(channels)
        self._known: dict[bytes, Pause] = {}
        self._categories: frozenset[str] = frozenset()
        self._channels: frozenset[str] = frozenset()

    def learn(self, key: bytes, value: bytes | None) -> bool:
        """Take in a record of the control topic.

        Returns:
            False when this version does not understand it: then nothing changes.
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
        """Bring `whole`, `parts` and `holds` up to date; call it after `learn`, and now and then, as pauses may end by
        themselves.

        Returns:
            Whether they changed.
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
            self.whole = channels[
                min(self._own_channels)
            ]  # all that it sends: it need not read what it would put back
        self._categories, self._channels = frozenset(by_kind["category"]), frozenset(channels)
        self.parts = bool(self._categories or self._channels)
        return before != (self.whole, self._categories, self._channels)

    def holds(self, category: str, channel: str) -> bool:
        """Whether such a notification is paused."""
        return channel in self._channels or category in self._categories

    def active(self) -> tuple[Pause, ...]:
        """What is paused, as far as it concerns this worker."""
        return tuple(sorted(self._known.values(), key=lambda pause: pause.what))
