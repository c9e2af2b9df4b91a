"""What came from Kafka cannot steer a terminal, forge a line of a log, or fail to be written."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_notify._base.text import MAX_SHOWN, json_line, printable, printable_lines
from kafka_notify._wire.pause import MAX_RECORD, Paused, pause_key, read_pause
from kafka_notify.log import JsonFormatter

KEY = pause_key("channel", "sms", None)
UNSAFE = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *"\u2028\u2029\u202e\u2066\ufeff", "\ud800"]

anything = st.text(st.characters(), max_size=50)


@given(anything)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    """One line, no control character, no mark of direction; and any encoding with these letters takes it."""
    shown = printable(text)
    assert not set(shown) & set(UNSAFE)
    shown.encode()
    assert set(printable_lines(text)) & set(UNSAFE) <= {"\n"}


def test_letters_of_all_languages_stay() -> None:
    """It is there to be read."""
    text = "Grüße, 你好, مرحبا, ₿ 🙂"
    assert printable(text) == text
    assert printable("a\x1b[31mb\nc\u202ed") == r"a\x1b[31mb\x0ac\u202ed"


def test_long_text_is_cut() -> None:
    """A text of a megabyte is not for a terminal."""
    assert len(printable("x" * 10**6)) == MAX_SHOWN
    assert printable("x" * 10**6).endswith("…")


@given(
    st.recursive(anything | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(anything, x))
)
def test_json_means_the_same_and_is_safe(value: object) -> None:
    """One line of JSON that says what it said, without an unsafe character, for any encoding."""
    line = json_line(value)
    line.encode()
    assert not set(line) & set(UNSAFE)
    assert json.loads(line) == value


def test_a_log_record_cannot_forge_a_line() -> None:
    """Whatever a message quotes, it is one line."""
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "id=%s", ("a\nb\x9b2J\ud800",), None)
    line = JsonFormatter().format(record)
    line.encode()
    assert not set(line) & set(UNSAFE)
    assert json.loads(line)["message"] == "id=a\nb\x9b2J\ud800"


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 1_000,
        b"[" * 100_000,
        b'{"at": ' + b"[" * 1_000,
        b'{"at": 1, "reason": "' + b"x" * MAX_RECORD + b'"}',
        b'{"at": ' + b"9" * 5_000 + b"}",
        b'{"at": 1e999}',
        b'{"at": NaN}',
        b"\xff",
        b"",
    ],
    ids=["nested", "deeply", "unfinished", "large", "digits", "infinite", "nan", "bytes", "empty"],
)
def test_a_poisoned_control_record_pauses_nothing(value: bytes) -> None:
    """It is no pause, for a worker as for the tools that would undo it; nothing is raised."""
    assert read_pause(KEY, value) is None
    paused = Paused("high", "sms", ["sms"])
    assert not paused.learn(KEY, value)
    assert not paused.apply(0)


def test_the_texts_of_a_pause_are_safe() -> None:
    """A surrogate or an escape sequence in a reason is shown as an escape."""
    pause = read_pause(KEY, b'{"at": 1, "reason": "\\ud800\\u001b[2J", "by": "a\\nb"}')
    assert pause is not None
    assert (pause.reason, pause.by) == (r"\ud800\x1b[2J", r"a\x0ab")
