"""A broker that asks who is there and what they may do: SASL/PLAIN users and Kafka's own authorizer."""

from __future__ import annotations

import random
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from kafka_notify.testing import LocalKafka

PASSWORD: Final = "not-a-secret"
_OPERATIONS: Final[Any] = AclOperation
_KINDS: Final[Any] = ResourceType
_PATTERNS: Final[Any] = ResourcePatternType
_PERMISSIONS: Final[Any] = AclPermissionType


@attrs.frozen
class Right:
    """One operation on one resource."""

    operation: str
    """As in Kafka's own tools: `Read`, `DescribeConfigs`."""
    kind: str
    """`topic`, `group` or `cluster`."""
    name: str
    """Of the resource; one that ends in `*` is a prefix."""

    def binding(self, user: str) -> Any:
        words = "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(self.operation)).upper()
        cluster = self.kind == "cluster"
        return AclBinding(
            _KINDS["BROKER" if cluster else self.kind.upper()],
            "kafka-cluster" if cluster else self.name.rstrip("*"),
            ResourcePatternType.PREFIXED if self.name.endswith("*") else ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            _OPERATIONS[words],
            AclPermissionType.ALLOW,
        )

    def __str__(self) -> str:
        return f"{self.operation} {self.kind} {self.name}".rstrip()


@attrs.frozen
class Secured:
    """A running broker with users `u0`, `u1`, ...; each is given what it may do, once."""

    kafka: LocalKafka
    address: str
    users: Iterator[str]

    @property
    def admin(self) -> dict[str, Any]:
        """Properties of a client that may do anything."""
        return {"bootstrap.servers": self.kafka.bootstrap_servers}

    def user(self, rights: Iterable[Right], *, password: str = PASSWORD) -> dict[str, Any]:
        """Properties of a client with these rights and no others."""
        name = next(self.users)
        client = {
            "bootstrap.servers": self.address,
            "security.protocol": "sasl_plaintext",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": name,
            "sasl.password": password,
        }
        self.grant(name, rights)
        return client

    def grant(self, user: str, rights: Iterable[Right]) -> None:
        """Give a user rights; they hold when this returns, as there is one broker."""
        admin: Any = AdminClient(self.admin)
        bindings = [right.binding(user) for right in rights]
        if bindings:
            for answer in admin.create_acls(bindings).values():
                answer.result(60)
        # the controller has them; the broker follows
        seen = -1
        while seen < len(bindings):
            seen = len(admin.describe_acls(_of(user)).result(60))

    def revoke(self, user: str, right: Right) -> None:
        """Take one away."""
        b = right.binding(user)
        wanted = AclBindingFilter(
            b.restype, b.name, b.resource_pattern_type, b.principal, b.host, b.operation, b.permission_type
        )
        admin: Any = AdminClient(self.admin)
        for answer in admin.delete_acls([wanted]).values():
            answer.result(60)


def _of(user: str) -> Any:
    made: Any = AclBindingFilter
    return made(_KINDS.ANY, None, _PATTERNS.ANY, f"User:{user}", None, _OPERATIONS.ANY, _PERMISSIONS.ANY)


@contextmanager
def secured(users: int = 100) -> Iterator[Secured]:
    """One broker with so many users. Its first listener is the tests' own, who may do anything."""
    port = free_port()
    names = [f"u{n}" for n in range(users)]
    known = " ".join(f'user_{name}="{PASSWORD}"' for name in names)
    listener = "listener.name.clients"
    protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENTS:SASL_PLAINTEXT"
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    config = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
        "listener.security.protocol.map": protocols,
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        f"{listener}.sasl.enabled.mechanisms": "PLAIN",
        f"{listener}.plain.sasl.jaas.config": f"{plain} {known};",
    }
    with LocalKafka(config=config, more_listeners=[f"CLIENTS://127.0.0.1:{port}"]) as kafka:
        yield Secured(kafka, f"127.0.0.1:{port}", iter(names))


def free_port() -> int:
    for port in random.SystemRandom().sample(range(15_000, 32_000), 1_000):
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def unique() -> str:
    """A prefix for topics and groups of one case."""
    return f"t{uuid.uuid4().hex[:10]}"
