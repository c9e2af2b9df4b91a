"""`python -m kafka_notify.demo`: it runs anywhere, and its checks fail when a promise is broken."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from kafka_notify.deadletters import DeadLetter, DeadLetters
from kafka_notify.demo.__main__ import main
from kafka_notify.demo._screen import LaneProgress, Screen
from kafka_notify.demo._verdict import (
    Journal,
    LaneResult,
    Produced,
    Tried,
    lost,
    out_of_order,
    percentile,
    result,
    sent_twice,
    to_provider,
)
from kafka_notify.demo._work import AttemptLog
from kafka_notify.events import DeadLettered
from kafka_notify.testing import LocalKafka

LOW = "low_priority"


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kafka_notify.demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


# -- the whole of it


def test_on_mock() -> None:
    """With nothing but the package, everything arrives in order or is a dead letter, and the demo says so."""
    done = demo("--mails", "320", "--otps", "40")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified: order kept for 300 users, nothing lost" in done.stdout
    assert "OTP p99" in done.stdout
    assert "otp-7       permanent      http.404   data redacted" in done.stdout
    assert "@example.com" not in done.stdout
    assert done.stderr == ""


@pytest.mark.kafka
def test_on_real_kafka() -> None:
    """The same holds on Apache Kafka, started for the demo."""
    done = demo("--kafka", "real", "--mails", "320", "--otps", "40")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified: order kept for 300 users, nothing lost" in done.stdout


@pytest.mark.kafka
def test_on_cluster_of_ones_own(local_kafka: LocalKafka) -> None:
    """On somebody's cluster the demo uses topics of its own, and deletes them."""
    done = demo("--kafka", local_kafka.bootstrap_servers, "--mails", "50", "--otps", "10")

    assert done.returncode == 0, done.stdout + done.stderr
    topics = AdminClient({"bootstrap.servers": local_kafka.bootstrap_servers}).list_topics(timeout=10).topics
    assert [name for name in topics if name.startswith("notif-demo-")] == []


def test_scraped_while_it_runs() -> None:
    """With --metrics-port each worker's metrics are read over HTTP while the demo runs, and show its work."""
    port = free_pair()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "kafka_notify.demo",
            "--mails",
            "600",
            "--otps",
            "60",
            "--metrics-port",
            f"{port}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    highest: dict[str, float] = {}
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
        for number in (port, port + 1):
            with suppress(OSError):  # not open yet, or not any more
                for series, value in scrape(number).items():
                    highest[series] = max(value, highest.get(series, value))
    out, err = process.communicate()

    assert process.returncode == 0, out + err
    assert f"metrics of low_priority: http://127.0.0.1:{port + 1}/metrics" in out
    for lane, channel, category in (("high_priority", "sms", "otp"), (LOW, "email", "marketing")):
        of = f'category="{category}",channel="{channel}",consumer="workers",lane="{lane}"'
        assert highest[f'kafka_notify_attempts_total{{{of},outcome="sent"}}'] > 0
        assert highest[f'kafka_notify_healthy{{consumer="workers",lane="{lane}"}}'] == 1
    assert "mail-" not in "".join(highest)


def scrape(port: int) -> dict[str, float]:
    """What /metrics says now, by series."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def free_pair() -> int:
    """A port that is free, and whose next one is."""
    for _ in range(100):
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            with suppress(OSError, OverflowError), socket.create_server(("127.0.0.1", port + 1)):
                return port
    raise AssertionError("no two free ports beside one another")


def test_lost_letters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """When dead letters are missing, the demo names the notifications, keeps its files and fails."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def find(self: DeadLetters) -> Iterator[DeadLetter]:
        return iter(())

    monkeypatch.setattr(DeadLetters, "find", find)

    status = main(["--mails", "10", "--otps", "1"])

    shown = capsys.readouterr().out
    assert status == 1
    assert "FAILED: 1 notifications were neither accepted nor dead-lettered: mail-7\n" in shown
    assert "verified" not in shown
    assert len(list(tmp_path.glob("kafka-notify-demo-*/*.attempts"))) == 2


def test_broker_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A cluster that does not answer is a failure with a reason, not a traceback."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("kafka_notify.admin._TIMEOUT", 0.1)
    assert main(["--kafka", "127.0.0.1:1"]) == 1
    assert "FAILED: " in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--kafka", "moke"], ["--mails", "0"], ["--metrics-port", "65535"]])
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments that make no sense are refused with what would."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "error: --" in capsys.readouterr().err


def test_metrics_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where prometheus_client is not installed, --metrics-port says what to install."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SystemExit, match="2"):
        main(["--metrics-port", "9464"])
    assert "pip install 'kafka-notify[prometheus]'" in capsys.readouterr().err


# -- the checks, each on a run that breaks it

THREE = [Produced(id, "u1", LOW, 10.0) for id in ("a", "b", "c")]
"""Three mails to one user, sent in this order."""


def tried(id: str, started: float, *, number: int = 1, accepted: bool = True) -> Tried:
    return Tried(id, number, started, started + 1, accepted)


def test_good_run() -> None:
    """A run that keeps its promises: retried, dead, and later ones afterwards."""
    attempts = [
        tried("a", 11, accepted=False),
        tried("a", 13, number=2),
        tried("b", 14, accepted=False),
        tried("c", 16),
    ]
    dead = {"b": 15.5}

    assert lost(THREE, attempts, dead) == []
    assert out_of_order(THREE, attempts, dead) == []
    assert sent_twice(attempts) == []
    assert result(THREE, attempts, dead, LOW) == LaneResult(sent=2, retries=1, dead=1, p50=4, p99=7)
    assert to_provider(THREE, attempts, LOW) == [1, 4, 6]


def test_lost() -> None:
    """What was neither accepted nor dead-lettered is lost, however often it was tried."""
    attempts = [tried("a", 11), tried("b", 13, accepted=False)]

    assert lost(THREE, attempts, {}) == ["b", "c"]


def test_overtaken() -> None:
    """A later one that is tried while an earlier one waits for its retry is out of order."""
    attempts = [tried("a", 11, accepted=False), tried("b", 13), tried("a", 15, number=2), tried("c", 17)]

    assert out_of_order(THREE, attempts, {}) == ["b"]


def test_overlap() -> None:
    """A later one that is tried while an earlier one is being sent is out of order."""
    assert out_of_order(THREE, [tried("a", 11), tried("b", 11.5), tried("c", 13)], {}) == ["b"]


def test_before_dead_letter() -> None:
    """A later one that is tried before the dead letter of an earlier one was written is out of order."""
    attempts = [tried("a", 11, accepted=False), tried("b", 12.5), tried("c", 14)]

    assert out_of_order(THREE, attempts, {"a": 13.0}) == ["b"]


def test_after_a_lost_one() -> None:
    """Nothing may follow one that was never settled."""
    assert out_of_order(THREE, [tried("b", 11), tried("c", 13)], {}) == ["b", "c"]


def test_other_users_and_lanes() -> None:
    """Order counts per user and lane."""
    produced = [Produced("a", "u1", LOW, 10), Produced("b", "u2", LOW, 10), Produced("c", "u1", "other", 10)]

    assert out_of_order(produced, [tried("a", 13), tried("b", 12), tried("c", 11)], {}) == []


def test_twice() -> None:
    """What the provider accepted twice is told."""
    assert sent_twice([tried("a", 11), tried("a", 13, number=2), tried("b", 11)]) == ["a"]


@pytest.mark.parametrize(("share", "value"), [(1, 1), (50, 50), (99, 99), (100, 100)])
def test_percentile(share: int, value: int) -> None:
    """A percentile is the nearest rank."""
    assert percentile([float(n) for n in range(100, 0, -1)], share) == value
    assert percentile([], share) == 0


# -- what is written and shown


def test_journal(tmp_path: Path) -> None:
    """What one process logs, another reads while it grows."""
    path = tmp_path / "log"
    log = AttemptLog(path)
    with Journal([path]) as journal:
        log.attempt("a", 1, 11.0, 504)
        log.attempt("a", 2, 12.0, 200)
        journal.read()
        assert [(each.id, each.number, each.accepted) for each in journal.attempts] == [
            ("a", 1, False),
            ("a", 2, True),
        ]
        assert journal.accepted == {"a"}

        log.event(DeadLettered("b", "otp", "sms", "permanent", "http.404", "t", 0, 0))
        log.close()
        journal.read()
        assert journal.dead == {"b"}


def test_half_a_line(tmp_path: Path) -> None:
    """A line that is half written is read when it is whole."""
    path = tmp_path / "log"
    with path.open("w", buffering=1) as file, Journal([path]) as journal:
        file.write('{"id": "b", ')
        file.flush()
        journal.read()
        assert journal.dead == set()
        file.write('"dead": "permanent"}\n')
        journal.read()
        assert journal.dead == {"b"}


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True


PROGRESS = LaneProgress("low_priority", total=2_000, produced=1_500, sent=990, waiting=5, dead=10)


def test_terminal() -> None:
    """On a terminal each look replaces the one before, within 80 columns."""
    out = Terminal()
    screen = Screen(out)
    screen.show([PROGRESS, PROGRESS], 1)
    first = out.getvalue()
    screen.show([PROGRESS, PROGRESS], 2)

    assert out.getvalue() == first + "\x1b[2F" + first
    line = first.splitlines()[0].removeprefix("\x1b[K")
    assert line.split() == "low_priority ██████████▒▒▒▒▒····· 1,000 of 2,000 5 waiting 10 dead".split()
    assert len(line) <= 80


def test_no_terminal() -> None:
    """Elsewhere a line is written at most once a second, and the last one always."""
    out = io.StringIO()
    screen = Screen(out)
    for seconds in (0.0, 0.9, 1.0):
        screen.show([PROGRESS], seconds)
    screen.show([PROGRESS], 1.6, last=True)

    assert out.getvalue().split("\n") == [
        "    0 s   low_priority 1,000/2,000",
        "    1 s   low_priority 1,000/2,000",
        "    2 s   low_priority 1,000/2,000",
        "",
    ]
