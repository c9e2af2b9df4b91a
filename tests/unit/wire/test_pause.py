"""What is paused: records of the control topic, and what one worker makes of them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from kafka_notify._wire.pause import Pause, Paused, PauseKind, pause_key, pause_value, read_pause

UTC = dt.timezone.utc
AT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW = int(AT.timestamp() * 1000)


def pause(kind: PauseKind, name: str, lane: str | None = None, **fields: Any) -> Pause:
    return Pause(kind, name, lane, AT, **fields)


def learned(paused: Paused, *pauses: Pause) -> Paused:
    for each in pauses:
        assert paused.learn(pause_key(each.kind, each.name, each.lane), pause_value(each))
    paused.apply(NOW)
    return paused


@pytest.mark.parametrize(
    "value",
    [
        pause("channel", "sms"),
        pause("category", "otp", "high", until=AT + dt.timedelta(hours=1), reason="costs", by="ann"),
        pause("consumer", "workers", reason="é"),
    ],
)
def test_a_pause_survives_its_record(value: Pause) -> None:
    """What is written is what is read."""
    assert read_pause(pause_key(value.kind, value.name, value.lane), pause_value(value)) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", b"{}"),
        (b"channel", b'{"at": 1}'),
        (b"channel/", b'{"at": 1}'),
        (b"channel/sms/high/more", b'{"at": 1}'),
        (b"lane/high", b'{"at": 1}'),
        (b"channel/sms", b"no json"),
        (b"channel/sms", b"[]"),
        (b"channel/sms", b"{}"),
        (b"channel/sms", b'{"at": "soon"}'),
        (b"channel/sms", b'{"at": 1e400}'),
        (b"channel/sms", b'{"at": 9999999999999999999}'),
        (b"channel/sms", b"\xff"),
        (b"\xff/sms", b'{"at": 1}'),
    ],
)
def test_what_is_no_pause_pauses_nothing(key: bytes, value: bytes) -> None:
    """A record that this version does not understand is reported, and changes nothing."""
    paused = Paused("high", "", ())
    assert not paused.learn(key, value)
    assert not paused.apply(NOW)


def test_a_newer_versions_fields_are_left_out() -> None:
    """A field that is not known does not hide the pause."""
    assert read_pause(b"channel/sms", b'{"at": 0, "shade": "grey"}') is not None


def test_categories_and_channels_are_held() -> None:
    """A notification is held when its category or its channel is paused."""
    paused = learned(Paused("high", ""), pause("channel", "sms"), pause("category", "otp"))
    assert paused.parts
    assert paused.whole is None
    assert [paused.holds(*each) for each in (("otp", "push"), ("news", "sms"), ("news", "push"))] == [
        True,
        True,
        False,
    ]


def test_a_lane_keeps_to_itself() -> None:
    """A pause of another lane, or of another consumer, is none."""
    paused = learned(
        Paused("high", "sms"),
        pause("channel", "sms", "low"),
        pause("consumer", "push"),
        pause("consumer", "workers"),
    )
    assert (paused.parts, paused.whole, paused.active()) == (False, None, ())


@pytest.mark.parametrize(("consumer", "name"), [("sms", "sms"), ("", "workers")])
def test_a_consumer_is_paused_as_a_whole(consumer: str, name: str) -> None:
    """The consumer without a name is `workers`."""
    assert learned(Paused("high", consumer), pause("consumer", name)).whole == pause("consumer", name)


def test_all_its_channels_are_the_whole() -> None:
    """A consumer all of whose channels are paused need not read what it would only put back."""
    paused = learned(Paused("high", "texts", {"sms", "mms"}), pause("channel", "sms"))
    assert paused.whole is None
    learned(paused, pause("channel", "mms"))
    assert paused.whole is not None


def test_a_record_without_a_value_ends_a_pause() -> None:
    """A tombstone resumes what its key names, and nothing else."""
    paused = learned(Paused("high", ""), pause("channel", "sms"), pause("channel", "push"))
    assert paused.learn(b"channel/sms", None)
    assert paused.apply(NOW)
    assert (paused.holds("otp", "sms"), paused.holds("otp", "push")) == (False, True)
    assert not paused.apply(NOW)


def test_a_pause_ends_by_itself() -> None:
    """At `until`, not before, it is over."""
    until = AT + dt.timedelta(seconds=1)
    paused = learned(Paused("high", ""), pause("channel", "sms", until=until))
    assert not paused.apply(NOW + 999)
    assert paused.parts
    assert paused.apply(NOW + 1000)
    assert not paused.parts
