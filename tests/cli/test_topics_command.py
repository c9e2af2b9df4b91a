"""`topics`: plan, create and check against a real cluster; growing only when nothing is in flight."""

from __future__ import annotations

import pytest

from kafka_notify import Notification, Worker
from tests.cli import app
from tests.cli.conftest import Shell

pytestmark = pytest.mark.kafka

GROWN = ("--topology", "tests.cli.app:grown")
SHRUNK = ("--topology", "tests.cli.app:shrunk")


def test_what_is_planned_is_created(shell: Shell) -> None:
    """plan lists what is missing and exits with 1; create makes it; then plan and check are content."""
    planned = shell("topics", "plan", "--consumer", "sms", "--json")
    assert planned.code == 1
    changes = {change["topic"].removeprefix(f"{shell.prefix}."): change for change in planned.json["changes"]}
    assert {topic: change["wanted"] for topic, change in changes.items()} == {
        "high": 3, "retry.high.sms": 3, "dlq": 3, "control": 1,
    }  # fmt: skip
    assert {change["action"] for change in changes.values()} == {"create"}

    created = shell.ok("topics", "create", "--consumer", "sms", "--json").json["created"]
    assert sorted(created) == sorted(f"{shell.prefix}.{topic}" for topic in changes)
    assert {c["action"] for c in shell.ok("topics", "plan", "--json").json["changes"]} == {"keep"}
    assert all(f["severity"] == "warning" for f in shell.ok("topics", "check", "--json").json)  # one replica
    assert shell("topics", "check", "--strict").code == 1
    assert "nothing to do" in shell.ok("topics", "create").out


def test_a_missing_topic_is_found(shell: Shell) -> None:
    """check exits with 1 when something is an error."""
    found = shell("topics", "check", "--consumer", "sms")
    assert found.code == 1
    assert "is missing" in found.out


def test_growing_waits_until_nothing_is_in_flight(shell: Shell) -> None:
    """More partitions are refused with the safe way while anything is open, what waits for a retry included; when all
    is finished the retry topic grows before its source."""
    shell.ok("topics", "create", "--consumer", "sms")
    stays = Notification(user_id="u", category="alert", channel="sms", data={"plan": "transient"}, id="stays")
    shell.produce([stays])
    with Worker(app.Sms, shell.config, lane="high", topology=shell.topology):
        shell.until("its retry waits", lambda: shell.group("sms")["waiting"]["due"]["10 min"] == 1)
        assert shell("topics", "create", *GROWN).code == 1  # without --grow nothing grows
        refused = shell("topics", "create", "--grow", *GROWN)
        assert refused.code == 5
        assert f"1 of {shell.prefix}.high.sms" in refused.err
        assert "The safe way" in refused.err
        planned = shell("topics", "plan", "--json", *GROWN).json
        assert planned["open"] == {"high": {f"{shell.prefix}.high.sms": 1}}
        assert {c["now"] for c in planned["changes"] if c["action"] == "grow"} == {3}


def test_an_empty_lane_grows(shell: Shell) -> None:
    """With --grow and nothing open, source and retry topics get their new number; shrinking is never possible."""
    shell.ok("topics", "create", "--consumer", "sms")
    assert shell.ok("topics", "create", "--grow", "--json", *GROWN).json["grown"] == [
        f"{shell.prefix}.high", f"{shell.prefix}.retry.high.sms",
    ]  # fmt: skip
    assert all(
        c["now"] == 5 for c in shell.ok("topics", "plan", "--json", *GROWN).json["changes"] if c["lane"]
    )
    shrunk = shell("topics", "plan", *SHRUNK)
    assert shrunk.code == 1
    assert "write Lane('high', partitions=5)" in shrunk.out
