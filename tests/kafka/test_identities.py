"""TLS with SCRAM users and with clients' certificates: each role does its work with exactly its documented rights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from kafka_notify import NotifyError, Producer, Worker
from kafka_notify.admin import create_topics
from tests.kafka import roles
from tests.kafka.identities import MUTUAL_TLS, SCRAM, Known, identities
from tests.kafka.roles import GROUP, LANE, RETRY, ROLES, SOURCE, Fails, command, notification, topology
from tests.kafka.secured import unique

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
BY_NAME: Final = {role.name.strip("`"): role for role in ROLES}
COMMANDS: Final = {
    "topics create": SCRAM[0],
    "topics check": MUTUAL_TLS,
    "status": MUTUAL_TLS,
    "dlq redrive": SCRAM[1],
}
REFUSED: Final = "the brokers refuse the credentials"
REMEDY: Final = "check sasl.username, sasl.password"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Known]]:
    with identities(tmp_path_factory.mktemp("identities")) as known:
        yield known


@pytest.mark.parametrize("role", ["producer", "worker"])
@pytest.mark.parametrize("how", [*SCRAM, MUTUAL_TLS])
def test_producers_and_workers(known: dict[str, Known], how: str, role: str, tmp_path: Path) -> None:
    """With all of their rights and no others they do their work."""
    said = roles.attempt(known[how], BY_NAME[role], None, None, tmp_path)
    assert not said.failed, said.text


@pytest.mark.parametrize(("name", "how"), COMMANDS.items(), ids=list(COMMANDS))
def test_commands(known: dict[str, Known], name: str, how: str, tmp_path: Path) -> None:
    """The command line reads from its properties file who it is."""
    said = roles.attempt(known[how], BY_NAME[name], None, None, tmp_path)
    assert not said.failed, said.text


@pytest.mark.parametrize(
    ("role", "missing"),
    [
        ("producer", f"Write topic {SOURCE}"),
        ("worker", f"Read group {GROUP}"),
        ("worker", f"Write topic {RETRY}"),
    ],
)
@pytest.mark.parametrize("how", [SCRAM[0], MUTUAL_TLS])
def test_a_missing_right(known: dict[str, Known], how: str, role: str, missing: str, tmp_path: Path) -> None:
    """The authorizer knows users by their names of SCRAM and by the common names of their certificates."""
    expected = dict(BY_NAME[role].rights)[missing]
    said = roles.attempt(known[how], BY_NAME[role], missing, expected, tmp_path)
    assert expected in said.text
    assert said.failed


def wrong(known: Known, mistake: str) -> dict[str, Any]:
    """A client that cannot log in."""
    if mistake == "another password":
        return known.user([], password="another")
    if mistake == "an unknown user":
        return known.scram("nobody", "x")
    return known.scram("nobody", "x", mechanism="PLAIN")


def said_by(act: str, config: dict[str, Any], tmp: Path) -> str:
    """What is said when nothing works."""
    site = topology(unique())
    if act == "command":
        file = tmp / "client.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in config.items()))
        roles.site_of_commands = site
        said = command("topics", "check")({"file": str(file)}, site, None)
        assert said.failed
        return said.text
    try:
        if act == "worker":
            Worker(Fails(), config, lane=LANE, topology=site).start()
        else:
            with Producer(config, topology=site) as producer:
                producer.warm_up()
    except NotifyError as e:
        return str(e)
    pytest.fail("nothing is refused")


@pytest.mark.parametrize(
    "mistake", ["another password", "an unknown user", "a mechanism that is not enabled"]
)
@pytest.mark.parametrize("act", ["producer", "worker", "command"])
def test_who_cannot_log_in(known: dict[str, Known], act: str, mistake: str, tmp_path: Path) -> None:
    """Each says at once that the brokers refuse the credentials, and what to check; the password is not shown."""
    config = wrong(known[SCRAM[0]], mistake)
    said = said_by(act, config, tmp_path)
    assert REFUSED in said
    assert REMEDY in said
    assert config["sasl.password"] not in said.replace("sasl.password", "").split()


def test_a_new_password(known: dict[str, Known]) -> None:
    """A user whose password was wrong works with the right one, in the same process."""
    scram = known[SCRAM[1]]
    site = topology(unique())
    create_topics(site, scram.admin)
    right = roles.right(f"Write topic {SOURCE}", site.prefix)
    bad = scram.user([right], password="another")
    with Producer(bad, topology=site) as producer, pytest.raises(NotifyError, match=REFUSED):
        producer.warm_up()
    with Producer({**bad, "sasl.password": "not-a-secret"}, topology=site) as producer:
        producer.send(notification(1)).result(60)
