"""A broker that knows its clients by SCRAM or by their certificates, over TLS, and asks Kafka's authorizer."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from kafka_notify.testing import LocalKafka
from tests.kafka.secured import PASSWORD, Right, Secured, free_port
from tests.kafka.tls import Authority, authority

SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")
MUTUAL_TLS: Final = "mTLS"
_JAAS: Final = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


@attrs.frozen
class Known(Secured):
    """`Secured`, whose users prove who they are in another way."""

    how: str
    """A mechanism of SCRAM, or `MUTUAL_TLS`."""
    authority: Authority
    directory: Path

    def user(self, rights: Iterable[Right], *, password: str = PASSWORD) -> dict[str, Any]:
        """Properties of a client with these rights and no others; the password may be a wrong one."""
        name = next(self.users)
        client = self.scram(name, password) if self.how in SCRAM else self._certified(name)
        if self.how in SCRAM:
            self._create(name)
        self.grant(name, rights)
        return client

    def scram(self, name: str, password: str, mechanism: str = "") -> dict[str, Any]:
        """Properties of a client that logs in, whether or not the broker knows its user."""
        return {
            **self._trusting("sasl_ssl"),
            "sasl.mechanisms": mechanism or self.how,
            "sasl.username": name,
            "sasl.password": password,
        }

    def _certified(self, name: str) -> dict[str, Any]:
        file = self.directory / f"{name}.pem"
        self.authority.sign(name, file)
        return {
            **self._trusting("ssl"),
            "ssl.certificate.location": str(file),
            "ssl.key.location": str(file),
        }

    def _trusting(self, protocol: str) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.address,
            "security.protocol": protocol,
            "ssl.ca.location": str(self.directory / "ca.pem"),
        }

    def _create(self, name: str) -> None:
        admin: Any = AdminClient(self.admin)
        mechanism = ScramMechanism[self.how.replace("-", "_")]
        made = UserScramCredentialUpsertion(name, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
        for answer in admin.alter_user_scram_credentials([made]).values():
            answer.result(60)
        # the controller has it; `grant` waits until the broker has what came after it


@contextmanager
def identities(directory: Path) -> Generator[dict[str, Known]]:
    """One broker, and its users by how they are known. Its first listener is the tests' own, who may do anything.

    A certificate's user is the common name of its subject.
    """
    ours = authority("ours", directory / "ca.pem")
    ours.sign("127.0.0.1", directory / "broker.pem")
    scram, mutual = free_port(), free_port()
    protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MUTUAL:SSL"
    config = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
        "listener.security.protocol.map": protocols,
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": ",".join(SCRAM),
        "listener.name.scram.sasl.enabled.mechanisms": ",".join(SCRAM),
        **{f"listener.name.scram.{each.lower()}.sasl.jaas.config": _JAAS for each in SCRAM},
        "listener.name.mutual.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
    }
    for listener in ("scram", "mutual"):
        of = f"listener.name.{listener}.ssl"
        config[f"{of}.keystore.type"] = config[f"{of}.truststore.type"] = "PEM"
        config[f"{of}.keystore.location"] = str(directory / "broker.pem")
        config[f"{of}.truststore.location"] = str(directory / "ca.pem")
    listeners = [f"SCRAM://127.0.0.1:{scram}", f"MUTUAL://127.0.0.1:{mutual}"]
    with LocalKafka(config=config, more_listeners=listeners) as kafka:
        names = (f"u{n}" for n in range(1_000))
        ports = {**dict.fromkeys(SCRAM, scram), MUTUAL_TLS: mutual}
        yield {
            how: Known(kafka, f"127.0.0.1:{port}", names, how, ours, directory) for how, port in ports.items()
        }
