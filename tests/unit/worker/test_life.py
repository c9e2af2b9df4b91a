"""The states of a worker, and threads that do not end unnoticed."""

from __future__ import annotations

import threading

import pytest

from kafka_notify._base import where
from kafka_notify._base.supervised import supervised
from kafka_notify._worker.life import Life, State


def test_states_follow_one_another() -> None:
    """From new to stopped, and no way back."""
    life = Life()
    for state in (State.STARTING, State.RUNNING, State.STOPPING, State.STOPPED):
        assert life.to(state)
    assert life.stopped.is_set()
    assert not any(life.to(state) for state in State)


def test_a_failure_stays_known() -> None:
    """The first reason is kept, through the stop that follows; nothing brings the worker back."""
    life = Life()
    life.to(State.STARTING)
    life.to(State.RUNNING)
    first, second = RuntimeError(), KeyError()
    assert life.fail(first)
    assert not life.fail(second)
    assert life.state is State.FAILED
    assert not life.to(State.RUNNING)
    assert life.to(State.STOPPING)
    assert life.to(State.STOPPED)
    assert life.error is first


def test_one_of_several_threads_stops() -> None:
    """Whoever is told True does the work."""
    life = Life()
    life.to(State.STARTING)
    life.to(State.RUNNING)
    told: list[bool] = []
    threads = [threading.Thread(target=lambda: told.append(life.to(State.STOPPING))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [False] * 7 + [True]


@pytest.mark.parametrize("error", [KeyError("secret"), SystemExit(3), GeneratorExit()])
def test_a_thread_does_not_end_unnoticed(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """What it raised is logged by class and frames, without its text, and whoever needs the thread is told."""
    told: list[BaseException] = []

    def fails() -> None:
        raise error

    thread = supervised(fails, "reader", told.append)
    thread.start()
    thread.join()
    assert told == [error]
    (record,) = caplog.records
    assert type(error).__name__ in record.message
    assert "in fails" in record.message
    assert "secret" not in caplog.text


def test_tracebacks_are_shown_on_demand(caplog: pytest.LogCaptureFixture) -> None:
    """One switch, for development."""

    def fails() -> None:
        raise KeyError("the text")

    where.show_tracebacks()
    try:
        thread = supervised(fails, "reader", lambda error: None)
        thread.start()
        thread.join()
    finally:
        where.show_tracebacks(False)
    assert "the text" in caplog.text


def test_an_origin_names_causes_and_no_text() -> None:
    """Class, file, line and function, of the error and of what caused it; the nearest frames of a deep one."""

    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        try:
            raise ValueError("+49 170 1234567")
        except ValueError as e:
            raise KeyError("someone@example.com") from e

    with pytest.raises(KeyError) as caught:
        deep(100)
    said = where.origin(caught.value)
    assert "KeyError at" in said
    assert "caused by ValueError at" in said
    assert "in deep" in said
    assert "example" not in said
    assert "+49" not in said
    assert said.count(" in ") <= 2 * where.MAX_FRAMES


def test_an_origin_ends_where_causes_go_round() -> None:
    """An error that causes itself is named a few times, not for ever."""
    error = KeyError()
    error.__cause__ = error
    assert where.origin(error).count("KeyError") == where.MAX_CAUSES
