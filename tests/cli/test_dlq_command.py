"""`dlq`: what died is listed, shown, exported and redriven; a redrive that was killed is finished by the next."""

from __future__ import annotations

import json
import os
import signal
import stat
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from kafka_notify import Notification, Producer, Worker, wire
from kafka_notify._kafka.config import producer_config
from kafka_notify._kafka.handle import ProducerHandle
from kafka_notify.codec import JsonCodec
from tests.cli import app
from tests.cli.conftest import Shell

pytestmark = pytest.mark.kafka


@pytest.fixture
def dead(shell: Shell) -> Shell:
    """Twelve letters of three users, whom a worker gave up on."""
    shell.ok("topics", "create", "--consumer", "sms")
    shell.produce(
        [
            Notification(
                user_id=f"secret-user-{n % 3}", category="alert" if n % 4 else "otp", channel="sms",
                recipient="+15550100", data={"plan": "permanent", "n": n}, id=f"n{n:02}",
            )
            for n in range(12)
        ]
    )  # fmt: skip
    with Worker(app.Sms, shell.config, lane="high", topology=shell.topology) as worker:
        shell.until("all have died", lambda: worker.stats().dead == 12)
    return shell


def test_letters_are_listed_without_users_and_payloads(dead: Shell) -> None:
    """list counts by reason and code and shows where each letter lies; filters narrow it down."""
    listed = dead.ok("dlq", "list", "--limit", "5")
    assert "12 dead letters, 5 of them shown" in listed.out
    assert "acme.refused" in listed.out
    assert "secret-user" not in listed.out
    assert "+1555" not in listed.out
    found = dead.ok("dlq", "list", "--json", "--category", "otp").json
    assert (found["total"], {x["redacted"] for x in found["letters"]}) == (3, {True})
    assert dead.ok("dlq", "list", "--json", "--since", "1h", "--user", "secret-user-1").json["total"] == 4
    assert dead.ok("dlq", "list", "--json", "--until", "1h").json["total"] == 0


def test_a_letter_is_shown_and_its_data_only_when_asked(dead: Shell) -> None:
    """show tells the whole story of one notification; --reveal adds what is personal."""
    shown = dead.ok("dlq", "show", "n01")
    assert "acme.refused" in shown.out
    assert "secret-user" not in shown.out
    (revealed,) = dead.ok("dlq", "show", "n01", "--reveal", "--json").json
    assert (revealed["user_id"], revealed["recipient"]) == ("secret-user-1", "+15550100")
    assert json.loads(revealed["value"])["n"] == 1
    assert dead("dlq", "show", "nobody").code == 1


def test_what_is_redacted_is_shown_from_its_source_record(dead: Shell) -> None:
    """A sensitive payload is in no letter; show says until when its source topic keeps it, --reveal shows it."""
    shown = dead.ok("dlq", "show", "n04")
    assert "its source record is kept, payload included until 20" in shown.out
    assert "secret-user" not in shown.out
    (plain,) = dead.ok("dlq", "show", "n04", "--json").json
    assert (plain["redacted"], plain["source"]["state"]) == (True, "kept")
    assert "value" not in plain
    (revealed,) = dead.ok("dlq", "show", "n04", "--reveal", "--json").json
    assert json.loads(revealed["value"]) == {"plan": "permanent", "n": 4}


def test_an_export_is_complete_and_private(dead: Shell, tmp_path: Path) -> None:
    """The file is there when it is complete, for its owner alone, and is not overwritten by mistake."""
    file = tmp_path / "letters.jsonl"
    dead.ok("dlq", "export", str(file), "--personal", "--reason", "permanent")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["id"] for line in lines) == [f"n{n:02}" for n in range(12)]
    assert {line["user_id"] for line in lines} == {f"secret-user-{n}" for n in range(3)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["letters.jsonl"]
    assert dead("dlq", "export", str(file)).code == 2
    dead.ok("dlq", "export", str(file), "--force")
    assert "secret-user" not in file.read_text()
    assert len(dead.ok("dlq", "export", "-").out.splitlines()) == 12


def test_a_reader_that_goes_away_ends_it_quietly(dead: Shell) -> None:
    """`dlq export - | head -1` says nothing of a closed pipe, however much there was to come."""
    process = dead.start("dlq", "export", "-", "--personal")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait(60)


def test_a_redrive_is_counted_first_and_done_when_told(dead: Shell) -> None:
    """Without --go nothing is written; with it each letter goes back once, redacted ones from their source records."""
    counted = dead.ok("dlq", "redrive")
    assert "12 dead letters would be redriven" in counted.out
    done = dead.ok("dlq", "redrive", "--go", "--json").json
    assert (done["redriven"], done["skipped"], done["dry_run"]) == (12, {}, False)
    again = dead.ok("dlq", "redrive", "--go", "--json").json
    assert (again["redriven"], again["skipped"]) == (0, {"already_redriven": 12})


# -- many ------------------------------------------------------------------------------------------

USERS = 50
LETTERS = 1_000


def bury(shell: Shell, numbers: Iterable[int]) -> None:
    """Write letters as a worker of many users would have left them, each user's in the order of the origins.

    The notifications themselves lie in the source, too, and are committed as finished: a worker that starts then
    sends what was redriven and nothing else.
    """
    topology = shell.topology
    source, group = topology.source_topic("high"), topology.group("high", "sms")
    notifications: list[Notification[Any]] = [
        Notification(user_id=f"u{n % USERS}", category="alert", channel="sms", data={}, id=f"n{n}")
        for n in numbers
    ]
    with Producer(shell.config, topology=topology) as producer:
        places = [pending.result(60) for pending in [producer.send(each) for each in notifications]]
    handle = ProducerHandle(producer_config(shell.config, "throughput", copies=True), name="test")
    for each, place in zip(notifications, places, strict=True):
        key, value, headers = wire.encode(each, JsonCodec(), source, None)
        origin = wire.Origin(source, place.partition, place.offset)
        history = wire.History(4, 0, 1, None, "TransientError", "acme.503", "acme")
        at = int(place.timestamp.timestamp() * 1000)
        state = wire.DeadLetterState(origin, history, "max_attempts", at, group, "intact")
        letter = wire.dead_letter(headers, state)
        handle.produce(topology.dlq_topic("high"), value, key, letter)
    handle.close(60)
    ends = [TopicPartition(source, n, sum(place.partition == n for place in places)) for n in range(3)]
    consumer = Consumer({"bootstrap.servers": shell.servers, "group.id": group})
    consumer.commit(offsets=ends, asynchronous=False)
    consumer.close()


def test_a_redrive_killed_half_way_is_finished_by_the_next(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGKILL of the command in the middle, a second run writes the rest: every letter is sent once, each user's
    in their order."""
    shell.ok("topics", "create", "--consumer", "sms")
    bury(shell, range(LETTERS))
    watcher = Consumer({"bootstrap.servers": shell.servers, "group.id": uuid.uuid4().hex})
    retry = shell.topology.retry_topic("high", "sms")

    def written() -> int:
        return sum(
            watcher.get_watermark_offsets(TopicPartition(retry, n), 10, cached=False)[1] for n in range(3)
        )

    killed = shell.start("dlq", "redrive", "--go", "--rate", "200")
    shell.until("half of it is written", lambda: written() >= LETTERS // 3)
    killed.kill()
    killed.wait(30)
    at_kill = written()
    watcher.close()
    assert at_kill < LETTERS

    done = shell.ok("dlq", "redrive", "--go", "--json").json
    assert done["redriven"] + done["skipped"]["already_redriven"] == LETTERS
    monkeypatch.setenv("APP_SENT", str(tmp_path / "sent"))
    with Worker(app.Sms, shell.config, lane="high", topology=shell.topology) as worker:
        shell.until("all are sent", lambda: worker.stats().sent >= LETTERS)
        shell.until("nothing is open", lambda: shell.group("sms")["open"] == 0)
    sent = [line.split() for line in (tmp_path / "sent").read_text().splitlines()]
    assert sorted(id for _, id in sent) == sorted(f"n{n}" for n in range(LETTERS))
    for user in range(USERS):
        theirs = [int(id[1:]) for who, id in sent if who == f"u{user}"]
        assert theirs == sorted(theirs)


def test_a_redrive_is_cancelled_by_ctrl_c_and_resumed(shell: Shell) -> None:
    """SIGINT ends it with 130 after what was written is acknowledged, and says what is left; the next run does that."""
    shell.ok("topics", "create", "--consumer", "sms")
    bury(shell, range(300))
    watcher = Consumer({"bootstrap.servers": shell.servers, "group.id": uuid.uuid4().hex})
    retry = shell.topology.retry_topic("high", "sms")

    def written() -> int:
        return sum(
            watcher.get_watermark_offsets(TopicPartition(retry, n), 10, cached=False)[1] for n in range(3)
        )

    process = shell.start("dlq", "redrive", "--go", "--rate", "50", "--json")
    shell.until("some are written", lambda: written() >= 20)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    report = json.loads(out)
    assert report["cancelled"]
    assert report["redriven"] == written()
    assert report["redriven"] + report["remaining"] == 300
    watcher.close()
    assert shell.ok("dlq", "redrive", "--go", "--json").json["redriven"] == report["remaining"]
