"""Workers of an older version and of this one in the same group: a deploy, then a rollback, while retries wait.

The older version comes from the history of the project's repository, as nothing of it was released yet.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from kafka_notify import Notification
from kafka_notify.testing.attempt_log import Started
from kafka_notify.testing.guarantees import DuplicatesBounded
from tests.guarantees.fleet import ROOT, Fleet

pytestmark = [pytest.mark.kafka, pytest.mark.soak, pytest.mark.timeout(900)]

VERSIONS: Final[dict[str, tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "without wide retries": ("e81eaa2cace934db285e04bfbd07e03262674567", {}, {"wide_retries": False}),
}
"""Commit of the older version, and fields of `Spec` of its workers and of ours."""
RENAMED: Final = {"initial_delay": "first", "multiplier": "factor", "max_delay": "cap"}
"""Fields of a retry policy, and what they are called in that version."""
WAITING: Final = 300


def unpacked(commit: str, directory: Path) -> Path:
    """The older version's workers, in a directory."""
    done = subprocess.run(
        ["git", "archive", commit, "src", "tests"], cwd=ROOT, capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"git has no commit {commit[:12]} here: this needs a clone with the whole history")
    directory.mkdir()
    subprocess.run(["tar", "-x", "-C", str(directory)], input=done.stdout, check=True)
    return directory


def as_then(topology: dict[str, Any]) -> dict[str, Any]:
    """The topology in the words of that version."""
    lanes = []
    for lane in topology["lanes"]:
        retry = {RENAMED.get(name, name): value for name, value in lane["retry"].items() if value is not None}
        lanes.append({**lane, "retry": retry})
    return {**topology, "lanes": lanes}


def later(f: Fleet, gate: Path, n: int) -> Iterator[Notification[Any]]:
    """A notification whose provider throttles it until the gate is there, and one behind it."""
    yield f.notification(f"w{n}", n=n, plan=["throttle"], gate=str(gate), seconds=0)
    yield f.notification(f"w{n}", n=n, plan=["ok"], seconds=0)


@pytest.mark.parametrize("leave", ["stop", "kill"])
@pytest.mark.parametrize("version", VERSIONS)
def test_deploy_and_rollback(fleet: Callable[..., Fleet], tmp_path: Path, version: str, leave: str) -> None:
    """Workers of the older version are replaced by ours one by one, and ours by theirs again, while retries wait from
    the beginning to the end: nothing is lost, each user's order is kept, and where all are stopped in an orderly way
    nothing is sent twice."""
    commit, theirs, ours = VERSIONS[version]
    root = unpacked(commit, tmp_path / "older")
    f = fleet(attributes={"breaker": None})
    theirs = {**theirs, "root": root, "topology": as_then(f.topology.to_dict())}
    gate = tmp_path / "open"
    waiting = f.produce(n for u in range(WAITING // 2) for n in later(f, gate, u))
    heads = {p.id for p in waiting[::2]}

    def traffic(seed: int) -> None:
        f.produce(f.traffic(200, users=40, seed=seed, failures=leave == "kill"))

    def replace(old: str, new: str, **changes: Any) -> None:
        f.start(new, **changes)
        f.until_owned(new)
        getattr(f, leave)(old)
        since = len(f.lines)
        f.until(
            lambda: {line.id for line in f.lines[since:] if isinstance(line, Started)} >= heads,
            f"attempt of all that waits after the end of {old}",
        )

    f.start("older-1", "older-2", **theirs)
    f.until_owned("older-1", "older-2")
    traffic(1)
    f.until(lambda: heads <= {line.id for line in f.all(Started)}, "first attempt of all that waits")
    replace("older-1", "ours-1", **ours)
    traffic(2)
    replace("older-2", "ours-2", **ours)
    traffic(3)
    replace("ours-1", "older-3", **theirs)
    traffic(4)
    replace("ours-2", "older-4", **theirs)
    assert not heads & f.terminal
    gate.touch()
    f.finish()
    held = f.verify()
    if leave == "stop":
        assert held.checker(DuplicatesBounded).duplicates == 0
