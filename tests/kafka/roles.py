"""Who needs which right, and what is said without it: run against a broker, and shown as the table of the run-book."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from kafka_notify import (
    Attempt,
    Category,
    Consumer,
    Lane,
    Notification,
    NotifyError,
    PermanentError,
    Producer,
    Receipt,
    RetryPolicy,
    Topology,
    TransientError,
    Worker,
)
from kafka_notify.admin import create_topics
from kafka_notify.cli import main
from tests.kafka.secured import Right, Secured, unique

LANE: Final = "high_priority"
PATIENCE: Final = 60.0


@attrs.frozen
class Said:
    """What became of an attempt to work."""

    text: str
    """All that was said, errors, health and log together."""
    ready: str = ""
    live: str = ""
    failed: bool = False
    """Whether what was to be done was not done."""
    seconds: float = 0.0
    when: str = ""
    """At the start, with the call, or while it runs."""


START: Final = "when it starts"
CALL: Final = "when it is called"
RUNS: Final = f"within {PATIENCE:g} s"


def topology(prefix: str, partitions: int = 1) -> Topology:
    """One lane, named as in the run-book."""
    return Topology(
        lanes=[Lane(LANE, partitions=partitions, retry=RetryPolicy(initial_delay=3600, jitter=0))],
        categories=[Category("otp", LANE)],
        channels=["sms"],
        prefix=prefix,
    )


def notification(n: int) -> Notification[Any]:
    return Notification(user_id=f"u{n}", category="otp", channel="sms", data={"n": n}, id=f"n{n}")


class Fails(Consumer):
    """One user's sends fail, another's are dead letters, all others are accepted."""

    breaker = None

    def __init__(self) -> None:
        self.sent = threading.Event()

    async def send(self, notification: Notification[Any], attempt: Attempt) -> Receipt:
        if notification.user_id == "u1":
            raise TransientError("x")
        if notification.user_id == "u2":
            raise PermanentError("x")
        self.sent.set()
        return Receipt("x")


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def logged() -> Any:
    """What this library logs meanwhile."""
    handler = _Lines()
    log = logging.getLogger("kafka_notify")
    log.addHandler(handler)
    try:
        yield handler.lines
    finally:
        log.removeHandler(handler)


Expected = str | None


def work(config: dict[str, Any], site: Topology, expected: Expected) -> Said:
    """Start a worker and wait until it has done all, or says what is expected."""
    began = time.monotonic()
    consumer = Fails()
    worker = Worker(consumer, config, lane=LANE, topology=site)
    with logged() as lines:
        try:
            worker.start()
        except NotifyError as e:
            return Said(str(e), failed=True, seconds=time.monotonic() - began, when=START)
        try:

            def said() -> str:
                return "\n".join((*worker.health().problems, *lines))

            def done() -> bool:
                if expected is not None:
                    return expected in said()
                stats = worker.stats()
                return (
                    stats.sent == 1 and stats.waiting_retries == 1 and stats.dead == 1 and not stats.in_flight
                )

            until(done)
            health = worker.health()
            return Said(
                said(),
                "200" if health.ok else "503",
                "200" if health.live else "503",
                not health.ok,
                time.monotonic() - began,
                RUNS,
            )
        finally:
            worker.stop(0)


def produce(config: dict[str, Any], site: Topology, _: Expected) -> Said:
    """Send one notification."""
    began = time.monotonic()
    with Producer(config, topology=site) as producer:
        try:
            producer.send(notification(9)).result(PATIENCE)
        except NotifyError as e:
            return Said(str(e), failed=True, seconds=time.monotonic() - began, when=CALL)
    return Said("", seconds=time.monotonic() - began)


def command(*words: str, good: Sequence[int] = (0,)) -> Callable[..., Said]:
    """Run a command of the command line."""

    def run(config: dict[str, Any], site: Topology, _: Expected) -> Said:
        began = time.monotonic()
        path = Path(config["file"])
        out, err = io.StringIO(), io.StringIO()
        with logged() as lines, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words, "--config", str(path), "--topology", "tests.kafka.roles:site_of_commands"])
        said = "\n".join((*err.getvalue().splitlines(), *out.getvalue().splitlines(), *lines))
        return Said(said, failed=code not in good, seconds=time.monotonic() - began, when=CALL)

    return run


site_of_commands: Any = None


def grow(config: dict[str, Any], site: Topology, expected: Expected) -> Said:
    """Give the topics a second partition."""
    global site_of_commands
    site_of_commands = topology(site.prefix, 2)
    return command("topics", "create", "--grow")(config, site_of_commands, expected)


def plan_growth(config: dict[str, Any], site: Topology, expected: Expected) -> Said:
    """See what a second partition would break."""
    global site_of_commands
    site_of_commands = topology(site.prefix, 2)
    return command("topics", "plan", good=(0, 1))(config, site_of_commands, expected)


@attrs.frozen
class Role:
    """Something that is done, with what it needs."""

    name: str
    act: Callable[[dict[str, Any], Topology, Expected], Said]
    rights: Sequence[tuple[str, str]]
    """Right (`Read topic notif.dlq`), and what is said without it."""
    cluster: Callable[[Secured, Topology], None] = lambda k, site: None
    """Makes what has to be there."""


def right(text: str, prefix: str) -> Right:
    operation, kind, *name = text.split()
    return Right(operation, kind, (name or [""])[0].replace("notif", prefix, 1))


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    pause = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        pause.wait(0.05)


def attempt(kafka: Secured, role: Role, missing: str | None, expected: Expected, tmp: Path) -> Said:
    """Do what a role does with all its rights but one."""
    global site_of_commands
    prefix = unique()
    site = topology(prefix)
    role.cluster(kafka, site)
    granted = [text for text, _ in role.rights if text != missing]
    if missing in IMPLIED:
        granted.append(IMPLIED[missing])
    config = kafka.user([right(text, prefix) for text in granted])
    file = tmp / f"{prefix}.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in config.items()))
    site_of_commands = site
    wanted = None if expected is None else expected.replace("notif", prefix)
    if role.act in (work, produce):
        said = role.act(config, site, wanted)
    else:
        said = role.act({**config, "file": str(file)}, site, wanted)
    return attrs.evolve(said, text=said.text.replace(prefix, "notif"))


def made(kafka: Secured, site: Topology) -> None:
    create_topics(site, kafka.admin)


def with_records(kafka: Secured, site: Topology) -> None:
    made(kafka, site)
    with Producer(kafka.admin, topology=site) as producer:
        for n in range(3):
            producer.send(notification(n))
        producer.flush()


def with_letter(kafka: Secured, site: Topology) -> None:
    """A worker was here: commits, a dead letter, a waiting retry."""
    with_records(kafka, site)
    work(kafka.admin, site, None)


def with_pause(kafka: Secured, site: Topology) -> None:
    from kafka_notify.pauses import Pauses

    made(kafka, site)
    Pauses(kafka.admin, topology=site).pause("channel", "sms")


SOURCE, RETRY, DLQ = f"notif.{LANE}", f"notif.retry.{LANE}", "notif.dlq"
GROUP, CONTROL = f"{SOURCE}.workers", "notif.control"


def lacks(operation: str, resource: str) -> str:
    return f"the right to {operation} on {resource} is missing"


ROLES: Sequence[Role] = (
    Role(
        "producer",
        produce,
        [(f"Write topic {SOURCE}", lacks("Write", f"topic {SOURCE}"))],
        made,
    ),
    Role(
        "worker",
        work,
        [
            (f"Read topic {SOURCE}", lacks("Read", f"topic {SOURCE}")),
            (f"Read topic {RETRY}", lacks("Read", f"topic {RETRY}")),
            (f"Write topic {RETRY}", lacks("Write", f"topic {RETRY}")),
            (f"Write topic {DLQ}", lacks("Write", f"topic {DLQ}")),
            (f"Read group {GROUP}", lacks("Read", f"group {GROUP}")),
            (
                f"Read topic {CONTROL}",
                "nothing can be paused at run time; " + lacks("Read", f"topic {CONTROL}"),
            ),
            (f"DescribeConfigs topic {SOURCE}", lacks("DescribeConfigs", f"topic {SOURCE}")),
            (f"DescribeConfigs topic {RETRY}", lacks("DescribeConfigs", f"topic {RETRY}")),
        ],
        with_records,
    ),
    Role(
        "`topics create`",
        command("topics", "create"),
        [
            ("Create topic notif*", lacks("Create", f"topic {SOURCE}")),
            ("Describe topic notif*", lacks("Describe", f"topic {SOURCE}")),
        ],
    ),
    Role(
        "`topics create --grow`",
        grow,
        [
            ("Alter topic notif*", "the right to Alter on topic notif."),
            ("Describe group notif*", lacks("Describe", f"group {GROUP}")),
        ],
        made,
    ),
    Role(
        "`topics plan`",
        plan_growth,
        [
            ("Describe topic notif*", lacks("Describe", f"topic {SOURCE}")),
            ("DescribeConfigs topic notif*", "the right to DescribeConfigs on topic notif."),
            ("DescribeConfigs cluster", "allow DescribeConfigs on the cluster"),
            ("Describe group notif*", lacks("Describe", f"group {GROUP}")),
        ],
        made,
    ),
    Role(
        "`topics check`",
        command("topics", "check", "--consumer", "workers", good=(0, 1)),
        [
            ("Describe topic notif*", lacks("Describe", f"topic {SOURCE}")),
            ("DescribeConfigs topic notif*", "the right to DescribeConfigs on topic notif."),
            ("DescribeConfigs cluster", "allow DescribeConfigs on the cluster"),
            ("Describe group notif*", "are not found: " + lacks("Describe", f"group {GROUP}")),
        ],
        made,
    ),
    Role(
        "`status`",
        command("status", good=(0, 1)),
        [
            ("Read topic notif*", "the right to Describe on topic notif."),
            ("Describe group notif*", lacks("Describe", f"group {GROUP}")),
        ],
        with_letter,
    ),
    Role(
        "`dlq list`",
        command("dlq", "list"),
        [(f"Read topic {DLQ}", lacks("Describe", f"topic {DLQ}"))],
        with_letter,
    ),
    Role(
        "`dlq show`",
        command("dlq", "show", "n2"),
        [
            (f"Read topic {DLQ}", lacks("Describe", f"topic {DLQ}")),
            (f"Read topic {SOURCE}", lacks("Describe", f"topic {SOURCE}")),
        ],
        with_letter,
    ),
    Role(
        "`dlq export`",
        command("dlq", "export", "-"),
        [(f"Read topic {DLQ}", lacks("Describe", f"topic {DLQ}"))],
        with_letter,
    ),
    Role(
        "`dlq redrive`",
        command("dlq", "redrive", "--go"),
        [
            (f"Read topic {DLQ}", lacks("Describe", f"topic {DLQ}")),
            (f"Read topic {SOURCE}", lacks("Describe", f"topic {SOURCE}")),
            (f"Read topic {RETRY}", lacks("Read", f"topic {RETRY}")),
            (f"Write topic {RETRY}", lacks("Write", f"topic {RETRY}")),
            (f"Describe group {GROUP}", "allow Describe on the groups of the lane"),
        ],
        with_letter,
    ),
    Role(
        "`send`",
        command("send", "--user", "u9", "--category", "otp", "--channel", "sms", "--set", "n=1"),
        [(f"Write topic {SOURCE}", lacks("Write", f"topic {SOURCE}"))],
        made,
    ),
    Role(
        "`pause`",
        command("pause", "--channel", "sms"),
        [
            (f"Write topic {CONTROL}", lacks("Write", f"topic {CONTROL}")),
        ],
        made,
    ),
    Role(
        "`resume`",
        command("resume", "--channel", "sms"),
        [
            (f"Read topic {CONTROL}", lacks("Read", f"topic {CONTROL}")),
            (f"Write topic {CONTROL}", lacks("Write", f"topic {CONTROL}")),
        ],
        with_pause,
    ),
    Role(
        "`paused`",
        command("paused"),
        [(f"Read topic {CONTROL}", lacks("Describe", f"topic {CONTROL}"))],
        made,
    ),
)
IMPLIED: Final = {
    "Alter topic notif*": "Describe topic notif*",
    f"Write topic {CONTROL}": f"Describe topic {CONTROL}",
}
"""Rights that are taken away alone: what they imply stays, as otherwise that would be missed first."""
WARNED: Final = frozenset(
    {f"Read topic {CONTROL}", f"DescribeConfigs topic {SOURCE}", f"DescribeConfigs topic {RETRY}"}
)
"""What a worker warns of, and does without."""


REFUSED_START: Final = frozenset({f"Read topic {SOURCE}", f"Write topic {DLQ}"})
"""Without which a worker does not start."""


def when(role: Role, needed: str) -> str:
    """After how long it is said that a right is missing."""
    if role.name != "worker":
        return CALL
    return START if needed in REFUSED_START else RUNS


def answers(role: Role, needed: str) -> tuple[str, str]:
    """What `/ready` and `/live` of a worker that runs answer."""
    if when(role, needed) != RUNS:
        return "", ""
    return "200" if needed in WARNED else "503", "200"


def table() -> str:
    """The table of the run-book."""
    lines = ["| who | right | without it | after how long | `/ready`, `/live` |", "|---|---|---|---|---|"]
    for role in ROLES:
        for needed, said in role.rights:
            probes = ", ".join(filter(None, answers(role, needed)))
            lines.append(f"| {role.name} | {needed} | `{said}` | {when(role, needed)} | {probes} |")
    return "\n".join(lines)
