"""`work` and `send`: a notification sent from the command line is delivered by a worker started from it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from kafka_notify import Notification, Producer
from tests.cli import app
from tests.cli.conftest import Shell

pytestmark = pytest.mark.kafka


def ask(port: int, path: str) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_worker_delivers_answers_probes_and_ends_well(shell: Shell, tmp_path: Path) -> None:
    """It delivers, answers /live, /ready and /stats, logs JSON lines, and ends with 0 on SIGTERM."""
    shell.ok("topics", "create", "--consumer", "sms")
    sent = tmp_path / "sent"
    process = shell.start(
        "work", "tests.cli.app:Sms", "--lane", "high", "--health-port", "0", "--metrics-port", "0",
        env={**os.environ, "APP_SENT": str(sent)},
    )  # fmt: skip
    assert process.stderr is not None
    logged = [process.stderr.readline(), process.stderr.readline()]
    found = re.findall(r"http://127\.0\.0\.1:(\d+)/(?:live|metrics)", "".join(logged))
    port, metrics = map(int, found)
    shell.until("it is ready", lambda: ask(port, "/ready")[0] == 200)
    assert ask(port, "/live") == (200, {"ok": True, "problems": [], "paused": []})

    (record,) = [
        shell.ok(
            "send", "--user", "u1", "--category", "alert", "--channel", "sms", "--set", "text=hi", "--json"
        ).json
    ]
    assert record["topic"] == f"{shell.prefix}.high"
    shell.until("it is sent", lambda: sent.exists() and sent.read_text() == f"u1 {record['id']}\n")
    assert ask(port, "/stats")[1]["sent"] == 1
    assert ask(port, "/")[0] == 404
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as answer:
        assert b"kafka_notify" in answer.read()

    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in [*logged, *err.splitlines()]]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert any(line["message"].startswith("stopped: ") for line in lines)


def test_a_worker_that_cannot_start_ends_with_an_error(shell: Shell) -> None:
    """Missing topics are configuration, and a taken port is too."""
    process = shell.start("work", "tests.cli.app:Sms", "--lane", "high", "--log-format", "text")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "create it with create_topics()" in err) == (3, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = shell.start("work", "tests.cli.app:Sms", "--lane", "high", "--health-port", port)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert f"--health-port {port}" in err


def test_records_of_another_codec_wait_until_it_comes(shell: Shell, tmp_path: Path) -> None:
    """A worker without the codec of a topic's records kills none of them, says what it needs, and one that has it sends
    all, sensitive ones too."""
    shell.ok("topics", "create", "--consumer", "sms")
    sent = tmp_path / "sent"
    env = {**os.environ, "APP_SENT": str(sent)}
    words = ["work", "tests.cli.app:Sms", "--lane", "high", "--health-port", "0"]
    process = shell.start(*words, env=env)
    assert process.stderr is not None
    port = int(re.findall(r":(\d+)/live", process.stderr.readline())[0])
    shell.until("it is ready", lambda: ask(port, "/ready")[0] == 200)
    notifications = [
        Notification(user_id=f"u{n}", category="otp" if n % 2 else "alert", channel="sms", data={"n": n}, id=f"n{n}")
        for n in range(6)
    ]  # fmt: skip
    with Producer(shell.config, topology=shell.topology, codec=app.HexCodec()) as producer:
        for pending in [producer.send(each) for each in notifications]:
            pending.result(60)

    def said() -> str:
        return str(ask(port, "/ready")[1]["problems"])

    shell.until("it is said", lambda: "content-type application/x-hex wait" in said())
    shell.until("the lane is held", lambda: "codec_unavailable.content_type" in said())
    assert "--codec MODULE:NAME" in said()
    assert shell.ok("dlq", "list", "--json").json["total"] == 0
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "application/x-hex" in err

    shell.start(*words, "--codec", "tests.cli.app:HexCodec", env=env)
    shell.until("all are sent", lambda: sent.exists() and len(sent.read_text().splitlines()) == 6)
    assert sorted(sent.read_text().split()[1::2]) == [f"n{n}" for n in range(6)]
    assert shell("work", "tests.cli.app:Sms", "--lane", "high", "--codec", "tests.cli.app:NOTHING").code == 3


def test_send_takes_data_from_a_file_and_refuses_what_is_none(shell: Shell, tmp_path: Path) -> None:
    """A JSON object, and values that were set on top; anything else is refused without being shown."""
    shell.ok("topics", "create", "--consumer", "sms")
    words = ["send", "--user", "u", "--category", "alert", "--channel", "sms"]
    file = tmp_path / "data.json"
    file.write_text('{"a": 1}')
    shell.ok(*words, "--data", str(file), "--set", "b=2", "--header", "traceparent=00", "--id", "mine")
    for text in ("[1]", "secret-no-json"):
        file.write_text(text)
        refused = shell(*words, "--data", str(file))
        assert refused.code == 3
        assert "secret" not in refused.err
    assert shell(*words, "--set", "b").code == 2
