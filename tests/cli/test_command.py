"""The command itself: where its settings come from, how it ends, and what it never shows."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kafka_notify import ConfigError
from kafka_notify.cli import main
from kafka_notify.cli._app import app
from kafka_notify.cli._site import read_properties
from kafka_notify.cli._times import duration, moment, show_span
from kafka_notify.cli.pauses import _user
from kafka_notify.cli.work import _levels, _package, log_to_stderr

NOWHERE = "127.0.0.1:1"
SECRET = "do-not-show-me"


def commands(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    found = []
    for name, command in sorted(group.commands.items()):
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += commands(command, *path, name)
    return found


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own environment."""
    for name in [name for name in os.environ if name.startswith("KAFKA_NOTIFY_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("path", commands(app), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """--help ends with 0 and says what the command does."""
    assert main([*path, "--help"]) == 0
    assert "sage: kafka-notify" in capsys.readouterr().out.replace(
        "python -m kafka_notify.demo", "kafka-notify"
    )


def test_every_command_that_talks_to_a_cluster_takes_the_same_options() -> None:
    """--config, --bootstrap, --topology and --json are everywhere but at the demo and where a file is checked."""

    def options(path: tuple[str, ...]) -> set[str]:
        command: click.Command = app
        for name in path:
            assert isinstance(command, click.Group)
            command = command.commands[name]
        return set() if isinstance(command, click.Group) else {o for p in command.params for o in p.opts}

    for path in commands(app):
        if path not in (("demo",), ("check",)) and (known := options(path)):
            assert {"--config", "--bootstrap", "--topology", "--json"} <= known, path


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["status"], 3, "no cluster is given"),
        (["nonsense"], 2, "No such command"),
        (["pause", "--bootstrap", NOWHERE], 2, "give exactly one of --channel, --category and --consumer"),
        (["pause", "--bootstrap", NOWHERE, "--channel", "sms", "--for", "soon"], 2, "is not a duration"),
        (["dlq", "list", "--since", "yesterday", "--bootstrap", NOWHERE], 2, "neither a time nor a duration"),
        (["status", "--bootstrap", NOWHERE, "--topology", "nowhere"], 3, "MODULE:NAME"),
        (["status", "--bootstrap", NOWHERE, "--topology", "no.such:thing"], 3, "there is no module 'no.such'"),
        (["status", "--bootstrap", NOWHERE, "--topology", "tests.cli.app:missing"], 3, "has no 'missing'"),
        (["status", "--bootstrap", NOWHERE, "--topology", "tests.cli.app:ROOT"], 3, "has no 'ROOT'"),
        (["status", "--bootstrap", NOWHERE, "--topology", "tests.cli.app:NOTHING"], 3, "is a object, not a Topology"),
        (["work", "tests.cli.app:NOTHING", "--lane", "high_priority", "--bootstrap", NOWHERE], 3, "neither a Consumer"),
        (["work", "tests.cli.app:Sms", "--lane", "fast", "--bootstrap", NOWHERE], 3, "unknown lane 'fast'"),
        (["dlq", "list", "--bootstrap", NOWHERE, "--limit", "-3"], 2, "-3"),
        (["dlq", "redrive", "--bootstrap", NOWHERE, "--rate", "0"], 2, "--rate"),
        (["dlq", "list", "--bootstrap", NOWHERE, "--since", "99999999999999999d"], 2, "--since"),
        (["status", "--bootstrap", NOWHERE, "--interval=-1"], 2, "--interval"),
        (["status", "--bootstrap", NOWHERE, "--interval=nan"], 2, "--interval"),
        (["work", "tests.cli.app:Sms", "--lane", "x", "--health-port", "70000", "--bootstrap", NOWHERE], 2, "70000"),
        (["work", "tests.cli.app:Sms", "--lane", "x", "--drain-timeout=-1", "--bootstrap", NOWHERE], 2, "--drain"),
        (["work", "tests.cli.app:Sms", "--lane", "x", "--log", "httpx", "--bootstrap", NOWHERE], 2, "LOGGER=LEVEL"),
        (["send", "--bootstrap", NOWHERE, "--user", " u", "--category", "otp", "--channel", "sms"], 3, "user_id"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_an_exit_code_and_a_text(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage ends with 2, configuration with 3; the text says what is wrong, without a traceback, on stderr alone."""
    assert main(words) == code
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""


def test_a_module_that_fails_says_so_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error inside the team's own module is theirs: it is named with its place, in one line; a text that may quote
    a setting is not shown; the traceback is, when it is asked for."""
    (tmp_path / "broken_app.py").write_text("import no_such_dependency\n")
    (tmp_path / "secret_app.py").write_text(f"raise ValueError('{SECRET}')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["status", "--bootstrap", NOWHERE, "--topology"]
    assert main([*words, "broken_app:TOPOLOGY"]) == 3
    said = capsys.readouterr().err
    assert "No module named 'no_such_dependency'" in said
    assert "broken_app.py:1" in said
    assert main([*words, "secret_app:TOPOLOGY"]) == 3
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert SECRET not in said
    monkeypatch.setenv("KAFKA_NOTIFY_CLI_TRACEBACK", "1")
    assert main([*words, "broken_app:TOPOLOGY"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_files_of_the_current_directory_stand_in_for_nothing(tmp_path: Path) -> None:
    """A planted `sqlite3.py` does not run; the team's own module beside it is found."""
    (tmp_path / "sqlite3.py").write_text("print('planted')\n")
    (tmp_path / "team_app.py").write_text("import sqlite3\nTOPOLOGY = sqlite3.__file__\n")
    done = subprocess.run(
        [sys.executable, "-m", "kafka_notify", "status", "--bootstrap", NOWHERE, "--topology", "team_app:TOPOLOGY"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert "is a str, not a Topology" in done.stderr
    assert "planted" not in done.stdout


def test_a_defect_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a command raises: one line with the place, without the text, and not the code of "something is
    wrong"."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("kafka_notify.cli.pauses.Pauses", broken)
    assert main(["paused", "--bootstrap", NOWHERE]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "RuntimeError" in err
    assert SECRET not in err


def test_a_closed_pipe_is_no_finding() -> None:
    """`kafka-notify ... | head -1` ends as a shell would say it, without a traceback."""
    code = "import sys; from kafka_notify.cli import main; sys.exit(main(['--help']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()  # long before the command has started
        said = command.stderr.read()
        assert command.wait(60) == 141
    assert said == ""


def test_without_an_entry_in_passwd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run under any number: who paused is then that number."""

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert _user().startswith("uid ")


def test_foreign_loggers_are_quiet() -> None:
    """HTTP clients log URLs at INFO, with the tokens in them: only our own loggers and the team's take the level."""
    before = {name: logging.getLogger(name).level for name in ("", "kafka_notify", "myapp", "httpx", "other")}
    handlers = logging.getLogger().handlers[:]
    try:
        log_to_stderr(
            "json",
            {"kafka_notify": "INFO", _package("myapp.senders:Sms"): "INFO", **_levels(["other=debug"])},
        )
        assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)
        assert logging.getLogger("httpx").isEnabledFor(logging.WARNING)
        assert logging.getLogger("kafka_notify.worker").isEnabledFor(logging.INFO)
        assert logging.getLogger("myapp.senders").isEnabledFor(logging.INFO)
        assert logging.getLogger("other").isEnabledFor(logging.DEBUG)
    finally:
        logging.getLogger().handlers[:] = handlers
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def test_without_the_extra_it_says_what_to_install() -> None:
    """Where click is missing there is one line that says what to install, and exit code 3."""
    code = "import sys; sys.modules['click'] = None; from kafka_notify.cli import main; sys.exit(main(['status']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.strip().endswith("pip install 'kafka-notify[cli]'")


def test_it_is_a_module_and_a_script() -> None:
    """`python -m kafka_notify` and the installed `kafka-notify` are the same."""
    script = Path(sys.executable).parent / "kafka-notify"
    said = [
        subprocess.run([*how, "--version"], capture_output=True, text=True, check=True).stdout
        for how in ([sys.executable, "-m", "kafka_notify"], [str(script)])
    ]
    assert said[0] == said[1]
    assert said[0].startswith("kafka-notify, version ")


# -- settings --------------------------------------------------------------------------------------


def test_properties_are_read_as_librdkafka_writes_them(tmp_path: Path) -> None:
    """Comments, blank lines and white space around names and values are left out; values may hold `=`."""
    path = tmp_path / "client.properties"
    path.write_text("# a comment\n\n bootstrap.servers = a:1,b:2 \nsasl.password=x=y#z\nssl.ca.location=\n")
    assert read_properties(path) == {
        "bootstrap.servers": "a:1,b:2",
        "sasl.password": "x=y#z",
        "ssl.ca.location": "",
    }


@pytest.mark.parametrize("text", [SECRET, f"={SECRET}", f"a=1\na={SECRET}"])
def test_a_line_that_is_no_property_is_named_but_not_shown(tmp_path: Path, text: str) -> None:
    """It may hold a password that slipped into the wrong line."""
    path = tmp_path / "client.properties"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_properties(path)
    assert "client.properties:" in str(raised.value)
    assert SECRET not in str(raised.value)


def test_secrets_are_never_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """However it fails, neither password nor key is in what a command says."""
    path = tmp_path / "client.properties"
    path.write_text(
        f"bootstrap.servers={NOWHERE}\nsecurity.protocol=sasl_ssl\nsasl.password={SECRET}\nacks={SECRET}\n"
    )
    assert main(["send", "--user", "u", "--category", "otp", "--channel", "sms", "--config", str(path)]) == 3
    path.write_text(
        f"bootstrap.servers={NOWHERE}\nsecurity.protocol=sasl_ssl\nsasl.password={SECRET}\nssl.key.pem={SECRET}\n"
    )
    assert main(["topics", "plan", "--config", str(path)]) == 3
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err


def test_the_command_line_goes_before_the_file_and_the_file_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was typed for this one command counts most."""
    path = tmp_path / "client.properties"
    refused = "--user u --category otp --channel sms".split()
    monkeypatch.setenv("KAFKA_NOTIFY_BOOTSTRAP_SERVERS", NOWHERE)
    monkeypatch.setenv("KAFKA_NOTIFY_ACKS", "0")
    assert main(["send", *refused]) == 3
    assert "acks cannot have this value" in capsys.readouterr().err
    path.write_text("acks=all\nbogus.property=1\n")
    assert main(["send", *refused, "--config", str(path)]) == 3
    assert "bogus.property" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("2d", 172_800)])
def test_durations(text: str, seconds: float) -> None:
    """As people write them."""
    assert duration(text).total_seconds() == seconds


def test_moments_without_a_zone_are_utc() -> None:
    """On call, everybody's clock is UTC."""
    assert (
        moment("2026-11-22T03:00:00") == moment("2026-11-22T03:00:00Z") == moment("2026-11-22T04:00:00+01:00")
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0 s"), (119, "119 s"), (600, "10 min"), (7_200, "2 h"), (864_000, "10.0 d")],
)
def test_spans(seconds: float | None, text: str) -> None:
    """In the unit that a person would use."""
    assert show_span(seconds) == text
