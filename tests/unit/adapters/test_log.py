"""Events as log records, and JSON lines that quote nothing."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from kafka_notify import Consumer, NotifyError, Worker, events
from kafka_notify.events import Event, OnEvent, emitter
from kafka_notify.log import LEVELS, LOGGER, JsonFormatter, log_events


class Source:
    """Something to listen to."""

    tell: OnEvent

    def listen(self, on_event: OnEvent, /) -> None:
        self.tell = on_event


LETTER = events.DeadLettered("n1", "otp", "sms", "max_attempts", "http.504", "notif.high_priority", 3, 41)


def test_message(caplog: pytest.LogCaptureFixture) -> None:
    """An event is one record: its name and fields in the message, the same as a mapping, at the level of its weight."""
    source = Source()
    log_events(source)
    source.tell(LETTER)
    source.tell(events.PartitionHalted(3, "it was truncated"))

    letter, halt = caplog.records
    assert (letter.name, letter.levelno, halt.levelno) == (LOGGER, logging.WARNING, logging.ERROR)
    assert letter.getMessage() == (
        "dead_lettered id=n1 category=otp channel=sms reason=max_attempts code=http.504 "
        "topic=notif.high_priority partition=3 origin=41"
    )
    assert halt.getMessage() == 'partition_halted partition=3 reason="it was truncated"'
    assert letter.__dict__["event"]["code"] == "http.504"


def test_levels(caplog: pytest.LogCaptureFixture) -> None:
    """What happens for every notification is not logged by default; a level can be changed."""
    caplog.set_level(logging.INFO)
    source = Source()
    produced = events.Produced("n1", "otp", "sms", "t", 0, 0, 0.0012345)
    log_events(source)
    source.tell(produced)
    assert caplog.records == []

    log_events(source, levels={events.Produced: logging.INFO})
    source.tell(produced)
    assert caplog.messages == [
        "produced id=n1 category=otp channel=sms topic=t partition=0 offset=0 seconds=0.001"
    ]


def test_a_flood_is_counted(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """When thousands of copies fail at once, a hundred a second are logged, and then how many were not."""
    now = 50.0
    monkeypatch.setattr("kafka_notify.log.monotonic", lambda: now)
    source = Source()
    log_events(source)
    for number in range(3_000):
        source.tell(events.CopyFailed("retry", number, "NOT_ENOUGH_REPLICAS", 1))
    source.tell(LETTER)  # another kind
    assert len(caplog.records) == 101

    now = 51.0
    source.tell(events.CopyFailed("retry", 7, "NOT_ENOUGH_REPLICAS", 2))
    source.tell(events.CopyFailed("retry", 8, "NOT_ENOUGH_REPLICAS", 2))
    assert [record.__dict__["event"].get("left_out") for record in caplog.records[-2:]] == [2_900, None]


def test_every_event_has_a_level() -> None:
    """No event is forgotten."""
    assert set(LEVELS) == set(Event.__subclasses__())


def test_worker_says_who_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """A worker's records name its lane; it must be listened to before it starts."""

    class Told(Source, Worker):
        pass

    class Sms(Consumer):
        async def send(self, notification: Any, attempt: Any) -> Any:
            raise AssertionError

    worker = Told(Sms, {"bootstrap.servers": "127.0.0.1:1"}, lane="high_priority")
    log_events(worker)
    worker.tell(events.LaneHeld("http.401", 1.0, "account"))
    assert caplog.messages == ["lane_held reason=http.401 wait=1.000 cause=account lane=high_priority"]


def test_listening_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that runs takes no more listeners: its parts would not tell them everything."""

    class Sms(Consumer):
        async def send(self, notification: Any, attempt: Any) -> Any:
            raise AssertionError

    worker = Worker(Sms, {"bootstrap.servers": "127.0.0.1:1"}, lane="high_priority")
    monkeypatch.setattr(worker, "_running", object())
    with pytest.raises(NotifyError, match="before it is started"):
        log_events(worker)


def test_all_listeners_hear(caplog: pytest.LogCaptureFixture) -> None:
    """One listener's exception is logged without its text, and the next one hears the event all the same."""
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("canary")

    emit = emitter(broken, heard.append)
    assert emit is not None
    emit(LETTER)

    assert heard == [LETTER]
    assert caplog.messages == ["on_event raised ValueError for DeadLettered"]
    assert emitter() is None


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_json_line(caplog: pytest.LogCaptureFixture) -> None:
    """A record of an event is one line of JSON with the event's fields."""
    source = Source()
    log_events(source)
    source.tell(LETTER)

    line = formatted(caplog.records[0])
    assert line["level"] == "WARNING"
    assert line["time"].endswith("+00:00")
    assert line["event"]["name"] == "dead_lettered"
    assert line["event"]["origin"] == 41


def test_json_line_of_an_exception() -> None:
    """Of an exception the classes and places are written, never a text: it may quote a payload or an address."""
    try:
        try:
            raise KeyError("canary-address")
        except KeyError as e:
            raise ValueError("canary-payload") from e
    except ValueError:
        record = logging.LogRecord(
            "app", logging.ERROR, __file__, 1, "it failed\nbadly", None, sys.exc_info()
        )
    record.token = "canary-token"  # what somebody put into `extra`

    line = formatted(record)
    assert line["error"]["classes"] == ["builtins.ValueError", "builtins.KeyError"]
    assert "test_json_line_of_an_exception" in line["error"]["at"][0]
    assert "canary" not in json.dumps(line)
    assert line["message"] == "it failed\nbadly"
