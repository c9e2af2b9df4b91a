"""`status`: what is said from outside is what is so."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from kafka_notify import Config, Notification, Worker
from tests.cli import app
from tests.cli.conftest import Shell

pytestmark = pytest.mark.kafka


def alerts(count: int, plan: str = "", *, users: int = 1_000) -> list[Notification[object]]:
    return [
        Notification(user_id=f"u{n % users}", category="alert", channel="sms", data={"plan": plan})
        for n in range(count)
    ]


@contextmanager
def workers(shell: Shell, count: int, config: Config | None = None) -> Iterator[list[Worker]]:
    """So many members of one group."""
    with ExitStack() as stack:
        made = [
            Worker(app.Sms, shell.config, lane="high", topology=shell.topology, consumer_config=config)
            for _ in range(count)
        ]
        yield [stack.enter_context(worker) for worker in made]


def test_a_backlog_that_nobody_reads(shell: Shell) -> None:
    """Everything is open and lags, its age is the oldest one's, and the missing worker is a warning."""
    shell.ok("topics", "create", "--consumer", "sms")
    before = time.time()
    shell.produce(alerts(100))
    said = shell.ok("status", "--json", "--interval", "0.1").json
    (group,) = said["groups"]
    assert (group["open"], group["lag"], group["members"], group["partitions"]) == (100, 100, 0, 3)
    assert 0 <= group["oldest_seconds"] <= time.time() - before + 1
    assert any("no worker has ever run" in warning["text"] for warning in said["warnings"])
    assert shell("status", "--check", "--interval", "0.1").code == 1
    old = shell.ok("status", "--json", "--interval", "0.1", "--max-age", "0")
    assert any("unfinished notification is" in warning["text"] for warning in old.json["warnings"])


def test_what_retention_removes_soon_is_a_warning(shell: Shell) -> None:
    """An open notification that its topic does not keep for much longer is a warning."""
    shell.ok("topics", "create", "--consumer", "sms")
    source = shell.topology.source_topic("high")
    headers: Any = [("notif-category", b"alert"), ("notif-channel", b"sms")]
    raw = confluent_kafka.Producer({"bootstrap.servers": shell.servers})
    written = round((time.time() - 3_000) * 1000)
    raw.produce(source, b"{}", b"u", partition=0, timestamp=written, headers=headers)
    assert raw.flush(30) == 0
    shell.produce(alerts(5, users=5))

    def warned() -> str:
        warnings = shell.ok("status", "--json", "--interval", "0.1").json["warnings"]
        return " ".join(w["text"] for w in warnings)

    assert "retention removes" not in warned()
    entry = ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, source, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": shell.servers})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(30)
    shell.until("a warning", lambda: f"retention removes the oldest open record of {source}" in warned())


def test_what_waits_for_a_retry_is_told_by_due_time_and_cause(shell: Shell) -> None:
    """Waiting retries are counted with their due times and codes; what is finished around them is not open."""
    shell.ok("topics", "create", "--consumer", "sms")
    shell.produce([*alerts(5, "transient", users=5), *alerts(50, users=50)[5:]])
    with workers(shell, 1) as (worker,):
        shell.until("the others are sent", lambda: worker.stats().sent == 45)
        shell.until("retries wait", lambda: shell.group("sms")["waiting"]["due"]["10 min"] == 5)
        group = shell.group("sms")
        assert (group["open"], group["waiting"]["total"], group["waiting"]["codes"]) == (
            5,
            5,
            {"acme.busy": 5},
        )
        assert group["waiting"]["complete"]
        first = shell.ok("status", "--json", "--interval", "0.1", "--limit", "2").json["groups"][0]["waiting"]
        assert (first["total"], first["complete"]) == (5, False)
        text = shell.ok("status", "--interval", "0.1").out
        assert "acme.busy 5" in text


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_more_members_than_partitions_is_a_warning(shell: Shell, protocol: str) -> None:
    """Members that can never be given a partition are named as idle, in both group protocols."""
    shell.ok("topics", "create", "--consumer", "sms")
    with workers(shell, 4, {"group.protocol": protocol}):
        shell.until("all have joined", lambda: shell.group("sms")["members"] == 4)
        shell.until("the group is stable", lambda: shell.group("sms")["state"] == "stable")
        said = shell("status", "--check", "--interval", "0.1")
        assert said.code == 1
        assert "4 members share 3 partitions: 1 stand idle" in said.out


def test_dead_letters_and_rates_are_counted(shell: Shell) -> None:
    """Letters are counted per topic, and what came in and was finished between two looks per second."""
    shell.ok("topics", "create", "--consumer", "sms")
    with workers(shell, 1) as (worker,):
        process = shell.start("status", "--watch", "--json", "--interval", "1")
        assert process.stdout is not None
        process.stdout.readline()  # it looks
        shell.produce([*alerts(40), *alerts(2, "permanent")])
        shell.until("all is done", lambda: worker.stats().sent == 40 and worker.stats().dead == 2)
        seen = 0.0
        while not seen:
            line = process.stdout.readline()
            assert line, "the watch ended"
            seen = json.loads(line)["groups"][0]["finished_per_second"]
    letters = shell.ok("status", "--json", "--interval", "0.1").json["dead_letters"]
    assert letters == {f"{shell.prefix}.dlq": {"kept": 2, "last_hour": 2}}


def test_a_pause_and_what_it_holds_are_shown(shell: Shell) -> None:
    """A paused category is named, with what waits because of it; resumed, nothing waits any more."""
    shell.ok("topics", "create", "--consumer", "sms")
    with workers(shell, 1) as (worker,):
        made = shell.ok("pause", "--category", "alert", "--reason", "test", "--for", "1h", "--json").json
        assert (made["kind"], made["name"], made["reason"], made["lane"]) == (
            "category",
            "alert",
            "test",
            None,
        )
        shell.until("the worker knows", lambda: bool(worker.stats().paused))
        shell.produce(alerts(30, users=30))
        shell.until("all are held", lambda: shell.group("sms")["waiting"]["paused"] == 30)
        assert "paused: category alert" in shell.ok("status", "--interval", "0.1").out
        assert [each["name"] for each in shell.ok("paused", "--json").json] == ["alert"]
        assert shell.ok("resume", "--category", "alert", "--json").json == {"resumed": True, "paused": []}
        shell.until("all are sent", lambda: worker.stats().sent == 30)
        assert "was not paused" in shell.ok("resume", "--category", "alert").out
        assert "nothing is paused" in shell.ok("paused").out


def test_names_that_nobody_knows_are_not_paused(shell: Shell) -> None:
    """A typing error at night must not read as: paused."""
    assert "does not exist" in shell("pause", "--channel", "sms").err  # before there is a control topic
    shell.ok("topics", "create", "--consumer", "sms")
    assert shell("pause", "--channel", "smss").code == 3
    assert shell("pause", "--consumer", "workers").code == 3
    assert shell("pause", "--category", "alert", "--lane", "hihg").code == 3
    assert shell.ok("paused", "--json").json == []
    shell.ok("pause", "--consumer", "sms", "--lane", "high")
    assert [each["lane"] for each in shell.ok("paused", "--json").json] == ["high"]
