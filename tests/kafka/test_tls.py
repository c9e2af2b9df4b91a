"""Everything that can be wrong with TLS, on a broker that has it: whoever meets it says what it is, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from kafka_notify import Producer, Worker
from kafka_notify.admin import create_topics
from kafka_notify.errors import NotifyError
from tests.kafka import roles
from tests.kafka.roles import LANE, Fails, command, notification, topology, until
from tests.kafka.tls import Tls, tls

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
RUN_BOOK: Final = Path(__file__).parents[2] / "docs" / "operations.md"
SITE: Final = topology("tls")


@attrs.frozen
class Wrong:
    """One mistake."""

    name: str
    client: tuple[str, ...]
    """Listener, protocol and certificate of the client."""
    said: str
    do: str


WRONG: Final = (
    Wrong("a broker's certificate has expired", ("expired",), "has expired", "renew it on that broker"),
    Wrong(
        "the certificate belongs to another host",
        ("elsewhere",),
        "is for another host",
        "use a name from the certificate in bootstrap.servers and advertised.listeners",
    ),
    Wrong(
        "the client does not know the certificate authority",
        ("unknown",),
        "is signed by an authority that this client does not know",
        "ssl.ca.location must name the file with that authority's certificate",
    ),
    Wrong(
        "brokers ask for a client certificate, and there is none",
        ("mutual",),
        "the brokers ask for a client certificate, and this client has none",
        "set ssl.certificate.location and ssl.key.location",
    ),
    Wrong(
        "the client's certificate has expired",
        ("mutual", "ssl", "late"),
        "the brokers refuse this client's certificate",
        "renew what ssl.certificate.location names",
    ),
    Wrong(
        "a client without TLS on a TLS listener",
        ("good", "plaintext"),
        "speaks TLS, and this client does not",
        "set security.protocol to ssl or sasl_ssl",
    ),
    Wrong(
        "a client with TLS on a listener without",
        ("plain",),
        "their listener seems to be one without TLS",
        "use the TLS port",
    ),
)


def warm_up(config: dict[str, Any]) -> str:
    with Producer(config, topology=SITE) as producer:
        producer.warm_up()
    return ""


def send(config: dict[str, Any], expected: str) -> str:
    """What the result says while nothing is acknowledged: the reason is known long before the record is given up."""
    said = [""]
    with contextlib.ExitStack() as stack:
        producer = Producer(config, topology=SITE)
        stack.callback(_close, producer)
        pending = producer.send(notification(9))

        def asked() -> bool:
            try:
                pending.result(0.5)
                said[0] = ""
            except NotifyError as e:
                said[0] = str(e)
            return pending.done() or (bool(expected) and expected in said[0])

        until(asked)
    return said[0]


def _close(producer: Producer) -> None:
    with contextlib.suppress(NotifyError):
        producer.close(0)


def work(config: dict[str, Any]) -> str:
    worker = Worker(Fails(), config, lane=LANE, topology=SITE)
    worker.start()
    worker.stop(0)
    return ""


def run(*words: str) -> Callable[[dict[str, Any], Path], str]:
    def by(config: dict[str, Any], tmp: Path) -> str:
        file = tmp / "client.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in config.items()))
        roles.site_of_commands = SITE
        said = command(*words, good=(0, 1))({"file": str(file)}, SITE, None)
        return said.text if said.failed else ""

    return by


ACTS: Final[dict[str, Callable[[dict[str, Any], Path, str], str]]] = {
    "warm_up": lambda config, tmp, expected: warm_up(config),
    "send": lambda config, tmp, expected: send(config, expected),
    "worker": lambda config, tmp, expected: work(config),
    "topics check": lambda config, tmp, expected: run("topics", "check")(config, tmp),
    "status": lambda config, tmp, expected: run("status", "--interval", "0.1")(config, tmp),
    "dlq list": lambda config, tmp, expected: run("dlq", "list")(config, tmp),
}


def outcome(act: str, config: dict[str, Any], tmp: Path, expected: str = "") -> str:
    try:
        return ACTS[act](config, tmp, expected)
    except NotifyError as e:
        return str(e)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    with tls(tmp_path_factory.mktemp("tls")) as kafka:
        create_topics(SITE, kafka.client("plain", "plaintext"))
        yield kafka


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("client", [("good",), ("mutual", "ssl", "client"), ("plain", "plaintext")])
def test_with_what_is_right_all_works(kafka: Tls, act: str, client: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing is said."""
    assert outcome(act, kafka.client(*client), tmp_path) == ""


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_what_is_wrong_is_named(kafka: Tls, act: str, wrong: Wrong, tmp_path: Path) -> None:
    """With what to do about it."""
    said = outcome(act, kafka.client(*wrong.client), tmp_path, wrong.said)
    assert wrong.said in said
    assert wrong.do in said


def table() -> str:
    """Of the run-book."""
    lines = ["| cause | message | what to do |", "|---|---|---|"]
    return "\n".join((*lines, *(f"| {w.name} | `{w.said}` | {w.do} |" for w in WRONG)))


def test_the_run_book_has_this_table() -> None:
    """As it is made from what these tests expect."""
    assert table() in RUN_BOOK.read_text()
